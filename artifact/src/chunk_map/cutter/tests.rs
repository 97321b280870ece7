//! Where a cutter cuts: held against the rules written down a second time, on blobs in one piece.
#![expect(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

use proptest::prelude::{ProptestConfig, any, prop, prop_assert_eq, proptest};

use super::content::{Content, Lengths};
use super::{Chunks, Cutter};
use crate::chunk_map::{ChunkHash, ChunkMap, MAX_CHUNKS};
use crate::digest::Digest;
use crate::gguf::builder::GgufBuilder;
use crate::gguf::{Header, Value};

const KIB: usize = 1 << 10;
pub(super) const MIB: usize = 1 << 20;

/// Bytes that look random: SplitMix64, little endian.
pub(super) fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut noise = Vec::with_capacity(bytes + 8);
    while noise.len() < bytes {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        noise.extend((word ^ word >> 31).to_le_bytes());
    }
    noise.truncate(bytes);
    noise
}

pub(super) fn map_of(blob: &[u8]) -> ChunkMap {
    map_in_pieces(blob, &[blob.len()]).unwrap()
}

/// The map of a blob that comes in pieces of these sizes, over and over.
fn map_in_pieces(blob: &[u8], sizes: &[usize]) -> Option<ChunkMap> {
    let mut cutter = Cutter::new();
    let mut rest = blob;
    for size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, left) = rest.split_at((*size).clamp(1, rest.len()));
        cutter.update(piece);
        rest = left;
    }
    cutter.finish(Digest::sha256(blob))
}

pub(super) fn lengths(map: &ChunkMap) -> Vec<usize> {
    map.chunks()
        .map(|(range, _)| usize::try_from(range.end - range.start).unwrap())
        .collect()
}

/// Every byte is in one chunk, and every chunk has the hash of its bytes.
fn assert_covers(map: &ChunkMap, blob: &[u8]) {
    assert_eq!(map.size(), blob.len() as u64);
    let mut end = 0;
    for (range, hash) in map.chunks() {
        let range = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
        assert_eq!(range.start, end);
        end = range.end;
        assert_eq!(hash, ChunkHash::of(&blob[range]));
    }
    assert_eq!(end, blob.len());
}

fn content_lengths(bytes: &[u8], min: usize, mean: usize, max: usize) -> Vec<usize> {
    fastcdc::v2020::FastCDC::new(bytes, min, mean, max)
        .map(|chunk| chunk.length)
        .collect()
}

/// A GGUF file: a chat template of this length, then F32 tensors of these sizes in bytes.
pub(super) fn gguf(template: usize, tensors: &[u64], seed: u64) -> Vec<u8> {
    let text: String = noise(template, seed)
        .iter()
        .map(|byte| char::from(b'a' + byte % 26))
        .collect();
    let mut builder = GgufBuilder::new()
        .kv("general.architecture", "llama")
        .kv("tokenizer.chat_template", text.as_str());
    for (index, bytes) in tensors.iter().enumerate() {
        builder = builder.tensor(&format!("t{index}"), &[bytes / 4], "F32");
    }
    let mut file = builder.build();
    let data = data_offset(&file);
    let filling = noise(file.len() - data, seed + 1);
    file[data..].copy_from_slice(&filling);
    file
}

fn data_offset(file: &[u8]) -> usize {
    usize::try_from(Header::parse(file, None).unwrap().data_offset()).unwrap()
}

#[test]
fn a_blob_of_no_known_form_is_cut_by_content() {
    let blob = noise(12 * MIB, 1);
    let map = map_of(&blob);
    assert_covers(&map, &blob);
    assert_eq!(
        lengths(&map),
        content_lengths(&blob, 256 * KIB, MIB, 4 * MIB)
    );
    assert!(map.len() > 5);
}

#[test]
fn bytes_put_in_before_others_leave_those_in_their_chunks() {
    let blob = noise(12 * MIB, 2);
    let longer = [b"a few bytes more".as_slice(), &blob].concat();
    let (before, after) = (map_of(&blob), map_of(&longer));
    let known: Vec<ChunkHash> = before.chunks().map(|(_, hash)| hash).collect();
    let new = after.chunks().filter(|(_, hash)| !known.contains(hash));
    assert_eq!(new.count(), 1);
}

