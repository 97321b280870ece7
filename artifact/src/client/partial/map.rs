//! The `.map` file beside a download in progress: how the blob is divided, which chunks are written,
//! which are synced.
//!
//! ```text
//! 0   8  magic "HAYMAP02"
//! 8   8  size of the blob, little endian
//! 16  8  size of an even chunk, little endian; 0 where a chunk map says how the blob is divided
//! 24  8  bytes of that chunk map, little endian
//! 32 36  boot id of the kernel that the states were written under
//! 68  8  first bytes of the SHA-256 of the chunk map
//! 76  4  first bytes of the SHA-256 of the 76 before
//! 80  …  the chunk map, as crate::chunk_map encodes it
//! …   …  one byte a chunk: 0 absent, 1 written, 2 written and synced
//! ```
//!
//! A chunk that is written but not synced survives the death of the process, because the page cache
//! does, but not the death of the machine: such a chunk counts only under the boot id that wrote it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::chunk_map::{ChunkMap, MAX_MAP_BYTES};
use crate::client::partial::Division;
use crate::digest::Digest;

const MAGIC: &[u8; 8] = b"HAYMAP02";
const HEADER_BYTES: usize = 80;
const BOOT_ID_BYTES: usize = 36;
const BOOT_ID: std::ops::Range<usize> = 32..32 + BOOT_ID_BYTES;
const MAP_CHECK: std::ops::Range<usize> = 68..76;
const CHECK: std::ops::Range<usize> = 76..HEADER_BYTES;
const BOOT_ID_FILE: &str = "/proc/sys/kernel/random/boot_id";
/// Sizes of even chunks that a file may name.
const CHUNK_BYTES_ALLOWED: std::ops::RangeInclusive<u64> = 64 * 1024..=1024 * 1024 * 1024;
/// Most chunks of one blob.
const MAX_CHUNKS: u64 = 64 * 1024 * 1024;

/// How far a chunk has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChunkState {
    /// Not here, or not whole.
    Absent,
    /// All its bytes were written, and have its hash where that is known.
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
    /// Where the states begin.
    states_at: u64,
}

/// What a map file says.
pub(super) type Recorded = (ChunkRecord, Division, Vec<ChunkState>);

impl ChunkRecord {
    /// Reads the map of the blob `digest` of `size` bytes. Gives the file back when it is not such
    /// a map: then all of the download counts as absent.
    pub(super) fn read(file: File, digest: &Digest, size: u64) -> io::Result<Option<Recorded>> {
        let mut header = [0; HEADER_BYTES];
        let Some(()) = read_at(&file, 0, &mut header)? else {
            return Ok(None);
        };
        if header[..8] != *MAGIC || header[CHECK] != check_of(&header) {
            return Ok(None);
        }
        if number(&header, 8) != size {
            return Ok(None);
        }
        let Some(division) = read_division(&file, &header, digest, size)? else {
            return Ok(None);
        };
        let states_at = HEADER_BYTES as u64 + number(&header, 24);
        let count = division.count();
        if file.metadata()?.len() != states_at + count as u64 {
            return Ok(None);
        }
        let mut bytes = vec![0; count];
        file.read_exact_at(&mut bytes, states_at)?;
        let states = bytes.iter().map(|byte| ChunkState::from_byte(*byte));
        let Some(mut states) = states.collect::<Option<Vec<_>>>() else {
            return Ok(None);
        };
        let record = Self { file, states_at };
        let boot_id = boot_id();
        if header[BOOT_ID] != boot_id {
            record.forget_unsynced(&mut states)?;
            header[BOOT_ID].copy_from_slice(&boot_id);
            let check = check_of(&header);
            header[CHECK].copy_from_slice(&check);
            record.file.write_all_at(&header, 0)?;
        }
        Ok(Some((record, division, states)))
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
        self.file.write_all_at(&bytes_of(states), self.states_at)?;
        self.file.sync_data()
    }

