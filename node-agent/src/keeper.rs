//! Keeper: looks after the cache's disk in the background. Each round compares what is with what
//! should be and takes no note of the last one, so it may be cut off at any point.

use std::time::Duration;

use crate::cache::NodeCache;
use crate::error::Error;

/// Time between two rounds. Pulls make their own room; this is for a disk that others fill.
const PERIOD: Duration = Duration::from_secs(30);
/// Rounds from one search for what nobody uses to the next: it reads every manifest.
const ROUNDS_TO_SWEEP: usize = 120;

/// Keeps the disk for as long as it is polled.
pub(crate) async fn keep(cache: NodeCache) {
    let mut period = tokio::time::interval(PERIOD);
    for round in (0..ROUNDS_TO_SWEEP).cycle() {
        period.tick().await;
        let is_sweeping = round == 0;
        let kept = cache.blocking(move |cache| keep_once(cache, is_sweeping));
        if let Err(error) = kept.await {
            tracing::warn!(error = %error.to_agent_error(), "the disk could not be looked after");
        }
    }
}

fn keep_once(cache: &NodeCache, is_sweeping: bool) -> Result<(), Error> {
    if is_sweeping {
        cache.sweep(cache.options().keep_partial);
    }
    cache.end_expired_leases();
    let disk = cache.disk()?;
    cache.metrics().disk(disk.available, disk.usable());
    cache.metrics().cache_bytes(cache.used_bytes()?);
    cache.keep_below_marks()
}
