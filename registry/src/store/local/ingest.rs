//! The file side of one upload session: write, hash, checkpoint, commit. All of it may block.

use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use artifact::{Algorithm, Digest, Digester};
use tokio::sync::OwnedMutexGuard;
use uuid::Uuid;

use crate::error::Error;
use crate::store::key::{DataFolder, UploadFolder};
use crate::store::local::disk::{DiskWriter, Then};
use crate::store::local::state::SavedState;
use crate::store::local::{Shared, remove_folder, rename_durably, unknown};

/// How many bytes come in before the state is saved: it bounds what a kill or a power cut in the
/// middle of a long chunk costs.
const CHECKPOINT_BYTES: u64 = 64 * 1024 * 1024;

/// An upload session open for writing. It holds the claim, so whoever owns it is alone.
#[derive(Debug)]
pub(crate) struct Ingest {
    id: Uuid,
    files: UploadFolder,
    folder: DataFolder,
    shared: Arc<Shared>,
    file: Arc<File>,
    disk: DiskWriter,
    state: SavedState,
    /// The state when the session was claimed, to which `rewind` returns.
    claimed: SavedState,
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
        let file = Arc::new(file);
        Ok(Self {
            id,
            disk: DiskWriter::new(Arc::clone(&file), files.data(), state.offset),
            files,
            folder,
            shared,
            file,
            checkpointed: state.offset,
            claimed: state.clone(),
            state,
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

    /// Hashes the next bytes and sends them on their way to the disk.
    pub(crate) fn write(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(self.disk.room().min(bytes.len()));
            self.state.digester.update(now);
            self.state.offset += now.len() as u64;
            self.disk.append(now);
            if self.disk.room() == 0 {
                let checkpoint = self.due_checkpoint();
                self.disk.submit(checkpoint)?;
            }
            bytes = later;
        }
        Ok(())
    }

    /// What saves the state as of now, if it is time for that, once the bytes so far are written.
    fn due_checkpoint(&mut self) -> Option<Then> {
        if self.state.offset - self.checkpointed < CHECKPOINT_BYTES {
            return None;
        }
        self.checkpointed = self.state.offset;
        let files = self.files.clone();
        let state = self.state.clone();
        let shared = Arc::clone(&self.shared);
        Some(Box::new(move |file| {
            let synced = file.sync_data().map_err(Error::sync(files.data()));
            let saved = synced.and_then(|()| state.save(&files, true));
            shared.health.watch(saved)?;
            shared.durable.store(state.offset, Ordering::Release);
            Ok(())
        }))
    }

    /// Makes what has arrived durable and saves the state.
    pub(crate) fn settle(&mut self) -> Result<(), Error> {
        self.disk.flush()?;
        if self.shared.durable.load(Ordering::Acquire) == self.state.offset {
            return Ok(());
        }
        let synced = self
            .file
            .sync_data()
            .map_err(Error::sync(self.files.data()));
        let saved = synced.and_then(|()| self.state.save(&self.files, true));
        self.shared.health.watch(saved)?;
        self.shared
            .durable
            .store(self.state.offset, Ordering::Release);
        Ok(())
    }

    /// Returns to the state at the claim and gives the disk space of the rest back.
    pub(crate) fn rewind(&mut self) -> Result<(), Error> {
        self.state = self.claimed.clone();
        self.disk.restart(self.state.offset);
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
        self.disk.restart(self.state.offset);
        if let Ok(durable) = SavedState::load(&self.files, self.id) {
            self.disk.restart(durable.offset);
            // Failing to truncate costs space until the session is opened again or expires.
            let _ = self.file.set_len(durable.offset);
            self.state = durable;
            self.checkpointed = self.state.offset;
        }
    }

    /// Ends the session: verified content becomes visible under its digest, durably.
    pub(crate) fn commit(mut self, expected: Digest) -> Result<u64, Error> {
        let size = self.state.offset;
        if let Err(error) = self.disk.flush() {
            self.fall_back();
            return Err(error);
        }
        let actual = if self.state.digester.algorithm() == expected.algorithm() {
            self.state.digester.clone().finish()
        } else {
            self.rehash(expected.algorithm())?
        };
        if actual != expected {
            remove_folder(self.files.path())?;
            return Err(Error::digest_mismatch(expected, actual));
        }
        let data = self.files.data();
        self.file
            .set_permissions(Permissions::from_mode(0o444))
            .map_err(Error::storage("make read-only", &data))?;
        let synced = self.file.sync_all().map_err(Error::sync(&data));
        // Over whatever was there: the same content, or a damaged copy that this heals.
        let renamed = synced.and_then(|()| rename_durably(&data, &self.folder.blob(&expected)));
        self.shared.health.watch(renamed)?;
        // A session folder without data is a session that has ended.
        let _ = fs::remove_dir_all(self.files.path());
        Ok(size)
    }

    /// Ends the session and forgets its bytes.
    pub(crate) fn cancel(mut self) -> Result<(), Error> {
        self.disk.restart(0);
        remove_folder(self.files.path())
    }

    /// The one case of a second pass: the client names another algorithm than it began with.
    fn rehash(&mut self, algorithm: Algorithm) -> Result<Digest, Error> {
        let mut digester = Digester::new(algorithm);
        let mut buffer = vec![0; 1024 * 1024];
        let mut at = 0;
        loop {
            let count = self
                .file
                .read_at(&mut buffer, at)
                .map_err(Error::storage("read", self.files.data()))?;
            if count == 0 {
                return Ok(digester.finish());
            }
            digester.update(&buffer[..count]);
            at += count as u64;
        }
    }

    /// No more bytes are expected from the client of this claim.
    pub(crate) fn stop_receiving(&self) {
        self.shared.receiving.store(false, Ordering::Release);
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        self.stop_receiving();
    }
}
