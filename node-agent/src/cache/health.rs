//! Health: blobs that are not what they should be. They go out of the way, into `quarantine/`, where
//! no reader looks; the models that named them are not ready then, which is what the repair looks for.

use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use artifact::agent_api::ScrubStatus;
use artifact::catalog::{self, Broken};
use artifact::{Algorithm, Digest, Reference};
use rustix::fs::{FileType, OFlags};

use crate::cache::evict::{bytes_of, seconds_since};
use crate::cache::{NodeCache, views};
use crate::error::Error;

/// The folder of what was found damaged, below the root.
pub(super) const QUARANTINE: &str = "quarantine";

impl NodeCache {
    /// Moves a blob out of the way; it is never visible again, and the models that name it are
    /// fetched again.
    pub(crate) fn quarantine(&self, digest: &Digest, reason: &str) -> Result<(), Error> {
        let name = digest.hex();
        let folder = self.root().child(QUARANTINE)?;
        let blobs = self.blobs(digest.algorithm());
        // What lies there from an earlier time is of no more use, be it a folder.
        if folder.stat(&name)?.is_some() && folder.remove(&name).is_err() {
            folder.rename(&name, &folder, &crate::cache::temporary_name())?;
        }
        blobs.rename(&name, &folder, &name)?;
        blobs.sync()?;
        tracing::error!(blob.digest = %digest, reason, "a blob is damaged and was put into quarantine");
        let mut scrub = self.scrub();
        scrub.damaged += 1;
        scrub.last_damaged = Some(*digest);
        self.0.damage.notify_one();
        Ok(())
    }

    /// Waits until something was found damaged.
    pub(crate) async fn damaged(&self) {
        self.0.damage.notified().await;
    }

    /// Puts links and folders out of the way that lie where a blob should, and manifests that are
    /// none; gives the models that the views name and the cache does not have whole.
    pub(crate) fn broken_models(&self) -> Result<Vec<Reference>, Error> {
        for algorithm in Algorithm::ALL {
            for (name, kind) in self.blobs(algorithm).entries()? {
                let digest = Digest::from_hex(algorithm, &name);
                if let Ok(digest) = digest
                    && kind != FileType::RegularFile
                {
                    self.quarantine(&digest, "it is no file")?;
                }
            }
        }
        let mut references = Vec::new();
        for broken in catalog::broken(self.layout())? {
            let Broken { reference, .. } = broken;
            if broken.is_foreign {
                tracing::error!(%reference, "a link in the views leads out of the cache and is removed");
                let _changing = self.change_views();
                views::plain::hide(&self.0.plain, &reference)?;
                continue;
            }
            if let Some(digest) = broken.manifest {
                self.quarantine(&digest, "it is not a manifest")?;
            }
            references.push(reference);
        }
        Ok(references)
    }

    /// Deletes what has been in quarantine for so long.
    pub(super) fn sweep_quarantine(&self, idle: Duration) -> Result<u64, Error> {
        let Some(folder) = self.root().existing(QUARANTINE)? else {
            return Ok(0);
        };
        let mut freed = 0;
        for (name, kind) in folder.entries()? {
            // The time of the move: the content is older.
            let is_over = |stat: &rustix::fs::Stat| {
                seconds_since(stat.st_ctime).is_some_and(|age| age >= idle)
            };
            if kind != FileType::Directory
                && let Some(stat) = folder.stat(&name)?.filter(is_over)
                && folder.remove(&name)?
            {
                freed += bytes_of(&stat);
            }
        }
        Ok(freed)
    }

    /// The blobs that were not scrubbed within `rest`, the one that was not for longest first.
    pub(crate) fn due_for_scrub(&self, rest: Duration) -> Result<Vec<Digest>, Error> {
        let now = SystemTime::now();
        let mut due = Vec::new();
        for algorithm in Algorithm::ALL {
            for (name, kind) in self.blobs(algorithm).entries()? {
                let Ok(digest) = Digest::from_hex(algorithm, &name) else {
                    continue;
                };
                let last = self.0.index.last_scrubbed(&digest);
                let age = last.and_then(|last| now.duration_since(last).ok());
                if kind == FileType::RegularFile && age.is_none_or(|age| age >= rest) {
                    due.push((last, digest));
                }
            }
        }
        due.sort_unstable();
        Ok(due.into_iter().map(|(_, digest)| digest).collect())
    }

    /// What the scrub tells of itself.
    pub(crate) fn scrub_status(&self) -> ScrubStatus {
        self.scrub().clone()
    }

    /// Tells which blob the scrub reads now.
    pub(crate) fn tell_scrubbing(&self, digest: Option<Digest>) {
        self.scrub().reading = digest;
    }

    fn scrub(&self) -> MutexGuard<'_, ScrubStatus> {
        let scrub = &self.0.scrub;
        scrub.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A blob was found right.
    pub(crate) fn note_scrubbed(&self, digest: &Digest) {
        self.0.index.note_scrubbed(digest, SystemTime::now());
    }

    /// Where the scrub stopped, in its own words.
    pub(crate) fn scrub_place(&self) -> Option<Vec<u8>> {
        self.0.index.scrub_place()
    }

    /// Notes where the scrub is.
    pub(crate) fn note_scrub_place(&self, place: Option<&[u8]>) {
        self.0.index.note_scrub_place(place);
    }

    /// A blob, opened to be read past the page cache where the file system can do that.
    pub(crate) fn open_blob_directly(
        &self,
        digest: &Digest,
    ) -> Result<Option<(std::fs::File, bool)>, Error> {
        let blobs = self.blobs(digest.algorithm());
        match blobs.read_file_with(&digest.hex(), OFlags::DIRECT) {
            Ok(file) => Ok(file.map(|file| (file, true))),
            Err(Error::Storage { source, .. })
                if source.kind() == std::io::ErrorKind::InvalidInput =>
            {
                Ok(blobs.read_file(&digest.hex())?.map(|file| (file, false)))
            }
            Err(error) => Err(error),
        }
    }
}
