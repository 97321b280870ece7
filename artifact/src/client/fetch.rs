//! The download of a blob: ranged GETs that are checked against what was asked for, and a reader
//! that goes on after a broken connection.
//!
//! Nothing here verifies a digest: the caller hashes what it receives.

use std::ops::Range;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use bytes::Bytes;
use reqwest::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use reqwest::{Response, StatusCode};
use tokio::time::{Instant, timeout_at};

use crate::client::error::Error;
use crate::client::registry::{Operation, RegistryClient, header_number, shown};
use crate::digest::Digest;

/// Fewest bytes in the time of a stall that count as alive: less is as good as nothing.
const MIN_BYTES_PER_STALL: u64 = 16 * 1024;
/// Bytes after which the count of failures starts anew; so it does after a quarter of what was
/// asked for.
const PROGRESS_BYTES: u64 = 1024 * 1024;

/// How often a request is tried again when nothing comes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Tries without progress before the error is final. Default 6.
    pub attempts: usize,
    /// Wait before the second try; it doubles from there. Default 200 ms.
    pub first_delay: Duration,
    /// Longest wait. Default 10 s.
    pub max_delay: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 6,
            first_delay: Duration::from_millis(200),
            max_delay: Duration::from_secs(10),
        }
    }
}

impl RetryPolicy {
    /// The waits between the tries, with jitter.
    #[must_use]
    pub fn delays(&self) -> ExponentialBackoff {
        ExponentialBuilder::default()
            .with_min_delay(self.first_delay)
            .with_max_delay(self.max_delay)
            .with_max_times(self.attempts.saturating_sub(1))
            .with_jitter()
            .build()
    }
}

/// Whether a source is asked for ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Ranges: the answer must be a 206 for the bytes asked for.
    Ranges,
    /// No `Range` header: the whole blob each time, its beginning thrown away where it is known.
    Whole,
}

/// One blob at one registry.
#[derive(Clone, Debug)]
pub struct BlobSource {
    registry: RegistryClient,
    digest: Digest,
    size: u64,
    retry: RetryPolicy,
}

impl BlobSource {
    /// The blob `digest` of `size` bytes in the repository of `registry`.
    #[must_use]
    pub fn new(registry: RegistryClient, digest: Digest, size: u64, retry: RetryPolicy) -> Self {
        Self {
            registry,
            digest,
            size,
            retry,
        }
    }

    /// Its digest.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Its size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// A reader of some of its bytes that goes on after failures.
    #[must_use]
    pub fn reader(&self, range: Range<u64>, mode: Mode) -> RangeReader {
        RangeReader {
            delays: self.retry.delays(),
            source: self.clone(),
            position: range.start,
            end: range.end.min(self.size),
            mode,
            body: None,
            enough: PROGRESS_BYTES,
            fresh: 0,
        }
    }

    /// One try at getting the bytes of `range`. In [`Mode::Ranges`] a source that answers with the
    /// whole blob gives [`Error::RangesIgnored`], unless the whole blob was asked for.
    ///
    /// # Errors
    /// Those of any request, and those of an answer that is about something else.
    async fn open(&self, range: Range<u64>, mode: Mode) -> Result<Body, Error> {
        let url = self.registry.url(&format!("blobs/{}", self.digest))?;
        let header = format!("bytes={}-{}", range.start, range.end.saturating_sub(1));
        let build = || {
            let request = self
                .registry
                .request(reqwest::Method::GET, url.clone())
                .header(ACCEPT_ENCODING, "identity");
            match mode {
                Mode::Ranges => request.header(RANGE, &header),
                Mode::Whole => request,
            }
        };
        let stall = self.registry.transport().timeouts().stall;
        let answer = tokio::time::timeout(stall, self.registry.send(Operation::Pull, build))
            .await
            .map_err(|_| Error::Stalled {
                url: shown(&url),
                waited: stall,
            })??;
        self.check(answer, &range, stall).await
    }

