//! Chunk map: the pieces that a blob is made of, and the BLAKE3 hash of each.
//!
//! With it a piece is verified as it arrives, wherever it comes from, and a piece that a node holds in
//! any other blob is not fetched again. The registry computes it while it stores a blob and offers it
//! as a referrer of the manifest; the node agent asks for it and can do without.
//!
//! A map is a hint, never the truth: a blob counts by its own digest alone. The format, its limits and
//! test vectors are in docs/chunk-map.md.
//!
//! ```text
//! 0   8   magic "HAYCHNK1"
//! 8   1   algorithm of the blob's digest: 1 sha256, 2 sha512
//! 9   3   zero
//! 12  4   count of chunks, little endian
//! 16  8   size of the blob in bytes, little endian
//! 24  64  digest of the blob; a sha256 is followed by 32 zeros
//! 88  36  for each chunk: 4 length in bytes, little endian; 32 BLAKE3 of its bytes
//! ```

mod cutter;

use std::fmt;
use std::ops::Range;

use crate::digest::{Algorithm, Digest};
pub use cutter::Cutter;

/// Media type of an encoded map.
pub const CHUNK_MAP: &str = "application/vnd.hayloft.chunk-map.v1";
/// Artifact type of the manifest that offers the maps of another manifest's blobs: one layer a blob.
pub const CHUNK_MAPS: &str = "application/vnd.hayloft.chunk-maps.v1";
/// Annotation on such a layer: the digest of the blob that the map is of.
pub const MAP_OF: &str = "org.hayloft.chunk-map.blob";

/// Most chunks of one map.
pub const MAX_CHUNKS: usize = 1 << 18;
/// Longest chunk, in bytes.
pub const MAX_CHUNK_BYTES: u64 = 64 << 20;
/// Bytes of the largest encoded map.
pub const MAX_MAP_BYTES: u64 = (HEADER_BYTES + MAX_CHUNKS * ENTRY_BYTES) as u64;
/// Blobs below this size, in bytes, have no map: nothing is won by one.
pub const MIN_MAPPED_BYTES: u64 = 1 << 20;

const MAGIC: &[u8; 8] = b"HAYCHNK1";
const HEADER_BYTES: usize = 88;
const ENTRY_BYTES: usize = 36;
const HASH_BYTES: usize = 32;

/// The BLAKE3 hash of a chunk.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChunkHash([u8; HASH_BYTES]);

impl ChunkHash {
    /// The hash of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; HASH_BYTES] {
        &self.0
    }
}

impl From<[u8; HASH_BYTES]> for ChunkHash {
    fn from(bytes: [u8; HASH_BYTES]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for ChunkHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for ChunkHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Hashes one chunk whose bytes come in pieces, in order.
#[derive(Clone, Debug, Default)]
pub struct ChunkHasher(blake3::Hasher);

impl ChunkHasher {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash of all bytes since the last call; the next chunk begins.
    pub fn finish(&mut self) -> ChunkHash {
        let hash = ChunkHash(*self.0.finalize().as_bytes());
        self.0.reset();
        hash
    }
}

/// Why bytes are no chunk map.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidChunkMap {
    /// Too short for a header, or not as long as its count of chunks says.
    #[error("the chunk map has {found} bytes where {expected} are due")]
    Length {
        /// Bytes that are there.
        found: u64,
        /// Bytes that should be there.
        expected: u64,
    },
    /// Another format, or a later version of this one.
    #[error("it does not begin as a chunk map of version 1 does")]
    Magic,
    /// A field that must be zero is not, or the algorithm is not known.
    #[error("the digest in the chunk map's header is of no known kind")]
    Algorithm,
    /// No chunk, or too many.
    #[error("the chunk map counts {count} chunks; 1 to {MAX_CHUNKS} are allowed")]
    Count {
        /// What it counts.
        count: u64,
    },
    /// A chunk of no bytes, or a very long one.
    #[error("chunk {chunk} has {bytes} bytes; 1 to {MAX_CHUNK_BYTES} are allowed")]
    ChunkLength {
        /// The number of the chunk, from 0.
        chunk: usize,
        /// Its length.
        bytes: u64,
    },
    /// The lengths do not add up to the size.
    #[error("the chunks have {sum} bytes together; the blob has {size}")]
    Sum {
        /// Bytes of all chunks.
        sum: u64,
        /// Bytes of the blob as the header says.
        size: u64,
    },
}

/// The chunks of one blob, in order and without gaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkMap {
    blob: Digest,
    /// Where each chunk ends, in bytes from the start of the blob.
    ends: Vec<u64>,
    hashes: Vec<ChunkHash>,
}

impl ChunkMap {
    /// The map of `blob` with chunks of these lengths, in bytes, and hashes.
    ///
    /// # Errors
    /// [`InvalidChunkMap`] when a limit is passed.
    pub fn new(
        blob: Digest,
        chunks: impl IntoIterator<Item = (u64, ChunkHash)>,
    ) -> Result<Self, InvalidChunkMap> {
        let mut map = Self {
            blob,
            ends: Vec::new(),
            hashes: Vec::new(),
        };
        for (bytes, hash) in chunks {
            map.push(bytes, hash)?;
        }
        if map.is_empty() {
            return Err(InvalidChunkMap::Count { count: 0 });
        }
        Ok(map)
    }

