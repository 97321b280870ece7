//! The whole content of an open blob as one stream, wherever it comes from.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};

use crate::error::Error;
use crate::store::{BlobContent, OpenBlob};

/// Bytes read at once.
const PIECE: u64 = 1024 * 1024;

impl OpenBlob {
    /// The content from its first byte to its last; content that is shorter is an error.
    pub(crate) async fn stream(self) -> Result<BoxStream<'static, Result<Bytes, Error>>, Error> {
        match self.content {
            BlobContent::File { file, .. } => Ok(pieces(file, self.size)),
            BlobContent::Remote(remote) => remote.read(0..self.size).await,
        }
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
