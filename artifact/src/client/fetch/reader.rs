//! RangeReader: a range of a blob read to its end, over as many answers as it takes.

use std::ops::Range;

use backon::ExponentialBackoff;
use bytes::Bytes;

use crate::client::error::Error;
use crate::client::fetch::body::Body;
use crate::client::fetch::{BlobSource, Mode};

/// Bytes after which the count of failures starts anew; so it does after a quarter of what was
/// asked for.
const PROGRESS_BYTES: u64 = 1024 * 1024;

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
    pub(super) fn new(source: BlobSource, range: Range<u64>, mode: Mode) -> Self {
        Self {
            delays: source.retry.delays(),
            position: range.start,
            end: range.end.min(source.size),
            source,
            mode,
            body: None,
            fresh: 0,
            enough: PROGRESS_BYTES,
        }
    }

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
            && body.is_read()
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
