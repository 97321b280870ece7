//! A header read from a stream: chunks go in, the header comes out once it is whole.

use super::{Error, Header, MAX_HEADER_BYTES};

/// Collects the first bytes of a file until they hold its header.
///
/// Bytes are kept only until the header is read or refused, and never more than
/// [`MAX_HEADER_BYTES`]. They are parsed anew each time their
/// number has doubled, so the whole costs at most about twice one parse.
#[derive(Debug)]
pub struct Feed {
    file_size: Option<u64>,
    bytes: Vec<u8>,
    next_try: u64,
}

impl Feed {
    /// Starts with nothing. `file_size` is the length of the whole file in bytes, where known.
    #[must_use]
    pub fn new(file_size: Option<u64>) -> Self {
        Self {
            file_size,
            bytes: Vec::new(),
            next_try: 0,
        }
    }

    /// Takes the next bytes of the file. `None` means that more are needed.
    ///
    /// # Errors
    /// As [`Header::parse`], without [`Error::Truncated`]. After an error or a header, do not push
    /// again.
    pub fn push(&mut self, chunk: &[u8]) -> Result<Option<Header>, Error> {
        let result = self.read(chunk);
        if !matches!(result, Ok(None)) {
            self.bytes = Vec::new();
        }
        result
    }

    /// As [`Feed::push`], but all that came is still there for [`Feed::into_bytes`] after a header
    /// or an error.
    pub(crate) fn read(&mut self, chunk: &[u8]) -> Result<Option<Header>, Error> {
        let room = usize::try_from(MAX_HEADER_BYTES).unwrap_or(usize::MAX) - self.bytes.len();
        self.bytes
            .extend_from_slice(&chunk[..chunk.len().min(room)]);
        let have = self.bytes.len() as u64;
        if have < self.next_try {
            return Ok(None);
        }
        match Header::parse(&self.bytes, self.file_size) {
            Ok(header) => Ok(Some(header)),
            Err(Error::Truncated { needed, .. }) => {
                let most = self.file_size.unwrap_or(u64::MAX).min(MAX_HEADER_BYTES);
                self.next_try = needed.max(most.min(have.saturating_mul(2)));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// How many more bytes are only kept, and not looked at: what is pushed up to there costs
    /// nothing but their memory.
    #[must_use]
    pub fn unread(&self) -> u64 {
        self.next_try.saturating_sub(self.bytes.len() as u64)
    }

    /// How many bytes are kept.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.bytes.len()
    }

    /// Says that the file has ended: the header must be whole by now.
    ///
    /// # Errors
    /// As [`Header::parse`], with [`Error::CutShort`] in the place of [`Error::Truncated`].
    pub fn finish(self) -> Result<Header, Error> {
        self.end()
    }

    /// As [`Feed::finish`], but what came is still there for [`Feed::into_bytes`].
    pub(crate) fn end(&self) -> Result<Header, Error> {
        let have = self.bytes.len() as u64;
        match Header::parse(&self.bytes, self.file_size) {
            Err(Error::Truncated { needed, .. }) => Err(Error::CutShort {
                needed,
                file_size: have,
            }),
            result => result,
        }
    }
    /// What was kept: every byte that came, up to [`MAX_HEADER_BYTES`].
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}
