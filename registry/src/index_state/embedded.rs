//! The state of the sled index.
//!
//! Every run of a registry is a new generation. Its number is written beside the records, marked
//! as running, and into the index; only a clean stop marks it as whole. So at the next start a
//! crash, a lost or damaged index, and an older copy put back all show as a doubt, and a doubt is
//! answered by a rebuild.

use std::fs;
use std::io;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::{FutureExt, StreamExt};

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
    index: Arc<SledIndex>,
    folder: DataFolder,
    records: Records,
    /// `None` when nothing may be written beside the records.
    marker: Option<Marker>,
}

impl EmbeddedState {
    /// Writes the index out and marks it as whole. One that cannot be written, or that was remade
    /// elsewhere, is left in doubt: the next start rebuilds it.
    pub(super) async fn close(self) -> Result<(), Error> {
        if !self.index.is_in_place().await {
            return Ok(());
        }
        if let Err(error) = self.index.flush().await {
            tracing::warn!(
                error = error.chain(),
                "the metadata index cannot be written out; the next start rebuilds it"
            );
            return Ok(());
        }
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
        None => rebuild(folder.index(), records, &mut |_| {}).await?.0,
    };
    let index = Arc::new(self_healing(index, folder, records));
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
    let (index, summary) = rebuild(folder.index(), records, progress).await?;
    index.begin(marker.generation).await?;
    let state = EmbeddedState {
        index: Arc::new(index),
        folder: folder.clone(),
        records: records.clone(),
        marker: Some(marker),
    };
    state.close().await?;
    Ok(summary)
}

/// The index, if it opens and is of this generation.
async fn open_generation(folder: &DataFolder, generation: u64) -> Option<SledIndex> {
    let index = open_index(&folder.index()).ok()?;
    let found = index.generation().await.ok()?;
    (found == Some(generation)).then_some(index)
}

/// sled answers some kinds of damage with a panic; here that is one more reason to rebuild.
fn open_index(path: &Path) -> Result<SledIndex, Error> {
    let opened = std::panic::catch_unwind(AssertUnwindSafe(|| SledIndex::open(path)));
    opened.unwrap_or_else(|_| Err(Error::index(io::Error::other("the index is damaged"))))
}

/// The index, which is rebuilt beside its folder when it fails at run time.
fn self_healing(index: SledIndex, folder: &DataFolder, records: &Records) -> SledIndex {
    let records = records.clone();
    // Best effort: what an earlier run left there is removed before it is used, too.
    let _ = fs::remove_dir_all(folder.other_index());
    index.remade_by(folder.index(), folder.other_index(), move |path| {
        let records = records.clone();
        async move { Ok(rebuild(path, &records, &mut |_| {}).await?.0) }.boxed()
    })
}

/// An empty index in `path`, filled from all records.
async fn rebuild(
    path: PathBuf,
    records: &Records,
    progress: &mut (dyn FnMut(ReindexProgress) + Send),
) -> Result<(SledIndex, ReindexSummary), Error> {
    match fs::remove_dir_all(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Error::storage("remove", path)(error));
        }
        _ => {}
    }
    let index = open_index(&path)?;
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
