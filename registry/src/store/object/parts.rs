//! The parts of a multipart upload: how large they are, and the one that is being filled.

use bytes::{Bytes, BytesMut};
use object_store::PutPayload;

const MIB: usize = 1024 * 1024;
/// S3 takes no more parts than this.
pub(super) const MAX_PARTS: usize = 10_000;
/// Content is gathered in blocks of this size: what a connection gives may be a few bytes of a
/// large buffer, and would keep all of it.
const BLOCK: usize = MIB;

/// The size of part `index`, counted from 0, in bytes.
///
/// How long an upload will be is not known, so parts grow as it goes: small ones keep the memory of
/// most uploads at twice 8 MiB, and with the large ones 10,000 parts hold 640 GiB. Each is larger
/// than the 5 MiB that S3 asks for.
pub(super) fn part_bytes(index: usize) -> usize {
    match index {
        0..2_000 => 8 * MIB,
        2_000..6_000 => 32 * MIB,
        _ => 128 * MIB,
    }
}

/// The largest blob that fits, in bytes.
pub(super) fn most_bytes() -> u64 {
    (0..MAX_PARTS).map(|index| part_bytes(index) as u64).sum()
}

/// Content that is not part of the upload yet.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    blocks: Vec<Bytes>,
    last: BytesMut,
    length: usize,
}

impl Buffer {
    pub(super) fn len(&self) -> usize {
        self.length
    }

    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    pub(super) fn append(&mut self, mut bytes: &[u8]) {
        self.length += bytes.len();
        while !bytes.is_empty() {
            if self.last.capacity() == 0 {
                self.last.reserve(BLOCK);
            }
            let room = BLOCK - self.last.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.last.extend_from_slice(now);
            if self.last.len() == BLOCK {
                self.blocks.push(std::mem::take(&mut self.last).freeze());
            }
            bytes = later;
        }
    }

    /// The content in blocks; it stays.
    pub(super) fn blocks(&mut self) -> &[Bytes] {
        if !self.last.is_empty() {
            self.blocks.push(std::mem::take(&mut self.last).freeze());
        }
        &self.blocks
    }

    /// The content to be sent; it stays, and is shared.
    pub(super) fn payload(&mut self) -> PutPayload {
        self.blocks().iter().cloned().collect()
    }

    /// The content in one piece; it stays.
    pub(super) fn joined(&mut self) -> Bytes {
        self.blocks().concat().into()
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use crate::store::object::parts::{Buffer, MAX_PARTS, most_bytes, part_bytes};

    #[test]
    fn four_hundred_gigabytes_fit_and_no_part_is_too_small() {
        assert!(most_bytes() >= 640_000_000_000, "{}", most_bytes());
        let smallest = (0..MAX_PARTS).map(part_bytes).min();
        assert!(smallest >= Some(5 * 1024 * 1024));
    }

    #[test]
    fn a_buffer_gives_what_it_took() {
        let content: Vec<u8> = (0..700_000_u32).flat_map(u32::to_le_bytes).collect();
        let mut buffer = Buffer::default();
        for piece in content.chunks(333_333) {
            buffer.append(piece);
        }
        assert_eq!(buffer.len(), content.len());
        assert!(buffer.joined() == content);
        assert_eq!(buffer.payload().content_length(), content.len());
        buffer.append(b"more");
        assert!(buffer.joined() == [&content[..], b"more"].concat());
        buffer.clear();
        assert!(buffer.is_empty());
    }
}