#[test]
fn a_gguf_file_is_cut_at_its_tensors() {
    let tensor = 9 * MIB as u64;
    let file = gguf(100, &[tensor, 400, 3000, MIB as u64, 100], 3);
    let map = map_of(&file);
    assert_covers(&map, &file);
    // The first in pieces, two small ones joined with their padding, one of its own, the last one.
    let wanted = [
        data_offset(&file),
        4 * MIB,
        4 * MIB,
        MIB,
        416 + 3008,
        MIB,
        128,
    ];
    assert_eq!(lengths(&map), wanted);
}

#[test]
fn small_tensors_are_joined_to_a_quarter_of_a_mebibyte_and_no_further() {
    let half = 128 * KIB as u64;
    let tensors = [half, half, half, half + 32, half - 32, half];
    let mut file = gguf(100, &tensors, 4);
    file.resize(MIB, 0);
    let found = lengths(&map_of(&file));
    let half = 128 * KIB;
    assert_eq!(found[1..4], [2 * half, half, 2 * half]);
}

#[test]
fn what_is_behind_the_last_tensor_goes_with_it() {
    let mut file = gguf(100, &[64], 5);
    let header = data_offset(&file);
    file.resize(header + 9 * MIB, 1);
    let map = map_of(&file);
    assert_covers(&map, &file);
    assert_eq!(lengths(&map), [header, 4 * MIB, 4 * MIB, MIB]);
}

#[test]
fn the_header_of_a_gguf_file_is_cut_by_content_into_short_chunks() {
    let file = gguf(2 * MIB, &[64], 6);
    let header = data_offset(&file);
    let mut wanted = content_lengths(&file[..header], 16 * KIB, 64 * KIB, 256 * KIB);
    assert!(wanted.len() > 20);
    wanted.push(file.len() - header);
    assert_eq!(lengths(&map_of(&file)), wanted);
}

#[test]
fn a_changed_chat_template_leaves_the_tensors_in_their_chunks() {
    let tensors = [5 * MIB as u64, 1000, 2 * MIB as u64];
    let (old, new) = (gguf(5000, &tensors, 7), gguf(9001, &tensors, 7));
    let (old, new) = (map_of(&old), map_of(&new));
    assert_eq!(old.len(), new.len());
    // The header is one chunk here, and the fillings of the tensors are the same.
    for chunk in 0..old.len() {
        assert_eq!(old.hash(chunk) == new.hash(chunk), chunk > 0);
    }
}

#[test]
fn a_file_that_ends_before_its_header_says_so_is_cut_as_far_as_it_goes() {
    let file = gguf(100, &[9 * MIB as u64, 64], 8);
    let cut = &file[..6 * MIB];
    let map = map_of(cut);
    assert_covers(&map, cut);
    let header = data_offset(&file);
    assert_eq!(lengths(&map), [header, 4 * MIB, 2 * MIB - header]);
}

#[test]
fn a_header_that_does_not_parse_or_never_ends_leaves_a_blob_cut_by_content() {
    let mut bad = gguf(100, &[64], 9);
    bad.resize(6 * MIB, 9);
    bad[4] = 99;
    let endless = [
        GgufBuilder::new().header()[..8].to_vec(),
        [1_u64.to_le_bytes(), 60_000_u64.to_le_bytes()].concat(),
        [0x01; 6 * MIB].to_vec(),
    ]
    .concat();
    let mut cut_short = GgufBuilder::new()
        .raw_kv(b"long", 8, &(16_u64 << 20).to_le_bytes())
        .header();
    cut_short.extend(noise(6 * MIB, 10));
    for blob in [bad, endless, cut_short] {
        let map = map_of(&blob);
        assert_covers(&map, &blob);
        assert_eq!(
            lengths(&map),
            content_lengths(&blob, 256 * KIB, MIB, 4 * MIB)
        );
        assert_eq!(map_in_pieces(&blob, &[100_000]), Some(map));
    }
}

#[test]
fn strings_that_cannot_fit_into_a_header_are_refused_at_once() {
    // Four million strings, of which the first is long: more than any header may have.
    let mut value = 8_u32.to_le_bytes().to_vec();
    value.extend((4_u64 << 20).to_le_bytes());
    value.extend((16_u64 << 20).to_le_bytes());
    let mut blob = GgufBuilder::new().raw_kv(b"k", 9, &value).header();
    blob.extend(noise(3 * MIB, 11));
    assert_eq!(map_in_pieces(&blob, &[4096]), Some(map_of(&blob)));
    let mut second = GgufBuilder::new()
        .kv("filling", "x".repeat(15 * MIB).as_str())
        .kv("more", "x".repeat(15 * MIB).as_str())
        .kv("again", "x".repeat(15 * MIB).as_str())
        .raw_kv(b"k", 9, &value)
        .header();
    second.resize(70 * MIB, 0);
    assert_covers(&map_of(&second), &second);
}

