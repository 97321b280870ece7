//! Blobs and upload sessions in a folder of this machine.
//!
//! A commit is: bytes and size on disk (fsync), renamed into place, folder on disk (fsync). Only
//! then is anything acknowledged. The bytes were hashed as they came, so nothing is read again.

mod blobs;
mod disk;
mod ingest;
mod maps;
mod session;
mod state;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use artifact::{Algorithm, Digest, Repository};
use futures::FutureExt;
use futures::future::BoxFuture;
use uuid::Uuid;

use crate::error::Error;
use crate::store::health::Health;
use crate::store::key::{DataFolder, UploadFolder};
use crate::store::local::ingest::Ingest;
use crate::store::local::session::LocalSession;
use crate::store::local::state::SavedState;
use crate::store::{UploadSession, UploadStore};

/// [`BlobStore`](crate::store::BlobStore) and [`UploadStore`] in one data folder.
#[derive(Debug)]
pub(crate) struct LocalStore {
    folder: DataFolder,
    max_uploads: usize,
    health: Arc<Health>,
    /// Sessions met since the start. A plain mutex: it is held for look-ups only, never across
    /// an await or a file operation.
    sessions: Mutex<HashMap<Uuid, Arc<Shared>>>,
    /// Bytes sent of blobs that were opened lately.
    served: Mutex<HashMap<Digest, Arc<AtomicU64>>>,
}

/// What several requests for one session share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Held by the one request that may write.
    claim: Arc<tokio::sync::Mutex<()>>,
    /// Bytes on disk, as the saved state has them.
    durable: AtomicU64,
    /// Whether the holder of the claim still expects bytes from its client.
    receiving: AtomicBool,
    health: Arc<Health>,
}

impl Shared {
    fn new(durable: u64, health: &Arc<Health>) -> Self {
        Self {
            claim: Arc::default(),
            durable: AtomicU64::new(durable),
            receiving: AtomicBool::new(false),
            health: Arc::clone(health),
        }
    }
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
        for algorithm in Algorithm::ALL {
            folders.extend([
                folder.blobs(algorithm),
                folder.maps(algorithm),
                folder.quarantine(algorithm),
            ]);
        }
        for path in folders {
            fs::create_dir_all(&path).map_err(Error::storage("create", &path))?;
            sync_folder(path.parent().unwrap_or(folder.root()))?;
        }
        sync_folder(folder.root())?;
        Ok(Self {
            folder,
            max_uploads,
            health: Arc::default(),
            sessions: Mutex::default(),
            served: Mutex::default(),
        })
    }

    /// Whether the disk keeps what it is told to keep, for whatever else is written to it.
    pub(crate) fn health(&self) -> Arc<Health> {
        Arc::clone(&self.health)
    }

    /// What requests for session `id` share; read from disk when this run has not met it yet.
    async fn shared(&self, repository: &Repository, id: Uuid) -> Result<Arc<Shared>, Error> {
        let files = UploadFolder::new(&self.folder.uploads(), id);
        let state = blocking(move || SavedState::load(&files, id)).await?;
        if state.repository != *repository {
            return Err(unknown(id));
        }
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = sessions
            .entry(id)
            .or_insert_with(|| Arc::new(Shared::new(state.offset, &self.health)));
        Ok(Arc::clone(shared))
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

impl UploadStore for LocalStore {
    fn begin<'a>(
        &'a self,
        repository: &'a Repository,
        algorithm: Algorithm,
    ) -> BoxFuture<'a, Result<Uuid, Error>> {
        async move {
            self.health.require()?;
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
                .insert(id, Arc::new(Shared::new(0, &self.health)));
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
            self.health.require()?;
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

    fn settled(&self) -> BoxFuture<'_, ()> {
        // Their threads are not abandoned: the runtime waits for them.
        futures::future::ready(()).boxed()
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

/// Writes `content` to `temporary`, syncs it, and renames it to `path`, durably.
pub(crate) fn write_durably(temporary: &Path, path: &Path, content: &[u8]) -> Result<(), Error> {
    let mut file = File::create(temporary).map_err(Error::storage("create", temporary))?;
    file.write_all(content)
        .map_err(Error::storage("write", temporary))?;
    file.sync_all().map_err(Error::sync(temporary))?;
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
        .map_err(Error::sync(folder))
}

fn remove_folder(folder: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::storage("remove", folder)(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use crate::store::blob_conformance::{Store, verify};
    use crate::store::key::DataFolder;
    use crate::store::local::LocalStore;

    #[tokio::test]
    async fn the_local_store_keeps_every_promise() {
        let folder = tempfile::tempdir().unwrap();
        let store = LocalStore::open(DataFolder::new(folder.path()), 100).unwrap();
        verify(Store {
            blobs: &store,
            maps: &store,
            uploads: &store,
        })
        .await;
    }
}
