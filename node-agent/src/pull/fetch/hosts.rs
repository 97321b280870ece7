//! Hosts: which of them asked to be left alone, and until when. One word of a host holds for every
//! download of this node.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::time::Instant;

/// The hosts that are left alone for now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hosts(Arc<Mutex<HashMap<String, Instant>>>);

impl Hosts {
    /// Leaves a host alone until then at least.
    pub(crate) fn back_off(&self, host: &str, until: Instant) {
        let mut waits = self.lock();
        let known = waits.entry(host.to_owned()).or_insert(until);
        *known = until.max(*known);
    }

    /// Whether a host may be asked at `now`.
    pub(crate) fn may_be_asked(&self, host: &str, now: Instant) -> bool {
        let mut waits = self.lock();
        let is_over = waits.get(host).is_none_or(|until| *until <= now);
        if is_over {
            waits.remove(host);
        }
        is_over
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use crate::pull::fetch::hosts::Hosts;

    #[test]
    fn the_longest_wait_counts_and_ends() {
        let hosts = Hosts::default();
        let now = Instant::now();
        let after = |seconds| now + Duration::from_secs(seconds);
        assert!(hosts.may_be_asked("a", now));
        hosts.back_off("a", after(5));
        hosts.back_off("a", after(1));
        assert!(!hosts.may_be_asked("a", after(2)));
        assert!(hosts.may_be_asked("b", after(2)));
        assert!(hosts.may_be_asked("a", after(5)));
    }
}
