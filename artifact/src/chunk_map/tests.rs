//! The encoding of chunk maps: there and back, and every kind of damage.
#![expect(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

use proptest::prelude::{Strategy, any, prop, prop_assert, prop_assert_eq, proptest};

use super::{
    ChunkHash, ChunkHasher, ChunkMap, ENTRY_BYTES, HEADER_BYTES, InvalidChunkMap, MAX_CHUNK_BYTES,
    MAX_CHUNKS, MAX_MAP_BYTES,
};
use crate::digest::{Algorithm, Digest};

fn small() -> ChunkMap {
    let hash = |byte: u8| ChunkHash::from([byte; 32]);
    ChunkMap::new(
        Digest::sha256(b"blob"),
        [(10, hash(1)), (1, hash(2)), (MAX_CHUNK_BYTES, hash(3))],
    )
    .unwrap()
}

fn maps() -> impl Strategy<Value = ChunkMap> {
    let chunk = (1..=MAX_CHUNK_BYTES, any::<[u8; 32]>());
    (
        any::<bool>(),
        any::<[u8; 8]>(),
        prop::collection::vec(chunk, 1..40),
    )
        .prop_map(|(is_long, bytes, chunks)| {
            let algorithm = if is_long {
                Algorithm::Sha512
            } else {
                Algorithm::Sha256
            };
            let chunks = chunks.into_iter().map(|(bytes, hash)| (bytes, hash.into()));
            ChunkMap::new(Digest::of(algorithm, &bytes), chunks).unwrap()
        })
}

/// The encoding of [`small`] with some bytes replaced.
fn with(offset: usize, bytes: &[u8]) -> Result<ChunkMap, InvalidChunkMap> {
    let mut encoded = small().encode();
    encoded[offset..offset + bytes.len()].copy_from_slice(bytes);
    ChunkMap::parse(&encoded)
}

#[test]
fn a_map_says_where_its_chunks_are() {
    let map = small();
    let size = 11 + MAX_CHUNK_BYTES;
    assert_eq!((map.len(), map.size(), map.is_empty()), (3, size, false));
    assert_eq!((map.range(0), map.range(1)), (0..10, 10..11));
    assert_eq!((map.range(2), map.range(3)), (11..size, size..size));
    assert_eq!(map.range(usize::MAX), size..size);
    assert_eq!(map.hash(1), Some(ChunkHash::from([2; 32])));
    assert_eq!(map.hash(3), None);
    for (offset, chunk) in [(0, 0), (9, 0), (10, 1), (11, 2), (size - 1, 2), (size, 3)] {
        assert_eq!(map.chunk_of(offset), chunk, "{offset}");
    }
}

#[test]
fn the_encoding_is_the_documented_one() {
    let encoded = small().encode();
    assert_eq!(encoded.len(), 88 + 3 * 36);
    assert_eq!(encoded[..16], *b"HAYCHNK1\x01\0\0\0\x03\0\0\0");
    assert_eq!(encoded[16..24], (11 + MAX_CHUNK_BYTES).to_le_bytes());
    assert_eq!(encoded[24..56], *Digest::sha256(b"blob").as_bytes());
    assert_eq!(encoded[56..88], [0; 32]);
    assert_eq!(encoded[88..92], [10, 0, 0, 0]);
    assert_eq!(encoded[92..124], [1; 32]);
    assert_eq!(ChunkMap::parse(&encoded), Ok(small()));
}

