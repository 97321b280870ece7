//! A registry in memory whose stores let others come in before everything they do, with a clock
//! that the test sets.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use artifact::{Algorithm, Digest, Repository};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use jiff::{SignedDuration, Timestamp};
use object_store::memory::InMemory;
use serde_json::json;
use url::Url;
use uuid::Uuid;

use super::schedule::step;
use crate::config::Config;
use crate::error::Error;
use crate::metrics::Metrics;
use crate::service::Registry;
use crate::service::collect::Collector;
use crate::service::collect::guard::Uptime;
use crate::service::manifests::{ManifestReference, NewManifest};
use crate::storage::Stores;
use crate::store::index::Answer;
use crate::store::key::RecordKey;
use crate::store::memory::MemoryIndex;
use crate::store::records::{BlobRecord, Entry, LeaseRecord, ManifestRecord, Records, TagRecord};
use crate::store::{
    BlobStore, Change, IndexLock, LockKey, MapStore, Mark, MetadataIndex, OpenBlob, Page,
    StoredBlob, UploadSession, UploadStore,
};

/// The time, as the test sets it: what the clock says, and what has really passed.
#[derive(Clone, Debug)]
pub(super) struct Clock(Arc<Mutex<(Timestamp, Duration)>>);

impl Clock {
    fn new() -> Self {
        let start = Timestamp::from_second(1_000_000_000).unwrap();
        Self(Arc::new(Mutex::new((start, Duration::ZERO))))
    }

    pub(super) fn now(&self) -> Timestamp {
        self.lock().0
    }

    fn passed(&self) -> Duration {
        self.lock().1
    }

    /// Time passes.
    pub(super) fn advance(&self, time: Duration) {
        let (now, passed) = &mut *self.lock();
        *now += time;
        *passed += time;
    }

    /// The clock is set, and no time passes.
    pub(super) fn jump(&self, by: SignedDuration) {
        self.lock().0 += by;
    }

    fn lock(&self) -> MutexGuard<'_, (Timestamp, Duration)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A registry and its insides.
pub(super) struct World {
    pub(super) registry: Arc<Registry>,
    pub(super) index: MemoryIndex,
    pub(super) blobs: MemoryBlobs,
    pub(super) clock: Clock,
    /// The collector loses its turn.
    pub(super) loses_turn: Arc<AtomicBool>,
}

/// Locks that an index only pretends to give, to prove that a test notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pretends {
    Nothing,
    Blobs,
    Repositories,
}

impl World {
    pub(super) fn new(pretends: Pretends) -> Self {
        let clock = Clock::new();
        let index = MemoryIndex::default();
        let blobs = MemoryBlobs::default();
        let loses_turn = Arc::<AtomicBool>::default();
        let paced = PacedIndex {
            inner: index.clone(),
            clock: clock.clone(),
            pretends,
            loses_turn: Arc::clone(&loses_turn),
        };
        let time = clock.clone();
        let uptime = Uptime::counted_by(move || time.passed());
        let collector = Collector::new(&Config::default(), Metrics::new()).unwrap();
        let stores = Stores::of(
            Arc::new(blobs.clone()),
            Arc::new(blobs.clone()),
            Arc::new(NoUploads),
            Records::open_bucket(Arc::new(InMemory::new())),
        );
        let registry = Registry::new(stores, Arc::new(paced), None);
        Self {
            registry: Arc::new(registry.with_collector(collector.with_uptime(uptime))),
            index,
            blobs,
            clock,
            loses_turn,
        }
    }
}

/// What an upload does once its bytes are there.
pub(super) async fn push(
    registry: &Registry,
    repository: &Repository,
    content: Bytes,
) -> Result<(), Error> {
    let digest = Digest::sha256(&content);
    let size = content.len() as u64;
    let mut lock = registry.lock_content(&digest).await?;
    registry.blobs.put(&digest, content).await?;
    registry
        .link_blob(lock.as_mut(), repository, &digest, size)
        .await
}

/// A manifest that names these contents.
pub(super) fn manifest(
    repository: &Repository,
    reference: ManifestReference,
    contents: &[Bytes],
    subject: Option<Digest>,
) -> NewManifest {
    let layers: Vec<_> = contents
        .iter()
        .map(|content| {
            json!({
                "mediaType": "application/octet-stream",
                "digest": Digest::sha256(content),
                "size": content.len(),
            })
        })
        .collect();
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let mut document = json!({
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": layers[0],
        "layers": layers,
    });
    if let Some(digest) = subject {
        document["subject"] = json!({ "mediaType": media_type, "digest": digest, "size": 1 });
    }
    NewManifest {
        repository: repository.clone(),
        reference,
        tags: Vec::new(),
        content_type: Some(media_type.to_owned()),
        content: document.to_string().into(),
    }
}

/// Blobs in a map.
#[derive(Clone, Debug, Default)]
pub(super) struct MemoryBlobs {
    blobs: Arc<Mutex<BTreeMap<Digest, Bytes>>>,
    /// Every listing fails after its first entry.
    pub(super) cannot_list: Arc<AtomicBool>,
}

