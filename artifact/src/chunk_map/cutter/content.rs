//! Cutting by content: where the bytes themselves say so, so that boundaries move with them.

use fastcdc::v2020::{Normalization, cut, select_masks};

use super::{Chunks, FAR_BYTES};
use crate::chunk_map::ChunkHash;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// The lengths of chunks in bytes, and the masks of `FastCDC` that follow from the mean. All
/// lengths are even, as its 2020 version wants, which looks at two bytes at a time.
#[derive(Clone, Copy)]
pub(super) struct Lengths {
    min: usize,
    mean: usize,
    max: usize,
    mask_before: u64,
    mask_after: u64,
}

impl Lengths {
    pub(super) fn new(min: usize, mean: usize, max: usize) -> Self {
        let (mask_before, mask_after) = select_masks(mean, Normalization::Level1);
        Self {
            min,
            mean,
            max,
            mask_before,
            mask_after,
        }
    }

    /// The length of the first chunk of `bytes`, which must be at least [`Lengths::max`] or all
    /// that there is.
    fn cut(&self, bytes: &[u8]) -> usize {
        let (_, length) = cut(
            bytes,
            self.min,
            self.mean,
            self.max,
            self.mask_before,
            self.mask_after,
            self.mask_before << 1,
            self.mask_after << 1,
        );
        length
    }
}

/// Cuts a run of bytes by its content.
pub(super) struct Content {
    near: Lengths,
    far: Lengths,
    /// A chunk that begins at this byte of the run or behind it is cut by `far`.
    far_from: u64,
    /// Where the next chunk begins, in bytes from the start of the run.
    position: u64,
    /// What came and is not cut, from `start` on.
    buffer: Vec<u8>,
    start: usize,
}

impl Content {
    /// For a blob that is nothing more special than bytes.
    pub(super) fn whole() -> Self {
        let near = Lengths::new(256 * KIB, MIB, 4 * MIB);
        let far = Lengths::new(MIB, 4 * MIB, 16 * MIB);
        Self::new(near, far, FAR_BYTES)
    }

    /// For the header of a GGUF file: short chunks, since a small change in it is what sets most
    /// versions of a model apart.
    pub(super) fn header() -> Self {
        let lengths = Lengths::new(16 * KIB, 64 * KIB, 256 * KIB);
        Self::new(lengths, lengths, u64::MAX)
    }

    pub(super) fn new(near: Lengths, far: Lengths, far_from: u64) -> Self {
        Self {
            near,
            far,
            far_from,
            position: 0,
            buffer: Vec::new(),
            start: 0,
        }
    }

    pub(super) fn update(&mut self, bytes: &[u8], chunks: &mut Chunks) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let max = self.lengths().max;
            if self.start == self.buffer.len() && rest.len() >= max {
                // Nothing waits, so it can be cut where it lies.
                let length = self.take(rest, chunks);
                rest = &rest[length..];
            } else {
                // Room for half a chunk more than must be looked at: moving what is left to the
                // front then costs at most two moves a byte.
                rest = self.fill(rest, max + max / 2);
                self.cut_buffer(chunks);
            }
        }
    }

    /// The run ends here.
    pub(super) fn finish(mut self, chunks: &mut Chunks) {
        let buffer = std::mem::take(&mut self.buffer);
        let mut rest = &buffer[self.start..];
        while !rest.is_empty() {
            let length = self.take(rest, chunks);
            rest = &rest[length..];
        }
    }

    fn lengths(&self) -> Lengths {
        if self.position < self.far_from {
            self.near
        } else {
            self.far
        }
    }

    /// Takes the first chunk off `bytes` and gives its length.
    fn take(&mut self, bytes: &[u8], chunks: &mut Chunks) -> usize {
        let length = self.lengths().cut(bytes);
        self.position += length as u64;
        chunks.push(length as u64, ChunkHash::of(&bytes[..length]));
        length
    }

    /// Fills the buffer up to `capacity` bytes and gives what is left.
    fn fill<'a>(&mut self, bytes: &'a [u8], capacity: usize) -> &'a [u8] {
        if self.buffer.len() + bytes.len() > capacity {
            self.buffer.drain(..self.start);
            self.start = 0;
            self.buffer
                .reserve_exact(capacity.saturating_sub(self.buffer.len()));
        }
        let room = capacity.saturating_sub(self.buffer.len()).min(bytes.len());
        let (taken, rest) = bytes.split_at(room);
        self.buffer.extend_from_slice(taken);
        rest
    }

    fn cut_buffer(&mut self, chunks: &mut Chunks) {
        let buffer = std::mem::take(&mut self.buffer);
        while buffer.len() - self.start >= self.lengths().max {
            self.start += self.take(&buffer[self.start..], chunks);
        }
        self.buffer = buffer;
        if self.start == self.buffer.len() {
            self.buffer.clear();
            self.start = 0;
        }
    }
}
