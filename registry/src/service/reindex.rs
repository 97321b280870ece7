//! Putting the index of a running registry right, while it serves.

use futures::TryStreamExt;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::index_state::ReindexSummary;
use crate::index_state::compare::{Batch, Comparison};
use crate::service::Registry;
use crate::service::events::{Outlet, Told};
use crate::store::index::DAMAGED_RECORDS;

/// Records that are looked at under one lock: pushes to their repository wait meanwhile.
const HELD: usize = 32;

/// What happens while a running registry's index is put right, one by one. As NDJSON these are the
/// answer of `POST /v2/_hayloft/reindex`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ReindexEvent {
    /// How far it has come.
    Read {
        /// Records read so far.
        records: u64,
    },
    /// It is done.
    Done {
        /// The records.
        summary: ReindexSummary,
        /// Those that the index did not follow, and does now.
        settled: u64,
    },
    /// It was given up.
    Failed {
        /// Why.
        message: String,
    },
}

impl Told for ReindexEvent {
    fn is_failure(&self) -> bool {
        matches!(self, Self::Failed { .. })
    }
}

impl Registry {
    /// The records against the index.
    pub(crate) fn comparison(&self) -> Comparison<'_> {
        Comparison {
            records: &self.records,
            index: self.index.as_ref(),
        }
    }

    /// Makes the index follow the records again, while reads and writes go on: one repository at a
    /// time is held, and only while what differs in it is put right. Tells how it goes, its end
    /// or failure last.
    ///
    /// # Errors
    /// When records or index fail, or nothing may be changed; what was put right until then is.
    pub(crate) async fn reindex(&self, outlet: &Outlet<ReindexEvent>) -> Result<(), Error> {
        let outcome = self.reconcile(outlet).await;
        outlet
            .tell(match &outcome {
                Ok((summary, settled)) => ReindexEvent::Done {
                    summary: *summary,
                    settled: *settled,
                },
                Err(error) => ReindexEvent::Failed {
                    message: error.chain(),
                },
            })
            .await;
        outcome.map(drop)
    }

    async fn reconcile(
        &self,
        outlet: &Outlet<ReindexEvent>,
    ) -> Result<(ReindexSummary, u64), Error> {
        if self.is_read_only() {
            return Err(Error::ReadOnly);
        }
        let mut summary = ReindexSummary::default();
        let mut settled = 0;
        let mut batches = self.comparison().batches().await?;
        while let Some(batch) = batches.try_next().await? {
            batch.log_damaged();
            summary.add(&batch.counted);
            settled += self.put_right(batch).await?;
            let records = summary.records();
            outlet.tell(ReindexEvent::Read { records }).await;
        }
        let damaged = summary.damaged.to_string();
        self.index.note(DAMAGED_RECORDS, &damaged).await?;
        Ok((summary, settled))
    }

    /// Makes the index follow the records that differ; gives how many really did.
    async fn put_right(&self, batch: Batch) -> Result<u64, Error> {
        let mut settled = 0;
        for keys in batch.differing.chunks(HELD) {
            let mut lock = self.lock_repository(&batch.repository, None).await?;
            let mut differing = Vec::with_capacity(keys.len());
            for key in keys {
                if self.comparison().difference(key).await?.is_some() {
                    differing.push(key.clone());
                }
            }
            settled += differing.len() as u64;
            self.settle_records(lock.as_mut(), differing).await?;
        }
        Ok(settled)
    }
}
