//! The files of fills: part, map and a note that says what is being filled, so that a fill goes on
//! after a restart.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use artifact::client::partial::{ChunkState, Division, Fault, PartFile};
use artifact::{Digest, Repository};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::store::key::DataFolder;
use crate::store::local::{sync_folder, write_durably};

/// What is being filled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FillNote {
    /// The content.
    pub(crate) digest: Digest,
    /// Its size in bytes.
    pub(crate) size: u64,
    /// The mirrored repository that somebody asked for it.
    pub(crate) repository: String,
    /// When it was asked for first.
    pub(crate) since: Timestamp,
}

impl FillNote {
    /// The repository, unless the note is damaged.
    pub(crate) fn repository(&self) -> Option<Repository> {
        Repository::parse(&self.repository).ok()
    }
}

/// The folder of fills.
#[derive(Clone, Debug)]
pub(crate) struct FillFiles {
    folder: PathBuf,
    quarantine: PathBuf,
}

impl FillFiles {
    /// Below a data folder; both folders are created if absent.
    pub(crate) fn open(data: &DataFolder) -> Result<Self, Error> {
        let files = Self {
            folder: data.fills(),
            quarantine: data.quarantined_fills(),
        };
        for folder in [&files.folder, &files.quarantine] {
            fs::create_dir_all(folder).map_err(Error::storage("create", folder))?;
        }
        sync_folder(data.root())?;
        Ok(files)
    }

    /// The bytes that have come.
    pub(crate) fn part(&self, digest: &Digest) -> PathBuf {
        self.named(digest, "part")
    }

    fn map(&self, digest: &Digest) -> PathBuf {
        self.named(digest, "map")
    }

    fn note(&self, digest: &Digest) -> PathBuf {
        self.named(digest, "json")
    }

    fn named(&self, digest: &Digest, extension: &str) -> PathBuf {
        let name = format!("{}-{}.{extension}", digest.algorithm(), digest.hex());
        self.folder.join(name)
    }

    /// Opens what an earlier run left of a blob, or starts anew and takes the disk space.
    pub(crate) fn begin(&self, note: &FillNote) -> Result<(PartFile, Vec<ChunkState>), Error> {
        let digest = &note.digest;
        let (part, map) = (self.part(digest), self.map(digest));
        let failed = |fault: Fault| Error::storage(fault.action, &part)(fault.source);
        if part.exists() && map.exists() {
            let left = PartFile::resume(*digest, note.size, open(&part)?, open(&map)?);
            if let Some(left) = left.map_err(failed)? {
                return Ok(left);
            }
        }
        self.forget(digest)?;
        let text = serde_json::to_vec(note).map_err(io::Error::other);
        let text = text.map_err(Error::storage("write", self.note(digest)))?;
        write_durably(&self.named(digest, "new"), &self.note(digest), &text)?;
        let division = Division::even(note.size);
        let count = division.count();
        let created = PartFile::create(*digest, division, open(&part)?, open(&map)?);
        match created {
            Ok(part) => Ok((part, vec![ChunkState::Absent; count])),
            Err(fault) => {
                self.forget(digest)?;
                Err(failed(fault))
            }
        }
    }

    /// Removes everything of a fill: it is done, or not worth going on with. The note goes last,
    /// so that nothing is left without one.
    pub(crate) fn forget(&self, digest: &Digest) -> Result<(), Error> {
        for path in [self.map(digest), self.part(digest), self.note(digest)] {
            remove(&path)?;
        }
        Ok(())
    }

    /// Moves wrong bytes aside, for a person to look at; what was there of the same digest goes.
    pub(crate) fn quarantine(&self, digest: &Digest) -> Result<(), Error> {
        let part = self.part(digest);
        let aside = self.quarantine.join(digest.hex());
        fs::rename(&part, &aside).map_err(Error::storage("quarantine", &part))?;
        self.forget(digest)
    }

    /// What was being filled when the registry ended. Files without a readable note go.
    pub(crate) fn left(&self) -> Result<Vec<FillNote>, Error> {
        let mut notes = Vec::new();
        for path in self.listed(&self.folder)? {
            if path
                .extension()
                .is_some_and(|extension| extension != "json")
            {
                continue;
            }
            let text = fs::read(&path).map_err(Error::storage("read", &path))?;
            match serde_json::from_slice::<FillNote>(&text) {
                Ok(note) if self.note(&note.digest) == path => notes.push(note),
                _ => remove(&path)?,
            }
        }
        for path in self.listed(&self.folder)? {
            if !path.with_extension("json").exists() {
                remove(&path)?;
            }
        }
        Ok(notes)
    }

    /// Removes what nothing was written to for longer than `age`, quarantined bytes included, but
    /// for those fills that `is_running`.
    pub(crate) fn expire(
        &self,
        age: Duration,
        is_running: impl Fn(&Digest) -> bool,
    ) -> Result<(), Error> {
        for note in self.left()? {
            if !is_running(&note.digest) && is_older(&self.map(&note.digest), age) {
                self.forget(&note.digest)?;
            }
        }
        for path in self.listed(&self.quarantine)? {
            if is_older(&path, age) {
                remove(&path)?;
            }
        }
        Ok(())
    }

    fn listed(&self, folder: &Path) -> Result<Vec<PathBuf>, Error> {
        let entries = fs::read_dir(folder).map_err(Error::storage("list", folder))?;
        let paths = entries.map(|entry| entry.map(|entry| entry.path()));
        paths
            .collect::<Result<_, _>>()
            .map_err(Error::storage("list", folder))
    }
}

/// Whether the last write to a file is longer ago; an absent file counts as old.
fn is_older(path: &Path, age: Duration) -> bool {
    let Ok(found) = fs::metadata(path) else {
        return true;
    };
    let modified = found.modified().unwrap_or_else(|_| SystemTime::now());
    modified.elapsed().unwrap_or_default() > age
}

fn open(path: &Path) -> Result<File, Error> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(Error::storage("open", path))
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::storage("remove", path)(error))
        }
        _ => Ok(()),
    }
}
