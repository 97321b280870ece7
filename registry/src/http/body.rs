//! The body of a blob download: a range of a file, read in large pieces as the client takes them.
//!
//! What the page cache holds is read in place (`RWF_NOWAIT`), which is faster than any thread hop;
//! what it does not hold is read on a blocking thread, so that a slow disk stalls nobody else.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
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
    spare: Arc<Spare>,
    reading: Option<JoinHandle<io::Result<Piece>>>,
}

/// Buffers that have been sent. Using them again saves clearing fresh memory for every piece,
/// and there are never more of them than a connection has in flight.
#[derive(Debug, Default)]
struct Spare(Mutex<Vec<Vec<u8>>>);

impl Spare {
    /// A buffer of at least `length` bytes, whatever they are.
    fn take(&self, length: usize) -> Vec<u8> {
        let mut buffers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut buffer = buffers.pop().unwrap_or_default();
        drop(buffers);
        if buffer.len() < length {
            buffer.resize(length, 0);
        }
        buffer
    }
}

/// The first `length` bytes of a buffer, which goes back when they have been sent.
#[derive(Debug)]
struct Piece {
    buffer: Vec<u8>,
    length: usize,
    spare: Arc<Spare>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.length]
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        let mut buffers = self.spare.0.lock().unwrap_or_else(PoisonError::into_inner);
        buffers.push(buffer);
    }
}

impl FileBody {
    /// The bytes from `at` up to `end`, which the file must have.
    pub(crate) fn new(file: File, at: u64, end: u64) -> Self {
        Self {
            file: Arc::new(file),
            at,
            end,
            spare: Arc::default(),
            reading: None,
        }
    }

    fn piece_length(&self, most: usize) -> usize {
        usize::try_from(self.end - self.at).map_or(most, |left| left.min(most))
    }

    /// The next piece, if the page cache has it.
    fn read_cached(&self) -> Option<io::Result<Piece>> {
        let mut piece = Piece {
            length: self.piece_length(CACHED_PIECE),
            buffer: self.spare.take(CACHED_PIECE),
            spare: Arc::clone(&self.spare),
        };
        let mut slices = [IoSliceMut::new(&mut piece.buffer[..piece.length])];
        let read = rustix::io::preadv2(&self.file, &mut slices, self.at, ReadWriteFlags::NOWAIT);
        match read {
            Ok(count) => {
                piece.length = count;
                Some(Ok(piece))
            }
            // Not cached, or a file system that cannot tell.
            Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => None,
            Err(error) => Some(Err(error.into())),
        }
    }

    fn start_reading(&mut self) -> &mut JoinHandle<io::Result<Piece>> {
        let file = Arc::clone(&self.file);
        let spare = Arc::clone(&self.spare);
        let (at, length) = (self.at, self.piece_length(DISK_PIECE));
        self.reading.insert(tokio::task::spawn_blocking(move || {
            let mut piece = Piece {
                buffer: spare.take(length),
                length,
                spare,
            };
            piece.length = file.read_at(&mut piece.buffer[..length], at)?;
            Ok(piece)
        }))
    }

    fn advance(&mut self, piece: Piece) -> Option<io::Result<Frame<Bytes>>> {
        if piece.length == 0 {
            // Ending early would pass for a short blob; an error cuts the connection instead.
            self.at = self.end;
            return Some(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        self.at += piece.length as u64;
        Some(Ok(Frame::data(Bytes::from_owner(piece))))
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
                Some(Ok(piece)) => return Poll::Ready(body.advance(piece)),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => body.start_reading(),
            },
        };
        let read = ready!(Pin::new(reading).poll(context));
        body.reading = None;
        Poll::Ready(match read {
            Ok(Ok(piece)) => body.advance(piece),
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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use std::io::Write;

    use http_body_util::BodyExt;

    use crate::http::body::FileBody;

    #[tokio::test]
    async fn a_range_of_a_file_comes_out_whole() {
        let content: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        for (start, end) in [(0, content.len()), (1, 2), (700_001, 5_000_003), (7, 7)] {
            let copy = file.try_clone().unwrap();
            let body = FileBody::new(copy, start as u64, end as u64);
            let bytes = body.collect().await.unwrap().to_bytes();
            assert!(bytes == content[start..end], "{start}..{end}");
        }
    }

    #[tokio::test]
    async fn a_file_that_is_too_short_is_an_error_not_a_short_body() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"short").unwrap();
        assert!(FileBody::new(file, 0, 100).collect().await.is_err());
    }
}
