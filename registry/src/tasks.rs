//! Background tasks: the sweeper of upload sessions, the settling of changes left half-way, and
//! the collector.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::error::Error;
use crate::metrics::Metrics;
use crate::metrics::labels::UploadEvent;
use crate::service::Registry;
use crate::service::collect::CollectOptions;
use crate::service::events::Outlet;

/// Tasks that end when this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Running(Vec<JoinHandle<()>>);

impl Running {
    /// One more.
    pub(crate) fn push(&mut self, task: JoinHandle<()>) {
        self.0.push(task);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

/// Longest pause between two sweeps.
const SWEEP_PAUSE: Duration = Duration::from_secs(600);

/// Removes upload sessions without progress for `expiry`, at once and then again and again.
pub(crate) fn start_sweeper(
    registry: Arc<Registry>,
    expiry: Duration,
    metrics: Metrics,
) -> JoinHandle<()> {
    let pause = (expiry / 4).clamp(Duration::from_millis(100), SWEEP_PAUSE);
    tokio::spawn(async move {
        loop {
            match registry.uploads().expire(expiry).await {
                Ok(0) => {}
                Ok(removed) => {
                    metrics.upload(UploadEvent::Expired, removed as u64);
                    tracing::info!(removed, "removed expired upload sessions");
                }
                Err(error) => tracing::warn!(%error, "cannot sweep upload sessions"),
            }
            tokio::time::sleep(pause).await;
        }
    })
}

/// Pause between two counts of what is stored: a bucket is listed for it, a thousand in a request.
const COUNT_PAUSE: Duration = Duration::from_secs(3600);

/// Counts what is stored, for the metrics, at once and then every hour.
pub(crate) fn start_counting(registry: Arc<Registry>, metrics: Metrics) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            match registry.stored().await {
                Ok((blobs, bytes)) => metrics.stored(blobs, bytes),
                Err(error) => tracing::warn!(%error, "cannot count what is stored"),
            }
            tokio::time::sleep(COUNT_PAUSE).await;
        }
    })
}

/// Makes the chunk maps that were asked for of blobs that came in without.
pub(crate) fn start_mapping(registry: Arc<Registry>) -> JoinHandle<()> {
    tokio::spawn(async move { registry.make_wanted_maps().await })
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

/// Pause between two rounds of the mirror.
const MIRROR_PAUSE: Duration = Duration::from_secs(60);

/// Goes on with fills that an earlier run left, and then, again and again, saves when mirrored
/// blobs were used and removes fills that nothing came of for `expiry`.
pub(crate) fn start_mirror(registry: Arc<Registry>, expiry: Duration) -> JoinHandle<()> {
    tokio::spawn(async move {
        if let Err(error) = registry.resume_fills().await {
            tracing::warn!(error = error.chain(), "fills that were left cannot go on");
        }
        loop {
            tokio::time::sleep(MIRROR_PAUSE).await;
            if let Err(error) = registry.tend_mirror(expiry).await {
                tracing::warn!(error = error.chain(), "the mirror cannot be tended");
            }
        }
    })
}
