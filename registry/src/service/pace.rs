//! Pace: reads that have time leave the disk to those that have none.

use std::time::Duration;

use tokio::time::Instant;

/// Waits so that no more bytes pass in a second than asked.
#[derive(Debug)]
pub(super) struct Pace {
    rate: Option<u64>,
    from: u64,
    start: Instant,
}

impl Pace {
    /// `from` bytes have passed before.
    pub(super) fn new(rate: Option<u64>, from: u64) -> Self {
        let start = Instant::now();
        Self { rate, from, start }
    }

    /// Waits until `bytes` may have passed.
    pub(super) async fn keep(&self, bytes: u64) {
        let Some(rate) = self.rate else { return };
        let passed = bytes.saturating_sub(self.from);
        let millis = u128::from(passed) * 1000 / u128::from(rate.max(1));
        let due = Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX));
        // Beyond what the clock can count there is nobody left to wait.
        if let Some(due) = self.start.checked_add(due) {
            tokio::time::sleep_until(due).await;
        }
    }
}
