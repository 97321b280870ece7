//! What keeps a collection from taking too much: a look at the clock, and a bound on the share.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use crate::error::Error;

/// Two clocks of one time may differ by this much, and by a hundredth of the time between.
const TOLERANCE: SignedDuration = SignedDuration::from_mins(1);
/// A pause between two runs of different processes that is longer than this is taken to be a clock
/// that jumped: nothing in between can tell.
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_hours(60 * 24);

/// When a run was, by the clock that ages are counted with and by one that never jumps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sight {
    /// The clock that all replicas share.
    pub(crate) clock: Timestamp,
    /// Time that has passed on this machine, sleep included.
    pub(crate) uptime: Duration,
}

/// Whether the clock ran as time did between two runs of this process.
pub(crate) fn is_steady(before: Sight, now: Sight) -> bool {
    let passed = now.uptime.saturating_sub(before.uptime);
    let passed = SignedDuration::try_from(passed).unwrap_or(SignedDuration::MAX);
    let drift = before
        .clock
        .duration_until(now.clock)
        .saturating_sub(passed);
    drift.abs() <= TOLERANCE.saturating_add(passed / 100)
}

/// Whether the clock may be believed after a run by another process, whose uptime says nothing.
pub(crate) fn is_plausible(before: Timestamp, now: Timestamp) -> bool {
    let passed = before.duration_until(now);
    -TOLERANCE <= passed && passed <= LONGEST_PAUSE
}

/// How much there is of something, and how much of it would go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Share {
    /// All of it.
    pub(crate) total: u64,
    /// What would go.
    pub(crate) going: u64,
}

impl Share {
    /// Refuses when more than `percent` of it would go. `what` names it.
    pub(crate) fn require(self, percent: u8, what: &'static str) -> Result<(), Error> {
        let Self { total, going } = self;
        if u128::from(going) * 100 <= u128::from(total) * u128::from(percent) {
            return Ok(());
        }
        Err(Error::TooMuch {
            what,
            going,
            total,
            percent,
        })
    }
}

/// Counts the time that passes on this machine.
#[derive(Clone)]
pub(crate) struct Uptime(Arc<dyn Fn() -> Duration + Send + Sync>);

impl Uptime {
    /// The system's own count, which goes on while a laptop sleeps: [`Instant`] stands still then,
    /// and every night would look like a clock that jumped.
    pub(crate) fn of_this_machine() -> Self {
        let start = Instant::now();
        Self(Arc::new(move || {
            let counted = std::fs::read_to_string("/proc/uptime")
                .ok()
                .and_then(|text| {
                    let seconds: f64 = text.split(' ').next()?.parse().ok()?;
                    Duration::try_from_secs_f64(seconds).ok()
                });
            counted.unwrap_or_else(|| start.elapsed())
        }))
    }

    /// Another count.
    #[cfg(test)]
    pub(crate) fn counted_by(count: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Self(Arc::new(count))
    }

    /// Time that has passed since some moment.
    pub(crate) fn now(&self) -> Duration {
        (self.0)()
    }
}

impl fmt::Debug for Uptime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.now())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;

    use crate::service::collect::guard::{Share, Sight, is_plausible, is_steady};

    const DAY: i64 = 86_400;
    const YEAR: i64 = 365 * DAY;

    fn sight(clock: i64, uptime: u64) -> Sight {
        Sight {
            clock: Timestamp::from_second(clock).unwrap(),
            uptime: Duration::from_secs(uptime),
        }
    }

    #[test]
    fn a_clock_that_jumped_is_noticed_in_both_directions() {
        let before = sight(1000, 10);
        assert!(is_steady(before, sight(1000 + 3600, 10 + 3600)));
        assert!(
            is_steady(before, sight(1000 + 3630, 10 + 3600)),
            "corrected a little"
        );
        assert!(!is_steady(before, sight(1000 + YEAR, 10 + 3600)));
        assert!(!is_steady(before, sight(1000 - DAY, 10 + 3600)));
    }

    #[test]
    fn a_clock_is_believed_after_a_pause_of_weeks_but_not_of_a_year() {
        let at = |second| Timestamp::from_second(second).unwrap();
        assert!(is_plausible(at(0), at(7 * DAY)));
        assert!(is_plausible(at(0), at(-30)));
        assert!(!is_plausible(at(0), at(YEAR)));
        assert!(!is_plausible(at(0), at(-DAY)));
    }

    #[test]
    fn a_share_is_refused_from_one_above_its_bound() {
        let share = |going, total| Share { total, going }.require(50, "blobs");
        assert!(share(0, 0).is_ok());
        assert!(share(5, 10).is_ok());
        assert!(share(6, 10).is_err());
        assert!(share(1, 1).is_err());
        assert!(Share { total: 1, going: 1 }.require(100, "blobs").is_ok());
    }
}