    /// Checks the head of an answer before a byte of it is used.
    async fn check(
        &self,
        answer: Response,
        range: &Range<u64>,
        stall: Duration,
    ) -> Result<Body, Error> {
        let url = shown(answer.url());
        let span = match answer.status() {
            StatusCode::OK => 0..self.size,
            StatusCode::PARTIAL_CONTENT => self.partial(&answer, range)?,
            StatusCode::NOT_FOUND => {
                return Err(Error::BlobUnknown {
                    digest: self.digest,
                    url,
                });
            }
            _ => return Err(self.registry.fault(answer).await),
        };
        let encoding = answer.headers().get(CONTENT_ENCODING);
        if let Some(encoding) = encoding.filter(|value| *value != "identity") {
            return Err(Error::Header {
                url,
                header: "Content-Encoding",
                value: String::from_utf8_lossy(encoding.as_bytes())
                    .chars()
                    .take(100)
                    .collect(),
            });
        }
        let expected = span.end - span.start;
        if let Some(announced) = header_number(answer.headers(), "content-length")
            && announced != expected
        {
            return Err(Error::WrongSize {
                url,
                announced,
                expected,
            });
        }
        // A part of the blob was wanted and all of it would come: the caller decides.
        let is_whole = answer.status() == StatusCode::OK;
        Ok(Body {
            answer,
            url,
            position: span.start,
            end: span.end,
            is_whole,
            stall,
            window: Window::open(stall),
        })
    }

