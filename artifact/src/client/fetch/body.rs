//! Body: the bytes of one answer, counted against what it announced and against the clock.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use reqwest::Response;
use tokio::time::{Instant, timeout};

use crate::client::answer::shown;
use crate::client::error::Error;

/// Fewest bytes in the time of a stall that count as alive: less is as good as nothing.
const MIN_BYTES_PER_STALL: u64 = 16 * 1024;

/// The body of one answer.
#[derive(Debug)]
pub(super) struct Body {
    answer: Response,
    pub(super) url: String,
    position: u64,
    end: u64,
    /// Whether the answer is the whole blob, whatever was asked for.
    pub(super) is_whole: bool,
    stall: Duration,
    /// Time spent waiting, and bytes received, since the last time that these were enough.
    waited: Duration,
    received: u64,
}

impl Body {
    /// The body of `answer`, which is about the bytes of `span`.
    pub(super) fn new(answer: Response, span: Range<u64>, is_whole: bool, stall: Duration) -> Self {
        Self {
            url: shown(answer.url()),
            answer,
            position: span.start,
            end: span.end,
            is_whole,
            stall,
            waited: Duration::ZERO,
            received: 0,
        }
    }

    /// Whether all of it was read.
    pub(super) fn is_read(&self) -> bool {
        self.position == self.end
    }

    /// The next bytes and where they belong, or nothing at the end. Only the time that is spent
    /// waiting here counts as a stall: a slow disk is not the origin's fault.
    pub(super) async fn next(&mut self) -> Result<Option<(u64, Bytes)>, Error> {
        let began = Instant::now();
        let left = self.stall.saturating_sub(self.waited);
        let chunk = match timeout(left, self.answer.chunk()).await {
            Ok(chunk) => chunk.map_err(|source| Error::broken(&self.url, source))?,
            Err(_) => {
                return Err(Error::Stalled {
                    url: self.url.clone(),
                    waited: self.stall,
                });
            }
        };
        self.waited += began.elapsed();
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
        self.received += chunk.len() as u64;
        if self.received >= MIN_BYTES_PER_STALL {
            self.received = 0;
            self.waited = Duration::ZERO;
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
