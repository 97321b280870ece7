//! Tests of the GGUF header reader on files made for the purpose.
#![expect(clippy::unwrap_used, reason = "a test may stop")]

use serde_json::json;

use super::builder::GgufBuilder;
use super::{Error, Feed, Header, MAGIC, MAX_HEADER_BYTES, Value, ValueType, size_label};

pub(super) fn parse(file: &[u8]) -> Result<Header, Error> {
    Header::parse(file, Some(file.len() as u64))
}

fn refuse(builder: GgufBuilder) -> Error {
    parse(&builder.build()).unwrap_err()
}

/// A header that announces these counts, with what follows them.
pub(super) fn with_counts(tensors: u64, entries: u64, rest: &[u8]) -> Vec<u8> {
    let counts = [tensors.to_le_bytes(), entries.to_le_bytes()].concat();
    [&MAGIC[..], &3_u32.to_le_bytes(), &counts, rest].concat()
}

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

#[test]
fn a_tiny_model_says_what_it_is() {
    let file = GgufBuilder::tiny_llama("Tiny").build();
    let header = parse(&file).unwrap();
    assert_eq!(header.version(), 3);
    assert_eq!(header.architecture(), Some("llama"));
    assert_eq!(header.name(), Some("Tiny"));
    assert_eq!(header.quantisation(), Some("Q8_0"));
    assert_eq!(header.context_length(), Some(512));
    assert_eq!(header.embedding_length(), Some(64));
    assert_eq!(header.tokenizer_model(), Some("gpt2"));
    assert_eq!(header.parameter_count(), 64 * 8 + 64);
    assert_eq!(header.parameter_size().as_deref(), Some("576"));
    assert_eq!(header.tensors()[0].bytes(), 544);
    assert_eq!(header.tensors()[1].dimensions(), [64]);
    assert_eq!(header.data_offset() % 32, 0);
    assert_eq!(header.min_file_size(), file.len() as u64);
    let tokens = header
        .metadata()
        .get("tokenizer.ggml.tokens")
        .unwrap()
        .as_array()
        .unwrap();
    assert_eq!(
        tokens.strings().take(3).collect::<Vec<_>>(),
        [b"a", b"b", b"c"]
    );
}

#[test]
fn every_value_type_is_read_and_shown_as_json() {
    let file = GgufBuilder::new()
        .version(2)
        .kv("u8", Value::U8(200))
        .kv("i8", Value::I8(-2))
        .kv("u16", Value::U16(60_000))
        .kv("i16", Value::I16(-3))
        .kv("u32", Value::U32(4))
        .kv("i32", Value::I32(-5))
        .kv("f32", Value::F32(0.1))
        .kv("nan", Value::F32(f32::NAN))
        .kv("bool", Value::Bool(true))
        .kv("string", "text")
        .kv("u64", Value::U64(u64::MAX))
        .kv("i64", Value::I64(i64::MIN))
        .kv("f64", Value::F64(0.5))
        .strings("strings", &[&b"a\xff"[..], b""])
        .raw_kv(
            b"empty",
            9,
            &[&0_u32.to_le_bytes()[..], &0_u64.to_le_bytes()].concat(),
        )
        .raw_kv(
            b"bools",
            9,
            &[&7_u32.to_le_bytes()[..], &2_u64.to_le_bytes(), &[0, 1]].concat(),
        )
        .build();
    let header = parse(&file).unwrap();
    let shown: serde_json::Map<_, _> = header
        .metadata()
        .iter()
        .map(|(key, value)| (key.to_owned(), value.to_json()))
        .collect();
    assert_eq!(
        json!(shown),
        json!({"u8": 200, "i8": -2, "u16": 60_000, "i16": -3, "u32": 4, "i32": -5, "f32": 0.1,
            "nan": null, "bool": true, "string": "text", "u64": u64::MAX, "i64": i64::MIN, "f64": 0.5,
            "strings": ["a\u{fffd}", ""], "empty": [], "bools": [false, true]})
    );
    assert_eq!(header.metadata().len(), 16);
    assert_eq!(header.metadata().number("i8"), None);
    assert_eq!(header.metadata().number("u64"), Some(u64::MAX));
    let copy = header
        .metadata()
        .iter()
        .fold(GgufBuilder::new().version(2), |builder, (key, value)| {
            builder.kv(key, value.clone())
        });
    assert_eq!(copy.build(), file, "what was read can be written again");
}

