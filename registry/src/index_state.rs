//! Whether the index can be believed, and how it is brought into line with the records when it
//! cannot.

pub(crate) mod compare;
mod database;
mod embedded;
mod marker;
pub(crate) mod reconcile;

use std::io;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::app::lock;
use crate::config::{Config, Index};
use crate::error::Error;
use crate::index_state::database::DatabaseState;
use crate::index_state::embedded::EmbeddedState;
use crate::storage;
use crate::store::MetadataIndex;
use crate::store::key::DataFolder;
use crate::store::records::{Entry, Records};

/// How far a rebuild has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReindexProgress {
    /// Records read so far.
    pub records: u64,
}

/// What a rebuild found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReindexSummary {
    /// Repositories.
    pub repositories: u64,
    /// Manifests.
    pub manifests: u64,
    /// Tags.
    pub tags: u64,
    /// Blobs, counted once per repository that holds them.
    pub blobs: u64,
    /// Leases.
    pub leases: u64,
    /// Records that could not be read; each is named in the log.
    pub damaged: u64,
}

impl ReindexSummary {
    /// Adds a record.
    pub(crate) fn count(&mut self, entry: &Entry) {
        match entry {
            Entry::Repository(..) => self.repositories += 1,
            Entry::Manifest(..) => self.manifests += 1,
            Entry::Tag(..) => self.tags += 1,
            Entry::Blob(..) => self.blobs += 1,
            Entry::Lease(..) => self.leases += 1,
        }
    }

    /// Adds the records of another.
    pub(crate) fn add(&mut self, other: &Self) {
        self.repositories += other.repositories;
        self.manifests += other.manifests;
        self.tags += other.tags;
        self.blobs += other.blobs;
        self.leases += other.leases;
        self.damaged += other.damaged;
    }

    /// All of them.
    pub(crate) fn records(&self) -> u64 {
        self.repositories + self.manifests + self.tags + self.blobs + self.leases + self.damaged
    }

    /// Logs what was done, unless there was nothing.
    fn log(&self, done: &'static str) {
        if self.records() > 0 {
            tracing::info!(
                repositories = self.repositories,
                manifests = self.manifests,
                tags = self.tags,
                damaged = self.damaged,
                "{done}"
            );
        }
    }
}

/// The index in use, to be closed at a clean stop.
#[derive(Debug)]
pub(crate) enum IndexState {
    /// In sled.
    Embedded(Box<EmbeddedState>),
    /// In PostgreSQL.
    Database(DatabaseState),
}

impl IndexState {
    /// Leaves the index so that the next start can believe it, if it has `followed` all changes.
    pub(crate) async fn close(self, followed: bool) -> Result<(), Error> {
        match self {
            Self::Embedded(state) if followed => state.close().await,
            Self::Embedded(_) => Ok(()),
            Self::Database(state) => state.close(followed).await,
        }
    }
}

/// Opens the index that `config` names, and brings it into line with the records when there is any
/// doubt.
pub(crate) async fn open(
    config: &Config,
    folder: &DataFolder,
    records: &Records,
) -> Result<(Arc<dyn MetadataIndex>, IndexState), Error> {
    match &config.index {
        Index::Sled => {
            let (index, state) = embedded::open(folder, records, config.read_only).await?;
            Ok((index, IndexState::Embedded(Box::new(state))))
        }
        Index::Postgres(url) => {
            let (index, state) = database::open(url, records, config.read_only).await?;
            Ok((index, IndexState::Database(state)))
        }
    }
}

/// Rebuilds the index that `config` names from the records it names. An index in sled must not be
/// in use; one in PostgreSQL is compared with the records, beside registries that run.
///
/// # Errors
/// When the folder is in use, or records or index cannot be read and written at all. A single
/// damaged record is counted and passed over.
pub fn reindex(
    config: &Config,
    progress: &mut (dyn FnMut(ReindexProgress) + Send),
) -> Result<ReindexSummary, Error> {
    let folder = DataFolder::new(&config.data);
    let work = async {
        let _lock = lock(&folder)?;
        let mut stores = storage::open(config, &folder).await?;
        let closing = stores.closing();
        let records = &stores.records;
        let done = match &config.index {
            Index::Sled => embedded::reindex(&folder, records, progress).await,
            Index::Postgres(url) => database::reindex(url, records, progress).await,
        };
        closing.close().await;
        done
    };
    // On a thread and runtime of its own, so that it may be called from anywhere.
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(Error::index)?
                .block_on(work)
        });
        thread
            .join()
            .unwrap_or_else(|_| Err(Error::index(io::Error::other("the rebuild panicked"))))
    })
}
