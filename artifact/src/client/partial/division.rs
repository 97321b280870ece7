//! Division: the chunks in which a blob comes, and the hash of each where a chunk map says it.

use std::ops::Range;
use std::sync::Arc;

use crate::chunk_map::{ChunkHash, ChunkMap};

/// Above this size even chunks are larger, so that their count stays small.
const LARGE_BLOB_BYTES: u64 = 16 << 30;
const CHUNK_BYTES: u64 = 4 << 20;
const LARGE_CHUNK_BYTES: u64 = 16 << 20;

/// How a blob on its way is divided. A clone shares the map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Division {
    /// Chunks of one length, but for the last; only the hash of the whole is known.
    Even {
        /// Bytes of the blob.
        size: u64,
        /// Bytes of a chunk, at least one.
        chunk_bytes: u64,
    },
    /// The chunks of a map: each is verified when all of it is here.
    Mapped(Arc<ChunkMap>),
}

impl Division {
    /// Even chunks for a blob of `size` bytes.
    #[must_use]
    pub fn even(size: u64) -> Self {
        let chunk_bytes = if size > LARGE_BLOB_BYTES {
            LARGE_CHUNK_BYTES
        } else {
            CHUNK_BYTES
        };
        Self::Even { size, chunk_bytes }
    }

    /// Bytes of the blob.
    #[must_use]
    pub fn size(&self) -> u64 {
        match self {
            Self::Even { size, .. } => *size,
            Self::Mapped(map) => map.size(),
        }
    }

    /// How many chunks there are.
    #[must_use]
    pub fn count(&self) -> usize {
        match self {
            Self::Even { size, chunk_bytes } => {
                usize::try_from(size.div_ceil(*chunk_bytes)).unwrap_or(usize::MAX)
            }
            Self::Mapped(map) => map.len(),
        }
    }

    /// The bytes of a chunk; none beyond the last one.
    #[must_use]
    pub fn range(&self, chunk: usize) -> Range<u64> {
        match self {
            Self::Even { size, chunk_bytes } => {
                let start = (chunk as u64).saturating_mul(*chunk_bytes).min(*size);
                start..start.saturating_add(*chunk_bytes).min(*size)
            }
            Self::Mapped(map) => map.range(chunk),
        }
    }

    /// The chunk that holds a byte.
    #[must_use]
    pub fn chunk_of(&self, offset: u64) -> usize {
        match self {
            Self::Even { chunk_bytes, .. } => {
                usize::try_from(offset / chunk_bytes).unwrap_or(usize::MAX)
            }
            Self::Mapped(map) => map.chunk_of(offset),
        }
    }

    /// The hash of a chunk, where it is known.
    #[must_use]
    pub fn hash(&self, chunk: usize) -> Option<ChunkHash> {
        match self {
            Self::Even { .. } => None,
            Self::Mapped(map) => map.hash(chunk),
        }
    }

    /// The chunks that have bytes of a range.
    #[must_use]
    pub fn chunks_in(&self, bytes: &Range<u64>) -> Range<usize> {
        if bytes.is_empty() {
            return 0..0;
        }
        let last = self.chunk_of(bytes.end - 1).saturating_add(1);
        self.chunk_of(bytes.start)..last.min(self.count())
    }

    /// The map, if there is one.
    #[must_use]
    pub fn map(&self) -> Option<&Arc<ChunkMap>> {
        match self {
            Self::Even { .. } => None,
            Self::Mapped(map) => Some(map),
        }
    }
}
