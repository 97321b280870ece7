//! A blob on its way to the disk: a file of its full size whose chunks come in any order, a map of
//! those that are here, and the [`pipeline`] that writes, hashes and syncs them.
//!
//! Nothing here is visible as a blob. Whoever owns the files makes them so, once the digest of the
//! bytes on disk was found right.

mod map;
pub mod pipeline;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use crate::digest::Digest;
use map::ChunkRecord;
pub use map::ChunkState;
pub use pipeline::{Error, Pipeline, Progress, Sink};

/// Above this size chunks are larger, so that their count stays small.
const LARGE_BLOB_BYTES: u64 = 16 << 30;
const CHUNK_BYTES: u64 = 4 << 20;
const LARGE_CHUNK_BYTES: u64 = 16 << 20;

/// What the disk failed to do; whoever knows the path says which file.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} a blob on its way in")]
pub struct Fault {
    /// What was attempted, such as `write`.
    pub action: &'static str,
    /// Why it failed.
    #[source]
    pub source: io::Error,
}

fn fault(action: &'static str) -> impl FnOnce(io::Error) -> Fault {
    move |source| Fault { action, source }
}

/// The file and the map of a blob that is being written.
#[derive(Debug)]
pub struct PartFile {
    digest: Digest,
    size: u64,
    file: File,
    record: ChunkRecord,
}

impl PartFile {
    /// Goes on with what an earlier run left in `part` and `map`, both open for reading and
    /// writing. Nothing when they are not of a blob of `size` bytes: then start anew.
    ///
    /// # Errors
    /// When the files cannot be read.
    pub fn resume(
        digest: Digest,
        size: u64,
        part: File,
        map: File,
    ) -> Result<Option<(Self, Vec<ChunkState>)>, Fault> {
        if part.metadata().map_err(fault("look at"))?.len() != size {
            return Ok(None);
        }
        let found = ChunkRecord::read(map, size).map_err(fault("read the map of"))?;
        Ok(found.map(|(record, states)| {
            let part = Self {
                digest,
                size,
                file: part,
                record,
            };
            (part, states)
        }))
    }

    /// Starts in two empty files. The disk space for all of the blob is taken here, so that a full
    /// disk shows before the first byte.
    ///
    /// # Errors
    /// When there is no room, or the files cannot be written.
    pub fn create(digest: Digest, size: u64, part: File, map: File) -> Result<Self, Fault> {
        reserve(&part, size).map_err(fault("make room for"))?;
        let chunk_bytes = if size > LARGE_BLOB_BYTES {
            LARGE_CHUNK_BYTES
        } else {
            CHUNK_BYTES
        };
        let record =
            ChunkRecord::create(map, size, chunk_bytes).map_err(fault("write the map of"))?;
        Ok(Self {
            digest,
            size,
            file: part,
            record,
        })
    }

    /// What the bytes should hash to.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Bytes of the whole blob.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The file itself, for whoever makes it visible.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Bytes of a chunk; the last one may be shorter.
    #[must_use]
    pub fn chunk_bytes(&self) -> u64 {
        self.record.chunk_bytes()
    }

    /// How many chunks there are.
    #[must_use]
    pub fn chunk_count(&self) -> usize {
        usize::try_from(self.size.div_ceil(self.chunk_bytes())).unwrap_or(usize::MAX)
    }

    /// The bytes of a chunk.
    #[must_use]
    pub fn chunk_range(&self, chunk: usize) -> Range<u64> {
        let start = (chunk as u64).saturating_mul(self.chunk_bytes());
        start..start.saturating_add(self.chunk_bytes()).min(self.size)
    }

    /// The chunk that holds a byte.
    #[must_use]
    pub fn chunk_of(&self, offset: u64) -> usize {
        usize::try_from(offset / self.chunk_bytes()).unwrap_or(usize::MAX)
    }

    /// Bytes of the chunks that are here.
    #[must_use]
    pub fn present_bytes(&self, states: &[ChunkState]) -> u64 {
        let here = states
            .iter()
            .enumerate()
            .filter(|(_, state)| **state != ChunkState::Absent);
        here.map(|(chunk, _)| {
            let range = self.chunk_range(chunk);
            range.end - range.start
        })
        .sum()
    }

    /// Reads bytes back.
    ///
    /// # Errors
    /// When the disk fails, or the bytes lie beyond the end.
    pub fn read_at(&self, offset: u64, bytes: &mut [u8]) -> Result<(), Fault> {
        self.file
            .read_exact_at(bytes, offset)
            .map_err(fault("read back"))
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), Fault> {
        self.file
            .write_all_at(bytes, offset)
            .map_err(fault("write"))
    }

    fn mark(&self, chunk: usize, state: ChunkState) -> Result<(), Fault> {
        self.record
            .mark(chunk, state)
            .map_err(fault("write the map of"))
    }

    fn sync_data(&self) -> Result<(), Fault> {
        self.file.sync_data().map_err(fault("sync"))
    }

    fn sync_map(&self) -> Result<(), Fault> {
        self.record.sync().map_err(fault("sync the map of"))
    }
}

/// Takes the disk space, where the file system can; else only sets the length.
fn reserve(file: &File, size: u64) -> io::Result<()> {
    if size > 0 {
        match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, size) {
            Ok(()) => return Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
            Err(error) => return Err(error.into()),
        }
    }
    file.set_len(size)
}
