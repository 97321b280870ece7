//! Ingest: one blob on its way into the cache. While it is here nothing can see it; it becomes
//! visible under its digest only by [`Ingest::commit`], which the caller calls after the digest of
//! the bytes on disk was found right.

pub(crate) mod map;

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use artifact::Digest;
use rustix::fs::{FallocateFlags, Mode};
use rustix::io::Errno;

use crate::cache::NodeCache;
use crate::cache::folder::Folder;
use crate::error::Error;
use map::{ChunkRecord, ChunkState};

/// Mode of a complete blob: read-only for everybody.
const BLOB_MODE: u32 = 0o444;
/// Above this size chunks are larger, so that their count stays small.
const LARGE_BLOB_BYTES: u64 = 16 << 30;
const CHUNK_BYTES: u64 = 4 << 20;
const LARGE_CHUNK_BYTES: u64 = 16 << 20;

/// A blob that is being written.
#[derive(Debug)]
pub(crate) struct Ingest {
    cache: NodeCache,
    digest: Digest,
    size: u64,
    file: File,
    record: ChunkRecord,
}

impl Ingest {
    /// Opens what an earlier run left of the blob, or starts anew. The disk space for all of it
    /// is taken here, so that a full disk shows before the first byte.
    pub(crate) fn open(
        cache: &NodeCache,
        digest: Digest,
        size: u64,
    ) -> Result<(Self, Vec<ChunkState>), Error> {
        let folder = cache.ingest();
        let (part, map) = names(&digest);
        let leftover = folder.file_size(&part)? == Some(size);
        if leftover
            && folder.file_size(&map)?.is_some()
            && let Some((record, states)) = ChunkRecord::read(folder.open_file(&map)?, size)
                .map_err(|e| Error::storage("read", &folder.path().join(&map), e))?
        {
            let file = folder.open_file(&part)?;
            let ingest = Self::assemble(cache, digest, size, file, record);
            return Ok((ingest, states));
        }
        folder.remove(&map)?;
        folder.remove(&part)?;
        let file = folder.open_file(&part)?;
        reserve(&file, size)
            .map_err(|e| Error::storage("make room for", &folder.path().join(&part), e))
            .inspect_err(|_| drop(folder.remove(&part)))?;
        let chunk_bytes = if size > LARGE_BLOB_BYTES {
            LARGE_CHUNK_BYTES
        } else {
            CHUNK_BYTES
        };
        let record = ChunkRecord::create(folder.open_file(&map)?, size, chunk_bytes)
            .map_err(|e| Error::storage("write", &folder.path().join(&map), e))?;
        let ingest = Self::assemble(cache, digest, size, file, record);
        let states = vec![ChunkState::Absent; ingest.chunk_count()];
        Ok((ingest, states))
    }

    fn assemble(
        cache: &NodeCache,
        digest: Digest,
        size: u64,
        file: File,
        record: ChunkRecord,
    ) -> Self {
        Self {
            cache: cache.clone(),
            digest,
            size,
            file,
            record,
        }
    }

    /// Bytes of the disk that an earlier run has taken for the blob already.
    pub(crate) fn reserved_bytes(folder: &Folder, digest: &Digest) -> Result<u64, Error> {
        let stat = folder.stat(&names(digest).0)?;
        let blocks = stat.and_then(|stat| u64::try_from(stat.st_blocks).ok());
        Ok(blocks.unwrap_or(0).saturating_mul(512))
    }

    pub(crate) fn digest(&self) -> Digest {
        self.digest
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    pub(crate) fn chunk_bytes(&self) -> u64 {
        self.record.chunk_bytes()
    }

    pub(crate) fn chunk_count(&self) -> usize {
        usize::try_from(self.size.div_ceil(self.chunk_bytes())).unwrap_or(usize::MAX)
    }

    /// The bytes of a chunk.
    pub(crate) fn chunk_range(&self, chunk: usize) -> Range<u64> {
        let start = (chunk as u64).saturating_mul(self.chunk_bytes());
        start..start.saturating_add(self.chunk_bytes()).min(self.size)
    }

    /// Writes bytes at their place.
    pub(crate) fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        self.file
            .write_all_at(bytes, offset)
            .map_err(|e| self.fault("write", e))
    }

    /// Reads bytes back, for the digest.
    pub(crate) fn read_at(&self, offset: u64, bytes: &mut [u8]) -> Result<(), Error> {
        self.file
            .read_exact_at(bytes, offset)
            .map_err(|e| self.fault("read back", e))
    }

    /// Notes that all bytes of a chunk were written, or also synced.
    pub(crate) fn mark(&self, chunk: usize, state: ChunkState) -> Result<(), Error> {
        self.record
            .mark(chunk, state)
            .map_err(|e| self.fault("write the map of", e))
    }

    /// Makes the bytes written so far durable.
    pub(crate) fn sync_data(&self) -> Result<(), Error> {
        self.file.sync_data().map_err(|e| self.fault("sync", e))
    }

    /// Makes the marks durable.
    pub(crate) fn sync_map(&self) -> Result<(), Error> {
        self.record
            .sync()
            .map_err(|e| self.fault("sync the map of", e))
    }

    /// Makes the blob visible under its digest. Its bytes must have that digest.
    pub(crate) fn commit(&self) -> Result<(), Error> {
        rustix::fs::fchmod(&self.file, Mode::from_raw_mode(BLOB_MODE))
            .map_err(|e| self.fault("make read-only", e))?;
        self.file.sync_all().map_err(|e| self.fault("sync", e))?;
        let (part, map) = names(&self.digest);
        let blobs = self.cache.blobs(self.digest.algorithm());
        self.cache
            .ingest()
            .rename(&part, blobs, &self.digest.hex())?;
        blobs.sync()?;
        self.cache.ingest().remove(&map)?;
        Ok(())
    }

    /// Throws away everything, for bytes that turned out wrong.
    pub(crate) fn discard(&self) -> Result<(), Error> {
        let (part, map) = names(&self.digest);
        self.cache.ingest().remove(&map)?;
        self.cache.ingest().remove(&part)?;
        Ok(())
    }

    fn fault(&self, action: &'static str, source: impl Into<std::io::Error>) -> Error {
        let path = self.cache.layout().ingest_part(&self.digest);
        Error::storage(action, &path, source)
    }
}

/// Takes the disk space, where the file system can; else only sets the length.
fn reserve(file: &File, size: u64) -> std::io::Result<()> {
    if size > 0 {
        match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, size) {
            Ok(()) => return Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
            Err(error) => return Err(error.into()),
        }
    }
    file.set_len(size)
}

/// File names of a download in progress. Two algorithms never share a name: their hexadecimal parts
/// differ in length.
fn names(digest: &Digest) -> (String, String) {
    let hex = digest.hex();
    (format!("{hex}.part"), format!("{hex}.map"))
}