    /// Starts a map, or starts it again with another division.
    pub(super) fn create(
        file: File,
        division: &Division,
        states: &[ChunkState],
    ) -> io::Result<Self> {
        let map = division.map().map(|map| map.encode()).unwrap_or_default();
        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(MAGIC);
        header[8..16].copy_from_slice(&division.size().to_le_bytes());
        if let Division::Even { chunk_bytes, .. } = division {
            header[16..24].copy_from_slice(&chunk_bytes.to_le_bytes());
        }
        header[24..32].copy_from_slice(&(map.len() as u64).to_le_bytes());
        header[BOOT_ID].copy_from_slice(&boot_id());
        header[MAP_CHECK].copy_from_slice(&map_check(&map));
        let check = check_of(&header);
        header[CHECK].copy_from_slice(&check);
        let states_at = (HEADER_BYTES + map.len()) as u64;
        let mut bytes = header.to_vec();
        bytes.extend_from_slice(&map);
        bytes.extend_from_slice(&bytes_of(states));
        file.write_all_at(&bytes, 0)?;
        file.set_len(bytes.len() as u64)?;
        Ok(Self { file, states_at })
    }

    /// Writes down how far a chunk has come.
    pub(super) fn mark(&self, chunk: usize, state: ChunkState) -> io::Result<()> {
        let at = self.states_at + chunk as u64;
        self.file.write_all_at(&[state.to_byte()], at)
    }

    /// Makes the marks durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// The file, to start it again.
    pub(super) fn into_file(self) -> File {
        self.file
    }
}

/// How the blob is divided, unless what is written there cannot be so.
fn read_division(
    file: &File,
    header: &[u8; HEADER_BYTES],
    digest: &Digest,
    size: u64,
) -> io::Result<Option<Division>> {
    let (chunk_bytes, map_bytes) = (number(header, 16), number(header, 24));
    if map_bytes == 0 {
        let fits =
            CHUNK_BYTES_ALLOWED.contains(&chunk_bytes) && size.div_ceil(chunk_bytes) <= MAX_CHUNKS;
        return Ok(fits.then_some(Division::Even { size, chunk_bytes }));
    }
    let Some(length) = usize::try_from(map_bytes)
        .ok()
        .filter(|_| map_bytes <= MAX_MAP_BYTES && chunk_bytes == 0)
    else {
        return Ok(None);
    };
    let mut bytes = vec![0; length];
    let Some(()) = read_at(file, HEADER_BYTES as u64, &mut bytes)? else {
        return Ok(None);
    };
    if header[MAP_CHECK] != map_check(&bytes) {
        return Ok(None);
    }
    let map = ChunkMap::parse(&bytes).ok();
    let map = map.filter(|map| map.blob() == *digest && map.size() == size);
    Ok(map.map(|map| Division::Mapped(Arc::new(map))))
}

