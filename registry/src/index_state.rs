//! Whether the index can be believed, and its rebuilding from the records when it cannot.
//!
//! Every run of a registry is a new generation. Its number is written beside the records, marked
//! as running, and into the index; only a clean stop marks it as whole. So at the next start a
//! crash, a lost or damaged index, and an older copy put back all show as a doubt, and a doubt is
//! answered by a rebuild.

use std::fs;
use std::io;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;

use futures::StreamExt;
use serde::{Deserialize, Serialize};

use crate::app::lock;
use crate::error::Error;
use crate::store::index::DAMAGED_RECORDS;
use crate::store::key::DataFolder;
use crate::store::local::{sync_folder, write_durably};
use crate::store::records::{Entry, Records};
use crate::store::sled::SledIndex;
use crate::store::{Change, MetadataIndex};

/// Records applied to the index together while it is rebuilt.
const BATCH: usize = 512;

/// Which keys the index has. To be raised whenever what an index holds for a record changes.
const FORMAT: u32 = 2;

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
}

/// The marker beside the records.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Marker {
    generation: u64,
    is_whole: bool,
    /// Which keys the index has: one of another release is rebuilt.
    #[serde(default)]
    format: u32,
}

/// The index in use, to be closed at a clean stop.
#[derive(Debug)]
pub(crate) struct IndexState {
    index: Arc<dyn MetadataIndex>,
    marker: Marker,
}

impl IndexState {
    /// Writes the index out and marks it as whole.
    pub(crate) async fn close(self, folder: &DataFolder) -> Result<(), Error> {
        self.index.flush().await?;
        sync_folder(&folder.index())?;
        write_marker(
            folder,
            Marker {
                is_whole: true,
                ..self.marker
            },
        )
    }
}

/// Rebuilds the index of the registry in `data`, which must not be running.
///
/// # Errors
/// When the folder is in use, or records or index cannot be read and written at all. A single
/// damaged record is counted and passed over.
pub fn reindex(
    data: &Path,
    mut progress: impl FnMut(ReindexProgress) + Send,
) -> Result<ReindexSummary, Error> {
    let folder = DataFolder::new(data);
    let work = async {
        let _lock = lock(&folder)?;
        fs::create_dir_all(folder.records()).map_err(Error::storage("create", folder.records()))?;
        let records = Records::open_local(&folder.records())?;
        let marker = next_generation(&folder)?;
        let (index, summary) = rebuild(&folder, &records, marker, &mut progress).await?;
        IndexState { index, marker }.close(&folder).await?;
        Ok(summary)
    };
    // On a thread and runtime of its own, so that it may be called from anywhere.
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            tokio::runtime::Builder::new_current_thread()
                .build()
                .map_err(Error::index)?
                .block_on(work)
        });
        thread
            .join()
            .unwrap_or_else(|_| Err(Error::index(io::Error::other("the rebuild panicked"))))
    })
}

/// Opens the index, and rebuilds it when there is any doubt.
pub(crate) async fn open_checked(
    folder: &DataFolder,
    records: &Records,
) -> Result<(Arc<dyn MetadataIndex>, IndexState), Error> {
    let before = read_marker(folder);
    let believed = match before {
        Some(marker) if marker.is_whole && marker.format == FORMAT => {
            open_generation(folder, marker.generation).await
        }
        _ => None,
    };
    let marker = next_generation(folder)?;
    let index = if let Some(index) = believed {
        index.begin(marker.generation).await?;
        index
    } else {
        let (index, summary) = rebuild(folder, records, marker, &mut |_| {}).await?;
        if summary.records() > 0 {
            tracing::info!(
                repositories = summary.repositories,
                manifests = summary.manifests,
                tags = summary.tags,
                damaged = summary.damaged,
                "rebuilt the metadata index from the records"
            );
        }
        index
    };
    let state = IndexState {
        index: Arc::clone(&index),
        marker,
    };
    Ok((index, state))
}

/// The index, if it opens and is of this generation.
async fn open_generation(folder: &DataFolder, generation: u64) -> Option<Arc<dyn MetadataIndex>> {
    let index = open_index(folder).ok()?;
    let found = index.generation().await.ok()?;
    (found == Some(generation)).then_some(index)
}

/// sled answers some kinds of damage with a panic; here that is one more reason to rebuild.
fn open_index(folder: &DataFolder) -> Result<Arc<dyn MetadataIndex>, Error> {
    let path = folder.index();
    let opened = std::panic::catch_unwind(AssertUnwindSafe(|| SledIndex::open(&path)));
    match opened {
        Ok(Ok(index)) => Ok(Arc::new(index)),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(Error::index(io::Error::other("the index is damaged"))),
    }
}

async fn rebuild(
    folder: &DataFolder,
    records: &Records,
    marker: Marker,
    progress: &mut (dyn FnMut(ReindexProgress) + Send),
) -> Result<(Arc<dyn MetadataIndex>, ReindexSummary), Error> {
    match fs::remove_dir_all(folder.index()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Error::storage("remove", folder.index())(error));
        }
        _ => {}
    }
    let index = open_index(folder)?;
    let mut summary = ReindexSummary::default();
    let mut batches = records.entries().chunks(BATCH);
    while let Some(batch) = batches.next().await {
        let mut changes = Vec::with_capacity(batch.len());
        for entry in batch {
            match entry {
                Ok(entry) => {
                    summary.count(&entry);
                    changes.push(Change::Put(Box::new(entry)));
                }
                Err(error @ Error::DamagedRecord { .. }) => {
                    summary.damaged += 1;
                    tracing::error!(%error, "passed over a record");
                }
                Err(error) => return Err(error),
            }
        }
        index.apply(changes).await?;
        progress(ReindexProgress {
            records: summary.records(),
        });
    }
    let damaged = summary.damaged.to_string();
    index.note(DAMAGED_RECORDS, &damaged).await?;
    index.begin(marker.generation).await?;
    Ok((index, summary))
}

/// Starts a new generation: from here on, only a clean stop makes the index believable.
fn next_generation(folder: &DataFolder) -> Result<Marker, Error> {
    let before = read_marker(folder).unwrap_or_default();
    let marker = Marker {
        generation: before.generation + 1,
        is_whole: false,
        format: FORMAT,
    };
    write_marker(folder, marker)?;
    Ok(marker)
}

fn read_marker(folder: &DataFolder) -> Option<Marker> {
    serde_json::from_slice(&fs::read(folder.index_state()).ok()?).ok()
}

fn write_marker(folder: &DataFolder, marker: Marker) -> Result<(), Error> {
    let path = folder.index_state();
    let json = serde_json::to_vec(&marker).map_err(Error::index)?;
    write_durably(&path.with_extension("state.new"), &path, &json)
}