#[test]
fn every_kind_of_damage_is_refused() {
    let encoded = small().encode();
    for length in 0..encoded.len() {
        assert!(ChunkMap::parse(&encoded[..length]).is_err(), "{length}");
    }
    let longer = [encoded.as_slice(), &[0]].concat();
    assert!(matches!(
        ChunkMap::parse(&longer),
        Err(InvalidChunkMap::Length { .. })
    ));
    assert_eq!(with(0, b"h"), Err(InvalidChunkMap::Magic));
    assert_eq!(with(7, b"2"), Err(InvalidChunkMap::Magic));
    // Another algorithm, bytes that must be zero, and what is behind a sha256.
    for (offset, byte) in [(8, 0), (8, 3), (9, 1), (11, 1), (56, 1), (87, 1)] {
        assert_eq!(with(offset, &[byte]), Err(InvalidChunkMap::Algorithm));
    }
    assert_eq!(with(12, &[0]), Err(InvalidChunkMap::Count { count: 0 }));
    let count = MAX_CHUNKS as u64 + 1;
    let too_many = u32::try_from(count).unwrap().to_le_bytes();
    assert_eq!(with(12, &too_many), Err(InvalidChunkMap::Count { count }));
    assert!(matches!(
        with(12, &[4]),
        Err(InvalidChunkMap::Length {
            found: 196,
            expected: 232
        })
    ));
    assert!(matches!(with(16, &[0]), Err(InvalidChunkMap::Sum { .. })));
    assert!(matches!(with(23, &[1]), Err(InvalidChunkMap::Sum { .. })));
    assert!(matches!(
        with(88, &[0; 4]),
        Err(InvalidChunkMap::ChunkLength { chunk: 0, bytes: 0 })
    ));
    assert!(matches!(
        with(124, &[0xff; 4]),
        Err(InvalidChunkMap::ChunkLength {
            chunk: 1,
            bytes: 0xffff_ffff
        })
    ));
}

#[test]
fn a_count_alone_allocates_nothing_and_is_held_against_the_bytes() {
    let mut header = small().encode();
    header.truncate(HEADER_BYTES);
    let most = u32::try_from(MAX_CHUNKS).unwrap().to_le_bytes();
    header[12..16].copy_from_slice(&most);
    let expected = MAX_MAP_BYTES;
    let found = HEADER_BYTES as u64;
    assert_eq!(
        ChunkMap::parse(&header),
        Err(InvalidChunkMap::Length { found, expected })
    );
    assert_eq!(expected, (88 + MAX_CHUNKS * ENTRY_BYTES) as u64);
}

#[test]
fn a_map_holds_its_limits_when_it_is_made() {
    let blob = Digest::sha256(b"");
    let hash = ChunkHash::of(b"");
    let made = |chunks: Vec<(u64, ChunkHash)>| ChunkMap::new(blob, chunks);
    assert_eq!(made(vec![]), Err(InvalidChunkMap::Count { count: 0 }));
    for bytes in [0, MAX_CHUNK_BYTES + 1, u64::MAX] {
        let chunk = 0;
        assert_eq!(
            made(vec![(bytes, hash)]),
            Err(InvalidChunkMap::ChunkLength { chunk, bytes })
        );
    }
    let most = made(vec![(MAX_CHUNK_BYTES, hash); MAX_CHUNKS]).unwrap();
    assert_eq!(most.encode().len() as u64, MAX_MAP_BYTES);
    assert_eq!(ChunkMap::parse(&most.encode()), Ok(most));
    assert!(matches!(
        made(vec![(1, hash); MAX_CHUNKS + 1]),
        Err(InvalidChunkMap::Count { .. })
    ));
}

#[test]
fn a_hasher_begins_anew_after_each_chunk() {
    let mut hasher = ChunkHasher::default();
    for chunk in [b"one".as_slice(), b"two", b""] {
        for byte in chunk {
            hasher.update(&[*byte]);
        }
        assert_eq!(hasher.finish(), ChunkHash::of(chunk));
    }
    assert_eq!(
        ChunkHash::of(b"").to_string(),
        "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
    );
}

proptest! {
    #[test]
    fn an_encoded_map_parses_back(map in maps()) {
        prop_assert_eq!(ChunkMap::parse(&map.encode()), Ok(map));
    }

    #[test]
    fn any_bytes_give_a_map_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = ChunkMap::parse(&bytes);
    }

    #[test]
    fn what_parses_is_what_its_encoding_says(
        map in maps(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut encoded = map.encode();
        for (index, byte) in changes {
            let at = index.index(encoded.len());
            encoded[at] = byte;
        }
        if let Ok(read) = ChunkMap::parse(&encoded) {
            prop_assert_eq!(read.encode(), encoded);
            prop_assert!(read.chunks().all(|(range, _)| range.start < range.end));
        }
    }
}
