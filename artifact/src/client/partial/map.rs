//! The `.map` file beside a download in progress: which chunks are written, which are synced.
//!
//! ```text
//! 0   8  magic "HAYMAP01"
//! 8   8  size of the blob, little endian
//! 16  8  size of a chunk, little endian; the last chunk may be shorter
//! 24 36  boot id of the kernel that the states were written under
//! 60  4  first bytes of the SHA-256 of the 60 before
//! 64  …  one byte a chunk: 0 absent, 1 written, 2 written and synced
//! ```
//!
//! A chunk that is written but not synced survives the death of the process, because the page cache
//! does, but not the death of the machine: such a chunk counts only under the boot id that wrote it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::digest::Digest;

const MAGIC: &[u8; 8] = b"HAYMAP01";
const HEADER_BYTES: usize = 64;
const BOOT_ID_BYTES: usize = 36;
const BOOT_ID: std::ops::Range<usize> = 24..24 + BOOT_ID_BYTES;
const CHECK_AT: usize = 60;
const BOOT_ID_FILE: &str = "/proc/sys/kernel/random/boot_id";
/// Chunk sizes that a map may name.
const CHUNK_BYTES_ALLOWED: std::ops::RangeInclusive<u64> = 64 * 1024..=1024 * 1024 * 1024;
/// Most chunks of one blob: a map is never longer than this.
const MAX_CHUNKS: u64 = 64 * 1024 * 1024;

/// How far a chunk has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChunkState {
    /// Not here, or not whole.
    Absent,
    /// All its bytes were written.
    Written,
    /// All its bytes are on the disk.
    Synced,
}

impl ChunkState {
    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Absent),
            1 => Some(Self::Written),
            2 => Some(Self::Synced),
            _ => None,
        }
    }

    fn to_byte(self) -> u8 {
        match self {
            Self::Absent => 0,
            Self::Written => 1,
            Self::Synced => 2,
        }
    }
}

/// The open map file.
#[derive(Debug)]
pub(super) struct ChunkRecord {
    file: File,
    chunk_bytes: u64,
}

