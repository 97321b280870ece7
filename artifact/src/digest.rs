//! Digest: an algorithm and its bytes, never a string; and the Digester that makes one from a stream.
//!
//! Source: OCI image-spec `descriptor.md`, section "Digests". Two algorithms are registered there and
//! accepted here: `sha256` and `sha512`, in lower-case hexadecimal.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::digest::common::hazmat::SerializableState;
use sha2::{Digest as _, Sha256, Sha512};

/// A hash function that OCI registers for digests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// SHA-256, the default everywhere.
    Sha256,
    /// SHA-512, optional in OCI.
    Sha512,
}

impl Algorithm {
    /// Every algorithm, the default first.
    pub const ALL: [Self; 2] = [Self::Sha256, Self::Sha512];

    /// The name that stands before the colon.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// Length of the digest in bytes.
    #[must_use]
    pub fn digest_bytes(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Algorithm {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        match text {
            "sha256" => Ok(Self::Sha256),
            "sha512" => Ok(Self::Sha512),
            _ => Err(InvalidDigest::UnknownAlgorithm {
                algorithm: shown(text),
            }),
        }
    }
}

/// Why a text is not a digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDigest {
    /// No colon between algorithm and hexadecimal part.
    #[error("digest {text:?} has no colon: write it as sha256:<64 hexadecimal digits>")]
    MissingColon {
        /// The offending text, shortened.
        text: String,
    },
    /// An algorithm other than sha256 and sha512.
    #[error("digest algorithm {algorithm:?} is not known: use sha256 or sha512")]
    UnknownAlgorithm {
        /// The offending name, shortened.
        algorithm: String,
    },
    /// The hexadecimal part is too short or too long.
    #[error("{algorithm} digest has {found} characters after the colon, not {expected}")]
    WrongLength {
        /// The algorithm named.
        algorithm: Algorithm,
        /// Characters wanted.
        expected: usize,
        /// Characters found.
        found: usize,
    },
    /// A character that is not a lower-case hexadecimal digit.
    #[error("digest has a character at position {position} that is not one of 0-9 and a-f")]
    NotLowerHex {
        /// Byte position after the colon.
        position: usize,
    },
}

/// A content address: `sha256:<hex>` or `sha512:<hex>`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Digest {
    /// A SHA-256 digest.
    Sha256([u8; 32]),
    /// A SHA-512 digest.
    Sha512([u8; 64]),
}

impl Digest {
    /// Reads `algorithm:hex`.
    ///
    /// # Errors
    /// [`InvalidDigest`] says which rule the text breaks.
    pub fn parse(text: &str) -> Result<Self, InvalidDigest> {
        let (algorithm, hex) = text
            .split_once(':')
            .ok_or_else(|| InvalidDigest::MissingColon { text: shown(text) })?;
        Self::from_hex(algorithm.parse()?, hex)
    }

