//! Blobs and upload sessions in a folder of this machine.
//!
//! A commit is: bytes and size on disk (fsync), renamed into place, folder on disk (fsync). Only
//! then is anything acknowledged. The bytes were hashed as they came, so nothing is read again.

mod disk;
mod ingest;
mod session;
mod state;

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use artifact::{Algorithm, Digest, Repository};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use uuid::Uuid;

use crate::error::Error;
use crate::store::key::{DataFolder, UploadFolder};
use crate::store::local::ingest::Ingest;
use crate::store::local::session::LocalSession;
use crate::store::local::state::SavedState;
use crate::store::{BlobContent, BlobStore, OpenBlob, UploadSession, UploadStore};

/// [`BlobStore`] and [`UploadStore`] in one data folder.
#[derive(Debug)]
pub(crate) struct LocalStore {
    folder: DataFolder,
    max_uploads: usize,
    /// Sessions met since the start. A plain mutex: it is held for look-ups only, never across
    /// an await or a file operation.
    sessions: Mutex<HashMap<Uuid, Arc<Shared>>>,
    /// Bytes sent of blobs that were opened lately.
    served: Mutex<HashMap<Digest, Arc<AtomicU64>>>,
}

/// Blobs from this size on are read around the page cache the first time.
const DIRECT_BYTES: u64 = 8 * 1024 * 1024;
/// How many blobs `served` remembers before it starts anew.
const SERVED_BLOBS: usize = 4096;

/// What several requests for one session share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// Held by the one request that may write.
    claim: Arc<tokio::sync::Mutex<()>>,
    /// Bytes on disk, as the saved state has them.
    durable: AtomicU64,
    /// Whether the holder of the claim still expects bytes from its client.
    receiving: AtomicBool,
}

impl LocalStore {
    /// Opens the store, creating its folders; removes what earlier runs left in `temporary`.
    pub(crate) fn open(folder: DataFolder, max_uploads: usize) -> Result<Self, Error> {
        let temporary = folder.temporary();
        match fs::remove_dir_all(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::storage("remove", &temporary)(error));
            }
            _ => {}
        }
        let mut folders = vec![temporary, folder.uploads()];
        folders.extend(Algorithm::ALL.map(|algorithm| folder.blobs(algorithm)));
        for path in folders {
            fs::create_dir_all(&path).map_err(Error::storage("create", &path))?;
            sync_folder(path.parent().unwrap_or(folder.root()))?;
        }
        sync_folder(folder.root())?;
        Ok(Self {
            folder,
            max_uploads,
            sessions: Mutex::default(),
            served: Mutex::default(),
        })
    }

    /// What requests for session `id` share; read from disk when this run has not met it yet.
    async fn shared(&self, repository: &Repository, id: Uuid) -> Result<Arc<Shared>, Error> {
        let files = UploadFolder::new(&self.folder.uploads(), id);
        let state = blocking(move || SavedState::load(&files, id)).await?;
        if state.repository != *repository {
            return Err(unknown(id));
        }
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = sessions.entry(id).or_insert_with(|| {
            Arc::new(Shared {
                durable: AtomicU64::new(state.offset),
                ..Shared::default()
            })
        });
        Ok(Arc::clone(shared))
    }

    fn served(&self, digest: &Digest) -> Arc<AtomicU64> {
        let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        if served.len() >= SERVED_BLOBS && !served.contains_key(digest) {
            served.clear();
        }
        Arc::clone(served.entry(*digest).or_default())
    }

    /// Sessions that ended leave the map, so that it does not grow for ever.
    fn forget_ended(&self) {
        let uploads = self.folder.uploads();
        self.sessions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|id, shared| {
                Arc::strong_count(shared) > 1 || UploadFolder::new(&uploads, *id).path().exists()
            });
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
        blocking(move || {
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
}

impl UploadStore for LocalStore {
    fn begin<'a>(
        &'a self,
        repository: &'a Repository,
        algorithm: Algorithm,
    ) -> BoxFuture<'a, Result<Uuid, Error>> {
        async move {
            let id = Uuid::new_v4();
            let uploads = self.folder.uploads();
            let limit = self.max_uploads;
            let state = SavedState::new(repository.clone(), algorithm);
            blocking(move || {
                let open = fs::read_dir(&uploads)
                    .map_err(Error::storage("list", &uploads))?
                    .count();
                if open >= limit {
                    return Err(Error::TooManyUploads { limit });
                }
                let files = UploadFolder::new(&uploads, id);
                fs::create_dir(files.path()).map_err(Error::storage("create", files.path()))?;
                File::create_new(files.data()).map_err(Error::storage("create", files.data()))?;
                // Not synced: a session without bytes promises nothing that could be lost.
                state.save(&files, false)
            })
            .await?;
            self.sessions
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(id, Arc::default());
            Ok(id)
        }
        .boxed()
    }

    fn offset<'a>(
        &'a self,
        repository: &'a Repository,
        id: Uuid,
    ) -> BoxFuture<'a, Result<u64, Error>> {
        async move {
            let shared = self.shared(repository, id).await?;
            if !shared.receiving.load(Ordering::Acquire) {
                // A request that was cut off may still be settling what it received.
                let _settled = shared.claim.lock().await;
            }
            Ok(shared.durable.load(Ordering::Acquire))
        }
        .boxed()
    }

    fn claim<'a>(
        &'a self,
        repository: &'a Repository,
        id: Uuid,
    ) -> BoxFuture<'a, Result<Box<dyn UploadSession>, Error>> {
        async move {
            let shared = self.shared(repository, id).await?;
            let claim = Arc::clone(&shared.claim);
            let held = match Arc::clone(&claim).try_lock_owned() {
                Ok(held) => held,
                Err(_) if shared.receiving.load(Ordering::Acquire) => {
                    let offset = shared.durable.load(Ordering::Acquire);
                    return Err(Error::OutOfOrder { id, offset });
                }
                Err(_) => claim.lock_owned().await,
            };
            shared.receiving.store(true, Ordering::Release);
            let files = UploadFolder::new(&self.folder.uploads(), id);
            let folder = self.folder.clone();
            let opening = Arc::clone(&shared);
            let ingest = blocking(move || Ingest::open(id, files, folder, opening, held)).await;
            if ingest.is_err() {
                shared.receiving.store(false, Ordering::Release);
            }
            let session: Box<dyn UploadSession> = Box::new(LocalSession::new(ingest?, shared));
            Ok(session)
        }
        .boxed()
    }

    fn expire(&self, age: Duration) -> BoxFuture<'_, Result<usize, Error>> {
        async move {
            self.forget_ended();
            let uploads = self.folder.uploads();
            let old = blocking(move || untouched_sessions(&uploads, age)).await?;
            let mut removed = 0;
            for id in old {
                let claim = {
                    let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
                    sessions.get(&id).map(|shared| Arc::clone(&shared.claim))
                };
                let held = claim.map(|claim| claim.try_lock_owned().ok());
                if matches!(held, Some(None)) {
                    continue; // someone is writing to it
                }
                let files = UploadFolder::new(&self.folder.uploads(), id);
                blocking(move || remove_folder(files.path())).await?;
                removed += 1;
            }
            Ok(removed)
        }
        .boxed()
    }
}

