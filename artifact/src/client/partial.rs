//! A blob on its way to the disk: a file of its full size whose chunks come in any order, a map of
//! those that are here, and the [`pipeline`] that writes, hashes and syncs them.
//!
//! Nothing here is visible as a blob. Whoever owns the files makes them so, once the digest of the
//! bytes on disk was found right.

mod division;
mod map;
pub mod pipeline;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use crate::chunk_map::{ChunkHash, ChunkHasher};
use crate::digest::Digest;
pub use division::Division;
use map::ChunkRecord;
pub use map::ChunkState;
pub use pipeline::{Error, Finished, Pipeline, Progress, Settled, Sink};

/// Bytes that are hashed at a time: they stay in the processor's cache.
const HASH_BYTES: usize = 256 * 1024;
/// Bytes of a block: where source and target lie alike in blocks, a file system can share them.
const BLOCK_BYTES: u64 = 4096;

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
    file: File,
    division: Division,
    record: ChunkRecord,
}

impl PartFile {
    /// Goes on with what an earlier run left in `part` and `map`, both open for reading and
    /// writing, divided as it was. Nothing when they are not of that blob: then start anew.
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
        let found = ChunkRecord::read(map, &digest, size).map_err(fault("read the map of"))?;
        Ok(found.map(|(record, division, states)| {
            let part = Self {
                digest,
                file: part,
                division,
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
    pub fn create(
        digest: Digest,
        division: Division,
        part: File,
        map: File,
    ) -> Result<Self, Fault> {
        reserve(&part, division.size()).map_err(fault("make room for"))?;
        let absent = vec![ChunkState::Absent; division.count()];
        let record = ChunkRecord::create(map, &division, &absent);
        Ok(Self {
            digest,
            file: part,
            record: record.map_err(fault("write the map of"))?,
            division,
        })
    }

    /// Divides what is here in another way. A chunk of the new division is here when all its bytes
    /// were, and when they have its hash where that is known.
    ///
    /// # Errors
    /// When the files cannot be read or written.
    pub fn divide(
        self,
        states: &[ChunkState],
        division: Division,
    ) -> Result<(Self, Vec<ChunkState>), Fault> {
        if self.division == division {
            return Ok((self, states.to_vec()));
        }
        let mut new_states = Vec::with_capacity(division.count());
        for chunk in 0..division.count() {
            let range = division.range(chunk);
            let before = self.division.chunks_in(&range);
            let least = states.get(before).and_then(|states| states.iter().min());
            let mut state = least.copied().unwrap_or(ChunkState::Absent);
            if state != ChunkState::Absent
                && let Some(hash) = division.hash(chunk)
                && self.hash_of(range)? != hash
            {
                state = ChunkState::Absent;
            }
            new_states.push(state);
        }
        let record = ChunkRecord::create(self.record.into_file(), &division, &new_states);
        let part = Self {
            record: record.map_err(fault("write the map of"))?,
            division,
            ..self
        };
        Ok((part, new_states))
    }

    /// What the bytes should hash to.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Bytes of the whole blob.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.division.size()
    }

    /// The file itself, for whoever makes it visible.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The chunks.
    #[must_use]
    pub fn division(&self) -> &Division {
        &self.division
    }

    /// Bytes of the chunks that are here.
    #[must_use]
    pub fn present_bytes(&self, states: &[ChunkState]) -> u64 {
        let here = states
            .iter()
            .enumerate()
            .filter(|(_, state)| **state != ChunkState::Absent);
        here.map(|(chunk, _)| {
            let range = self.division.range(chunk);
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

    /// Reads the bytes of a range in pieces.
    fn read_range(&self, range: Range<u64>, mut take: impl FnMut(&[u8])) -> Result<(), Fault> {
        let mut buffer = vec![0; HASH_BYTES];
        let mut at = range.start;
        while at < range.end {
            let left = usize::try_from(range.end - at).unwrap_or(usize::MAX);
            let piece = &mut buffer[..left.min(HASH_BYTES)];
            self.read_at(at, piece)?;
            take(piece);
            at += piece.len() as u64;
        }
        Ok(())
    }

    /// The BLAKE3 of what is on the disk.
    fn hash_of(&self, range: Range<u64>) -> Result<ChunkHash, Fault> {
        let mut hasher = ChunkHasher::default();
        self.read_range(range, |piece| hasher.update(piece))?;
        Ok(hasher.finish())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), Fault> {
        self.file
            .write_all_at(bytes, offset)
            .map_err(fault("write"))
    }

    /// Fills a range with bytes of another file from `from` on, which lie alike in blocks: whole
    /// blocks are shared.
    fn copy_from(&self, source: &File, from: u64, range: Range<u64>) -> io::Result<()> {
        let first_block = range.start.next_multiple_of(BLOCK_BYTES).min(range.end);
        let blocks_end = (range.end - range.end % BLOCK_BYTES).max(first_block);
        let mut at = range.start;
        for end in [first_block, blocks_end, range.end] {
            copy_range(source, from + (at - range.start), &self.file, at..end)?;
            at = end;
        }
        Ok(())
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

/// Whether the file system of a file lets files share blocks.
fn shares_blocks(file: &File) -> bool {
    const XFS: i128 = 0x5846_5342;
    const BTRFS: i128 = 0x9123_683E;
    rustix::fs::fstatfs(file).is_ok_and(|stat| [XFS, BTRFS].contains(&i128::from(stat.f_type)))
}

/// Whether bytes at these places of two files lie alike in blocks.
fn lies_alike(one: u64, other: u64) -> bool {
    one % BLOCK_BYTES == other % BLOCK_BYTES
}

/// Copies within the kernel, or through this process where the file system cannot.
fn copy_range(source: &File, mut from: u64, target: &File, range: Range<u64>) -> io::Result<()> {
    let mut at = range.start;
    while at < range.end {
        let left = usize::try_from(range.end - at).unwrap_or(usize::MAX);
        // Both offsets go on by what was copied.
        match rustix::fs::copy_file_range(source, Some(&mut from), target, Some(&mut at), left) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                let mut buffer = vec![0; left.min(HASH_BYTES)];
                source.read_exact_at(&mut buffer, from)?;
                target.write_all_at(&buffer, at)?;
                from += buffer.len() as u64;
                at += buffer.len() as u64;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
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
