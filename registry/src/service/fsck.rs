//! fsck: is everything there, readable, and what it claims to be?
//!
//! Three passes, while the registry serves: records against the index, repositories against the
//! content they name, and all content against its digests. Whatever looks wrong is looked at again
//! under its locks before it is told, since a change under way looks wrong too.

mod contents;
mod maps;
pub(crate) mod report;
mod repositories;

use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use tokio::time::Instant;

use crate::error::Error;
use crate::index_state::compare::Difference;
use crate::service::Registry;
use crate::service::events::Outlet;
use crate::store::key::RecordKey;
use report::{Finding, FsckEvent, FsckSummary};

/// Time between two reports of how far it has come.
const REPORT_EVERY: Duration = Duration::from_millis(500);

/// What one check is asked to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FsckOptions {
    /// Bytes read per second at most; `None` for as fast as the storage gives them.
    pub rate: Option<u64>,
    /// Move corrupt content aside, so that it can be pushed again.
    pub quarantine: bool,
}

/// One check under way.
struct Check<'r> {
    registry: &'r Registry,
    options: FsckOptions,
    outlet: &'r Outlet<FsckEvent>,
    summary: FsckSummary,
    reported: Instant,
}

impl Registry {
    /// Checks everything; tells how it goes, its end or failure last.
    ///
    /// # Errors
    /// When storage or index cannot be listed at all, or when it is to change something and may
    /// not. A content that cannot be read is a finding.
    pub(crate) async fn fsck(
        &self,
        options: FsckOptions,
        outlet: &Outlet<FsckEvent>,
    ) -> Result<FsckSummary, Error> {
        let mut check = Check {
            registry: self,
            options,
            outlet,
            summary: FsckSummary::default(),
            reported: Instant::now(),
        };
        let outcome = check.run().await;
        let summary = check.summary;
        outlet
            .tell(match &outcome {
                Ok(()) => FsckEvent::Done { summary },
                Err(error) => FsckEvent::Failed {
                    message: error.chain(),
                },
            })
            .await;
        outcome.map(|()| summary)
    }
}

impl Check<'_> {
    async fn run(&mut self) -> Result<(), Error> {
        if self.options.quarantine && self.registry.is_read_only() {
            return Err(Error::ReadOnly);
        }
        let (mut contents, mut bytes) = (0, 0);
        let mut stored = self.registry.blobs.list();
        while let Some(blob) = stored.next().await {
            contents += 1;
            bytes += blob?.size;
        }
        self.outlet.tell(FsckEvent::Began { contents, bytes }).await;
        self.check_records().await?;
        self.check_repositories().await?;
        self.check_contents().await
    }

    /// Records that cannot be read, that the index does not follow, or that only the index knows.
    async fn check_records(&mut self) -> Result<(), Error> {
        let mut batches = self.registry.comparison().batches().await?;
        while let Some(batch) = batches.try_next().await? {
            self.summary.records += batch.counted.records();
            for (key, reason) in batch.damaged {
                self.found(Finding::DamagedRecord { key, reason }).await;
            }
            self.check_differing(batch.differing).await?;
            self.report().await;
        }
        Ok(())
    }

    /// Tells which of these records really differ.
    async fn check_differing(&mut self, keys: Vec<RecordKey>) -> Result<(), Error> {
        for key in keys {
            let lock = self
                .registry
                .lock_repository(key.repository(), None)
                .await?;
            let difference = self.registry.comparison().difference(&key).await?;
            drop(lock);
            let key = key.path();
            match difference {
                Some(Difference::Missing) => self.found(Finding::NotIndexed { key }).await,
                Some(Difference::Stale) => self.found(Finding::StaleIndex { key }).await,
                Some(Difference::Extra) => self.found(Finding::NoRecord { key }).await,
                None => {}
            }
        }
        Ok(())
    }

    async fn found(&mut self, finding: Finding) {
        if finding.is_fault() {
            tracing::warn!(%finding, "fsck");
            self.summary.faults += 1;
        } else {
            self.summary.orphaned += 1;
        }
        self.outlet.tell(FsckEvent::Found { finding }).await;
    }

    /// Tells how far it has come, now and then.
    async fn report(&mut self) {
        if self.reported.elapsed() >= REPORT_EVERY {
            self.reported = Instant::now();
            let FsckSummary {
                records,
                contents,
                bytes,
                ..
            } = self.summary;
            let event = FsckEvent::Checked {
                records,
                contents,
                bytes,
            };
            self.outlet.tell(event).await;
        }
    }
}
