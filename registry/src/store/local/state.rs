//! The saved state of an upload session: how many bytes are on disk, and the hash of them so far.

use std::fs;
use std::io;

use artifact::{Algorithm, Digester, Repository};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::Error;
use crate::store::key::UploadFolder;
use crate::store::local::{unknown, write_durably};

/// Everything needed to go on with an upload after a restart without reading it again.
#[derive(Clone, Debug)]
pub(crate) struct SavedState {
    /// The repository that the session belongs to.
    pub(crate) repository: Repository,
    /// Bytes that are on disk and hashed.
    pub(crate) offset: u64,
    /// The hash of them, half done.
    pub(crate) digester: Digester,
}

/// How it is written: JSON.
#[derive(Serialize, Deserialize)]
struct Stored {
    repository: Repository,
    algorithm: String,
    offset: u64,
    digester: Vec<u8>,
}

impl SavedState {
    /// The state of a session that has just begun.
    pub(crate) fn new(repository: Repository, algorithm: Algorithm) -> Self {
        Self {
            repository,
            offset: 0,
            digester: Digester::new(algorithm),
        }
    }

    /// Reads the state of session `id`; a session without a readable state does not exist, nor
    /// does one whose data was committed a moment before a kill.
    pub(crate) fn load(files: &UploadFolder, id: Uuid) -> Result<Self, Error> {
        if matches!(fs::exists(files.data()), Ok(false)) {
            return Err(unknown(id));
        }
        let json = match fs::read(files.state()) {
            Ok(json) => json,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(unknown(id)),
            Err(error) => return Err(Error::storage("read", files.state())(error)),
        };
        let read = || {
            let stored: Stored = serde_json::from_slice(&json).ok()?;
            let algorithm = stored.algorithm.parse().ok()?;
            Some(Self {
                repository: stored.repository,
                offset: stored.offset,
                digester: Digester::restore(algorithm, &stored.digester).ok()?,
            })
        };
        read().ok_or_else(|| unknown(id))
    }

    /// Writes the state in one step, so that a crash leaves the old or the new one.
    pub(crate) fn save(&self, files: &UploadFolder, durably: bool) -> Result<(), Error> {
        let stored = Stored {
            repository: self.repository.clone(),
            algorithm: self.digester.algorithm().as_str().to_owned(),
            offset: self.offset,
            digester: self.digester.save(),
        };
        let json = serde_json::to_vec(&stored).map_err(|source| Error::Storage {
            action: "encode",
            path: files.state(),
            source: source.into(),
        })?;
        let temporary = files.path().join("state.new");
        if durably {
            return write_durably(&temporary, &files.state(), &json);
        }
        fs::write(&temporary, json).map_err(Error::storage("write", &temporary))?;
        fs::rename(&temporary, files.state()).map_err(Error::storage("rename", temporary))
    }
}
