//! The head of an HTTP/1.1 request, as far as the origin needs it.

use std::ops::Range;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::TcpStream;

/// Longest head that is read, in lines.
const MAX_LINES: usize = 100;

/// One request without its body.
#[derive(Debug, Default)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) authorization: Option<String>,
    range: Option<String>,
}

impl Request {
    /// The next request on a connection, or nothing when the client has closed it.
    pub(super) async fn read(stream: &mut BufReader<TcpStream>) -> std::io::Result<Option<Self>> {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(None);
        }
        let mut words = line.split_whitespace();
        let mut request = Self {
            method: words.next().unwrap_or_default().to_owned(),
            path: words.next().unwrap_or_default().to_owned(),
            ..Self::default()
        };
        let mut length = 0;
        for _ in 0..MAX_LINES {
            let mut line = String::new();
            stream.read_line(&mut line).await?;
            let Some((name, value)) = line.trim_end().split_once(':') else {
                break;
            };
            match name.to_ascii_lowercase().as_str() {
                "range" => request.range = Some(value.trim().to_owned()),
                "authorization" => request.authorization = Some(value.trim().to_owned()),
                "content-length" => length = value.trim().parse().unwrap_or(0),
                _ => {}
            }
        }
        // Nothing here takes a body; one that comes is not the next request.
        tokio::io::copy(&mut stream.take(length), &mut tokio::io::sink()).await?;
        Ok(Some(request))
    }

    /// The range asked for in a body of `length` bytes; nothing without a range.
    pub(super) fn range(&self, length: u64) -> Option<Range<u64>> {
        let (first, last) = self
            .range
            .as_deref()?
            .strip_prefix("bytes=")?
            .split_once('-')?;
        let first: u64 = first.parse().ok()?;
        let end = last
            .parse::<u64>()
            .map_or(length, |last| last.saturating_add(1));
        Some(first..end.min(length)).filter(|range| range.start < range.end)
    }
}
