//! Bringing an index in use into line with the records.
//!
//! Records and index are compared without a lock, so that reads and pushes go on; only what
//! differs is read again under the lock of its repository, and the index follows. So it is safe
//! at any time, beside any number of replicas, and may be stopped at any point.

use futures::stream;
use futures::{StreamExt, TryStreamExt};

use crate::error::Error;
use crate::index_state::compare::{Batch, Comparison, READ_AT_ONCE, STEP};
use crate::index_state::{ReindexProgress, ReindexSummary};
use crate::store::index::DAMAGED_RECORDS;
use crate::store::key::RecordKey;
use crate::store::records::Records;
use crate::store::{Change, IndexLock, LockKey, MetadataIndex};

/// Repositories that are brought into line at once.
const REPOSITORIES_AT_ONCE: usize = 4;

/// Compares all records with the index, and lets the index follow where they differ.
///
/// # Errors
/// When records or index fail as a whole; a damaged record is counted and passed over.
pub(super) async fn reconcile(
    records: &Records,
    index: &dyn MetadataIndex,
    progress: &mut (dyn FnMut(ReindexProgress) + Send),
) -> Result<ReindexSummary, Error> {
    let comparison = Comparison { records, index };
    let mut work = stream::iter(comparison.repositories().await?)
        .map(|repository| {
            let batches = comparison.repository(repository);
            batches.and_then(|batch| follow(comparison, batch)).boxed()
        })
        .flatten_unordered(REPOSITORIES_AT_ONCE);
    let mut summary = ReindexSummary::default();
    while let Some(counted) = work.try_next().await? {
        summary.add(&counted);
        progress(ReindexProgress {
            records: summary.records(),
        });
    }
    let damaged = summary.damaged.to_string();
    index.note(DAMAGED_RECORDS, &damaged).await?;
    Ok(summary)
}

async fn follow(comparison: Comparison<'_>, batch: Batch) -> Result<ReindexSummary, Error> {
    batch.log_damaged();
    let Comparison { records, index } = comparison;
    if !batch.differing.is_empty() {
        let key = LockKey::Repository(batch.repository);
        let mut lock = index.lock(vec![key]).await?;
        follow_records(records, index, lock.as_mut(), batch.differing).await?;
    }
    Ok(batch.counted)
}

/// Makes the index follow these records, whatever they say. The caller holds their repository with
/// `lock`.
pub(crate) async fn follow_records(
    records: &Records,
    index: &dyn MetadataIndex,
    lock: &mut dyn IndexLock,
    keys: Vec<RecordKey>,
) -> Result<(), Error> {
    for keys in keys.chunks(STEP) {
        let mut changes = Vec::with_capacity(keys.len());
        let mut reads = stream::iter(keys.to_vec())
            .map(|key| async move {
                let read = records.get(&key).await;
                (key, read)
            })
            .buffer_unordered(READ_AT_ONCE);
        while let Some((key, read)) = reads.next().await {
            changes.push(match read {
                Ok(Some(entry)) => Change::Put(Box::new(entry)),
                Ok(None) => Change::Remove(key),
                // As in a rebuilt index: what cannot be read is not there, and nothing is
                // collected until it is put right.
                Err(error @ Error::DamagedRecord { .. }) => {
                    tracing::error!(%error, "passed over a record");
                    index.note(DAMAGED_RECORDS, "some").await?;
                    Change::Remove(key)
                }
                Err(error) => return Err(error),
            });
        }
        lock.apply(changes).await?;
    }
    Ok(())
}
