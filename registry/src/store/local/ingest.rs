//! The file side of one upload session: write, hash, checkpoint, commit. All of it may block.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use artifact::{Algorithm, Digest, Digester};
use tokio::sync::OwnedMutexGuard;
use uuid::Uuid;

use crate::error::Error;
use crate::store::key::{DataFolder, UploadFolder};
use crate::store::local::state::SavedState;
use crate::store::local::{Shared, remove_folder, rename_durably, unknown};

/// How many bytes come in before a helper thread writes them out and saves the state. It starts
/// the disk early, so that the commit has little left to wait for, and bounds what kill -9 costs.
const CHECKPOINT_BYTES: u64 = 32 * 1024 * 1024;

/// An upload session open for writing. It holds the claim, so whoever owns it is alone.
#[derive(Debug)]
pub(crate) struct Ingest {
    id: Uuid,
    files: UploadFolder,
    folder: DataFolder,
    shared: Arc<Shared>,
    file: File,
    state: SavedState,
    /// The state when the session was claimed, to which `rewind` returns.
    claimed: SavedState,
    checkpoint: Option<JoinHandle<Result<(), Error>>>,
    checkpointed: u64,
    _held: OwnedMutexGuard<()>,
}

impl Ingest {
    /// Opens the session at its last durable offset; bytes beyond it, left by a crash, go.
    pub(crate) fn open(
        id: Uuid,
        files: UploadFolder,
        folder: DataFolder,
        shared: Arc<Shared>,
        held: OwnedMutexGuard<()>,
    ) -> Result<Self, Error> {
        let state = SavedState::load(&files, id)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(files.data())
            .map_err(Error::storage("open", files.data()))?;
        let size = file
            .metadata()
            .map_err(Error::storage("look at", files.data()))?
            .len();
        if size < state.offset {
            // Bytes that were promised are gone: start over rather than go on from a hole.
            remove_folder(files.path())?;
            return Err(unknown(id));
        }
        if size > state.offset {
            file.set_len(state.offset)
                .map_err(Error::storage("truncate", files.data()))?;
        }
        shared.durable.store(state.offset, Ordering::Release);
        Ok(Self {
            id,
            files,
            folder,
            shared,
            file,
            checkpointed: state.offset,
            claimed: state.clone(),
            state,
            checkpoint: None,
            _held: held,
        })
    }

    /// Bytes received so far.
    pub(crate) fn offset(&self) -> u64 {
        self.state.offset
    }

    /// Takes another hash, if no byte has been hashed yet.
    pub(crate) fn expect_algorithm(&mut self, algorithm: Algorithm) {
        if self.state.offset == 0 {
            self.state.digester = Digester::new(algorithm);
        }
    }

