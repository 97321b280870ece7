//! Background tasks: the sweeper of upload sessions.

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