#[test]
fn counts_beyond_the_limits_are_refused_before_anything_is_allocated() {
    for count in [65_537, 1 << 32, 1 << 63, u64::MAX] {
        assert!(matches!(
            parse(&with_counts(count, 0, &[])),
            Err(Error::TooMany { .. })
        ));
        assert!(matches!(
            parse(&with_counts(0, count, &[])),
            Err(Error::TooMany { .. })
        ));
    }
    for length in [(16 << 20) + 1, 1 << 32, u64::MAX] {
        let entry = [
            &string("k")[..],
            &8_u32.to_le_bytes(),
            &length.to_le_bytes(),
        ]
        .concat();
        assert!(matches!(
            parse(&with_counts(0, 1, &entry)),
            Err(Error::TooLong { .. })
        ));
        assert!(matches!(
            parse(&with_counts(0, 1, &length.to_le_bytes())),
            Err(Error::TooLong { .. })
        ));
        let entry = [
            string("k"),
            9_u32.to_le_bytes().into(),
            8_u32.to_le_bytes().into(),
            length.to_le_bytes().into(),
        ];
        assert!(matches!(
            parse(&with_counts(0, 1, &entry.concat())),
            Err(Error::TooLong { .. })
        ));
        let error = parse(&with_counts(1, 0, &length.to_le_bytes())).unwrap_err();
        assert!(
            matches!(
                error,
                Error::TensorNameTooLong {
                    index: 0,
                    offset: 24,
                    ..
                }
            ),
            "{error}"
        );
    }
}

#[test]
fn a_header_that_would_outgrow_the_limit_is_refused_without_reading_it() {
    // Four arrays of 4 Mi doubles each: every one is allowed, together they are 128 MiB.
    let array = [9_u32.to_le_bytes(), 12_u32.to_le_bytes()].concat();
    let mut file = GgufBuilder::new().build();
    file[16] = 4;
    for index in 0..4 {
        file.extend(
            [
                &string(&format!("k{index}"))[..],
                &array,
                &(4_u64 << 20).to_le_bytes(),
            ]
            .concat(),
        );
        file.resize(file.len() + (32 << 20), 0);
    }
    let size = Some(file.len() as u64);
    assert!(matches!(
        Header::parse(&file, size),
        Err(Error::HeaderTooLarge { .. })
    ));
    let mut feed = Feed::new(None);
    let mut refused_at = None;
    for (index, chunk) in file.chunks(1 << 20).enumerate() {
        if let Err(error) = feed.push(chunk) {
            assert!(matches!(error, Error::HeaderTooLarge { .. }), "{error}");
            refused_at = Some(index);
            break;
        }
    }
    assert!(refused_at.unwrap() < (MAX_HEADER_BYTES >> 20) as usize);
}

#[test]
fn other_files_and_versions_are_told_apart() {
    let version = |version: u32| refuse(GgufBuilder::new().version(version)).to_string();
    assert!(version(1).contains("unsupported GGUF version 1"));
    assert!(version(4).contains("unsupported GGUF version 4"));
    assert!(version(0).contains("unsupported GGUF version 0"));
    assert!(
        version(3_u32.swap_bytes()).contains("unsupported GGUF: big-endian byte order (version 3)")
    );
    assert_eq!(
        parse(b"PK\x03\x04 a zip file with enough bytes")
            .unwrap_err()
            .to_string(),
        "not a GGUF file: it starts with \"PK\\x03\\x04\" instead of \"GGUF\""
    );
    assert!(matches!(parse(b"GGXX"), Err(Error::NotGguf { .. })));
    assert!(
        matches!(Header::parse(b"P", None), Err(Error::NotGguf { .. })),
        "one byte is enough"
    );
    assert!(matches!(parse(b""), Err(Error::CutShort { .. })));
}

