//! Reading the content of a blob out of the bucket: as it is taken, going on after a broken
//! connection, never more or fewer bytes than were asked for.

use std::ops::Range;
use std::time::Duration;

use artifact::Digest;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};

use crate::error::Error;
use crate::store::RemoteContent;
use crate::store::object::objects::Objects;

/// How often in a row a download may break off without a byte in between.
const FAILURES: u32 = 6;
/// The pause after the first failure; it doubles with each further one.
const PAUSE: Duration = Duration::from_millis(100);

type Pieces = BoxStream<'static, Result<Bytes, object_store::Error>>;

/// Content that lies in the pointer.
#[derive(Debug)]
pub(super) struct Inline(pub(super) Bytes);

impl RemoteContent for Inline {
    fn read(
        self: Box<Self>,
        range: Range<u64>,
    ) -> BoxFuture<'static, Result<BoxStream<'static, Result<Bytes, Error>>, Error>> {
        let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
        let (start, end) = (index(range.start), index(range.end));
        let part = match self.0.get(start..end) {
            Some(_) => Ok(self.0.slice(start..end)),
            None => Err(Error::ContentLength),
        };
        async move { Ok(stream::iter([Ok(part?)]).boxed()) }.boxed()
    }
}

/// Content under `data/`.
#[derive(Debug)]
pub(super) struct Data {
    pub(super) objects: Objects,
    pub(super) digest: Digest,
    pub(super) key: String,
    pub(super) size: u64,
}

impl RemoteContent for Data {
    fn read(
        self: Box<Self>,
        range: Range<u64>,
    ) -> BoxFuture<'static, Result<BoxStream<'static, Result<Bytes, Error>>, Error>> {
        async move {
            if range.is_empty() {
                return Ok(stream::empty().boxed());
            }
            let pieces = self.ask(&range).await?;
            let reading = Reading {
                data: *self,
                range,
                pieces: Some(pieces),
                failures: 0,
            };
            Ok(stream::try_unfold(reading, Reading::next).boxed())
        }
        .boxed()
    }
}

impl Data {
    async fn ask(&self, range: &Range<u64>) -> Result<Pieces, Error> {
        let asked = self.objects.get_range(&self.key, range.clone()).await?;
        let digest = self.digest;
        let found = asked.ok_or(Error::ContentGone { digest })?;
        if found.meta.size != self.size || found.range != *range {
            return Err(Error::ContentLength);
        }
        Ok(found.into_stream())
    }
}

/// A download on its way: `range` is what is still missing.
struct Reading {
    data: Data,
    range: Range<u64>,
    pieces: Option<Pieces>,
    failures: u32,
}

impl Reading {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, Error> {
        while !self.range.is_empty() {
            let Some(pieces) = &mut self.pieces else {
                self.ask_again().await?;
                continue;
            };
            match pieces.next().await {
                Some(Ok(piece)) if piece.is_empty() => {}
                Some(Ok(piece)) => {
                    self.range.start += piece.len() as u64;
                    self.failures = 0;
                    return Ok(Some((piece, self)));
                }
                ended => self.broke_off(ended.and_then(Result::err)).await?,
            }
        }
        Ok(None)
    }

    /// Asks for what is missing; one failure more or less, if that fails too.
    async fn ask_again(&mut self) -> Result<(), Error> {
        match self.data.ask(&self.range).await {
            Ok(pieces) => {
                self.pieces = Some(pieces);
                Ok(())
            }
            Err(Error::Object { source, .. }) => self.broke_off(Some(source)).await,
            Err(error) => Err(error),
        }
    }

    /// Waits a moment before the next try, or gives up. An early end without an error counts as
    /// one.
    async fn broke_off(&mut self, cause: Option<object_store::Error>) -> Result<(), Error> {
        self.pieces = None;
        self.failures += 1;
        if self.failures > FAILURES {
            return Err(match cause {
                Some(source) => Error::object("read", &self.data.key, source),
                None => Error::ContentLength,
            });
        }
        tracing::debug!(
            key = self.data.key,
            at = self.range.start,
            ?cause,
            "goes on reading"
        );
        tokio::time::sleep(PAUSE * 2_u32.pow(self.failures - 1)).await;
        Ok(())
    }
}
