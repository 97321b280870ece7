//! A position in the first bytes of a file: every read is checked against what is there.

use std::fmt;

use super::error::{Error, shown};
use super::{MAGIC, MAX_HEADER_BYTES, MAX_STRING_BYTES};

/// What is being read, for messages.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place<'a> {
    /// The key of a metadata entry, by its place in the file.
    Key(u64),
    /// The value of a metadata entry, by its key.
    Value(&'a str),
    /// The name of a tensor, by its place in the table.
    TensorName(u64),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(index) => write!(f, "metadata key {index}"),
            Self::Value(key) => write!(f, "the value of metadata key \"{}\"", shown(key)),
            Self::TensorName(index) => write!(f, "the name of tensor {index}"),
        }
    }
}

/// Reads little-endian values from a prefix of a file.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
    file_size: Option<u64>,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8], file_size: Option<u64>) -> Self {
        Self {
            bytes,
            position: 0,
            file_size,
        }
    }

    /// Bytes from the start of the file.
    pub(super) fn position(&self) -> u64 {
        self.position as u64
    }

    /// Takes `count` bytes, or says which of the three ends is in the way: of the header we read,
    /// of the file, or only of what has arrived.
    pub(super) fn take(&mut self, count: u64) -> Result<&'a [u8], Error> {
        let have = self.bytes.len() as u64;
        let needed = self.position().saturating_add(count);
        if needed > MAX_HEADER_BYTES {
            return Err(Error::HeaderTooLarge { needed });
        }
        if let Some(file_size) = self.file_size
            && needed > file_size
        {
            return Err(Error::CutShort { needed, file_size });
        }
        // The limit above keeps `needed` far inside usize.
        let end = usize::try_from(needed).unwrap_or(usize::MAX);
        let taken = self
            .bytes
            .get(self.position..end)
            .ok_or(Error::Truncated { needed, have })?;
        self.position = end;
        Ok(taken)
    }

    /// Refuses anything that does not start as a GGUF file, as soon as one byte shows it.
    pub(super) fn check_magic(&mut self) -> Result<(), Error> {
        let start = &self.bytes[..self.bytes.len().min(MAGIC.len())];
        if !MAGIC.starts_with(start) {
            let mut found = [0; 4];
            found[..start.len()].copy_from_slice(start);
            return Err(Error::NotGguf { found });
        }
        self.take(MAGIC.len() as u64).map(|_| ())
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let taken = self.take(N as u64)?;
        let mut array = [0; N];
        array.copy_from_slice(taken);
        Ok(array)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Error> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Error> {
        self.array().map(u64::from_le_bytes)
    }

    /// Reads a count of things and holds it against a limit, before anything is made of it.
    pub(super) fn count(&mut self, what: &'static str, limit: u64) -> Result<u64, Error> {
        let offset = self.position();
        let count = self.u64()?;
        if count > limit {
            return Err(Error::TooMany {
                what,
                count,
                limit,
                offset,
            });
        }
        Ok(count)
    }

    /// Reads a length and the bytes that follow it.
    pub(super) fn sized(&mut self, place: Place<'_>, limit: u64) -> Result<&'a [u8], Error> {
        let offset = self.position();
        let length = self.u64()?;
        if length > limit {
            return Err(Error::TooLong {
                place: place.to_string(),
                length,
                limit,
                offset,
            });
        }
        self.take(length)
    }

    /// Takes `count` sized strings, lengths included, as one run of bytes. They need not be UTF-8.
    pub(super) fn strings(&mut self, place: Place<'_>, count: u64) -> Result<&'a [u8], Error> {
        let start = self.position;
        for left in (0..count).rev() {
            self.sized(place, MAX_STRING_BYTES)
                .map_err(|error| match error {
                    // Every string that is still to come has at least its length.
                    Error::Truncated { needed, have } => {
                        let needed = needed.saturating_add(left * 8);
                        if needed > MAX_HEADER_BYTES {
                            Error::HeaderTooLarge { needed }
                        } else {
                            Error::Truncated { needed, have }
                        }
                    }
                    error => error,
                })?;
        }
        Ok(&self.bytes[start..self.position])
    }

    /// Reads a string that must be UTF-8.
    pub(super) fn text(&mut self, place: Place<'_>, limit: u64) -> Result<&'a str, Error> {
        let bytes = self.sized(place, limit)?;
        let offset = self.position() - bytes.len() as u64;
        str::from_utf8(bytes).map_err(|_| Error::NotUtf8 {
            place: place.to_string(),
            offset,
        })
    }

    /// Reads a key or a tensor name: UTF-8 and not empty.
    pub(super) fn name(&mut self, place: Place<'_>, limit: u64) -> Result<&'a str, Error> {
        let offset = self.position();
        let name = self.text(place, limit)?;
        if name.is_empty() {
            return Err(Error::EmptyName {
                place: place.to_string(),
                offset,
            });
        }
        Ok(name)
    }
}
