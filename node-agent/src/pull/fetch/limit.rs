//! Limit: how many connections a host gets at a time. It grows for as long as more of them bring
//! more, and shrinks when the host fails.

use std::time::Duration;

use tokio::time::Instant;

/// Connections to begin with.
const FIRST: usize = 4;
/// Time over which a rate is taken.
const WINDOW: Duration = Duration::from_secs(1);
/// Windows for which a limit that brought nothing more is left as it is.
const PATIENCE: u32 = 15;
/// How much more counts as more.
const GAIN: f64 = 1.08;

/// The connections of one host for one download.
#[derive(Debug)]
pub(super) struct Limit {
    now: usize,
    most: usize,
    /// The limit before the last growth, which is being tried.
    before: Option<usize>,
    /// Bytes a second that the limit before brought.
    best: f64,
    /// Windows until the next try.
    wait: u32,
    since: Instant,
    bytes: u64,
}

impl Limit {
    /// At most `most` connections.
    pub(super) fn new(most: usize) -> Self {
        let most = most.max(1);
        Self {
            now: FIRST.min(most),
            most,
            before: None,
            best: 0.0,
            wait: 0,
            since: Instant::now(),
            bytes: 0,
        }
    }

    pub(super) fn now(&self) -> usize {
        self.now
    }

    /// Bytes have come.
    pub(super) fn came(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    /// Looks, now and then, whether the last growth was worth it and whether to grow again. While
    /// not all connections are busy a rate says nothing of the limit.
    pub(super) fn look(&mut self, is_busy: bool, now: Instant) {
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed < WINDOW {
            return;
        }
        #[expect(clippy::cast_precision_loss, reason = "a rate, not a count")]
        let rate = self.bytes as f64 / elapsed.as_secs_f64();
        self.since = now;
        self.bytes = 0;
        if !is_busy {
            return;
        }
        if let Some(before) = self.before.take() {
            if rate < self.best * GAIN {
                self.now = before;
                self.wait = PATIENCE;
            }
        } else if self.wait > 0 {
            self.wait -= 1;
            return;
        }
        if self.wait == 0 && self.now < self.most {
            self.best = rate;
            self.before = Some(self.now);
            self.now = (self.now + self.now.div_ceil(2)).min(self.most);
        }
    }

    /// The host failed: half as many from now on, and none more for a while.
    pub(super) fn failed(&mut self) {
        self.now = self.now.div_ceil(2);
        self.before = None;
        self.wait = PATIENCE;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use crate::pull::fetch::limit::Limit;

    /// A limit, and the time that passes for it.
    struct Passing(Limit, Instant);

    impl Passing {
        fn second(&mut self, bytes: u64) -> usize {
            self.1 += Duration::from_secs(1);
            self.0.came(bytes);
            self.0.look(true, self.1);
            self.0.now()
        }
    }

    fn limit(most: usize) -> Passing {
        let limit = Limit::new(most);
        let now = limit.since;
        Passing(limit, now)
    }

    #[test]
    fn it_grows_while_that_brings_more_and_steps_back_when_not() {
        let mut limit = limit(16);
        assert_eq!(limit.second(100), 6);
        assert_eq!(limit.second(150), 9);
        assert_eq!(limit.second(151), 6);
        for _ in 0..15 {
            assert_eq!(limit.second(150), 6);
        }
        assert_eq!(limit.second(150), 9);
    }

    #[test]
    fn a_failure_halves_it_and_one_is_left() {
        let mut limit = limit(4);
        limit.0.failed();
        assert_eq!(limit.0.now(), 2);
        limit.0.failed();
        limit.0.failed();
        assert_eq!(limit.0.now(), 1);
        assert_eq!(limit.second(1), 1);
    }
}