fn untouched_sessions(uploads: &Path, age: Duration) -> Result<Vec<Uuid>, Error> {
    let mut old = Vec::new();
    for entry in fs::read_dir(uploads).map_err(Error::storage("list", uploads))? {
        let entry = entry.map_err(Error::storage("list", uploads))?;
        let Some(id) = entry
            .file_name()
            .to_str()
            .and_then(|name| Uuid::parse_str(name).ok())
        else {
            continue;
        };
        // The state is rewritten whenever bytes become durable, so its time is the last progress.
        let touched = fs::metadata(UploadFolder::new(uploads, id).state())
            .or_else(|_| entry.metadata())
            .and_then(|found| found.modified())
            .unwrap_or_else(|_| SystemTime::now());
        if touched.elapsed().unwrap_or_default() > age {
            old.push(id);
        }
    }
    Ok(old)
}

fn unknown(id: Uuid) -> Error {
    Error::UploadUnknown { id: id.to_string() }
}

/// Runs file operations where they may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(Error::Task)?
}

fn open_if_present(path: &Path) -> Result<Option<File>, Error> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::storage("open", path)(error)),
    }
}

fn read_if_present(path: &Path) -> Result<Option<Bytes>, Error> {
    let Some(mut file) = open_if_present(path)? else {
        return Ok(None);
    };
    let mut content = Vec::new();
    file.read_to_end(&mut content)
        .map_err(Error::storage("read", path))?;
    Ok(Some(content.into()))
}

/// Writes `content` to `temporary`, syncs it, and renames it to `path`, durably.
pub(crate) fn write_durably(temporary: &Path, path: &Path, content: &[u8]) -> Result<(), Error> {
    let mut file = File::create(temporary).map_err(Error::storage("create", temporary))?;
    file.write_all(content)
        .map_err(Error::storage("write", temporary))?;
    file.sync_all().map_err(Error::storage("sync", temporary))?;
    rename_durably(temporary, path)
}

/// Renames a synced file into place and syncs the folder it comes to.
fn rename_durably(from: &Path, to: &Path) -> Result<(), Error> {
    fs::rename(from, to).map_err(Error::storage("rename", from))?;
    to.parent().map_or(Ok(()), sync_folder)
}

/// Makes the entries of a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), Error> {
    File::open(folder)
        .and_then(|file| file.sync_all())
        .map_err(Error::storage("sync", folder))
}

fn remove_folder(folder: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::storage("remove", folder)(error))
        }
        _ => Ok(()),
    }
}
