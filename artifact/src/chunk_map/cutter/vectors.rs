//! The test vectors of docs/chunk-map.md, which a second implementation of those rules gave first:
//! boundaries are data, and must never change by accident.
#![expect(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

use super::tests::{MIB, gguf, lengths, map_of, noise};
use crate::digest::Digest;

/// Checks the lengths of the chunks and the SHA-256 of the encoded map.
#[track_caller]
fn assert_vector(blob: &[u8], chunks: &[usize], encoded: &str) {
    let map = map_of(blob);
    assert_eq!(lengths(&map), chunks);
    assert_eq!(Digest::sha256(&map.encode()).hex(), encoded);
}

#[test]
fn noise_is_cut_as_documented() {
    assert_vector(
        &noise(6 * MIB, 1),
        &[278_755, 827_435, 1_633_517, 1_252_205, 593_103, 1_706_441],
        "9f6f8d07199c06c06266445c87722548426645a3aab67bff3122ae398b8598b1",
    );
}

#[test]
fn zeros_are_cut_as_documented() {
    assert_vector(
        &vec![0; 9 * MIB],
        &[4_194_304, 4_194_304, 1_048_576],
        "21fde42a733585aec258710a9c84c0e38f96f0f32c10b229feefb0032f981ac4",
    );
}

#[test]
fn a_gguf_file_is_cut_as_documented() {
    assert_vector(
        &gguf(500_000, &[9 * MIB as u64, 400, 400], 2),
        &[
            91_447, 38_147, 38_057, 36_471, 121_773, 88_289, 41_408, 44_632, 4_194_304, 4_194_304,
            1_048_576, 832,
        ],
        "3a076018cf5bbd3ff4ceb2c34f6e63a484386e813df52d3de7db4a5ed6ec6f9a",
    );
}

#[test]
fn the_bundled_model_is_cut_as_documented() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../tests/fixtures/hay-tiny-q8_0.gguf"
    );
    assert_vector(
        &std::fs::read(path).unwrap(),
        &[
            29_925, 21_691, 452_608, 211_968, 139_264, 139_264, 245_760, 243_712, 139_264, 245_760,
            243_712, 139_264, 245_760, 243_712, 139_264, 139_264,
        ],
        "fae6bbefc766386d4444f84f112255dabc15af70c225affa6b5865d5b6a4e46d",
    );
}