#[test]
fn keys_and_values_that_break_the_format_are_refused() {
    let builder = GgufBuilder::new;
    let kv = |key: &[u8], number, value: &[u8]| refuse(builder().raw_kv(key, number, value));
    assert!(matches!(
        kv(b"", 4, &[0; 4]),
        Error::EmptyName { offset: 24, .. }
    ));
    assert!(matches!(
        kv(b"\xff", 4, &[0; 4]),
        Error::NotUtf8 { offset: 32, .. }
    ));
    assert!(matches!(
        kv(b"k", 13, &[]),
        Error::UnknownValueType {
            found: 13,
            offset: 33,
            ..
        }
    ));
    assert!(matches!(
        kv(b"k", 7, &[2]),
        Error::InvalidBool {
            found: 2,
            offset: 37,
            ..
        }
    ));
    assert!(matches!(
        kv(b"k", 8, &[1, 0, 0, 0, 0, 0, 0, 0, 0xff]),
        Error::NotUtf8 { .. }
    ));
    let nested = [&9_u32.to_le_bytes()[..], &1_u64.to_le_bytes()].concat();
    assert!(matches!(
        kv(b"k", 9, &nested),
        Error::NestedArray { offset: 37, .. }
    ));
    let bools = [&7_u32.to_le_bytes()[..], &3_u64.to_le_bytes(), &[0, 1, 9]].concat();
    assert!(matches!(
        kv(b"k", 9, &bools),
        Error::InvalidBool {
            found: 9,
            offset: 51,
            ..
        }
    ));
    let twice = builder().kv("k", Value::U8(1)).kv("k", Value::U8(1));
    assert!(matches!(
        refuse(twice),
        Error::DuplicateKey { offset: 38, .. }
    ));
}

#[test]
fn an_alignment_must_be_a_power_of_two_of_the_right_type() {
    for alignment in [0, 3, 8192, 1 << 31] {
        let error = refuse(GgufBuilder::new().alignment(alignment));
        assert!(
            matches!(error, Error::Alignment { .. }),
            "{alignment}: {error}"
        );
    }
    let wrong_type = GgufBuilder::new().kv("general.alignment", Value::U64(32));
    assert!(refuse(wrong_type).to_string().contains("of type U64"));
    let file = GgufBuilder::new()
        .alignment(4096)
        .tensor("a", &[1], "F32")
        .tensor("b", &[1], "F32")
        .build();
    let header = parse(&file).unwrap();
    assert_eq!(
        (header.data_offset(), header.tensors()[1].offset()),
        (4096, 4096)
    );
}

#[test]
fn tensors_that_cannot_be_are_refused() {
    let one = |dimensions: &[u64], number, offset| {
        refuse(GgufBuilder::new().raw_tensor(b"t", dimensions, number, offset))
    };
    assert!(matches!(
        one(&[1; 5], 0, 0),
        Error::TooManyDimensions { count: 5, .. }
    ));
    assert!(matches!(one(&[4, 0], 0, 0), Error::Dimensions { .. }));
    assert!(matches!(
        one(&[1 << 32, 1 << 31], 0, 0),
        Error::Dimensions { .. }
    ));
    assert!(
        matches!(one(&[u64::MAX], 0, 0), Error::Dimensions { .. }),
        "-1 as unsigned"
    );
    assert!(matches!(
        one(&[1 << 31, 1 << 31], 0, 0),
        Error::Dimensions { .. } | Error::TensorBeyondFile { .. }
    ));
    assert!(
        matches!(one(&[1 << 62], 0, 0), Error::Dimensions { .. }),
        "4 bytes each overflow"
    );
    assert!(matches!(
        one(&[8], 0, u64::MAX - 31),
        Error::TensorOverflow { .. } | Error::Dimensions { .. }
    ));
    assert!(matches!(
        one(&[8], 0, 16),
        Error::Misaligned {
            offset: 16,
            alignment: 32,
            ..
        }
    ));
    assert!(matches!(
        one(&[33], 8, 0),
        Error::BlockMismatch {
            row: 33,
            block: 32,
            ..
        }
    ));
    assert!(matches!(
        one(&[32], 4, 0),
        Error::RemovedTensorType { found: 4, .. }
    ));
    assert!(matches!(
        one(&[32], 43, 0),
        Error::UnknownTensorType { found: 43, .. }
    ));
    assert!(matches!(
        one(&[32], u32::MAX, 0),
        Error::UnknownTensorType { .. }
    ));
    assert!(matches!(
        one(&[32], 0, 1 << 40),
        Error::TensorBeyondFile { .. }
    ));

    let named = |name: &[u8]| refuse(GgufBuilder::new().raw_tensor(name, &[1], 0, 0));
    assert!(matches!(named(b""), Error::EmptyName { .. }));
    assert!(matches!(
        named(&[b'n'; 64]),
        Error::TensorNameTooLong { length: 64, .. }
    ));
    assert!(matches!(named(b"\xc3"), Error::NotUtf8 { .. }));
    let twice = GgufBuilder::new()
        .tensor("t", &[1], "F32")
        .tensor("t", &[1], "F32");
    assert!(matches!(refuse(twice), Error::DuplicateTensor { .. }));
    let overlap = GgufBuilder::new()
        .tensor("a", &[16], "F32")
        .raw_tensor(b"b", &[1], 0, 32);
    assert!(matches!(refuse(overlap), Error::Overlap { .. }));
}