/// Reads bytes; nothing when the file ends before.
fn read_at(file: &File, offset: u64, bytes: &mut [u8]) -> io::Result<Option<()>> {
    match file.read_exact_at(bytes, offset) {
        Ok(()) => Ok(Some(())),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

fn bytes_of(states: &[ChunkState]) -> Vec<u8> {
    states.iter().map(|state| state.to_byte()).collect()
}

fn number(header: &[u8; HEADER_BYTES], at: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&header[at..at + 8]);
    u64::from_le_bytes(bytes)
}

fn map_check(map: &[u8]) -> [u8; 8] {
    let mut check = [0; 8];
    if !map.is_empty() {
        check.copy_from_slice(&Digest::sha256(map).as_bytes()[..8]);
    }
    check
}

fn check_of(header: &[u8; HEADER_BYTES]) -> [u8; 4] {
    let mut check = [0; 4];
    check.copy_from_slice(&Digest::sha256(&header[..CHECK.start]).as_bytes()[..4]);
    check
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
    use std::fs::File;
    use std::os::unix::fs::FileExt;
    use std::sync::Arc;

    use crate::chunk_map::{ChunkHash, ChunkMap};
    use crate::client::partial::Division;
    use crate::client::partial::map::{BOOT_ID, CHECK, ChunkRecord, ChunkState, check_of};
    use crate::digest::Digest;

    const CHUNK: u64 = 64 * 1024;

    fn even(chunks: u64, more: u64) -> Division {
        Division::Even {
            size: chunks * CHUNK + more,
            chunk_bytes: CHUNK,
        }
    }

    fn blob() -> Digest {
        Digest::sha256(b"blob")
    }

    fn mapped() -> Division {
        let chunks = [(7, ChunkHash::of(b"a")), (9, ChunkHash::of(b"b"))];
        Division::Mapped(Arc::new(ChunkMap::new(blob(), chunks).unwrap()))
    }

    fn file_of(division: &Division) -> File {
        let file = tempfile::tempfile().unwrap();
        let absent = vec![ChunkState::Absent; division.count()];
        ChunkRecord::create(file.try_clone().unwrap(), division, &absent).unwrap();
        file
    }

    #[test]
    fn marks_and_division_are_read_back() {
        for division in [even(1, 1), mapped()] {
            let file = file_of(&division);
            let size = division.size();
            let (record, found, states) =
                ChunkRecord::read(file.try_clone().unwrap(), &blob(), size)
                    .unwrap()
                    .unwrap();
            assert_eq!(found, division);
            assert_eq!(states, [ChunkState::Absent; 2]);
            record.mark(1, ChunkState::Synced).unwrap();
            let (_, _, states) = ChunkRecord::read(file, &blob(), size).unwrap().unwrap();
            assert_eq!(states, [ChunkState::Absent, ChunkState::Synced]);
        }
    }

    #[test]
    fn after_a_reboot_only_synced_chunks_count() {
        let file = file_of(&even(2, 0));
        let size = CHUNK * 2;
        let (record, _, _) = ChunkRecord::read(file.try_clone().unwrap(), &blob(), size)
            .unwrap()
            .unwrap();
        record.mark(0, ChunkState::Written).unwrap();
        record.mark(1, ChunkState::Synced).unwrap();
        let mut header = [0; 80];
        file.read_exact_at(&mut header, 0).unwrap();
        header[BOOT_ID].fill(b'x');
        let check = check_of(&header);
        header[CHECK].copy_from_slice(&check);
        file.write_all_at(&header, 0).unwrap();
        let (_, _, states) = ChunkRecord::read(file, &blob(), size).unwrap().unwrap();
        assert_eq!(states, [ChunkState::Absent, ChunkState::Synced]);
    }

    #[test]
    fn a_damaged_map_counts_for_nothing() {
        let even = even(2, 0);
        let mapped = mapped();
        let places = [(0, b'X'), (8, 9), (16, 1), (40, b'!'), (80, 7)];
        let in_map = [(24, 9), (70, 1), (90, 1), (200, 1)];
        let damages = places
            .iter()
            .map(|place| (&even, place))
            .chain(in_map.iter().map(|place| (&mapped, place)));
        for (division, (at, byte)) in damages {
            let file = file_of(division);
            file.write_all_at(&[*byte], *at).unwrap();
            let read = ChunkRecord::read(file, &blob(), division.size()).unwrap();
            assert!(read.is_none(), "{at}");
        }
        for division in [even, mapped] {
            let file = file_of(&division);
            file.set_len(file.metadata().unwrap().len() - 1).unwrap();
            let read = ChunkRecord::read(file, &blob(), division.size()).unwrap();
            assert!(read.is_none());
        }
    }

    #[test]
    fn the_map_of_another_blob_counts_for_nothing() {
        let other = Digest::sha256(b"other");
        let read = ChunkRecord::read(file_of(&mapped()), &other, 16).unwrap();
        assert!(read.is_none());
    }
}
