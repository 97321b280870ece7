//! The state of the sled index.
//!
//! Every run of a registry is a new generation. Its number is written beside the records, marked
//! as running, and into the index; only a clean stop marks it as whole. So at the next start a
//! crash, a lost or damaged index, and an older copy put back all show as a doubt, and a doubt is
//! answered by a rebuild.

use std::fs;
use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::StreamExt;

use crate::error::Error;
use crate::index_state::marker::{Kind, Marker};
use crate::index_state::{ReindexProgress, ReindexSummary};
use crate::store::index::DAMAGED_RECORDS;
use crate::store::key::DataFolder;
use crate::store::local::sync_folder;
use crate::store::records::Records;
use crate::store::sled::SledIndex;
use crate::store::{Change, MetadataIndex};

/// Records applied to the index together while it is rebuilt.
const BATCH: usize = 512;

/// The index in use, to be closed at a clean stop.
#[derive(Debug)]
pub(crate) struct EmbeddedState {
    index: Arc<dyn MetadataIndex>,
    folder: DataFolder,
    records: Records,
    /// `None` when nothing may be written beside the records.
    marker: Option<Marker>,
}

impl EmbeddedState {
    /// Writes the index out and marks it as whole.
    pub(super) async fn close(self) -> Result<(), Error> {
        self.index.flush().await?;
        sync_folder(&self.folder.index())?;
        let Some(marker) = self.marker else {
            return Ok(());
        };
        let marker = Marker {
            is_whole: true,
            ..marker
        };
        marker.write(&self.records).await
    }
}

/// Opens the index, and rebuilds it when there is any doubt.
pub(super) async fn open(
    folder: &DataFolder,
    records: &Records,
    read_only: bool,
) -> Result<(Arc<dyn MetadataIndex>, EmbeddedState), Error> {
    let before = Marker::read(records).await?;
    let believed = if before.vouches_for(Kind::Sled) {
        open_generation(folder, before.generation).await
    } else {
        None
    };
    let marker = before.next(Kind::Sled);
    if !read_only {
        // From here on, only a clean stop makes the index believable.
        marker.write(records).await?;
    }
    let index = match believed {
        Some(index) => index,
        None => rebuild(folder, records, &mut |_| {}).await?.0,
    };
    if !read_only {
        index.begin(marker.generation).await?;
    }
    let state = EmbeddedState {
        index: Arc::clone(&index),
        folder: folder.clone(),
        records: records.clone(),
        marker: (!read_only).then_some(marker),
    };
    Ok((index, state))
}

/// Rebuilds the index of a registry that does not run.
pub(super) async fn reindex(
    folder: &DataFolder,
    records: &Records,
    progress: &mut (dyn FnMut(ReindexProgress) + Send),
) -> Result<ReindexSummary, Error> {
    let marker = Marker::read(records).await?.next(Kind::Sled);
    marker.write(records).await?;
    let (index, summary) = rebuild(folder, records, progress).await?;
    index.begin(marker.generation).await?;
    let state = EmbeddedState {
        index,
        folder: folder.clone(),
        records: records.clone(),
        marker: Some(marker),
    };
    state.close().await?;
    Ok(summary)
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

/// An empty index, filled from all records.
async fn rebuild(
    folder: &DataFolder,
    records: &Records,
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
    summary.log("rebuilt the metadata index from the records");
    Ok((index, summary))
}
