//! What can be wrong with a GGUF header, in words that a person can act on.

use super::{MAX_ALIGNMENT, MAX_DIMENSIONS, MAX_HEADER_BYTES, MAX_TENSOR_NAME_BYTES};

/// Why a GGUF header was refused.
///
/// Offsets count bytes from the start of the file. Names from the file are shortened and
/// escaped: a name may hold terminal control sequences or be a megabyte long.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// More bytes of the file are needed. Not final: ask again with at least `needed` bytes.
    #[error("the GGUF header goes on past the {have} bytes read; at least {needed} are needed")]
    Truncated {
        /// A lower bound for the length of the prefix that the next try needs, in bytes.
        needed: u64,
        /// The length of the prefix that was given, in bytes.
        have: u64,
    },
    /// The file ends inside its own header.
    #[error(
        "the file ends inside its GGUF header: {file_size} bytes long, at least {needed} needed; \
         it was cut off: fetch or copy it again"
    )]
    CutShort {
        /// A lower bound for the length of the header, in bytes.
        needed: u64,
        /// The length of the file, in bytes.
        file_size: u64,
    },
    /// Not a GGUF file at all.
    #[error("not a GGUF file: it starts with \"{}\" instead of \"GGUF\"", found.escape_ascii())]
    NotGguf {
        /// The first four bytes.
        found: [u8; 4],
    },
    /// A file in big-endian byte order.
    #[error(
        "unsupported GGUF: big-endian byte order (version {version}); convert it to little-endian \
         (gguf-py has gguf_convert_endian.py)"
    )]
    BigEndian {
        /// The version, read in the file's own byte order.
        version: u32,
    },
    /// A format version that we do not read.
    #[error(
        "unsupported GGUF version {version}: versions 2 and 3 are read; convert the model again \
         with a current llama.cpp"
    )]
    UnsupportedVersion {
        /// The version in the file.
        version: u32,
    },
    /// The header is larger than we read.
    #[error(
        "the GGUF header needs at least {needed} bytes, and at most {MAX_HEADER_BYTES} are read"
    )]
    HeaderTooLarge {
        /// A lower bound for the length of the header, in bytes.
        needed: u64,
    },
    /// A count of entries or tensors above the limit.
    #[error("{count} {what} announced at byte {offset}, and at most {limit} are read")]
    TooMany {
        /// What is counted.
        what: &'static str,
        /// The count in the file.
        count: u64,
        /// The limit.
        limit: u64,
        /// Where the count stands.
        offset: u64,
    },
    /// A string or array above the limit.
    #[error("{place} at byte {offset} announces a length of {length}, and at most {limit} is read")]
    TooLong {
        /// The key or tensor it belongs to.
        place: String,
        /// The length in the file: bytes of a string, elements of an array.
        length: u64,
        /// The limit.
        limit: u64,
        /// Where the length stands.
        offset: u64,
    },
    /// A string that is not UTF-8.
    #[error("{place} at byte {offset} is not UTF-8")]
    NotUtf8 {
        /// The key or tensor it belongs to.
        place: String,
        /// Where the text begins.
        offset: u64,
    },
    /// A key or tensor name without a character.
    #[error("{place} at byte {offset} is empty")]
    EmptyName {
        /// Which one.
        place: String,
        /// Where its length stands.
        offset: u64,
    },
    /// A metadata key that comes twice.
    #[error("metadata key \"{key}\" comes a second time at byte {offset}")]
    DuplicateKey {
        /// The key.
        key: String,
        /// Where the second one stands.
        offset: u64,
    },
    /// A tensor name that comes twice.
    #[error("tensor \"{tensor}\" comes a second time at byte {offset}")]
    DuplicateTensor {
        /// The name.
        tensor: String,
        /// Where the second one stands.
        offset: u64,
    },
    /// A value type that the format does not have.
    #[error("metadata key \"{key}\" has the unknown value type {found} at byte {offset}")]
    UnknownValueType {
        /// The key.
        key: String,
        /// The type in the file.
        found: u32,
        /// Where the type stands.
        offset: u64,
    },
    /// An array of arrays.
    #[error(
        "metadata key \"{key}\" at byte {offset} is an array of arrays, which llama.cpp does not \
         read either"
    )]
    NestedArray {
        /// The key.
        key: String,
        /// Where the inner type stands.
        offset: u64,
    },
    /// A truth value that is neither 0 nor 1.
    #[error("metadata key \"{key}\" at byte {offset} holds {found} as a truth value, not 0 or 1")]
    InvalidBool {
        /// The key.
        key: String,
        /// The byte in the file.
        found: u8,
        /// Where it stands.
        offset: u64,
    },
    /// An alignment that cannot be used.
    #[error(
        "general.alignment is {found}; it must be a uint32 and a power of two up to {MAX_ALIGNMENT}"
    )]
    Alignment {
        /// The value and, if that is what is wrong, its type.
        found: String,
    },
    /// A tensor name longer than ggml keeps.
    #[error(
        "the name of tensor {index} at byte {offset} is {length} bytes long, and at most \
         {MAX_TENSOR_NAME_BYTES} are allowed"
    )]
    TensorNameTooLong {
        /// The tensor's place in the table, from 0.
        index: u64,
        /// The length in the file.
        length: u64,
        /// Where the length stands.
        offset: u64,
    },
    /// More dimensions than ggml has.
    #[error("tensor \"{tensor}\" has {count} dimensions, and at most {MAX_DIMENSIONS} are allowed")]
    TooManyDimensions {
        /// The tensor.
        tensor: String,
        /// The count in the file.
        count: u32,
    },
    /// Dimensions that cannot be: a zero, or a product beyond 63 bits.
    #[error("tensor \"{tensor}\" has the impossible dimensions {dimensions:?}")]
    Dimensions {
        /// The tensor.
        tensor: String,
        /// The dimensions in the file.
        dimensions: Vec<u64>,
    },
    /// A tensor type that was taken out of the format.
    #[error(
        "tensor \"{tensor}\" has type {found}, which llama.cpp no longer supports; quantise the \
         model again with a current llama.cpp"
    )]
    RemovedTensorType {
        /// The tensor.
        tensor: String,
        /// The type in the file.
        found: u32,
    },
    /// A tensor type that we do not know.
    #[error("tensor \"{tensor}\" has the unknown type {found}")]
    UnknownTensorType {
        /// The tensor.
        tensor: String,
        /// The type in the file.
        found: u32,
    },
    /// A row that is no whole number of blocks.
    #[error(
        "tensor \"{tensor}\" has rows of {row} elements, not a multiple of the {block} that a \
         block of {tensor_type} holds"
    )]
    BlockMismatch {
        /// The tensor.
        tensor: String,
        /// Elements in a row.
        row: u64,
        /// Elements in a block.
        block: u64,
        /// The type's name.
        tensor_type: &'static str,
    },
    /// A data offset that is not aligned.
    #[error("the data of tensor \"{tensor}\" begins at {offset}, not a multiple of {alignment}")]
    Misaligned {
        /// The tensor.
        tensor: String,
        /// Where its data begins, from the start of the data section.
        offset: u64,
        /// The alignment of this file.
        alignment: u32,
    },
    /// A tensor whose place or size does not fit 64 bits.
    #[error("the place of tensor \"{tensor}\" overflows: offset {offset}, {bytes} bytes")]
    TensorOverflow {
        /// The tensor.
        tensor: String,
        /// Where its data begins, from the start of the data section.
        offset: u64,
        /// The length of its data.
        bytes: u64,
    },
    /// Two tensors share bytes.
    #[error("the data of tensors \"{first}\" and \"{second}\" overlap")]
    Overlap {
        /// The one that begins first.
        first: String,
        /// The one that begins inside it.
        second: String,
    },
    /// A tensor that goes on past the end of the file.
    #[error(
        "tensor \"{tensor}\" ends at byte {end}, and the file has only {file_size}; it was cut \
         off: fetch or copy it again"
    )]
    TensorBeyondFile {
        /// The tensor.
        tensor: String,
        /// Where its data ends.
        end: u64,
        /// The length of the file.
        file_size: u64,
    },
    /// Reading the file failed.
    #[error("reading the GGUF header failed")]
    Io(#[source] std::io::Error),
}

impl Error {
    /// Whether more bytes of the same file may still give a header.
    #[must_use]
    pub fn is_truncated(&self) -> bool {
        matches!(self, Self::Truncated { .. })
    }
}

/// How many characters of a name from the file an error shows.
const SHOWN_CHARACTERS: usize = 80;

/// A name from the file, fit for a message: short and without control characters.
pub(super) fn shown(name: &str) -> String {
    let mut text: String = name
        .chars()
        .take(SHOWN_CHARACTERS)
        .flat_map(char::escape_debug)
        .collect();
    if name.chars().nth(SHOWN_CHARACTERS).is_some() {
        text.push('…');
    }
    text
}
