//! Any bytes as a GGUF file: a header or an error, the same one however the bytes arrive.
#![no_main]

use artifact::gguf::{Error, Feed, Header};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let size = bytes.len() as u64;
    let whole = Header::parse(bytes, Some(size));
    let prefix = Header::parse(bytes, None);

    match &whole {
        Ok(header) => {
            assert!(header.min_file_size() <= size);
            assert!(prefix.is_ok());
            look_at(header);
        }
        Err(Error::Truncated { .. }) => panic!("the whole file is there, yet more is asked for"),
        Err(error) => assert!(!error.to_string().contains(char::is_control)),
    }
    if let Err(Error::Truncated { needed, have }) = &prefix {
        assert!(needed > have && *have == size);
    }

    // In chunks, the header comes out as in one piece: NaN is not itself, so compare its debug form.
    let step = usize::from(bytes.last().copied().unwrap_or(0)) + 1;
    let mut feed = Feed::new(None);
    let found = bytes.chunks(step).find_map(|chunk| feed.push(chunk).transpose());
    let fed = found.unwrap_or_else(|| feed.finish());
    assert_eq!(format!("{:?}", fed.ok()), format!("{:?}", prefix.ok()));
});

/// Calls every accessor on a header that passed.
fn look_at(header: &Header) {
    let _ = (header.architecture(), header.name(), header.license(), header.chat_template());
    let _ = (header.context_length(), header.embedding_length(), header.tokenizer_model());
    let _ = (header.parameter_count(), header.parameter_size(), header.quantisation());
    for (_, value) in header.metadata().iter() {
        let _ = value.to_json();
        if let Some(array) = value.as_array() {
            assert_eq!(array.iter().count(), array.len());
        }
    }
}
