//! Reading a fill: any range of it, as its bytes come.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};

use crate::error::Error;
use crate::mirror::fill::Fill;
use crate::store::RemoteContent;

/// Bytes that are read at a time.
const PIECE_BYTES: u64 = 1 << 20;
/// So much of the end is kept back until the whole was found right.
const HELD_BACK_BYTES: u64 = 64 << 10;
/// An answer begins after this time at the latest, with or without its first bytes: there are
/// clients and proxies that give up on a head that takes longer.
const HEAD_TIME: Duration = Duration::from_millis(800);

/// The content of a blob that is being filled.
#[derive(Debug)]
pub(crate) struct FillContent(pub(crate) Arc<Fill>);

impl RemoteContent for FillContent {
    fn read(
        self: Box<Self>,
        range: Range<u64>,
    ) -> BoxFuture<'static, Result<BoxStream<'static, Result<Bytes, Error>>, Error>> {
        async move {
            if range.is_empty() {
                return Ok(stream::empty().boxed());
            }
            let reader = Reader::new(self.0, range);
            // A fill that fails at once, as it does when no upstream answers or the blob is not let
            // in, is an error and not a body that is cut off.
            let ready = async {
                reader.fill.looked_at().await.map_err(Error::Shared)?;
                reader.ready().await
            };
            if let Ok(Err(error)) = tokio::time::timeout(HEAD_TIME, ready).await {
                return Err(error);
            }
            let pieces = stream::unfold(Some(reader), |reader| async move {
                let mut reader = reader?;
                match reader.next().await {
                    Ok(None) => None,
                    Ok(Some(piece)) => Some((Ok(piece), Some(reader))),
                    Err(error) => Some((Err(error), None)),
                }
            });
            Ok(pieces.boxed())
        }
        .boxed()
    }
}

/// One answer.
struct Reader {
    fill: Arc<Fill>,
    at: u64,
    end: u64,
}

impl Reader {
    fn new(fill: Arc<Fill>, range: Range<u64>) -> Self {
        fill.readers.fetch_add(1, Ordering::Relaxed);
        Self {
            at: range.start,
            end: range.end,
            fill,
        }
    }

    /// Waits until there is something to give.
    async fn ready(&self) -> Result<u64, Error> {
        let until = self.fill.readable(self.at).await.map_err(Error::Shared)?;
        let kept_back = self.fill.size().saturating_sub(HELD_BACK_BYTES);
        if until <= kept_back {
            return Ok(until);
        }
        if self.at < kept_back {
            return Ok(kept_back);
        }
        self.fill.ended().await.map_err(Error::Shared)?;
        Ok(until)
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        if self.at >= self.end {
            return Ok(None);
        }
        let until = self.ready().await?.min(self.end);
        let length = (until - self.at).min(PIECE_BYTES);
        let (fill, at) = (Arc::clone(&self.fill), self.at);
        let reading = tokio::task::spawn_blocking(move || fill.read(at..at + length));
        let piece = reading.await.map_err(Error::Task)??;
        self.at += length;
        Ok(Some(piece))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.fill.readers.fetch_sub(1, Ordering::Relaxed);
    }
}
