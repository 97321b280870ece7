//! Upload sessions in a bucket: begin, find, claim, expire.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use artifact::{Algorithm, Repository};
use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use object_store::UpdateVersion;
use uuid::Uuid;

use crate::error::Error;
use crate::store::object::session::{ObjectSession, Work};
use crate::store::object::state::{self, LEASE, State, StateFile, state_key};
use crate::store::object::{Inner, ObjectStore, sweep, unknown};
use crate::store::{UploadSession, UploadStore};

/// How often a claim of another replica is looked at again.
const LOOK: Duration = Duration::from_millis(500);

/// What several requests for one session share in this process.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Held by the one request that may write.
    pub(super) claim: Arc<tokio::sync::Mutex<()>>,
    /// Bytes stored, as the saved state has them.
    pub(super) durable: AtomicU64,
    /// Whether the holder of the claim still expects bytes from its client.
    pub(super) receiving: AtomicBool,
    /// The session's repository, once its state was read.
    repository: Mutex<Option<Repository>>,
}

impl Shared {
    /// The offset to refuse a second writer with; a stranger to the repository learns nothing.
    fn busy(&self, repository: &Repository, id: Uuid) -> Error {
        let known = self.repository.lock();
        let known = known.unwrap_or_else(PoisonError::into_inner);
        if known.as_ref() != Some(repository) {
            return unknown(id);
        }
        let offset = self.durable.load(Ordering::Acquire);
        Error::OutOfOrder { id, offset }
    }

    fn learn(&self, state: &State) {
        let mut known = self
            .repository
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        known.get_or_insert_with(|| state.repository.clone());
        self.durable.store(state.progress.offset, Ordering::Release);
    }
}

impl Inner {
    pub(super) fn shared(&self, id: Uuid) -> Arc<Shared> {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(sessions.entry(id).or_default())
    }

    /// What requests for session `id` share, if there were any.
    pub(super) fn known(&self, id: Uuid) -> Option<Arc<Shared>> {
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.get(&id).map(Arc::clone)
    }

    /// Sessions that no request is using leave the map; their state is in the bucket.
    pub(super) fn forget_idle(&self) {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.retain(|_, shared| Arc::strong_count(shared) > 1);
    }

    /// The state of a session of `repository`.
    async fn find(
        &self,
        repository: &Repository,
        id: Uuid,
    ) -> Result<(State, UpdateVersion), Error> {
        let found = state::read(&self.objects, id).await?;
        if found.0.repository == *repository {
            Ok(found)
        } else {
            Err(unknown(id))
        }
    }

    /// The state of a session that no other replica is writing to. One that was doing so may have
    /// died: its claim counts until nobody has renewed it for as long as it is good.
    async fn find_free(
        &self,
        repository: &Repository,
        id: Uuid,
    ) -> Result<(State, UpdateVersion), Error> {
        let mut found = self.find(repository, id).await?;
        let first = found.0.revision;
        let began = Instant::now();
        loop {
            let claim = match &found.0.claim {
                // An earlier run of this registry: it is dead, or it would hold the data folder.
                Some(claim) if claim.owner != self.instance => claim,
                _ => return Ok(found),
            };
            let is_long_void = Timestamp::now() > claim.expires + 4 * LEASE;
            if is_long_void || began.elapsed() > LEASE {
                return Ok(found);
            }
            if found.0.revision != first {
                let offset = found.0.progress.offset;
                return Err(Error::OutOfOrder { id, offset });
            }
            tokio::time::sleep(LOOK).await;
            found = self.find(repository, id).await?;
        }
    }
}

impl UploadStore for ObjectStore {
    fn begin<'a>(
        &'a self,
        repository: &'a Repository,
        algorithm: Algorithm,
    ) -> BoxFuture<'a, Result<Uuid, Error>> {
        async move {
            self.inner.health.require()?;
            let limit = self.inner.max_uploads;
            if self.inner.open_uploads.load(Ordering::Acquire) >= limit {
                return Err(Error::TooManyUploads { limit });
            }
            let id = Uuid::new_v4();
            let json = State::new(repository.clone(), algorithm).to_json(id)?;
            self.inner.objects.put(&state_key(id), json).await?;
            self.inner.open_uploads.fetch_add(1, Ordering::AcqRel);
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
            if let Some(shared) = self.inner.known(id)
                && !shared.receiving.load(Ordering::Acquire)
            {
                // A request that was cut off may still be settling what it received.
                let _settled = shared.claim.lock().await;
            }
            let (state, _) = self.inner.find(repository, id).await?;
            Ok(state.progress.offset)
        }
        .boxed()
    }

    fn claim<'a>(
        &'a self,
        repository: &'a Repository,
        id: Uuid,
    ) -> BoxFuture<'a, Result<Box<dyn UploadSession>, Error>> {
        async move {
            self.inner.health.require()?;
            let shared = self.inner.shared(id);
            let claim = Arc::clone(&shared.claim);
            let held = match Arc::clone(&claim).try_lock_owned() {
                Ok(held) => held,
                Err(_) if shared.receiving.load(Ordering::Acquire) => {
                    return Err(shared.busy(repository, id));
                }
                Err(_) => claim.lock_owned().await,
            };
            shared.receiving.store(true, Ordering::Release);
            let opened = async {
                let found = self.inner.find_free(repository, id).await?;
                shared.learn(&found.0);
                let inner = &self.inner;
                let file = StateFile::new(inner.objects.clone(), inner.instance, id, found);
                Work::open(Arc::clone(inner), id, Arc::clone(&shared), held, file).await
            };
            let work = opened.await;
            if work.is_err() {
                shared.receiving.store(false, Ordering::Release);
            }
            let session: Box<dyn UploadSession> = Box::new(ObjectSession::new(work?, shared));
            Ok(session)
        }
        .boxed()
    }

    fn settled(&self) -> BoxFuture<'_, ()> {
        async move {
            self.inner.settling.close();
            self.inner.settling.wait().await;
        }
        .boxed()
    }

    fn expire(&self, age: Duration) -> BoxFuture<'_, Result<usize, Error>> {
        sweep::sweep(Arc::clone(&self.inner), age).boxed()
    }
}