impl MemoryBlobs {
    pub(super) fn all(&self) -> BTreeMap<Digest, Bytes> {
        let blobs = self.blobs.lock();
        blobs.unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn stepped<T>(&self, work: impl FnOnce(&mut BTreeMap<Digest, Bytes>) -> T) -> T {
        step().await;
        work(&mut self.blobs.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// It keeps none.
impl MapStore for MemoryBlobs {
    fn map<'a>(&'a self, _blob: &'a Digest) -> BoxFuture<'a, Result<Option<Bytes>, Error>> {
        futures::future::ready(Ok(None)).boxed()
    }

    fn keep_map<'a>(&'a self, _blob: &'a Digest, _map: Bytes) -> BoxFuture<'a, Result<(), Error>> {
        futures::future::ready(Ok(())).boxed()
    }

    fn forget_map<'a>(&'a self, _blob: &'a Digest) -> BoxFuture<'a, Result<(), Error>> {
        futures::future::ready(Ok(())).boxed()
    }

    fn mapped(&self) -> BoxStream<'_, Result<Digest, Error>> {
        stream::empty().boxed()
    }
}

impl BlobStore for MemoryBlobs {
    fn stat<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<Option<u64>, Error>> {
        let size = |blobs: &mut BTreeMap<Digest, Bytes>| blobs.get(digest).map(|b| b.len() as u64);
        self.stepped(size).map(Ok).boxed()
    }

    fn open<'a>(&'a self, _digest: &'a Digest) -> BoxFuture<'a, Result<Option<OpenBlob>, Error>> {
        futures::future::ready(Ok(None)).boxed()
    }

    fn read<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<Option<Bytes>, Error>> {
        self.stepped(|blobs| Ok(blobs.get(digest).cloned())).boxed()
    }

    fn put<'a>(&'a self, digest: &'a Digest, content: Bytes) -> BoxFuture<'a, Result<(), Error>> {
        self.stepped(|blobs| {
            blobs.insert(*digest, content);
            Ok(())
        })
        .boxed()
    }

    fn adopt<'a>(
        &'a self,
        _digest: &'a Digest,
        _file: &'a Path,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        futures::future::ready(Ok(false)).boxed()
    }

    fn remove<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<bool, Error>> {
        self.stepped(|blobs| Ok(blobs.remove(digest).is_some()))
            .boxed()
    }

    fn list(&self) -> BoxStream<'_, Result<StoredBlob, Error>> {
        let fails = self.cannot_list.load(Ordering::SeqCst);
        let failure = fails.then(|| Err(Error::index(std::io::Error::other("no listing"))));
        let most = if fails { 1 } else { usize::MAX };
        stream::iter(self.all())
            .take(most)
            .then(|(digest, content)| async move {
                step().await;
                Ok(StoredBlob {
                    digest,
                    size: content.len() as u64,
                    modified: Timestamp::UNIX_EPOCH,
                })
            })
            .chain(stream::iter(failure))
            .boxed()
    }

    fn quarantine<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<(), Error>> {
        self.remove(digest).map(|removed| removed.map(drop)).boxed()
    }

    fn signed_url<'a>(
        &'a self,
        _digest: &'a Digest,
        _valid: Duration,
    ) -> BoxFuture<'a, Result<Option<Url>, Error>> {
        futures::future::ready(Ok(None)).boxed()
    }

    fn check(&self) -> BoxFuture<'_, Result<(), Error>> {
        futures::future::ready(Ok(())).boxed()
    }
}

/// Uploads are not part of these tests: [`push`] does what their end does.
#[derive(Debug)]
struct NoUploads;

impl UploadStore for NoUploads {
    fn begin<'a>(
        &'a self,
        _repository: &'a Repository,
        _algorithm: Algorithm,
    ) -> BoxFuture<'a, Result<Uuid, Error>> {
        futures::future::ready(Err(Error::Closing)).boxed()
    }

    fn offset<'a>(
        &'a self,
        _repository: &'a Repository,
        _id: Uuid,
    ) -> BoxFuture<'a, Result<u64, Error>> {
        futures::future::ready(Err(Error::Closing)).boxed()
    }

    fn claim<'a>(
        &'a self,
        _repository: &'a Repository,
        _id: Uuid,
    ) -> BoxFuture<'a, Result<Box<dyn UploadSession>, Error>> {
        futures::future::ready(Err(Error::Closing)).boxed()
    }

    fn settled(&self) -> BoxFuture<'_, ()> {
        futures::future::ready(()).boxed()
    }

    fn expire(&self, _age: Duration) -> BoxFuture<'_, Result<usize, Error>> {
        futures::future::ready(Ok(0)).boxed()
    }
}

/// The index in memory, one step before each operation, and with the test's clock.
#[derive(Debug)]
struct PacedIndex {
    inner: MemoryIndex,
    clock: Clock,
    pretends: Pretends,
    loses_turn: Arc<AtomicBool>,
}

impl PacedIndex {
    fn paced(&self, inner: Box<dyn IndexLock>) -> Box<dyn IndexLock> {
        Box::new(PacedLock {
            inner,
            pretends: self.pretends,
            loses_turn: Arc::clone(&self.loses_turn),
        })
    }

