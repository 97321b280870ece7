//! The whole content of an open blob as one stream, wherever it comes from.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};

use crate::error::Error;
use crate::store::{BlobContent, OpenBlob, RemoteContent};

/// Bytes read at once.
const PIECE: u64 = 1024 * 1024;

impl OpenBlob {
    /// Content that is in memory.
    pub(crate) fn in_memory(content: Bytes) -> Self {
        Self {
            size: content.len() as u64,
            content: BlobContent::Remote(Box::new(InMemory(content))),
        }
    }

    /// The content from its first byte to its last; content that is shorter is an error.
    pub(crate) async fn stream(self) -> Result<BoxStream<'static, Result<Bytes, Error>>, Error> {
        self.stream_first(u64::MAX).await
    }

    /// The first `limit` bytes of the content, or all of it.
    pub(crate) async fn stream_first(
        self,
        limit: u64,
    ) -> Result<BoxStream<'static, Result<Bytes, Error>>, Error> {
        let end = self.size.min(limit);
        match self.content {
            BlobContent::File { file, .. } => Ok(pieces(file, end)),
            BlobContent::Remote(_) if end == 0 => Ok(stream::empty().boxed()),
            BlobContent::Remote(remote) => remote.read(0..end).await,
        }
    }
}

#[derive(Debug)]
struct InMemory(Bytes);

impl RemoteContent for InMemory {
    fn read(
        self: Box<Self>,
        range: Range<u64>,
    ) -> BoxFuture<'static, Result<BoxStream<'static, Result<Bytes, Error>>, Error>> {
        let at = |offset| usize::try_from(offset).unwrap_or(usize::MAX);
        let end = at(range.end).min(self.0.len());
        let piece = self.0.slice(at(range.start).min(end)..end);
        let pieces = stream::once(std::future::ready(Ok(piece))).boxed();
        Box::pin(std::future::ready(Ok(pieces)))
    }
}

fn pieces(file: File, size: u64) -> BoxStream<'static, Result<Bytes, Error>> {
    let file = Arc::new(file);
    let starts = (0..size).step_by(usize::try_from(PIECE).unwrap_or(usize::MAX));
    stream::iter(starts)
        .then(move |start| {
            let file = Arc::clone(&file);
            let length = PIECE.min(size - start);
            async move {
                tokio::task::spawn_blocking(move || read(&file, start, length))
                    .await
                    .map_err(Error::Task)?
            }
        })
        .boxed()
}

fn read(file: &File, start: u64, length: u64) -> Result<Bytes, Error> {
    let mut buffer = vec![0; usize::try_from(length).unwrap_or_default()];
    file.read_exact_at(&mut buffer, start)
        .map_err(Error::storage("read", "an open blob"))?;
    Ok(buffer.into())
}
