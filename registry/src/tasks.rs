//! Background tasks: the sweeper of upload sessions, the settling of changes left half-way, and
//! the collector.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::error::Error;
use crate::service::Registry;
use crate::service::collect::CollectOptions;
use crate::service::events::Outlet;

/// Longest pause between two sweeps.
const SWEEP_PAUSE: Duration = Duration::from_secs(600);

/// Removes upload sessions without progress for `expiry`, at once and then again and again.
pub(crate) fn start_sweeper(registry: Arc<Registry>, expiry: Duration) -> JoinHandle<()> {
    let pause = (expiry / 4).clamp(Duration::from_millis(100), SWEEP_PAUSE);
    tokio::spawn(async move {
        loop {
            match registry.uploads().expire(expiry).await {
                Ok(0) => {}
                Ok(removed) => tracing::info!(removed, "removed expired upload sessions"),
                Err(error) => tracing::warn!(%error, "cannot sweep upload sessions"),
            }
            tokio::time::sleep(pause).await;
        }
    })
}

/// Pause between two looks for changes that were left half-way, by this process or by another.
const SETTLE_PAUSE: Duration = Duration::from_secs(10);
/// ... and after a failure.
const SETTLE_RETRY: Duration = Duration::from_secs(1);

/// Settles what was left half-way, at once and then again and again.
pub(crate) fn start_settling(registry: Arc<Registry>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut failed = false;
        loop {
            let outcome = registry.settle_idle().await;
            match &outcome {
                // Once, not every ten seconds of a long outage.
                Err(error) if !failed => tracing::warn!(%error, "cannot settle changes"),
                _ => {}
            }
            failed = outcome.is_err();
            if failed {
                tokio::time::sleep(SETTLE_RETRY).await;
            } else {
                let _ = tokio::time::timeout(SETTLE_PAUSE, registry.left_half_way()).await;
            }
        }
    })
}

/// Longest wait before the first collection of a process: one that restarts more often than it
/// collects would never do so otherwise.
const FIRST_COLLECTION: Duration = Duration::from_secs(300);

/// Collects what nobody refers to, every `interval`.
pub(crate) fn start_collector(registry: Arc<Registry>, interval: Duration) -> JoinHandle<()> {
    tokio::spawn(async move {
        tokio::time::sleep(interval.min(FIRST_COLLECTION)).await;
        loop {
            let options = CollectOptions::default();
            match registry.collect(options, &Outlet::silent()).await {
                Ok(summary) if summary.removed_nothing() => {}
                Ok(summary) => tracing::info!(
                    tags = summary.tags,
                    manifests = summary.manifests,
                    blobs = summary.blobs,
                    contents = summary.contents,
                    bytes = summary.bytes,
                    "collected what nobody refers to"
                ),
                // Another replica is at it.
                Err(Error::CollectionRuns) => {}
                Err(error) => tracing::warn!(error = error.chain(), "nothing was collected"),
            }
            tokio::time::sleep(interval).await;
        }
    })
}
