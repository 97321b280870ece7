//! The body of a blob download: a range of a file, read in large pieces as the client takes them.
//!
//! What the page cache holds is read in place (`RWF_NOWAIT`), which is faster than any thread hop;
//! what it does not hold is read on a blocking thread, so that a slow disk stalls nobody else, the
//! next piece being read while one is sent; as soon as the cache has what comes next, it is read in
//! place again. The first pass over a blob goes around the page cache:
//! many blobs are pulled once per registry, and are larger than memory. Who reads a second time
//! fills the cache.

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

/// Bytes read at once. A connection holds up to two pieces that it is sending, and one read ahead.
const PIECE: usize = 256 * 1024;
/// What `O_DIRECT` may want of addresses, offsets and lengths.
const ALIGNMENT: usize = 4096;

/// A range of a file as an HTTP body.
#[derive(Debug)]
pub(crate) struct FileBody {
    file: Arc<File>,
    /// The same file, opened to go around the page cache.
    direct: Option<Arc<File>>,
    at: u64,
    end: u64,
    spare: Arc<Spare>,
    reading: Option<JoinHandle<io::Result<Piece>>>,
}

/// Buffers that have been sent. Using them again saves clearing fresh memory for every piece,
/// and there are never more of them than a connection has in flight.
#[derive(Debug, Default)]
struct Spare(Mutex<Vec<Vec<u8>>>);

/// Part of a buffer, which goes back when it has been sent.
#[derive(Debug)]
struct Piece {
    buffer: Vec<u8>,
    begin: usize,
    length: usize,
    spare: Arc<Spare>,
}

impl Piece {
    /// `length` bytes, whatever they are, from a sent buffer or a new one.
    fn new(spare: &Arc<Spare>, length: usize) -> Self {
        let mut buffers = spare.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut buffer = buffers.pop().unwrap_or_default();
        drop(buffers);
        if buffer.len() < length {
            buffer.resize(length, 0);
        }
        Self {
            buffer,
            begin: 0,
            length,
            spare: Arc::clone(spare),
        }
    }

    fn read_cached(file: &File, spare: &Arc<Spare>, at: u64, length: usize) -> io::Result<Self> {
        let mut piece = Self::new(spare, length);
        let mut slices = [IoSliceMut::new(&mut piece.buffer[..length])];
        piece.length = rustix::io::preadv2(file, &mut slices, at, ReadWriteFlags::NOWAIT)?;
        Ok(piece)
    }

    fn read(file: &File, spare: &Arc<Spare>, at: u64, length: usize) -> io::Result<Self> {
        let mut piece = Self::new(spare, length);
        piece.length = file.read_at(&mut piece.buffer[..length], at)?;
        Ok(piece)
    }

    /// Reads the aligned stretch around the bytes wanted.
    fn read_direct(file: &File, spare: &Arc<Spare>, at: u64, length: usize) -> io::Result<Self> {
        let skip = usize::try_from(at % ALIGNMENT as u64).unwrap_or_default();
        let stretch = (skip + length).next_multiple_of(ALIGNMENT);
        let mut piece = Self::new(spare, stretch + ALIGNMENT);
        let begin = piece.buffer.as_ptr().align_offset(ALIGNMENT);
        let target = &mut piece.buffer[begin..begin + stretch];
        let count = file.read_at(target, at - skip as u64)?;
        piece.begin = begin + skip;
        piece.length = count.saturating_sub(skip).min(length);
        Ok(piece)
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[self.begin..self.begin + self.length]
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
    /// The bytes from `at` up to `end`, which the file must have; `direct` is the same file, if it
    /// is to be read around the page cache where that does not hold it.
    pub(crate) fn new(file: File, direct: Option<File>, at: u64, end: u64) -> Self {
        Self {
            file: Arc::new(file),
            direct: direct.map(Arc::new),
            at,
            end,
            spare: Arc::default(),
            reading: None,
        }
    }

    fn left(&self) -> usize {
        usize::try_from(self.end - self.at).unwrap_or(usize::MAX)
    }

    /// The next piece, if the page cache has it.
    fn read_cached(&self) -> Option<io::Result<Piece>> {
        let length = self.left().min(PIECE);
        let read = Piece::read_cached(&self.file, &self.spare, self.at, length);
        match &read {
            // Not cached, or a file system that cannot tell.
            Err(error)
                if matches!(
                    Errno::from_io_error(error),
                    Some(Errno::AGAIN | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS)
                ) =>
            {
                None
            }
            _ => Some(read),
        }
    }

    /// Whether the page cache has the next byte, so that reading it may be left for later.
    fn is_cached(&self) -> bool {
        let mut byte = [0];
        let mut slices = [IoSliceMut::new(&mut byte)];
        let read = rustix::io::preadv2(&self.file, &mut slices, self.at, ReadWriteFlags::NOWAIT);
        read == Ok(1)
    }

    fn start_reading(&mut self) -> &mut JoinHandle<io::Result<Piece>> {
        let file = Arc::clone(&self.file);
        let direct = self.direct.clone();
        let spare = Arc::clone(&self.spare);
        let at = self.at;
        // Up to the next multiple, so that only the first piece begins unaligned.
        let into = usize::try_from(at % PIECE as u64).unwrap_or_default();
        let length = self.left().min(PIECE - into);
        self.reading.insert(tokio::task::spawn_blocking(move || {
            if let Some(direct) = direct {
                match Piece::read_direct(&direct, &spare, at, length) {
                    // The file system wants more than we align for.
                    Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
                    read => return read,
                }
            }
            Piece::read(&file, &spare, at, length)
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
            Ok(Ok(piece)) => {
                let frame = body.advance(piece);
                if body.at < body.end && !body.is_cached() {
                    body.start_reading();
                }
                frame
            }
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
    use std::sync::Arc;

    use http_body_util::BodyExt;

    use crate::http::body::{FileBody, Piece};

    #[tokio::test]
    async fn a_range_of_a_file_comes_out_whole() {
        let content: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        for (start, end) in [(0, content.len()), (1, 2), (700_001, 5_000_003), (7, 7)] {
            for is_direct in [false, true] {
                let direct = is_direct.then(|| file.try_clone().unwrap());
                let copy = file.try_clone().unwrap();
                let body = FileBody::new(copy, direct, start as u64, end as u64);
                let bytes = body.collect().await.unwrap().to_bytes();
                assert!(bytes == content[start..end], "{start}..{end}");
            }
        }
    }

    #[test]
    fn pieces_read_around_the_cache_are_the_bytes_asked_for() {
        let content: Vec<u8> = (0..300_001_u32).flat_map(u32::to_le_bytes).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        let spare = Arc::default();
        for (at, length) in [
            (0, 4096),
            (1, 1),
            (4095, 2),
            (700_001, 300_000),
            (1_199_990, 14),
        ] {
            let piece = Piece::read_direct(&file, &spare, at as u64, length).unwrap();
            assert!(piece.as_ref() == &content[at..at + length], "{at} {length}");
        }
    }

    #[tokio::test]
    async fn a_file_that_is_too_short_is_an_error_not_a_short_body() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"short").unwrap();
        assert!(FileBody::new(file, None, 0, 100).collect().await.is_err());
    }
}
