//! Background tasks: the sweeper of upload sessions, and the settling of changes left half-way.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::service::Registry;

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