#[test]
fn a_file_that_lacks_its_last_byte_is_cut_off() {
    let mut file = GgufBuilder::tiny_llama("Tiny")
        .tensor("z", &[8], "F32")
        .build();
    assert!(parse(&file).is_ok());
    let header = Header::parse(&file[..file.len() - 1], None).unwrap();
    assert_eq!(header.min_file_size(), file.len() as u64);
    file.pop();
    let error = parse(&file).unwrap_err();
    assert!(
        error.to_string().contains("tensor \"z\" ends at byte"),
        "{error}"
    );
    assert!(header.check_file_size(file.len() as u64).is_err());
}

#[test]
fn names_of_a_stranger_are_shortened_and_escaped() {
    let key = format!("\u{1b}[2J{}", "x".repeat(60_000));
    let text = refuse(GgufBuilder::new().raw_kv(key.as_bytes(), 99, &[])).to_string();
    assert!(text.len() < 250 && text.contains("\\u{1b}[2J"), "{text}");

    let mut cut_off = GgufBuilder::new()
        .tensor("\u{1b}[2J", &[256], "F32")
        .build();
    cut_off.pop();
    let text = parse(&cut_off).unwrap_err().to_string();
    assert!(text.contains("tensor \"\\u{1b}[2J\" ends"), "{text}");
}

#[test]
fn without_a_file_type_the_most_used_tensor_type_counts() {
    let builder = GgufBuilder::new()
        .tensor("a", &[256], "Q4_K")
        .tensor("b", &[64], "F32");
    assert_eq!(
        parse(&builder.clone().build()).unwrap().quantisation(),
        Some("Q4_K")
    );
    let guessed = builder.kv("general.file_type", Value::U32(1024 + 15));
    assert_eq!(
        parse(&guessed.build()).unwrap().quantisation(),
        Some("Q4_K_M")
    );
    let empty = parse(&GgufBuilder::new().build()).unwrap();
    assert_eq!((empty.quantisation(), empty.parameter_size()), (None, None));
    assert_eq!(empty.data_offset(), 24, "no padding before no data");
}

#[test]
fn parameter_counts_are_written_as_ollama_does() {
    let counts = [
        999,
        137_000,
        2_787_584,
        5_000_000,
        999_999_999,
        7_615_616_512,
        8_000_000_000,
        70_553_706_496,
    ];
    let labels = [
        "999", "137K", "2.79M", "5M", "1000.00M", "7.6B", "8B", "70.6B",
    ];
    assert_eq!(counts.map(size_label), labels);
}

#[test]
fn a_stream_gives_its_header_as_soon_as_it_is_whole() {
    let file = GgufBuilder::tiny_llama("Tiny").build();
    let whole = parse(&file).unwrap();
    for size in [1, 7, 64, 4096] {
        let mut feed = Feed::new(None);
        let found = file
            .chunks(size)
            .find_map(|chunk| feed.push(chunk).unwrap());
        assert_eq!(found.as_ref(), Some(&whole), "chunks of {size}");
    }
    assert_eq!(Header::read(&mut &file[..], None).unwrap(), whole);
    let header = GgufBuilder::tiny_llama("Tiny").header();
    let error = Header::read(&mut &header[..header.len() - 1], None).unwrap_err();
    assert!(matches!(error, Error::CutShort { .. }), "{error}");
}

#[test]
fn a_value_type_has_the_number_of_the_format() {
    for number in 0..13 {
        assert_eq!(ValueType::from_number(number).unwrap().number(), number);
    }
}