    /// The locks that are really taken.
    fn real(&self, mut keys: Vec<LockKey>) -> Vec<LockKey> {
        keys.retain(|key| match key {
            LockKey::Blob(_) => self.pretends != Pretends::Blobs,
            LockKey::Repository(_) => self.pretends != Pretends::Repositories,
            LockKey::Collection => true,
        });
        keys
    }
}

struct PacedLock {
    inner: Box<dyn IndexLock>,
    pretends: Pretends,
    loses_turn: Arc<AtomicBool>,
}

impl IndexLock for PacedLock {
    fn extend(&mut self, keys: Vec<LockKey>) -> Answer<'_, ()> {
        async move {
            step().await;
            match self.pretends {
                Pretends::Repositories => Ok(()),
                Pretends::Nothing | Pretends::Blobs => self.inner.extend(keys).await,
            }
        }
        .boxed()
    }

    fn intend(&mut self, keys: Vec<RecordKey>) -> Answer<'_, ()> {
        async move {
            step().await;
            self.inner.intend(keys).await
        }
        .boxed()
    }

    fn apply(&mut self, changes: Vec<Change>) -> Answer<'_, ()> {
        async move {
            step().await;
            self.inner.apply(changes).await
        }
        .boxed()
    }

    fn check(&mut self) -> Answer<'_, ()> {
        if self.loses_turn.load(Ordering::SeqCst) {
            let lost = std::io::Error::other("the lock was lost");
            return futures::future::ready(Err(Error::index(lost))).boxed();
        }
        self.inner.check()
    }
}

/// Methods that wait a step and then ask the index.
macro_rules! paced {
    ($a:lifetime: $($name:ident($($argument:ident: $type:ty),*) -> $answer:ty;)+) => {
        $(fn $name<$a>(&$a self, $($argument: $type),*) -> Answer<$a, $answer> {
            async move {
                step().await;
                self.inner.$name($($argument),*).await
            }
            .boxed()
        })+
    };
}

impl MetadataIndex for PacedIndex {
    fn lock(&self, keys: Vec<LockKey>) -> Answer<'_, Box<dyn IndexLock>> {
        async move {
            step().await;
            let inner = self.inner.lock(self.real(keys)).await?;
            Ok(self.paced(inner))
        }
        .boxed()
    }

    fn try_lock(&self, key: LockKey) -> Answer<'_, Option<Box<dyn IndexLock>>> {
        async move {
            let taken = self.inner.try_lock(key).await?;
            Ok(taken.map(|inner| self.paced(inner)))
        }
        .boxed()
    }

    fn now(&self) -> Answer<'_, Timestamp> {
        futures::future::ready(Ok(self.clock.now())).boxed()
    }

    paced! { 'a:
        apply(changes: Vec<Change>) -> ();
        unsettled(repository: Option<&'a Repository>) -> Vec<RecordKey>;
        differing(entries: Vec<Entry>) -> Vec<RecordKey>;
        has_repository(repository: &'a Repository) -> bool;
        manifest(repository: &'a Repository, digest: &'a Digest) -> Option<ManifestRecord>;
        tag(repository: &'a Repository, tag: &'a artifact::Tag) -> Option<TagRecord>;
        blob(repository: &'a Repository, digest: &'a Digest) -> Option<BlobRecord>;
        repositories(page: Page) -> Vec<Repository>;
        tags(repository: &'a Repository, page: Page) -> Vec<artifact::Tag>;
        tag_records(repository: &'a Repository, page: Page) -> Vec<(artifact::Tag, TagRecord)>;
        tags_of(repository: &'a Repository, digest: &'a Digest) -> Vec<artifact::Tag>;
        manifests(repository: &'a Repository, page: Page) -> Vec<(Digest, ManifestRecord)>;
        blobs(repository: &'a Repository, page: Page) -> Vec<(Digest, BlobRecord)>;
        referrers(
            repository: &'a Repository, subject: &'a Digest, page: Page
        ) -> Vec<(Digest, ManifestRecord)>;
        holder_of(digest: &'a Digest) -> Option<Repository>;
        is_held(digest: &'a Digest) -> bool;
        manifest_naming(repository: &'a Repository, content: &'a Digest) -> Option<Digest>;
        index_naming(repository: &'a Repository, manifest: &'a Digest) -> Option<Digest>;
        leases(page: Page) -> Vec<(Repository, Uuid, LeaseRecord)>;
        leased_until(digest: &'a Digest) -> Option<Timestamp>;
        mark(mark: &'a Mark, since: Timestamp) -> ();
        unmark(mark: &'a Mark) -> ();
        marked(mark: &'a Mark) -> Option<Timestamp>;
        marks(page: Page) -> Vec<(Mark, Timestamp)>;
        note(name: &'a str, value: &'a str) -> ();
        noted(name: &'a str) -> Option<String>;
        generation() -> Option<u64>;
        begin(generation: u64) -> ();
        flush() -> ();
    }
}