    /// Reads the hexadecimal part alone, as file names carry it.
    ///
    /// # Errors
    /// [`InvalidDigest`] for a wrong length or a character that is not lower-case hexadecimal.
    pub fn from_hex(algorithm: Algorithm, hex: &str) -> Result<Self, InvalidDigest> {
        let expected = algorithm.digest_bytes() * 2;
        if hex.len() != expected {
            return Err(InvalidDigest::WrongLength {
                algorithm,
                expected,
                found: hex.len(),
            });
        }
        if let Some(position) = hex
            .bytes()
            .position(|byte| !matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        {
            return Err(InvalidDigest::NotLowerHex { position });
        }
        let mut bytes = [0u8; 64];
        let decoded = &mut bytes[..algorithm.digest_bytes()];
        // Length and alphabet were checked above, so decoding cannot fail; an error would still be reported.
        hex::decode_to_slice(hex, decoded)
            .map_err(|_| InvalidDigest::NotLowerHex { position: 0 })?;
        Ok(Self::from_bytes(algorithm, &bytes))
    }

    /// The digest of `bytes`.
    #[must_use]
    pub fn of(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let mut digester = Digester::new(algorithm);
        digester.update(bytes);
        digester.finish()
    }

    /// The SHA-256 digest of `bytes`.
    #[must_use]
    pub fn sha256(bytes: &[u8]) -> Self {
        Self::of(Algorithm::Sha256, bytes)
    }

    /// The algorithm.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Self::Sha256(_) => Algorithm::Sha256,
            Self::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// The part after the colon: 64 or 128 lower-case hexadecimal digits.
    #[must_use]
    pub fn hex(&self) -> String {
        hex::encode(self.as_bytes())
    }

    /// The raw bytes, 32 or 64 of them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Sha256(bytes) => bytes,
            Self::Sha512(bytes) => bytes,
        }
    }

    fn from_bytes(algorithm: Algorithm, bytes: &[u8; 64]) -> Self {
        match algorithm {
            Algorithm::Sha256 => {
                let mut short = [0u8; 32];
                short.copy_from_slice(&bytes[..32]);
                Self::Sha256(short)
            }
            Algorithm::Sha512 => Self::Sha512(*bytes),
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm(), self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        Self::parse(text)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// Makes a [`Digest`] from bytes as they stream by.
///
/// Its half-done state can be saved and continued, which is what lets an upload go on after a
/// restart without reading again what has already arrived.
#[derive(Clone, Debug)]
pub struct Digester(State);

#[derive(Clone, Debug)]
enum State {
    Sha256(Sha256),
    Sha512(Sha512),
}

/// A saved [`Digester`] state that does not belong to its algorithm or was damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the saved state of a {algorithm} digester is damaged")]
pub struct DamagedState {
    algorithm: Algorithm,
}

impl Digester {
    /// Starts with no bytes seen.
    #[must_use]
    pub fn new(algorithm: Algorithm) -> Self {
        Self(match algorithm {
            Algorithm::Sha256 => State::Sha256(Sha256::new()),
            Algorithm::Sha512 => State::Sha512(Sha512::new()),
        })
    }

    /// Takes the next bytes of the stream.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Sha256(state) => state.update(bytes),
            State::Sha512(state) => state.update(bytes),
        }
    }

    /// The digest of everything seen.
    #[must_use]
    pub fn finish(self) -> Digest {
        match self.0 {
            State::Sha256(state) => Digest::Sha256(state.finalize().into()),
            State::Sha512(state) => Digest::Sha512(state.finalize().into()),
        }
    }

    /// The algorithm.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        match self.0 {
            State::Sha256(_) => Algorithm::Sha256,
            State::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// The half-done state, to be continued by [`Digester::restore`].
    #[must_use]
    pub fn save(&self) -> Vec<u8> {
        match &self.0 {
            State::Sha256(state) => state.serialize().to_vec(),
            State::Sha512(state) => state.serialize().to_vec(),
        }
    }

    /// Continues from what [`Digester::save`] gave.
    ///
    /// # Errors
    /// [`DamagedState`] when the bytes are not such a state.
    pub fn restore(algorithm: Algorithm, saved: &[u8]) -> Result<Self, DamagedState> {
        let damaged = DamagedState { algorithm };
        Ok(Self(match algorithm {
            Algorithm::Sha256 => {
                let saved = saved.try_into().map_err(|_| damaged)?;
                State::Sha256(Sha256::deserialize(saved).map_err(|_| damaged)?)
            }
            Algorithm::Sha512 => {
                let saved = saved.try_into().map_err(|_| damaged)?;
                State::Sha512(Sha512::deserialize(saved).map_err(|_| damaged)?)
            }
        }))
    }
}

/// At most 80 characters of a text from outside, for an error message.
pub(crate) fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed expectation is a failed test")]
mod tests {
    use proptest::prelude::{any, prop, prop_assert_eq, proptest};

    use crate::digest::{Algorithm, Digest, Digester, InvalidDigest};

    #[test]
    fn the_digest_of_nothing_is_the_published_one() {
        assert_eq!(
            Digest::sha256(b"").to_string(),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }

    #[test]
    fn bad_digests_are_refused_with_a_reason() {
        let long = "a".repeat(65);
        for (text, wanted) in [
            ("sha256", "colon"),
            ("md5:abcd", "not known"),
            ("sha256:../../etc/passwd", "characters"),
            (&format!("sha256:{}", "A".repeat(64)), "not one of"),
            (&format!("sha256:{long}"), "65 characters"),
            (&format!("sha256:{}\0", "a".repeat(63)), "not one of"),
        ] {
            let message = Digest::parse(text).unwrap_err().to_string();
            assert!(message.contains(wanted), "{text}: {message}");
        }
    }

    #[test]
    fn a_damaged_digester_state_is_refused() {
        assert!(Digester::restore(Algorithm::Sha256, b"short").is_err());
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in ".{0,200}") {
            let _ = Digest::parse(&text);
        }

        #[test]
        fn printed_digests_parse_back(bytes in any::<[u8; 32]>(), long in any::<[u8; 64]>()) {
            for digest in [Digest::Sha256(bytes), Digest::Sha512(long)] {
                prop_assert_eq!(Digest::parse(&digest.to_string()), Ok(digest));
            }
        }

        #[test]
        fn a_digester_continues_where_it_was_saved(
            bytes in prop::collection::vec(any::<u8>(), 0..2000),
            cut in any::<prop::sample::Index>(),
            long in any::<bool>(),
        ) {
            let algorithm = if long { Algorithm::Sha512 } else { Algorithm::Sha256 };
            let cut = cut.index(bytes.len() + 1);
            let mut first = Digester::new(algorithm);
            first.update(&bytes[..cut]);
            let mut second = Digester::restore(algorithm, &first.save()).unwrap();
            second.update(&bytes[cut..]);
            prop_assert_eq!(second.finish(), Digest::of(algorithm, &bytes));
        }

        #[test]
        fn hex_of_another_length_is_refused(hex in "[0-9a-f]{0,63}") {
            let refused = matches!(
                Digest::from_hex(Algorithm::Sha256, &hex),
                Err(InvalidDigest::WrongLength { .. })
            );
            prop_assert_eq!(refused, true);
        }
    }
}