#[test]
fn a_model_of_more_than_sixteen_gibibytes_is_cut_into_longer_pieces() {
    let builder = GgufBuilder::new()
        .kv("general.alignment", Value::U32(32))
        .raw_tensor(b"large", &[(16 << 30) / 4], 0, 0);
    let mut file = builder.header();
    let header = file.len().next_multiple_of(32);
    file.resize(header + 33 * MIB, 0);
    assert_eq!(lengths(&map_of(&file)), [header, 16 * MIB, 16 * MIB, MIB]);
}

#[test]
fn a_tensor_table_in_another_order_than_the_data_is_cut_in_the_order_of_the_data() {
    let quarter = MIB as u64 / 4;
    let builder = GgufBuilder::new()
        .raw_tensor(b"second", &[quarter], 0, quarter * 4 + 64)
        .raw_tensor(b"first", &[quarter], 0, 64);
    let mut file = builder.header();
    let header = file.len().next_multiple_of(32);
    file.resize(header + 64 + 2 * MIB, 3);
    // What is before the first tensor belongs to the header.
    assert_eq!(lengths(&map_of(&file)), [header + 64, MIB, MIB]);
}

#[test]
fn a_small_blob_has_no_map() {
    assert_eq!(map_in_pieces(&[], &[1]), None);
    let blob = noise(MIB, 12);
    assert_eq!(map_in_pieces(&blob[1..], &[4096]), None);
    assert_eq!(map_of(&blob).size(), MIB as u64);
}

#[test]
fn chunks_are_longer_far_into_a_blob() {
    let blob = noise(4 * MIB, 13);
    let near = Lengths::new(16 * KIB, 64 * KIB, 256 * KIB);
    let far = Lengths::new(64 * KIB, 256 * KIB, MIB);
    let far_from = 2 * MIB;
    let mut maps = Vec::new();
    for size in [1000, 300_000, 4 * MIB] {
        let mut content = Content::new(near, far, far_from as u64);
        let mut chunks = Chunks::default();
        for piece in blob.chunks(size) {
            content.update(piece, &mut chunks);
        }
        content.finish(&mut chunks);
        maps.push(ChunkMap::new(Digest::sha256(&blob), chunks.0).unwrap());
    }
    let first = &maps[0];
    assert_covers(first, &blob);
    assert!(maps.iter().all(|map| map == first));
    let turn = usize::try_from(first.range(first.chunk_of(far_from as u64 - 1)).end).unwrap();
    let far_lengths = content_lengths(&blob[turn..], 64 * KIB, 256 * KIB, MIB);
    assert!(lengths(first).ends_with(&far_lengths));
}

#[test]
fn a_blob_with_too_many_chunks_has_no_map() {
    let mut cutter = Cutter::new();
    cutter.update(b"anything");
    let hash = ChunkHash::of(b"");
    cutter.chunks.0 = vec![(1, hash); MAX_CHUNKS];
    cutter.update(&noise(9 * MIB, 14));
    assert!(cutter.finish(Digest::sha256(b"")).is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn the_pieces_that_a_blob_comes_in_do_not_change_its_map(
        sizes in prop::collection::vec(1..3 * MIB, 1..4),
        bytes in MIB..6 * MIB,
        seed in any::<u64>(),
    ) {
        let blob = noise(bytes, seed);
        let whole = map_of(&blob);
        assert_covers(&whole, &blob);
        prop_assert_eq!(map_in_pieces(&blob, &sizes), Some(whole));
    }

    #[test]
    fn the_pieces_that_a_gguf_file_comes_in_do_not_change_its_map(
        sizes in prop::collection::vec(1..200 * KIB, 1..6),
        template in 1..MIB,
        tensors in prop::collection::vec(1..MIB as u64 / 2, 1..8),
        seed in any::<u32>(),
    ) {
        let tensors: Vec<u64> = tensors.iter().map(|bytes| bytes * 4).collect();
        let mut file = gguf(template, &tensors, u64::from(seed));
        file.resize(file.len().max(MIB), 0);
        let whole = map_of(&file);
        assert_covers(&whole, &file);
        prop_assert_eq!(map_in_pieces(&file, &sizes), Some(whole));
    }
}
