//! The download of a blob: ranged GETs that are checked against what was asked for, and a reader
//! that goes on after a broken connection.
//!
//! Nothing here verifies a digest: the caller hashes what it receives.

mod body;
mod place;
mod reader;

use std::ops::Range;
use std::time::Duration;

use reqwest::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use reqwest::{Response, StatusCode};

use crate::client::answer::{content_type, header_number, shown};
use crate::client::error::Error;
use crate::client::registry::RegistryClient;
use crate::client::retry::RetryPolicy;
use crate::digest::Digest;
use body::Body;
use place::Place;
pub(crate) use place::WebFile;
pub use reader::RangeReader;

/// Whether a source is asked for ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Ranges: the answer must be a 206 for the bytes asked for.
    Ranges,
    /// No `Range` header: the whole blob each time, its beginning thrown away where it is known.
    Whole,
}

/// One blob at one place.
#[derive(Clone, Debug)]
pub struct BlobSource {
    place: Place,
    digest: Digest,
    size: u64,
    retry: RetryPolicy,
}

impl BlobSource {
    /// The blob `digest` of `size` bytes in the repository of `registry`.
    #[must_use]
    pub fn new(registry: RegistryClient, digest: Digest, size: u64, retry: RetryPolicy) -> Self {
        Self {
            place: registry.into(),
            digest,
            size,
            retry,
        }
    }

    /// The blob `digest` of `size` bytes that is this file.
    pub(crate) fn on_the_web(file: WebFile, digest: Digest, size: u64, retry: RetryPolicy) -> Self {
        Self {
            place: file.into(),
            digest,
            size,
            retry,
        }
    }

    /// The same, asked again as `retry` allows.
    #[must_use]
    pub fn with_retry(&self, retry: RetryPolicy) -> Self {
        Self {
            retry,
            ..self.clone()
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
        RangeReader::new(self.clone(), range, mode)
    }

    /// One try at getting the bytes of `range`. In [`Mode::Ranges`] a source that answers with the
    /// whole blob gives [`Error::RangesIgnored`], unless the whole blob was asked for.
    ///
    /// # Errors
    /// Those of any request, and those of an answer that is about something else.
    async fn open(&self, range: Range<u64>, mode: Mode) -> Result<Body, Error> {
        let header = format!("bytes={}-{}", range.start, range.end.saturating_sub(1));
        let with = |request: reqwest::RequestBuilder| {
            let request = request.header(ACCEPT_ENCODING, "identity");
            match mode {
                Mode::Ranges => request.header(RANGE, &header),
                Mode::Whole => request,
            }
        };
        let stall = self.place.stall();
        let answer = tokio::time::timeout(stall, self.place.get(&self.digest, with))
            .await
            .map_err(|_| Error::Stalled {
                url: format!("blob {}", self.digest),
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
            _ => return Err(self.place.fault(answer).await),
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
            if content_type(answer.headers()).is_some_and(|kind| kind == "text/html") {
                return Err(Error::WebPage { url });
            }
            return Err(Error::WrongSize {
                url,
                announced,
                expected,
            });
        }
        let is_whole = answer.status() == StatusCode::OK;
        Ok(Body::new(answer, span, is_whole, stall))
    }

    /// The span of a 206, which must begin where it was asked to and stay inside.
    fn partial(&self, answer: &Response, range: &Range<u64>) -> Result<Range<u64>, Error> {
        let text = |name| {
            let value = answer.headers().get(name);
            value.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let media_type = text(CONTENT_TYPE).unwrap_or_default();
        let got = text(CONTENT_RANGE).unwrap_or_default();
        let wrong = || Error::WrongRange {
            url: shown(answer.url()),
            asked: range.start,
            got: if media_type.starts_with("multipart/") {
                media_type.clone()
            } else {
                got.chars().take(100).collect()
            },
        };
        if media_type.starts_with("multipart/") {
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
