//! GGUF header: a bounded reader for the metadata and the tensor table of a model file.
//!
//! Model files come from strangers and llama.cpp aborts on many bad ones, so every file passes
//! here first. The reader takes version 2 and 3 in little-endian order, allocates nothing by a
//! count it has not checked, and never looks at the weights themselves.
//!
//! It does no waiting: [`Header::parse`] takes what has arrived so far and says with
//! [`Error::Truncated`] that it needs more. [`Feed`] does that for a stream of chunks and
//! [`Header::read`] for a [`Read`].

use std::collections::HashSet;
use std::io::Read;

use cursor::Cursor;

pub mod annotations;
mod array;
#[cfg(any(test, feature = "test-support"))]
pub mod builder;
pub mod check;
mod cursor;
mod describe;
mod error;
mod feed;
mod metadata;
mod tensor;
mod tensor_type;
mod value;

pub use annotations::annotations;
pub use array::Array;
pub use check::{Kind, Split, Unsound, check, split_of};
pub use describe::size_label;
pub use error::Error;
pub use feed::Feed;
pub use metadata::Metadata;
pub use tensor::TensorInfo;
pub use tensor_type::TensorType;
pub use value::{Value, ValueType};

/// The four bytes that every GGUF file starts with.
pub const MAGIC: [u8; 4] = *b"GGUF";
/// Largest header we read, in bytes. Tokenizers of current models take up to about 11 MiB.
pub const MAX_HEADER_BYTES: u64 = 64 << 20;
/// Most metadata entries in one file.
pub const MAX_METADATA_ENTRIES: u64 = 65_536;
/// Most tensors in one file.
pub const MAX_TENSORS: u64 = 65_536;
/// Longest string value, in bytes.
pub const MAX_STRING_BYTES: u64 = 16 << 20;
/// Longest metadata key, in bytes: what ggml itself allows.
pub const MAX_KEY_BYTES: u64 = 65_535;
/// Most elements in one metadata array.
pub const MAX_ARRAY_ELEMENTS: u64 = 4 << 20;
/// Longest tensor name, in bytes: ggml keeps 64 with the closing zero.
pub const MAX_TENSOR_NAME_BYTES: u64 = 63;
/// Most dimensions of one tensor.
pub const MAX_DIMENSIONS: u32 = 4;
/// Largest alignment of tensor data, in bytes.
pub const MAX_ALIGNMENT: u32 = 4096;
/// The alignment of tensor data when the file names none, in bytes.
pub const DEFAULT_ALIGNMENT: u32 = 32;

/// How much [`Header::read`] asks for first: enough for the fixed part and most metadata.
const FIRST_READ_BYTES: usize = 64 << 10;

/// The checked header of a GGUF file.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    version: u32,
    alignment: u32,
    data_offset: u64,
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
}

impl Header {
    /// Reads a header from the first bytes of a file.
    ///
    /// `bytes` may be the whole file or any prefix of it. `file_size` is the length of the whole
    /// file in bytes where it is known; every tensor must then lie inside it.
    ///
    /// # Errors
    /// [`Error::Truncated`] if the header goes on past `bytes` and may be whole in the file; every
    /// other error is final for this file.
    pub fn parse(bytes: &[u8], file_size: Option<u64>) -> Result<Self, Error> {
        let mut cursor = Cursor::new(bytes, file_size);
        let version = read_version(&mut cursor)?;
        let tensor_count = cursor.count("tensors", MAX_TENSORS)?;
        let entry_count = cursor.count("metadata entries", MAX_METADATA_ENTRIES)?;

        let metadata = Metadata::read(&mut cursor, entry_count)?;
        let alignment = metadata.alignment()?;

        let mut tensors = Vec::new();
        let mut names = HashSet::new();
        for index in 0..tensor_count {
            tensors.push(TensorInfo::read(&mut cursor, index, alignment, &mut names)?);
        }

        let end = cursor.position();
        // A vocabulary-only file has no data section, hence no padding before it.
        let data_offset = if tensors.is_empty() {
            end
        } else {
            end.next_multiple_of(u64::from(alignment))
        };
        let header = Self {
            version,
            alignment,
            data_offset,
            metadata,
            tensors,
        };
        tensor::check_no_overlap(&header.tensors)?;
        if let Some(size) = file_size {
            header.check_file_size(size)?;
        }
        Ok(header)
    }

    /// Reads a header from a reader that stands at the start of a file, and no more than
    /// [`MAX_HEADER_BYTES`] of it (in steps that double, so up to about twice the header is read).
    ///
    /// # Errors
    /// As [`Header::parse`], and [`Error::Io`] if reading fails. The end of `reader` is the end of
    /// the file, so [`Error::Truncated`] never comes from here.
    pub fn read(reader: &mut impl Read, file_size: Option<u64>) -> Result<Self, Error> {
        let mut feed = Feed::new(file_size);
        let mut chunk = vec![0; FIRST_READ_BYTES];
        loop {
            let count = match reader.read(&mut chunk) {
                Ok(0) => return feed.finish(),
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Error::Io(error)),
            };
            // A reader may claim more than it was given room for: take what is there.
            if let Some(header) = feed.push(chunk.get(..count).unwrap_or(&chunk))? {
                return Ok(header);
            }
        }
    }

    /// Checks that a file of `file_size` bytes holds every tensor of this header.
    ///
    /// # Errors
    /// [`Error::TensorBeyondFile`] names the first tensor that does not fit.
    pub fn check_file_size(&self, file_size: u64) -> Result<(), Error> {
        for tensor in &self.tensors {
            let end = tensor.end_in_file(self.data_offset)?;
            if end > file_size {
                return Err(Error::TensorBeyondFile {
                    tensor: error::shown(tensor.name()),
                    end,
                    file_size,
                });
            }
        }
        Ok(())
    }

    /// The format version, 2 or 3.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The alignment of every tensor's data, in bytes.
    #[must_use]
    pub fn alignment(&self) -> u32 {
        self.alignment
    }

    /// Where tensor data begins, in bytes from the start of the file.
    #[must_use]
    pub fn data_offset(&self) -> u64 {
        self.data_offset
    }

    /// The metadata, in file order.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The tensors, in file order.
    #[must_use]
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The fewest bytes that a file with this header can have.
    #[must_use]
    pub fn min_file_size(&self) -> u64 {
        self.tensors
            .iter()
            .filter_map(|tensor| tensor.end_in_file(self.data_offset).ok())
            .max()
            .unwrap_or(self.data_offset)
    }
}

/// Reads magic and version, and tells apart the ways in which a file can be none of ours.
fn read_version(cursor: &mut Cursor<'_>) -> Result<u32, Error> {
    cursor.check_magic()?;
    let version = cursor.u32()?;
    match version {
        2 | 3 => Ok(version),
        // A small number in the other byte order has its low half empty.
        _ if version != 0 && version & 0xffff == 0 => Err(Error::BigEndian {
            version: version.swap_bytes(),
        }),
        _ => Err(Error::UnsupportedVersion { version }),
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
