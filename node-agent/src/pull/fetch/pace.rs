//! Pace: how many bytes a second all downloads of this node may take together, by the time of day.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Zoned;
use jiff::civil::Time;
use tokio::time::Instant;

/// How far the bytes may run ahead of the rate: one read of a fast socket is longer than what a
/// slow rate allows in an instant.
const BURST: Duration = Duration::from_millis(100);

/// A rate for a part of the day, in the node's own time zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BandwidthWindow {
    /// When it begins.
    pub from: Time,
    /// When it ends; before `from` means on the next day.
    pub until: Time,
    /// Bytes a second; nothing for no limit.
    pub rate: Option<u64>,
}

/// The bandwidth that downloads may take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bandwidth {
    /// Bytes a second outside of all windows; nothing for no limit.
    pub rate: Option<u64>,
    /// Rates by the time of day; the first window that fits counts.
    pub windows: Vec<BandwidthWindow>,
}

/// Why a text is no [`BandwidthWindow`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write HH:MM-HH:MM=RATE, such as 08:00-18:00=10MB")]
pub struct InvalidWindow;

impl BandwidthWindow {
    /// Reads `HH:MM-HH:MM=RATE`; `rate` reads the rate, and gives nothing for no limit.
    ///
    /// # Errors
    /// [`InvalidWindow`] when it is none.
    pub fn parse(
        text: &str,
        rate: impl FnOnce(&str) -> Option<Option<u64>>,
    ) -> Result<Self, InvalidWindow> {
        let (hours, value) = text.split_once('=').ok_or(InvalidWindow)?;
        let (from, until) = hours.split_once('-').ok_or(InvalidWindow)?;
        let time = |text: &str| Time::strptime("%H:%M", text.trim()).map_err(|_| InvalidWindow);
        Ok(Self {
            from: time(from)?,
            until: time(until)?,
            rate: rate(value.trim()).ok_or(InvalidWindow)?,
        })
    }

    fn holds(&self, now: Time) -> bool {
        if self.from <= self.until {
            self.from <= now && now < self.until
        } else {
            self.from <= now || now < self.until
        }
    }
}

impl Bandwidth {
    /// The rate at a time of day.
    fn at(&self, now: Time) -> Option<u64> {
        let window = self.windows.iter().find(|window| window.holds(now));
        window.map_or(self.rate, |window| window.rate)
    }

    fn is_unlimited(&self) -> bool {
        self.rate.is_none() && self.windows.iter().all(|window| window.rate.is_none())
    }
}

/// Makes those who bring bytes wait for their turn. A clone is the same pace.
#[derive(Clone)]
pub(crate) struct Pace(Option<Arc<Limited>>);

struct Limited {
    bandwidth: Bandwidth,
    /// When the bytes that were allowed so far are paid for.
    paid: Mutex<Instant>,
}

impl fmt::Debug for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bandwidth = self.0.as_ref().map(|limited| &limited.bandwidth);
        f.debug_tuple("Pace").field(&bandwidth).finish()
    }
}

impl Pace {
    pub(crate) fn new(bandwidth: Bandwidth) -> Self {
        if bandwidth.is_unlimited() {
            return Self(None);
        }
        Self(Some(Arc::new(Limited {
            bandwidth,
            paid: Mutex::new(Instant::now()),
        })))
    }

    /// Waits until so many bytes may be taken. They have come already; who waits reads no more,
    /// and so the sender waits too.
    pub(crate) async fn take(&self, bytes: usize) {
        let Some(limited) = &self.0 else {
            return;
        };
        let Some(rate) = limited.bandwidth.at(Zoned::now().time()) else {
            return;
        };
        let due = limited.due(bytes, rate, Instant::now());
        tokio::time::sleep_until(due.checked_sub(BURST).unwrap_or(due)).await;
    }
}

impl Limited {
    /// When so many more bytes are paid for.
    fn due(&self, bytes: usize, rate: u64, now: Instant) -> Instant {
        #[expect(clippy::cast_precision_loss, reason = "a time, not a count")]
        let price = Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
        let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody saves up for later.
        *paid = (*paid).max(now) + price;
        *paid
    }
}

impl FromStr for BandwidthWindow {
    type Err = InvalidWindow;

    /// With a rate in plain bytes a second, or `none`.
    fn from_str(text: &str) -> Result<Self, InvalidWindow> {
        Self::parse(text, |rate| match rate {
            "none" => Some(None),
            rate => rate.parse().ok().map(Some),
        })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use jiff::civil::time;
    use tokio::time::Instant;

    use crate::pull::fetch::pace::{Bandwidth, BandwidthWindow, Limited};

    #[test]
    fn the_first_window_that_fits_counts_also_over_midnight() {
        let bandwidth = Bandwidth {
            rate: Some(1),
            windows: vec![
                "22:00-06:30=none".parse().unwrap(),
                "06:00-12:00=5".parse().unwrap(),
            ],
        };
        let at = |hour, minute| bandwidth.at(time(hour, minute, 0, 0));
        assert_eq!(at(23, 0), None);
        assert_eq!(at(6, 29), None);
        assert_eq!(at(6, 30), Some(5));
        assert_eq!(at(12, 0), Some(1));
        for bad in ["", "8-9", "08:00-25:00=1", "08:00=1", "08:00-09:00=x"] {
            assert!(bad.parse::<BandwidthWindow>().is_err(), "{bad}");
        }
    }

    #[test]
    fn bytes_take_the_time_that_the_rate_says_and_idle_time_buys_nothing() {
        let now = Instant::now();
        let limited = Limited {
            bandwidth: Bandwidth::default(),
            paid: Mutex::new(now),
        };
        let later = now + Duration::from_secs(10);
        limited.due(500, 1000, later);
        let due = limited.due(1500, 1000, later);
        assert_eq!(due - later, Duration::from_secs(2));
    }
}
