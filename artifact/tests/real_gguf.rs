//! The GGUF reader on real files: the bundled model, and the vocabularies of nineteen families.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test may stop")]
#![expect(
    clippy::disallowed_methods,
    reason = "where fetched files lie is said in the environment"
)]

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use artifact::gguf::{Error, Header, Kind, check};

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate lies in the repository")
}

fn hay_tiny() -> Vec<u8> {
    fs::read(repository().join("tests/fixtures/hay-tiny-q8_0.gguf")).unwrap()
}

#[test]
fn the_bundled_model_is_described_as_its_card_says() {
    let file = hay_tiny();
    let header = Header::parse(&file, Some(file.len() as u64)).unwrap();
    assert_eq!(check(&header), Ok(Kind::Model));
    assert_eq!(header.architecture(), Some("llama"));
    assert_eq!(header.parameter_count(), 2_787_584);
    assert_eq!(header.parameter_size().as_deref(), Some("2.79M"));
    assert_eq!(header.quantisation(), Some("Q8_0"));
    assert_eq!(header.context_length(), Some(512));
    assert_eq!(header.embedding_length(), Some(256));
    assert_eq!(header.tokenizer_model(), Some("gpt2"));
    assert!(header.chat_template().unwrap().contains("<|im_start|>"));
    let tokens = header
        .metadata()
        .get("tokenizer.ggml.tokens")
        .unwrap()
        .as_array()
        .unwrap();
    assert_eq!(tokens.len(), 1664);
    assert_eq!(header.min_file_size(), file.len() as u64);
}

#[test]
fn cut_at_every_byte_of_its_header_the_bundled_model_is_refused() {
    let file = hay_tiny();
    let size = file.len() as u64;
    let header = Header::parse(&file, Some(size)).unwrap();
    // The header ends before the padding that leads to the data.
    let data = usize::try_from(header.data_offset()).unwrap();
    let end = (0..=data)
        .rev()
        .find(|end| Header::parse(&file[..*end], Some(size)).is_err())
        .unwrap()
        + 1;
    assert!(data - end < 32);
    for cut in 0..end {
        let prefix = &file[..cut];
        match Header::parse(prefix, Some(size)) {
            Err(Error::Truncated { needed, have }) => {
                assert!(
                    have == cut as u64 && needed > have && needed <= end as u64,
                    "at {cut}: {needed}"
                );
            }
            other => panic!("{cut} bytes of a longer file: {other:?}"),
        }
        match Header::parse(prefix, Some(cut as u64)) {
            Err(Error::CutShort { .. }) => {}
            other => panic!("a file of {cut} bytes: {other:?}"),
        }
    }
    // From here on the header is whole and the weights are not.
    for cut in (end..file.len()).step_by(997).chain([file.len() - 1]) {
        let result = Header::parse(&file[..cut], Some(cut as u64));
        assert!(
            matches!(result, Err(Error::TensorBeyondFile { .. })),
            "at {cut}"
        );
    }
}

#[test]
fn nineteen_vocabularies_of_real_model_families_are_read() {
    let Some(files) = real_ggufs() else { return };
    assert!(
        files.len() >= 19,
        "{} files; run scripts/fetch-ggufs.sh again",
        files.len()
    );
    for path in &files {
        let size = path.metadata().unwrap().len();
        let header = Header::read(&mut File::open(path).unwrap(), Some(size))
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let bytes = fs::read(path).unwrap();
        assert_eq!(
            Header::parse(&bytes, Some(size)).unwrap(),
            header,
            "{}",
            path.display()
        );

        assert_eq!(check(&header), Ok(Kind::Vocabulary), "{}", path.display());
        assert!(header.tensors().is_empty(), "{}", path.display());
        assert!(header.architecture().is_some(), "{}", path.display());
        assert!(header.tokenizer_model().is_some(), "{}", path.display());
        assert!(header.context_length().unwrap() > 0, "{}", path.display());
        let tokens = header
            .metadata()
            .get("tokenizer.ggml.tokens")
            .unwrap()
            .as_array()
            .unwrap();
        assert!(tokens.len() > 10_000, "{}", path.display());
        assert_eq!(tokens.strings().count(), tokens.len());
        assert_eq!(tokens.iter().count(), tokens.len());
    }
}

/// The fetched files, or `None` where none were fetched and none are required.
fn real_ggufs() -> Option<Vec<PathBuf>> {
    let folder = std::env::var_os("HAYLOFT_GGUFS")
        .map_or_else(|| repository().join(".peers/ggufs"), PathBuf::from);
    if !folder.is_dir() {
        let required = std::env::var("HAYLOFT_REQUIRE_GGUFS").is_ok_and(|value| value == "1");
        assert!(
            !required,
            "{} is missing; run scripts/fetch-ggufs.sh",
            folder.display()
        );
        return None;
    }
    let entries = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    Some(
        entries
            .filter(|path| {
                path.extension()
                    .is_some_and(|extension| extension == "gguf")
            })
            .collect(),
    )
}
