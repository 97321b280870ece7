//! Keep-alive: how long a model stays loaded after its last request, in Ollama's notation.

use std::time::Duration;

use serde_json::Value;

use crate::error::Error;

/// The longest that is counted; more is forever.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// How long a model stays loaded after its last request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeepAlive {
    /// This long; zero unloads at once.
    For(Duration),
    /// Until the runtime ends.
    Forever,
}

impl KeepAlive {
    /// Reads a number of seconds or a duration such as `"1h30m"`. Negative means forever.
    pub(crate) fn parse(value: &Value) -> Result<Option<Self>, Error> {
        let seconds = match value {
            Value::Null => return Ok(None),
            Value::Number(number) => number.as_f64().unwrap_or(f64::MAX),
            Value::String(text) => seconds(text).ok_or_else(|| {
                Error::invalid(format!("time: invalid duration {text:?} in keep_alive"))
            })?,
            Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
                return Err(Error::invalid(
                    "keep_alive must be a number of seconds or a duration such as \"5m\"",
                ));
            }
        };
        Ok(Some(Self::from_seconds(seconds)))
    }

    fn from_seconds(seconds: f64) -> Self {
        if seconds < 0.0 || seconds >= LONGEST.as_secs_f64() {
            return Self::Forever;
        }
        Duration::try_from_secs_f64(seconds).map_or(Self::Forever, Self::For)
    }
}

impl From<Duration> for KeepAlive {
    fn from(duration: Duration) -> Self {
        if duration >= LONGEST {
            Self::Forever
        } else {
            Self::For(duration)
        }
    }
}

/// A duration in Go's notation: numbers with units, as in `1h30m` or `-1s`; a bare number is
/// seconds.
fn seconds(text: &str) -> Option<f64> {
    let text = text.trim();
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest.is_empty() {
        return None;
    }
    if let Ok(bare) = rest.parse::<f64>()
        && bare.is_finite()
    {
        return Some(sign * bare);
    }
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest
            .find(|character: char| !character.is_ascii_digit() && character != '.')
            .filter(|digits| *digits > 0)?;
        let number: f64 = rest[..digits].parse().ok()?;
        let after = &rest[digits..];
        let end = after
            .find(|character: char| character.is_ascii_digit() || character == '.')
            .unwrap_or(after.len());
        let unit = match &after[..end] {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total += number * unit;
        rest = &after[end..];
    }
    Some(sign * total)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::KeepAlive;

    #[test]
    fn ollama_s_notations_are_read() {
        let seconds = |seconds| Some(KeepAlive::For(Duration::from_secs(seconds)));
        for (value, expected) in [
            (json!(null), None),
            (json!(0), seconds(0)),
            (json!(90), seconds(90)),
            (json!("5m"), seconds(300)),
            (json!("1h30m"), seconds(5400)),
            (json!("0"), seconds(0)),
            (
                json!("1500ms"),
                Some(KeepAlive::For(Duration::from_millis(1500))),
            ),
            (json!(-1), Some(KeepAlive::Forever)),
            (json!("-1s"), Some(KeepAlive::Forever)),
            (json!(1e300), Some(KeepAlive::Forever)),
        ] {
            assert_eq!(KeepAlive::parse(&value).unwrap(), expected, "{value}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for value in [
            json!("soon"),
            json!("5 m"),
            json!("m"),
            json!(""),
            json!(true),
            json!("1x"),
        ] {
            assert!(KeepAlive::parse(&value).is_err(), "{value}");
        }
    }
}
