//! A request of HTTP/1.1, as far as the test servers need it.

use std::collections::HashMap;
use std::ops::Range;

use tokio::io::{AsyncBufReadExt, AsyncReadExt};

use super::Wire;

/// Longest head that is read, in lines.
const MAX_LINES: usize = 100;

/// Longest body that is read, in bytes.
const MAX_BODY: u64 = 1024 * 1024;

/// One request.
#[derive(Debug, Default)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Path and query, as they came.
    pub(crate) path: String,
    pub(crate) body: Vec<u8>,
    /// By their names in lower case.
    headers: HashMap<String, String>,
}

impl Request {
    /// The next request on a connection, or nothing when the client has closed it.
    pub(crate) async fn read(wire: &mut Wire) -> std::io::Result<Option<Self>> {
        let mut line = String::new();
        if wire.read_line(&mut line).await? == 0 {
            return Ok(None);
        }
        let mut words = line.split_whitespace();
        let mut request = Self {
            method: words.next().unwrap_or_default().to_owned(),
            path: words.next().unwrap_or_default().to_owned(),
            ..Self::default()
        };
        for _ in 0..MAX_LINES {
            let mut line = String::new();
            wire.read_line(&mut line).await?;
            let Some((name, value)) = line.trim_end().split_once(':') else {
                break;
            };
            let name = name.to_ascii_lowercase();
            request.headers.insert(name, value.trim().to_owned());
        }
        let length = request.header("content-length");
        let length: u64 = length.and_then(|text| text.parse().ok()).unwrap_or(0);
        let body = &mut request.body;
        wire.take(length.min(MAX_BODY)).read_to_end(body).await?;
        Ok(Some(request))
    }

    /// A header, by its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The path without the query.
    pub(crate) fn bare_path(&self) -> &str {
        self.path.split('?').next().unwrap_or_default()
    }

    /// A parameter of the query, as it came.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        let (_, query) = self.path.split_once('?')?;
        query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
    }

    pub(crate) fn is_head(&self) -> bool {
        self.method == "HEAD"
    }

    /// The range asked for in a body of `length` bytes; nothing without a range.
    pub(crate) fn range(&self, length: u64) -> Option<Range<u64>> {
        let (first, last) = self
            .header("range")?
            .strip_prefix("bytes=")?
            .split_once('-')?;
        let first: u64 = first.parse().ok()?;
        let end = last
            .parse::<u64>()
            .map_or(length, |last| last.saturating_add(1));
        Some(first..end.min(length)).filter(|range| range.start < range.end)
    }
}
