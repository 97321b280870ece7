//! Any bytes as an encoded chunk map: a map that is those bytes again, or an error. And as a blob:
//! it can be cut, whatever its header claims.
#![no_main]

use artifact::Digest;
use artifact::chunk_map::{ChunkMap, Cutter, MAX_CHUNK_BYTES};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    match ChunkMap::parse(bytes) {
        Ok(map) => {
            assert_eq!(map.encode(), bytes);
            look_at(&map);
        }
        Err(error) => assert!(!error.to_string().contains(char::is_control)),
    }

    // The fuzzer's inputs are too short for a map: this is about the way there.
    let step = usize::from(bytes.last().copied().unwrap_or(0)) + 1;
    let mut cutter = Cutter::new();
    bytes.chunks(step).for_each(|piece| cutter.update(piece));
    assert!(cutter.finish(Digest::sha256(bytes)).is_none());
});

/// Calls every accessor on a map that was read.
fn look_at(map: &ChunkMap) {
    let mut end = 0;
    for (chunk, (range, hash)) in map.chunks().enumerate() {
        assert_eq!(range.start, end);
        assert!((1..=MAX_CHUNK_BYTES).contains(&(range.end - range.start)));
        assert_eq!(map.chunk_of(range.start), chunk);
        assert_eq!(map.chunk_of(range.end - 1), chunk);
        assert_eq!(map.hash(chunk), Some(hash));
        end = range.end;
    }
    assert_eq!(end, map.size());
    assert_eq!(map.chunk_of(end), map.len());
}