impl ChunkRecord {
    /// Reads the map of a blob of `size` bytes. Nothing when it is not such a map: then all of the
    /// download counts as absent.
    pub(super) fn read(file: File, size: u64) -> io::Result<Option<(Self, Vec<ChunkState>)>> {
        let mut header = [0; HEADER_BYTES];
        match file.read_exact_at(&mut header, 0) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        let number = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&header[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        let chunk_bytes = number(16);
        let fits = header[..8] == *MAGIC
            && header == header_of(size, chunk_bytes, &header[BOOT_ID])
            && number(8) == size
            && CHUNK_BYTES_ALLOWED.contains(&chunk_bytes)
            && size.div_ceil(chunk_bytes) <= MAX_CHUNKS;
        if !fits {
            return Ok(None);
        }
        let count = usize::try_from(size.div_ceil(chunk_bytes)).unwrap_or(0);
        if file.metadata()?.len() != (HEADER_BYTES + count) as u64 {
            return Ok(None);
        }
        let mut bytes = vec![0; count];
        file.read_exact_at(&mut bytes, HEADER_BYTES as u64)?;
        let Some(mut states) = bytes
            .iter()
            .map(|byte| ChunkState::from_byte(*byte))
            .collect::<Option<Vec<_>>>()
        else {
            return Ok(None);
        };
        let record = Self { file, chunk_bytes };
        let boot_id = boot_id();
        if header[BOOT_ID] != boot_id {
            record.forget_unsynced(&mut states)?;
            record
                .file
                .write_all_at(&header_of(size, chunk_bytes, &boot_id), 0)?;
        }
        Ok(Some((record, states)))
    }

    /// After a reboot: what was not synced is gone. The states are on the disk before the new boot
    /// id vouches for them.
    fn forget_unsynced(&self, states: &mut [ChunkState]) -> io::Result<()> {
        for state in states
            .iter_mut()
            .filter(|state| **state == ChunkState::Written)
        {
            *state = ChunkState::Absent;
        }
        let bytes: Vec<_> = states.iter().map(|state| state.to_byte()).collect();
        self.file.write_all_at(&bytes, HEADER_BYTES as u64)?;
        self.file.sync_data()
    }

    /// Starts a map with every chunk absent.
    pub(super) fn create(file: File, size: u64, chunk_bytes: u64) -> io::Result<Self> {
        let count = usize::try_from(size.div_ceil(chunk_bytes)).map_err(io::Error::other)?;
        let mut bytes = header_of(size, chunk_bytes, &boot_id()).to_vec();
        bytes.resize(HEADER_BYTES + count, 0);
        file.set_len(0)?;
        file.write_all_at(&bytes, 0)?;
        Ok(Self { file, chunk_bytes })
    }

    /// Bytes of a chunk; the last one may be shorter.
    pub(super) fn chunk_bytes(&self) -> u64 {
        self.chunk_bytes
    }

    /// Writes down how far a chunk has come.
    pub(super) fn mark(&self, chunk: usize, state: ChunkState) -> io::Result<()> {
        self.file
            .write_all_at(&[state.to_byte()], (HEADER_BYTES + chunk) as u64)
    }

    /// Makes the marks durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

fn header_of(size: u64, chunk_bytes: u64, boot_id: &[u8]) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(MAGIC);
    header[8..16].copy_from_slice(&size.to_le_bytes());
    header[16..24].copy_from_slice(&chunk_bytes.to_le_bytes());
    header[BOOT_ID].copy_from_slice(boot_id);
    let check = Digest::sha256(&header[..CHECK_AT]);
    header[CHECK_AT..].copy_from_slice(&check.as_bytes()[..HEADER_BYTES - CHECK_AT]);
    header
}

/// The kernel's id of this boot; where there is none a new one, which never counts as the same.
fn boot_id() -> [u8; BOOT_ID_BYTES] {
    let mut id = [0; BOOT_ID_BYTES];
    match std::fs::read(BOOT_ID_FILE) {
        Ok(text) if text.len() >= BOOT_ID_BYTES => id.copy_from_slice(&text[..BOOT_ID_BYTES]),
        _ => id.copy_from_slice(uuid::Uuid::new_v4().hyphenated().to_string().as_bytes()),
    }
    id
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use std::os::unix::fs::FileExt;

    use crate::client::partial::map::{ChunkRecord, ChunkState, header_of};

    const CHUNK: u64 = 64 * 1024;

    fn map_of(size: u64) -> std::fs::File {
        let file = tempfile::tempfile().unwrap();
        ChunkRecord::create(file.try_clone().unwrap(), size, CHUNK).unwrap();
        file
    }

    #[test]
    fn marks_are_read_back() {
        let file = map_of(CHUNK * 3 + 1);
        let (record, states) = ChunkRecord::read(file.try_clone().unwrap(), CHUNK * 3 + 1)
            .unwrap()
            .unwrap();
        assert_eq!(states, [ChunkState::Absent; 4]);
        record.mark(1, ChunkState::Written).unwrap();
        record.mark(3, ChunkState::Synced).unwrap();
        let (_, states) = ChunkRecord::read(file, CHUNK * 3 + 1).unwrap().unwrap();
        assert_eq!(
            states,
            [
                ChunkState::Absent,
                ChunkState::Written,
                ChunkState::Absent,
                ChunkState::Synced
            ]
        );
    }

    #[test]
    fn after_a_reboot_only_synced_chunks_count() {
        let file = map_of(CHUNK * 2);
        let record = ChunkRecord {
            file,
            chunk_bytes: CHUNK,
        };
        record.mark(0, ChunkState::Written).unwrap();
        record.mark(1, ChunkState::Synced).unwrap();
        let other = header_of(CHUNK * 2, CHUNK, &[b'x'; 36]);
        record.file.write_all_at(&other, 0).unwrap();
        let (_, states) = ChunkRecord::read(record.file, CHUNK * 2).unwrap().unwrap();
        assert_eq!(states, [ChunkState::Absent, ChunkState::Synced]);
    }

    #[test]
    fn a_damaged_map_counts_for_nothing() {
        for (at, byte) in [(0, b'X'), (8, 9), (16, 1), (24, b'!'), (64, 7)] {
            let file = map_of(CHUNK * 2);
            file.write_all_at(&[byte], at).unwrap();
            assert!(
                ChunkRecord::read(file, CHUNK * 2).unwrap().is_none(),
                "{at}"
            );
        }
        let file = map_of(CHUNK * 2);
        file.set_len(65).unwrap();
        assert!(ChunkRecord::read(file, CHUNK * 2).unwrap().is_none());
    }
}
