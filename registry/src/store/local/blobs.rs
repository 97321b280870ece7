//! Committed content in the local store: files named after their digests.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use artifact::{Algorithm, Digest};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use jiff::Timestamp;
use tokio::sync::mpsc;
use url::Url;
use uuid::Uuid;

use crate::error::Error;
use crate::store::local::{LocalStore, blocking, disk, rename_durably, sync_folder, write_durably};
use crate::store::{BlobContent, BlobStore, OpenBlob, StoredBlob};

/// Blobs from this size on are read around the page cache the first time.
const DIRECT_BYTES: u64 = 8 * 1024 * 1024;
/// How many blobs `served` remembers before it starts anew.
const SERVED_BLOBS: usize = 4096;
/// Blobs that a listing reads ahead of whoever asks.
const LISTED_AHEAD: usize = 256;

impl LocalStore {
    fn served(&self, digest: &Digest) -> Arc<AtomicU64> {
        let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        if served.len() >= SERVED_BLOBS && !served.contains_key(digest) {
            served.clear();
        }
        Arc::clone(served.entry(*digest).or_default())
    }

    /// Runs file operations that change what is stored, unless the store is degraded; one whose
    /// sync fails degrades it.
    async fn durably<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.health.require()?;
        self.health.watch(blocking(work).await)
    }
}

impl BlobStore for LocalStore {
    fn stat<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<Option<u64>, Error>> {
        let path = self.folder.blob(digest);
        blocking(move || match fs::metadata(&path) {
            Ok(found) => Ok(Some(found.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::storage("look at", path)(error)),
        })
        .boxed()
    }

    fn open<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<Option<OpenBlob>, Error>> {
        let path = self.folder.blob(digest);
        let served = self.served(digest);
        blocking(move || {
            let Some(file) = open_if_present(&path)? else {
                return Ok(None);
            };
            let size = file
                .metadata()
                .map_err(Error::storage("look at", &path))?
                .len();
            let direct = if size >= DIRECT_BYTES {
                disk::open_direct(OpenOptions::new().read(true), &path)
            } else {
                None
            };
            Ok(Some(OpenBlob {
                size,
                content: BlobContent::File {
                    file,
                    direct,
                    served,
                },
            }))
        })
        .boxed()
    }

    fn read<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<Option<Bytes>, Error>> {
        let path = self.folder.blob(digest);
        blocking(move || read_if_present(&path)).boxed()
    }

    fn put<'a>(&'a self, digest: &'a Digest, content: Bytes) -> BoxFuture<'a, Result<(), Error>> {
        let path = self.folder.blob(digest);
        let temporary = self.folder.temporary().join(Uuid::now_v7().to_string());
        self.durably(move || {
            // Equal content that is already there was made durable when it came.
            if read_if_present(&path)?.is_some_and(|stored| stored == content) {
                return Ok(());
            }
            let written = write_durably(&temporary, &path, &content);
            if written.is_err() {
                // Best effort: the next start empties the folder anyway.
                let _ = fs::remove_file(&temporary);
            }
            written
        })
        .boxed()
    }

    fn adopt<'a>(
        &'a self,
        digest: &'a Digest,
        file: &'a Path,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        let (path, file) = (self.folder.blob(digest), file.to_owned());
        self.durably(move || {
            fs::set_permissions(&file, Permissions::from_mode(0o444))
                .map_err(Error::storage("make read-only", &file))?;
            let opened = File::open(&file).map_err(Error::storage("open", &file))?;
            opened.sync_all().map_err(Error::sync(&file))?;
            rename_durably(&file, &path).map(|()| true)
        })
        .boxed()
    }

    fn remove<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<bool, Error>> {
        let path = self.folder.blob(digest);
        let folder = self.folder.blobs(digest.algorithm());
        let map = self.folder.map(digest);
        self.durably(move || {
            remove_if_present(&map)?;
            if !remove_if_present(&path)? {
                return Ok(false);
            }
            sync_folder(&folder).map(|()| true)
        })
        .boxed()
    }

