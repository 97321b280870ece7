//! Sizes, times and switches as people write them.

use std::time::Duration;

use bytesize::ByteSize;
use jiff::{Span, SpanRelativeTo};
use registry::Secret;
use url::Url;

/// A bound that can be left away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound<T> {
    /// `none`: there is no bound.
    None,
    /// The bound.
    At(T),
}

impl<T> From<Bound<T>> for Option<T> {
    fn from(bound: Bound<T>) -> Self {
        match bound {
            Bound::None => None,
            Bound::At(value) => Some(value),
        }
    }
}

/// `90s`, `1h 30m`, `7d`, `2w`. A day has 24 hours.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = |reason: &dyn std::fmt::Display| format!("{reason}; write it as 30s, 12h or 7d");
    let text = text.trim();
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let span: Span = text.parse().map_err(|_| wrong(&"this is not a time"))?;
    let time = span
        .to_duration(SpanRelativeTo::days_are_24_hours())
        .map_err(|_| wrong(&"months and years have no fixed length"))?;
    Duration::try_from(time).map_err(|_| wrong(&"a time cannot be negative"))
}

/// [`duration`], of at least a millisecond: a period or a time-out of nothing would stop everything.
pub(crate) fn period(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        time if time < Duration::from_millis(1) => Err("it must be longer than nothing".to_owned()),
        time => Ok(time),
    }
}

/// [`period`], or `none`.
pub(crate) fn period_or_none(text: &str) -> Result<Bound<Duration>, String> {
    match text.trim() {
        "none" => Ok(Bound::None),
        text => period(text).map(Bound::At),
    }
}

/// `64KiB`, `400GiB`, `5TB`, or a number of bytes.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let size: Result<ByteSize, _> = text.trim().parse();
    size.map(|size| size.as_u64())
        .map_err(|_| "this is not a size; write it as 64KiB, 400GiB or 5TB".to_owned())
}

/// [`size`], or `none`.
pub(crate) fn size_or_none(text: &str) -> Result<Bound<u64>, String> {
    match text.trim() {
        "none" => Ok(Bound::None),
        text => size(text).map(Bound::At),
    }
}

/// `on` or `off`, and the other words for them.
pub(crate) fn switch(text: &str) -> Result<bool, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "on" | "true" | "yes" | "1" => Ok(true),
        "off" | "false" | "no" | "0" => Ok(false),
        _ => Err("write on or off".to_owned()),
    }
}

/// An address of the web.
pub(crate) fn web_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("{error}; write it as https://HOST"))?;
    match (url.scheme(), url.host_str()) {
        ("http" | "https", Some(_)) => Ok(url),
        _ => Err("write it as http://HOST or https://HOST".to_owned()),
    }
}

/// Text that no message may show. It is looked at where it is used: clap would repeat a value
/// that it refuses.
#[expect(
    clippy::unnecessary_wraps,
    reason = "clap's value parsers give results"
)]
pub(crate) fn secret(text: &str) -> Result<Secret, String> {
    Ok(Secret::new(text))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::args::values::{Bound, duration, period, period_or_none, size, size_or_none};

    #[test]
    fn times_are_read_as_people_write_them() {
        for (text, seconds) in [
            ("0", 0),
            ("30s", 30),
            ("1h 30m", 5400),
            ("1h30m", 5400),
            ("24h", 86_400),
            ("7d", 604_800),
            ("2w", 1_209_600),
            ("7 days", 604_800),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "soon", "7", "-1h", "1 month", "1y", "h"] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert!(period("0s").is_err());
        assert_eq!(period_or_none("none"), Ok(Bound::None));
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("17", 17),
            ("64KiB", 65_536),
            ("4GiB", 1 << 32),
            ("5TB", 5_000_000_000_000),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "-1", "big", "4 parsecs"] {
            assert!(size(text).is_err(), "{text}");
        }
        assert_eq!(size_or_none("none"), Ok(Bound::None));
    }
}