    fn push(&mut self, bytes: u64, hash: ChunkHash) -> Result<(), InvalidChunkMap> {
        let chunk = self.ends.len();
        if !(1..=MAX_CHUNK_BYTES).contains(&bytes) {
            return Err(InvalidChunkMap::ChunkLength { chunk, bytes });
        }
        if chunk == MAX_CHUNKS {
            let count = MAX_CHUNKS as u64 + 1;
            return Err(InvalidChunkMap::Count { count });
        }
        // At most MAX_CHUNKS times MAX_CHUNK_BYTES, which is far from the end of a u64.
        self.ends.push(self.size() + bytes);
        self.hashes.push(hash);
        Ok(())
    }

    /// Reads an encoded map. Nothing is allocated by a number that it contains.
    ///
    /// # Errors
    /// [`InvalidChunkMap`] says which rule it breaks.
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidChunkMap> {
        let wrong_length = |expected: usize| InvalidChunkMap::Length {
            found: bytes.len() as u64,
            expected: expected as u64,
        };
        let (header, entries) = bytes
            .split_at_checked(HEADER_BYTES)
            .ok_or_else(|| wrong_length(HEADER_BYTES))?;
        if header[..8] != *MAGIC {
            return Err(InvalidChunkMap::Magic);
        }
        let blob = digest_of(header).ok_or(InvalidChunkMap::Algorithm)?;
        let count = u64::from(number(&header[12..16]));
        let expected = usize::try_from(count)
            .ok()
            .filter(|count| (1..=MAX_CHUNKS).contains(count))
            .ok_or(InvalidChunkMap::Count { count })?;
        if entries.len() != expected * ENTRY_BYTES {
            return Err(wrong_length(HEADER_BYTES + expected * ENTRY_BYTES));
        }
        let map = Self::new(
            blob,
            entries.chunks_exact(ENTRY_BYTES).map(|entry| {
                let mut hash = [0; HASH_BYTES];
                hash.copy_from_slice(&entry[4..]);
                (u64::from(number(&entry[..4])), ChunkHash(hash))
            }),
        )?;
        let size = u64::from(number(&header[16..20])) | u64::from(number(&header[20..24])) << 32;
        if map.size() != size {
            let sum = map.size();
            return Err(InvalidChunkMap::Sum { sum, size });
        }
        Ok(map)
    }

    /// The map as bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + self.len() * ENTRY_BYTES);
        let count = u32::try_from(self.len()).unwrap_or(u32::MAX);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&[algorithm_byte(self.blob.algorithm()), 0, 0, 0]);
        bytes.extend_from_slice(&count.to_le_bytes());
        bytes.extend_from_slice(&self.size().to_le_bytes());
        bytes.extend_from_slice(self.blob.as_bytes());
        bytes.resize(HEADER_BYTES, 0);
        for (range, hash) in self.chunks() {
            // A chunk is at most 64 MiB.
            let length = u32::try_from(range.end - range.start).unwrap_or(u32::MAX);
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(hash.as_bytes());
        }
        bytes
    }

    /// The blob that it is of.
    #[must_use]
    pub fn blob(&self) -> Digest {
        self.blob
    }

    /// Bytes of the blob.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// How many chunks there are, at least one.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no chunk, which no map that was parsed or made can say of itself.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The bytes of a chunk; none beyond the last one.
    #[must_use]
    pub fn range(&self, chunk: usize) -> Range<u64> {
        let start = match chunk.checked_sub(1) {
            Some(before) => self.ends.get(before).copied(),
            None => Some(0),
        };
        let start = start.unwrap_or_else(|| self.size());
        start..self.ends.get(chunk).copied().unwrap_or(start)
    }

    /// The hash of a chunk.
    #[must_use]
    pub fn hash(&self, chunk: usize) -> Option<ChunkHash> {
        self.hashes.get(chunk).copied()
    }

    /// The chunk that holds a byte.
    #[must_use]
    pub fn chunk_of(&self, offset: u64) -> usize {
        self.ends.partition_point(|end| *end <= offset)
    }

    /// All chunks in order.
    pub fn chunks(&self) -> impl Iterator<Item = (Range<u64>, ChunkHash)> {
        let ranges = (0..self.len()).map(|chunk| self.range(chunk));
        ranges.zip(self.hashes.iter().copied())
    }
}

fn algorithm_byte(algorithm: Algorithm) -> u8 {
    match algorithm {
        Algorithm::Sha256 => 1,
        Algorithm::Sha512 => 2,
    }
}

/// The digest in a header, if what is around it is as it must be.
fn digest_of(header: &[u8]) -> Option<Digest> {
    let algorithm = Algorithm::ALL
        .into_iter()
        .find(|algorithm| header[8..12] == [algorithm_byte(*algorithm), 0, 0, 0])?;
    let (bytes, padding) = header[24..].split_at_checked(algorithm.digest_bytes())?;
    if padding.iter().any(|byte| *byte != 0) {
        return None;
    }
    Digest::from_hex(algorithm, &hex::encode(bytes)).ok()
}

/// Four bytes, little endian.
fn number(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .rev()
        .fold(0, |number, byte| number << 8 | u32::from(*byte))
}

#[cfg(test)]
mod tests;