    /// Writes and hashes the next bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file
            .write_all_at(bytes, self.state.offset)
            .map_err(Error::storage("write", self.files.data()))?;
        self.state.digester.update(bytes);
        self.state.offset += bytes.len() as u64;
        if self.state.offset - self.checkpointed >= CHECKPOINT_BYTES {
            self.start_checkpoint()?;
        }
        Ok(())
    }

    /// Starts a checkpoint unless one is still running, in which case the next write tries again.
    fn start_checkpoint(&mut self) -> Result<(), Error> {
        if let Some(running) = self.checkpoint.take() {
            if !running.is_finished() {
                self.checkpoint = Some(running);
                return Ok(());
            }
            join(running)?;
        }
        let file = self
            .file
            .try_clone()
            .map_err(Error::storage("open", self.files.data()))?;
        let files = self.files.clone();
        let state = self.state.clone();
        let shared = Arc::clone(&self.shared);
        self.checkpointed = self.state.offset;
        let checkpoint = std::thread::Builder::new()
            .name("upload-checkpoint".to_owned())
            .spawn(move || {
                file.sync_data()
                    .map_err(Error::storage("sync", files.data()))?;
                state.save(&files, true)?;
                shared.durable.store(state.offset, Ordering::Release);
                Ok(())
            })
            .map_err(Error::storage("start a thread for", self.files.data()))?;
        self.checkpoint = Some(checkpoint);
        Ok(())
    }

    fn finish_checkpoint(&mut self) -> Result<(), Error> {
        self.checkpoint.take().map_or(Ok(()), join)
    }

    /// Makes what has arrived durable and saves the state.
    pub(crate) fn settle(&mut self) -> Result<(), Error> {
        self.finish_checkpoint()?;
        if self.shared.durable.load(Ordering::Acquire) == self.state.offset {
            return Ok(());
        }
        self.file
            .sync_data()
            .map_err(Error::storage("sync", self.files.data()))?;
        self.state.save(&self.files, true)?;
        self.shared
            .durable
            .store(self.state.offset, Ordering::Release);
        Ok(())
    }

    /// Returns to the state at the claim and gives the disk space of the rest back.
    pub(crate) fn rewind(&mut self) -> Result<(), Error> {
        // Whether the checkpoint worked does not matter any more, only that it has ended.
        let _ = self.finish_checkpoint();
        self.state = self.claimed.clone();
        self.checkpointed = self.state.offset;
        self.file
            .set_len(self.state.offset)
            .map_err(Error::storage("truncate", self.files.data()))?;
        if self.shared.durable.load(Ordering::Acquire) != self.state.offset {
            self.state.save(&self.files, true)?;
            self.shared
                .durable
                .store(self.state.offset, Ordering::Release);
        }
        Ok(())
    }

    /// After a failed write: returns to what is durable, so that the session can go on later.
    pub(crate) fn fall_back(&mut self) {
        let _ = self.finish_checkpoint();
        let durable = SavedState::load(&self.files, self.id);
        if let Ok(durable) = durable {
            // Failing to truncate costs space until the session is opened again or expires.
            let _ = self.file.set_len(durable.offset);
            self.state = durable;
            self.checkpointed = self.state.offset;
        }
    }

    /// Ends the session: verified content becomes visible under its digest, durably.
    pub(crate) fn commit(mut self, expected: Digest) -> Result<u64, Error> {
        let size = self.state.offset;
        let actual = if self.state.digester.algorithm() == expected.algorithm() {
            self.state.digester.clone().finish()
        } else {
            self.rehash(expected.algorithm())?
        };
        if actual != expected {
            let _ = self.finish_checkpoint();
            remove_folder(self.files.path())?;
            return Err(Error::digest_mismatch(expected, actual));
        }
        self.finish_checkpoint()?;
        let data = self.files.data();
        self.file
            .set_permissions(Permissions::from_mode(0o444))
            .and_then(|()| self.file.sync_all())
            .map_err(Error::storage("sync", &data))?;
        // Over whatever was there: the same content, or a damaged copy that this heals.
        rename_durably(&data, &self.folder.blob(&expected))?;
        // A session folder without data is a session that has ended.
        let _ = fs::remove_dir_all(self.files.path());
        Ok(size)
    }

    /// Ends the session and forgets its bytes.
    pub(crate) fn cancel(mut self) -> Result<(), Error> {
        let _ = self.finish_checkpoint();
        remove_folder(self.files.path())
    }

    /// The one case of a second pass: the client names another algorithm than it began with.
    fn rehash(&mut self, algorithm: Algorithm) -> Result<Digest, Error> {
        let mut digester = Digester::new(algorithm);
        let mut buffer = vec![0; 1024 * 1024];
        self.file
            .seek(SeekFrom::Start(0))
            .map_err(Error::storage("seek", self.files.data()))?;
        loop {
            let count = self
                .file
                .read(&mut buffer)
                .map_err(Error::storage("read", self.files.data()))?;
            if count == 0 {
                return Ok(digester.finish());
            }
            digester.update(&buffer[..count]);
        }
    }

    /// No more bytes are expected from the client of this claim.
    pub(crate) fn stop_receiving(&self) {
        self.shared.receiving.store(false, Ordering::Release);
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        let _ = self.finish_checkpoint();
        self.stop_receiving();
    }
}

fn join(checkpoint: JoinHandle<Result<(), Error>>) -> Result<(), Error> {
    checkpoint.join().unwrap_or_else(|_| {
        Err(Error::Storage {
            action: "checkpoint",
            path: "upload".into(),
            source: std::io::Error::other("the checkpoint thread panicked"),
        })
    })
}