    /// The span of a 206, which must begin where it was asked to and stay inside.
    fn partial(&self, answer: &Response, range: &Range<u64>) -> Result<Range<u64>, Error> {
        let text = |name| {
            let value = answer.headers().get(name);
            value.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let content_type = text(CONTENT_TYPE).unwrap_or_default();
        let got = text(CONTENT_RANGE).unwrap_or_default();
        let wrong = || Error::WrongRange {
            url: shown(answer.url()),
            asked: range.start,
            got: if content_type.starts_with("multipart/") {
                content_type.clone()
            } else {
                got.chars().take(100).collect()
            },
        };
        if content_type.starts_with("multipart/") {
            return Err(wrong());
        }
        let (span, total) = parse_content_range(&got).ok_or_else(wrong)?;
        if let Some(announced) = total.filter(|total| *total != self.size) {
            return Err(Error::WrongSize {
                url: shown(answer.url()),
                announced,
                expected: self.size,
            });
        }
        if span.start != range.start || span.end > range.end {
            return Err(wrong());
        }
        Ok(span)
    }
}

/// `bytes 0-9/100` or `bytes 0-9/*` as a half-open range and the total.
fn parse_content_range(text: &str) -> Option<(Range<u64>, Option<u64>)> {
    let (span, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = span.split_once('-')?;
    let (first, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    let end = last.checked_add(1).filter(|end| *end > first)?;
    let total = match total.trim() {
        "*" => None,
        total => Some(total.parse().ok()?),
    };
    Some((first..end, total))
}

/// The body of one answer.
#[derive(Debug)]
struct Body {
    answer: Response,
    url: String,
    position: u64,
    end: u64,
    is_whole: bool,
    stall: Duration,
    window: Window,
}

/// How much came since when: what tells a stalled body from a slow one.
#[derive(Clone, Copy, Debug)]
struct Window {
    until: Instant,
    bytes: u64,
}

impl Window {
    fn open(stall: Duration) -> Self {
        Self {
            until: Instant::now() + stall,
            bytes: 0,
        }
    }
}

impl Body {
    /// The next bytes and where they belong, or nothing at the end.
    async fn next(&mut self) -> Result<Option<(u64, Bytes)>, Error> {
        let stalled = || Error::Stalled {
            url: self.url.clone(),
            waited: self.stall,
        };
        let chunk = match timeout_at(self.window.until, self.answer.chunk()).await {
            Ok(chunk) => chunk.map_err(|source| Error::Transport {
                url: self.url.clone(),
                source: source.without_url(),
            })?,
            Err(_) => return Err(stalled()),
        };
        let Some(chunk) = chunk else {
            let missing = self.end - self.position;
            if missing > 0 {
                return Err(Error::Truncated {
                    url: self.url.clone(),
                    missing,
                });
            }
            return Ok(None);
        };
        self.window.bytes += chunk.len() as u64;
        if self.window.bytes >= MIN_BYTES_PER_STALL {
            self.window = Window::open(self.stall);
        }
        let offset = self.position;
        self.position += chunk.len() as u64;
        if self.position > self.end {
            return Err(Error::TooLong {
                url: self.url.clone(),
                limit: self.end,
            });
        }
        Ok(Some((offset, chunk)))
    }
}

/// Reads a range of a blob to its end, over as many answers as it takes.
#[derive(Debug)]
pub struct RangeReader {
    source: BlobSource,
    position: u64,
    end: u64,
    mode: Mode,
    body: Option<Body>,
    delays: ExponentialBackoff,
    /// Bytes since the last failure.
    fresh: u64,
    /// Bytes that count as progress.
    enough: u64,
}

impl RangeReader {
    /// The next bytes and where in the blob they belong, or nothing at the end of the range.
    ///
    /// # Errors
    /// The last failure once the tries are used up, or the first one that another try cannot
    /// cure. [`Error::RangesIgnored`] when the source does not do ranges.
    pub async fn next(&mut self) -> Result<Option<(u64, Bytes)>, Error> {
        while self.position < self.end {
            match self.step().await {
                Ok(Some((offset, bytes))) => return Ok(Some((offset, bytes))),
                Ok(None) => {}
                Err(error) => {
                    self.body = None;
                    self.wait_after(error).await?;
                }
            }
        }
        // An answer that was read to its end leaves its connection to the next one.
        if let Some(mut body) = self.body.take()
            && body.position == body.end
        {
            let _ = body.next().await;
        }
        Ok(None)
    }

    /// Where the next bytes belong.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    async fn step(&mut self) -> Result<Option<(u64, Bytes)>, Error> {
        let mut body = match self.body.take() {
            Some(body) => body,
            None => self.open().await?,
        };
        let Some((offset, bytes)) = body.next().await? else {
            return Ok(None);
        };
        self.body = Some(body);
        let end = offset + bytes.len() as u64;
        if end <= self.position {
            return Ok(None);
        }
        // Of a whole blob, the part that is here already is dropped; so is what follows the range.
        let skip = usize::try_from(self.position - offset).unwrap_or(usize::MAX);
        let keep = usize::try_from(self.end.min(end) - offset).unwrap_or(usize::MAX);
        let bytes = bytes.slice(skip.min(bytes.len())..keep.min(bytes.len()));
        let at = self.position;
        self.position += bytes.len() as u64;
        self.fresh += bytes.len() as u64;
        if self.fresh >= self.enough {
            self.fresh = 0;
            self.delays = self.source.retry.delays();
        }
        Ok(Some((at, bytes)))
    }

    async fn open(&mut self) -> Result<Body, Error> {
        self.enough = (self.end - self.position).div_ceil(4).min(PROGRESS_BYTES);
        let body = self.source.open(self.position..self.end, self.mode).await?;
        let wanted_whole = self.position == 0 && self.end == self.source.size;
        if body.is_whole && self.mode == Mode::Ranges && !wanted_whole {
            return Err(Error::RangesIgnored { url: body.url });
        }
        Ok(body)
    }

    async fn wait_after(&mut self, error: Error) -> Result<(), Error> {
        if !error.is_retryable() {
            return Err(error);
        }
        let Some(delay) = self.delays.next() else {
            return Err(error);
        };
        let delay = error.retry_after().map_or(delay, |asked| asked.max(delay));
        tracing::debug!(
            blob.digest = %self.source.digest,
            position = self.position,
            delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
            error = %error,
            "the download goes on after a failure",
        );
        self.fresh = 0;
        tokio::time::sleep(delay).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::client::fetch::parse_content_range;

    #[test]
    fn content_ranges_are_read_strictly() {
        assert_eq!(
            parse_content_range("bytes 0-9/100"),
            Some((0..10, Some(100)))
        );
        assert_eq!(parse_content_range("bytes 5-5/*"), Some((5..6, None)));
        for bad in [
            "",
            "bytes",
            "bytes 9-0/100",
            "bytes */100",
            "items 0-9/100",
            "bytes 0-18446744073709551615/5",
            "bytes -5/10",
        ] {
            assert_eq!(parse_content_range(bad), None, "{bad}");
        }
    }
}
