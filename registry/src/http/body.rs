//! The body of a blob download: a range of a file, read in large pieces as the client takes them.
//!
//! What the page cache holds is read in place (`RWF_NOWAIT`), which is faster than any thread hop;
//! what it does not hold is read on a blocking thread, so that a slow disk stalls nobody else.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use rustix::io::{Errno, ReadWriteFlags};
use tokio::task::JoinHandle;

/// Bytes read at once from the page cache.
const CACHED_PIECE: usize = 256 * 1024;
/// Bytes read at once from the disk: larger, to make the hop to another thread worth it.
const DISK_PIECE: usize = 1024 * 1024;

/// A range of a file as an HTTP body.
#[derive(Debug)]
pub(crate) struct FileBody {
    file: Arc<File>,
    at: u64,
    end: u64,
    reading: Option<JoinHandle<io::Result<Vec<u8>>>>,
}

impl FileBody {
    /// The bytes from `at` up to `end`, which the file must have.
    pub(crate) fn new(file: File, at: u64, end: u64) -> Self {
        Self {
            file: Arc::new(file),
            at,
            end,
            reading: None,
        }
    }

    fn piece(&self, most: usize) -> usize {
        usize::try_from(self.end - self.at).map_or(most, |left| left.min(most))
    }

    /// The next piece, if the page cache has it.
    fn read_cached(&self) -> Option<io::Result<Vec<u8>>> {
        let mut buffer = vec![0; self.piece(CACHED_PIECE)];
        let mut slices = [IoSliceMut::new(&mut buffer)];
        let read = rustix::io::preadv2(&self.file, &mut slices, self.at, ReadWriteFlags::NOWAIT);
        match read {
            Ok(count) => {
                buffer.truncate(count);
                Some(Ok(buffer))
            }
            // Not cached, or a file system that cannot tell.
            Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => None,
            Err(error) => Some(Err(error.into())),
        }
    }

    fn start_reading(&mut self) -> &mut JoinHandle<io::Result<Vec<u8>>> {
        let file = Arc::clone(&self.file);
        let (at, length) = (self.at, self.piece(DISK_PIECE));
        self.reading.insert(tokio::task::spawn_blocking(move || {
            let mut buffer = vec![0; length];
            let count = file.read_at(&mut buffer, at)?;
            buffer.truncate(count);
            Ok(buffer)
        }))
    }

    fn advance(&mut self, buffer: Vec<u8>) -> Option<io::Result<Frame<Bytes>>> {
        if buffer.is_empty() {
            // Ending early would pass for a short blob; an error cuts the connection instead.
            self.at = self.end;
            return Some(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        self.at += buffer.len() as u64;
        Some(Ok(Frame::data(buffer.into())))
    }
}

impl http_body::Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let body = self.get_mut();
        if body.at >= body.end {
            return Poll::Ready(None);
        }
        let reading = match &mut body.reading {
            Some(reading) => reading,
            None => match body.read_cached() {
                Some(Ok(buffer)) => return Poll::Ready(body.advance(buffer)),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => body.start_reading(),
            },
        };
        let read = ready!(Pin::new(reading).poll(context));
        body.reading = None;
        Poll::Ready(match read {
            Ok(Ok(buffer)) => body.advance(buffer),
            Ok(Err(error)) => Some(Err(error)),
            Err(error) => Some(Err(io::Error::other(error))),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.at >= self.end
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.end - self.at)
    }
}