    fn list(&self) -> BoxStream<'_, Result<StoredBlob, Error>> {
        let folder = self.folder.clone();
        let (sender, receiver) = mpsc::channel(LISTED_AHEAD);
        // A listing that nobody reads on ends with the first send that finds no receiver.
        tokio::task::spawn_blocking(move || {
            for algorithm in Algorithm::ALL {
                if let Err(error) = list_folder(&folder.blobs(algorithm), algorithm, &sender) {
                    let _ = sender.blocking_send(Err(error));
                    return;
                }
            }
        });
        stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|found| (found, receiver))
        })
        .boxed()
    }

    fn quarantine<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<(), Error>> {
        let path = self.folder.blob(digest);
        let aside = self.folder.quarantine(digest.algorithm());
        let visible = self.folder.blobs(digest.algorithm());
        let target = aside.join(digest.hex());
        let map = self.folder.map(digest);
        self.durably(move || {
            remove_if_present(&map)?;
            match fs::rename(&path, &target) {
                // The new name first: after a power cut the content may have both, but never none.
                Ok(()) => sync_folder(&aside).and_then(|()| sync_folder(&visible)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                Err(error) => Err(Error::storage("quarantine", path)(error)),
            }
        })
        .boxed()
    }

    fn signed_url<'a>(
        &'a self,
        _digest: &'a Digest,
        _valid: Duration,
    ) -> BoxFuture<'a, Result<Option<Url>, Error>> {
        futures::future::ready(Ok(None)).boxed()
    }

    fn check(&self) -> BoxFuture<'_, Result<(), Error>> {
        let probe = self.folder.temporary().join(Uuid::now_v7().to_string());
        self.durably(move || {
            let written = write_and_read(&probe);
            let removed = fs::remove_file(&probe).map_err(Error::storage("remove", &probe));
            written.and(removed)
        })
        .boxed()
    }
}

fn write_and_read(probe: &Path) -> Result<(), Error> {
    let content = b"probe";
    let mut file = File::create(probe).map_err(Error::storage("create", probe))?;
    file.write_all(content)
        .map_err(Error::storage("write", probe))?;
    file.sync_all().map_err(Error::sync(probe))?;
    let read = fs::read(probe).map_err(Error::storage("read", probe))?;
    if read == content {
        return Ok(());
    }
    let wrong = io::Error::other("it gave back other bytes than were written");
    Err(Error::storage("check", probe)(wrong))
}

/// Sends every blob of one folder; ends early when nobody listens any more.
fn list_folder(
    folder: &Path,
    algorithm: Algorithm,
    sender: &mpsc::Sender<Result<StoredBlob, Error>>,
) -> Result<(), Error> {
    for entry in fs::read_dir(folder).map_err(Error::storage("list", folder))? {
        let entry = entry.map_err(Error::storage("list", folder))?;
        let name = entry.file_name();
        let Some(digest) = name
            .to_str()
            .and_then(|hex| Digest::from_hex(algorithm, hex).ok())
        else {
            continue;
        };
        let found = match entry.metadata() {
            Ok(found) => found,
            // Removed since the folder was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::storage("look at", entry.path())(error)),
        };
        let modified = found
            .modified()
            .and_then(|time| Timestamp::try_from(time).map_err(io::Error::other))
            .map_err(Error::storage("look at", entry.path()))?;
        let blob = StoredBlob {
            digest,
            size: found.len(),
            modified,
        };
        if sender.blocking_send(Ok(blob)).is_err() {
            break;
        }
    }
    Ok(())
}

fn open_if_present(path: &Path) -> Result<Option<File>, Error> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::storage("open", path)(error)),
    }
}

/// Removes a file; `false` when there was none.
pub(super) fn remove_if_present(path: &Path) -> Result<bool, Error> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::storage("remove", path)(error)),
    }
}

pub(super) fn read_if_present(path: &Path) -> Result<Option<Bytes>, Error> {
    let Some(mut file) = open_if_present(path)? else {
        return Ok(None);
    };
    let mut content = Vec::new();
    file.read_to_end(&mut content)
        .map_err(Error::storage("read", path))?;
    Ok(Some(content.into()))
}
