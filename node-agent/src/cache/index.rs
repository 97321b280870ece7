//! Index: when each model was last asked for, and each blob last scrubbed. It is kept in sled and
//! never the truth: when it is damaged, or cannot be kept at all, what it knew counts as unknown, and
//! nothing fails.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use artifact::{Digest, Reference};
use sled::Db;

/// Memory that sled may use for its page cache; its own default is a gibibyte.
const CACHE_BYTES: u64 = 4 * 1024 * 1024;
/// Where the scrub is. Names of models begin with a host and never so.
const SCRUB_PLACE: &[u8] = b"\0place";

/// The index of one cache.
#[derive(Debug)]
pub(crate) struct Index {
    path: PathBuf,
    /// Nothing where the disk takes none: it is full, or read-only.
    database: RwLock<Option<Db>>,
}

impl Index {
    /// Opens the index, or makes it anew when it cannot be read.
    pub(crate) fn open(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            database: RwLock::new(open_or_make(path)),
        }
    }

    /// Opens it again after its files were removed.
    pub(crate) fn reopen(&self) {
        let mut database = self
            .database
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        // The old one lets go of its files first.
        *database = None;
        *database = open_or_make(&self.path);
    }

    /// Notes that a model was asked for. Losing the note costs nothing but a worse guess later, so
    /// a failure is only logged.
    pub(crate) fn touch(&self, reference: &Reference, now: SystemTime) {
        self.put(&key(reference), &micros(now));
    }

    /// When a model was last asked for, if that is known.
    pub(crate) fn last_used(&self, reference: &Reference) -> Option<SystemTime> {
        time(&self.get(&key(reference))?)
    }

    /// Drops what is known of a model.
    pub(crate) fn forget(&self, reference: &Reference) {
        self.remove(&key(reference));
    }

    /// Notes that a blob was scrubbed.
    pub(crate) fn note_scrubbed(&self, digest: &Digest, now: SystemTime) {
        self.put(&scrub_key(digest), &micros(now));
    }

    /// When a blob was last scrubbed, if that is known.
    pub(crate) fn last_scrubbed(&self, digest: &Digest) -> Option<SystemTime> {
        time(&self.get(&scrub_key(digest))?)
    }

    /// Drops what is known of a blob.
    pub(crate) fn forget_blob(&self, digest: &Digest) {
        self.remove(&scrub_key(digest));
    }

    /// Where the scrub is, in its own words.
    pub(crate) fn scrub_place(&self) -> Option<Vec<u8>> {
        self.get(SCRUB_PLACE)
    }

    /// Notes where the scrub is.
    pub(crate) fn note_scrub_place(&self, place: Option<&[u8]>) {
        match place {
            Some(place) => self.put(SCRUB_PLACE, place),
            None => self.remove(SCRUB_PLACE),
        }
    }

    fn put(&self, key: &[u8], value: &[u8]) {
        self.with(|database| database.insert(key, value).map(drop));
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        let found = self.with(|database| database.get(key))?;
        found.map(|value| value.to_vec())
    }

    fn remove(&self, key: &[u8]) {
        self.with(|database| database.remove(key).map(drop));
    }

    fn with<T>(&self, work: impl FnOnce(&Db) -> Result<T, sled::Error>) -> Option<T> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        match work(database.as_ref()?) {
            Ok(value) => Some(value),
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "the index fails; what it knows counts as unknown");
                None
            }
        }
    }
}

fn open_or_make(path: &Path) -> Option<Db> {
    let opened = check_places(path)
        .map_err(sled::Error::from)
        .and_then(|()| open_database(path));
    let opened = opened.or_else(|error| {
        tracing::warn!(path = %path.display(), %error, "the index is damaged and made anew");
        remove_whatever_it_is(path)?;
        open_database(path)
    });
    opened
        .inspect_err(|error| {
            tracing::warn!(path = %path.display(), %error, "there is no index: last uses are not remembered");
        })
        .ok()
}

/// sled opens its files by path and would follow a link that somebody planted there.
fn check_places(path: &Path) -> io::Result<()> {
    let planted =
        |path: &Path| io::Error::other(format!("{} is neither file nor folder", path.display()));
    let mut pending = vec![path.to_owned()];
    while let Some(path) = pending.pop() {
        let kind = match std::fs::symlink_metadata(&path) {
            Ok(metadata) => metadata.file_type(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if kind.is_dir() {
            for entry in std::fs::read_dir(&path)? {
                pending.push(entry?.path());
            }
        } else if !kind.is_file() {
            return Err(planted(&path));
        }
    }
    Ok(())
}

/// Links are removed, never followed.
fn remove_whatever_it_is(path: &Path) -> io::Result<()> {
    if std::fs::symlink_metadata(path)?.is_dir() {
        std::fs::remove_dir_all(path)
    } else {
        std::fs::remove_file(path)
    }
}

fn open_database(path: &Path) -> Result<Db, sled::Error> {
    sled::Config::new()
        .path(path)
        .cache_capacity(CACHE_BYTES)
        .mode(sled::Mode::LowSpace)
        .open()
}

fn micros(time: SystemTime) -> [u8; 8] {
    let elapsed = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(elapsed.as_micros())
        .unwrap_or(u64::MAX)
        .to_be_bytes()
}

fn time(micros: &[u8]) -> Option<SystemTime> {
    let micros = u64::from_be_bytes(micros.try_into().ok()?);
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_micros(micros))
}

fn scrub_key(digest: &Digest) -> Vec<u8> {
    format!("\0scrub/{digest}").into_bytes()
}

/// The name without a digest beside a tag: the view has one place for both.
fn key(reference: &Reference) -> Vec<u8> {
    format!(
        "{}/{}\0{}",
        reference.registry(),
        reference.repository().as_str(),
        reference.view_name()
    )
    .into_bytes()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use std::time::{Duration, SystemTime};

    use artifact::Reference;

    use crate::cache::index::Index;

    #[test]
    fn a_damaged_index_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("index");
        let reference = Reference::parse("h:1/a/b:c").unwrap();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        {
            let index = Index::open(&path);
            index.touch(&reference, now);
            assert_eq!(index.last_used(&reference), Some(now));
        }
        for entry in std::fs::read_dir(&path).unwrap() {
            let file = entry.unwrap().path();
            if file.is_file() {
                std::fs::write(file, b"not sled").unwrap();
            }
        }
        let index = Index::open(&path);
        assert_eq!(index.last_used(&reference), None);
        index.touch(&reference, now);
        index.forget(&reference);
        assert_eq!(index.last_used(&reference), None);
    }

    #[test]
    fn a_link_in_place_of_a_file_of_the_index_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (path, outside) = (folder.path().join("index"), folder.path().join("outside"));
        std::fs::create_dir(&path).unwrap();
        for name in ["db", "conf"] {
            std::os::unix::fs::symlink(&outside, path.join(name)).unwrap();
        }
        let reference = Reference::parse("h:1/a/b:c").unwrap();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let index = Index::open(&path);
        index.touch(&reference, now);
        assert_eq!(index.last_used(&reference), Some(now));
        drop(index);
        assert!(!outside.exists());
    }

    #[test]
    fn an_index_that_cannot_be_kept_fails_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let blocked = folder.path().join("file");
        std::fs::write(&blocked, b"").unwrap();
        let index = Index::open(&blocked.join("index"));
        let reference = Reference::parse("h:1/a/b:c").unwrap();
        index.touch(&reference, SystemTime::now());
        assert_eq!(index.last_used(&reference), None);
    }
}
