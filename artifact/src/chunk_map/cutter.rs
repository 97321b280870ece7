//! Cutter: the chunk map of a blob, made while its bytes stream by.
//!
//! The map depends on the bytes alone, never on the pieces that they came in: every boundary is
//! decided with all the bytes in hand that it can depend on. The rules are those of
//! docs/chunk-map.md.

mod content;
mod gguf;

use std::fmt;

use super::{ChunkHash, ChunkMap, MAX_CHUNKS, MIN_MAPPED_BYTES};
use crate::digest::Digest;
use crate::gguf::{Feed, MAX_HEADER_BYTES};
use content::Content;
use gguf::Gguf;

/// How much of a blob is looked at first for the header of a GGUF file, in bytes.
const FIRST_LOOK_BYTES: usize = 64 << 10;
/// Behind this byte of a blob, and in a GGUF file that is larger by its header, chunks are longer,
/// so that maps stay small.
const FAR_BYTES: u64 = 16 << 30;

/// Takes the bytes of a blob in order, in pieces of any size, and gives its [`ChunkMap`].
///
/// Tensor data is hashed where it lies; what is cut by content passes through a buffer of at most
/// 24 MiB, and a GGUF header, of at most 64 MiB, is kept until it is read.
///
/// ```
/// use artifact::Digest;
/// use artifact::chunk_map::Cutter;
///
/// let blob = vec![7; 3 << 20];
/// let mut cutter = Cutter::new();
/// for piece in blob.chunks(1000) {
///     cutter.update(piece);
/// }
/// let map = cutter.finish(Digest::sha256(&blob));
/// assert_eq!(map.map(|map| map.size()), Some(3 << 20));
/// ```
pub struct Cutter {
    stage: Stage,
    chunks: Chunks,
}

enum Stage {
    /// It may be a GGUF file whose header has not come whole.
    Unknown(Feed),
    /// It is none.
    Content(Content),
    /// It is one.
    Gguf(Box<Gguf>),
    /// It has more chunks than a map may have.
    TooMany,
}

impl Default for Cutter {
    fn default() -> Self {
        Self::new()
    }
}

impl Cutter {
    /// Begins with no bytes seen.
    #[must_use]
    pub fn new() -> Self {
        Self {
            stage: Stage::Unknown(Feed::new(None)),
            chunks: Chunks::default(),
        }
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Stage::Unknown(feed) = &mut self.stage
            && !rest.is_empty()
        {
            // Only as much as the header may need: what is behind it shall not be copied.
            let unread = usize::try_from(feed.unread()).unwrap_or(usize::MAX);
            let step = unread.max(FIRST_LOOK_BYTES).min(rest.len());
            let kept = feed.kept();
            let answer = feed.read(&rest[..step]);
            rest = &rest[feed.kept() - kept..];
            match answer {
                Ok(None) if (feed.kept() as u64) < MAX_HEADER_BYTES => {}
                Ok(Some(header)) => self.decide(Stage::Gguf(Box::new(Gguf::new(&header)))),
                Ok(None) | Err(_) => self.decide(Stage::Content(Content::whole())),
            }
        }
        self.cut(rest);
    }

    /// The map of what was seen, under the digest that it has. None for a blob that is smaller
    /// than [`MIN_MAPPED_BYTES`] or too large for the limits of a map.
    #[must_use]
    pub fn finish(mut self, blob: Digest) -> Option<ChunkMap> {
        if let Stage::Unknown(feed) = &self.stage {
            match feed.end() {
                Ok(header) => self.decide(Stage::Gguf(Box::new(Gguf::new(&header)))),
                Err(_) => self.decide(Stage::Content(Content::whole())),
            }
        }
        match self.stage {
            Stage::Content(content) => content.finish(&mut self.chunks),
            Stage::Gguf(gguf) => gguf.finish(&mut self.chunks),
            Stage::Unknown(_) | Stage::TooMany => return None,
        }
        let map = ChunkMap::new(blob, self.chunks.0).ok()?;
        (map.size() >= MIN_MAPPED_BYTES).then_some(map)
    }

    /// Goes on as `stage` says, with all the bytes that came.
    fn decide(&mut self, stage: Stage) {
        if let Stage::Unknown(feed) = std::mem::replace(&mut self.stage, stage) {
            self.cut(&feed.into_bytes());
        }
    }

    fn cut(&mut self, bytes: &[u8]) {
        match &mut self.stage {
            Stage::Content(content) => content.update(bytes, &mut self.chunks),
            Stage::Gguf(gguf) => gguf.update(bytes, &mut self.chunks),
            Stage::Unknown(_) | Stage::TooMany => {}
        }
        if self.chunks.0.len() > MAX_CHUNKS {
            self.chunks = Chunks::default();
            self.stage = Stage::TooMany;
        }
    }
}

impl fmt::Debug for Cutter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = match &self.stage {
            Stage::Unknown(_) => "unknown",
            Stage::Content(_) => "content",
            Stage::Gguf(_) => "gguf",
            Stage::TooMany => "too many",
        };
        f.debug_struct("Cutter")
            .field("stage", &stage)
            .field("chunks", &self.chunks.0.len())
            .finish_non_exhaustive()
    }
}

/// Length in bytes and hash of each chunk that was cut.
#[derive(Default)]
struct Chunks(Vec<(u64, ChunkHash)>);

impl Chunks {
    /// Takes a chunk. One more than a map may have is kept, which tells that there were too many.
    fn push(&mut self, bytes: u64, hash: ChunkHash) {
        if self.0.len() <= MAX_CHUNKS {
            self.0.push((bytes, hash));
        }
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;
