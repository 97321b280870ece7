//! Properties of the GGUF header reader: whatever the bytes, a header or an error.
#![expect(clippy::unwrap_used, reason = "a test may stop")]

use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, proptest};

use super::builder::GgufBuilder;
use super::tests::{parse, with_counts};
use super::{Error, Header, Value, check};

/// A valid file with a little of everything.
fn valid() -> impl Strategy<Value = Vec<u8>> {
    let entry = ("[a-z]{1,8}", any::<u32>(), "\\PC{0,20}");
    let tensor = (
        1..5_u64,
        proptest::sample::select(vec!["F32", "Q8_0", "Q4_K", "MXFP4"]),
    );
    (
        proptest::collection::vec(entry, 0..6),
        proptest::collection::vec(tensor, 0..5),
    )
        .prop_map(|(entries, tensors)| {
            let mut builder = GgufBuilder::tiny_llama("Tiny");
            for (index, (key, number, text)) in entries.into_iter().enumerate() {
                builder = builder
                    .kv(&format!("{key}.{index}"), Value::U32(number))
                    .kv(&format!("{key}.{index}.text"), text.as_str())
                    .strings(&format!("{key}.{index}.list"), &[&text, &key]);
            }
            for (index, (rows, tensor_type)) in tensors.into_iter().enumerate() {
                builder = builder.tensor(&format!("t{index}"), &[256, rows], tensor_type);
            }
            builder.build()
        })
}

proptest! {
    #[test]
    fn any_bytes_give_a_header_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
        let _ = parse(&bytes);
        let _ = parse(&with_counts(1, 1, &bytes));
    }

    #[test]
    fn a_changed_header_gives_a_header_or_an_error_that_can_be_shown(
        file in valid(),
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4)
    ) {
        let whole = parse(&file).unwrap();
        let mut changed = file;
        for (index, byte) in changes {
            let end = usize::try_from(whole.data_offset()).unwrap();
            changed[index.index(end)] = byte;
        }
        match parse(&changed) {
            Ok(header) => {
                prop_assert!(header.min_file_size() <= changed.len() as u64);
                let _ = (header.quantisation(), header.parameter_size(), header.context_length());
                let text = check(&header).map_or_else(|error| error.to_string(), |_| String::new());
                prop_assert!(!text.contains(|c: char| c.is_control()));
                header.metadata().iter().for_each(|(_, value)| drop(value.to_json()));
            }
            Err(error) => prop_assert!(!error.to_string().contains(|c: char| c.is_control())),
        }
    }

    #[test]
    fn a_prefix_of_a_valid_file_asks_for_more_and_never_for_too_much(
        file in valid(),
        cut in any::<proptest::sample::Index>()
    ) {
        let whole = parse(&file).unwrap();
        let prefix = &file[..cut.index(file.len())];
        match Header::parse(prefix, None) {
            Ok(header) => prop_assert_eq!(header, whole),
            Err(Error::Truncated { needed, have }) => {
                prop_assert!(needed > have && needed <= whole.data_offset());
            }
            Err(error) => prop_assert!(false, "{}", error),
        }
    }
}
