//! The verbs of a registry. HTTP calls them, and they call the stores; rules live here.

pub(crate) mod blobs;
pub(crate) mod changes;
pub(crate) mod chunk_maps;
pub(crate) mod collect;
pub(crate) mod dialects;
mod embedded;
pub(crate) mod events;
pub(crate) mod fsck;
pub(crate) mod gate;
pub(crate) mod hub;
pub(crate) mod leases;
mod manifest_cache;
pub(crate) mod manifests;
pub(crate) mod mirrored;
mod pace;
pub(crate) mod passes;
pub(crate) mod reindex;
pub(crate) mod retention;
pub(crate) mod uploads;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use artifact::{Digest, Repository, Tag};
use tokio::sync::{Notify, RwLock, RwLockReadGuard};
use tracing::Instrument;

use crate::config::ChunkMapPolicy;
use crate::error::Error;
use crate::metrics::Metrics;
use crate::mirror::Mirror;
use crate::service::chunk_maps::ChunkMaps;
use crate::service::collect::Collector;
use crate::service::dialects::Dialects;
use crate::service::gate::Gates;
use crate::service::hub::memory::HubMemory;
use crate::service::manifest_cache::ManifestCache;
use crate::storage::Stores;
use crate::store::key::RecordKey;
use crate::store::records::{ManifestRecord, Records};
use crate::store::{BlobStore, MapStore, MetadataIndex, Page, UploadStore};

/// Runs `work` to its end even when the caller is dropped because its client went away, so that a
/// record and its place in the index never part.
async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    tokio::spawn(work.in_current_span())
        .await
        .map_err(Error::Task)?
}

/// What a registry consists of, as far as its health goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Blobs and records.
    Storage,
    /// The index over the records.
    Index,
}

impl std::fmt::Display for Part {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Storage => "storage",
            Self::Index => "index",
        })
    }
}

/// The registry: what HTTP handlers hold.
#[derive(Debug)]
pub(crate) struct Registry {
    blobs: Arc<dyn BlobStore>,
    maps: Arc<dyn MapStore>,
    uploads: Arc<dyn UploadStore>,
    records: Records,
    index: Arc<dyn MetadataIndex>,
    max_blob_bytes: Option<u64>,
    chunk_maps: ChunkMaps,
    collector: Collector,
    gates: Gates,
    manifest_cache: ManifestCache,
    dialects: Dialects,
    mirror: Option<Arc<Mirror>>,
    hub_memory: HubMemory,
    /// Held while a commit is made, so that none undoes another.
    hub_turn: tokio::sync::Mutex<()>,
    /// Records whose change failed half-way, until they are settled.
    leftover: Mutex<BTreeSet<RecordKey>>,
    /// Rung when something was added there.
    settling: Notify,
    /// Whether records may still change. Read-locked by every change, so that closing waits for
    /// those under way.
    is_open: RwLock<bool>,
}

impl Registry {
    /// Puts the stores together.
    pub(crate) fn new(
        stores: Stores,
        index: Arc<dyn MetadataIndex>,
        max_blob_bytes: Option<u64>,
    ) -> Self {
        Self {
            blobs: stores.blobs,
            maps: stores.maps,
            uploads: stores.uploads,
            records: stores.records,
            index,
            max_blob_bytes,
            chunk_maps: ChunkMaps::new(ChunkMapPolicy::Off, Metrics::new()),
            collector: Collector::default(),
            gates: Gates::default(),
            manifest_cache: ManifestCache::default(),
            dialects: Dialects::default(),
            mirror: None,
            hub_memory: HubMemory::default(),
            hub_turn: tokio::sync::Mutex::default(),
            leftover: Mutex::default(),
            settling: Notify::new(),
            is_open: RwLock::new(true),
        }
    }

    /// Collects by these settings.
    #[must_use]
    pub(crate) fn with_collector(self, collector: Collector) -> Self {
        Self { collector, ..self }
    }

    /// Makes and offers chunk maps by these settings.
    #[must_use]
    pub(crate) fn with_chunk_maps(self, chunk_maps: ChunkMaps) -> Self {
        Self { chunk_maps, ..self }
    }

    /// Lets GGUF files in by these policies.
    #[must_use]
    pub(crate) fn with_gates(self, gates: Gates) -> Self {
        Self { gates, ..self }
    }

    /// Fills what it does not hold from upstreams.
    #[must_use]
    pub(crate) fn with_mirror(self, mirror: Arc<Mirror>) -> Self {
        Self {
            mirror: Some(mirror),
            ..self
        }
    }

    /// The store of upload sessions.
    pub(crate) fn uploads(&self) -> &dyn UploadStore {
        self.uploads.as_ref()
    }

    /// Lets no record change any more; `true` if the index has followed them all. A push whose
    /// commit outlasts the shutdown must not change a record behind an index marked as whole.
    pub(crate) async fn close(&self) -> bool {
        *self.is_open.write().await = false;
        self.leftover().is_empty()
    }

    /// Whether a part of the registry does its job.
    pub(crate) async fn check(&self, part: Part) -> Result<(), Error> {
        match part {
            Part::Index => self.index.generation().await.map(drop),
            Part::Storage => self.blobs.check().await,
        }
    }

    /// Repository names in byte order.
    pub(crate) async fn repositories(&self, page: Page) -> Result<Vec<Repository>, Error> {
        self.index.repositories(page).await
    }

    /// Tags of a repository in byte order.
    pub(crate) async fn tags(
        &self,
        repository: &Repository,
        page: Page,
    ) -> Result<Vec<Tag>, Error> {
        if let Some(mirrored) = self.mirrored(repository) {
            return mirrored.tags(page).await;
        }
        if !self.index.has_repository(repository).await? {
            return Err(Error::RepositoryUnknown {
                repository: repository.clone(),
            });
        }
        self.index.tags(repository, page).await
    }

    /// Brings in what the upstream of a mirrored repository knows to refer to `subject`: to be asked
    /// before the first page of its referrers.
    pub(crate) async fn bring_referrers(&self, repository: &Repository, subject: &Digest) {
        if let Some(mirrored) = self.mirrored(repository) {
            mirrored.bring_referrers(subject).await;
        }
    }

    /// Manifests that are here and refer to `subject`, which need not exist.
    pub(crate) async fn referrers(
        &self,
        repository: &Repository,
        subject: &Digest,
        page: Page,
    ) -> Result<Vec<(Digest, ManifestRecord)>, Error> {
        self.index.referrers(repository, subject, page).await
    }

    async fn require_open(&self) -> Result<RwLockReadGuard<'_, bool>, Error> {
        let open = self.is_open.read().await;
        if *open { Ok(open) } else { Err(Error::Closing) }
    }
}
