//! What can be wrong with a Modelfile, and on which line.

use std::fmt;

use super::MAX_BYTES;

/// Why a Modelfile was refused: the fault, and the line where there is one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Error {
    /// The line, counted from 1; `None` if the file as a whole is at fault.
    pub line: Option<usize>,
    /// What is wrong.
    pub fault: Fault,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "(line {line}): {}", self.fault),
            None => self.fault.fmt(f),
        }
    }
}

/// What is wrong with a Modelfile. The words of Ollama, where it has some.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// An instruction of unknown name.
    #[error(
        "command must be one of \"from\", \"license\", \"template\", \"system\", \"adapter\", \
         \"draft\", \"renderer\", \"parser\", \"parameter\", \"message\", or \"requires\""
    )]
    UnknownInstruction,
    /// No instruction names a base.
    #[error("no FROM line")]
    NoFrom,
    /// A message of an unknown role.
    #[error("message role must be one of \"system\", \"user\", or \"assistant\"")]
    UnknownRole,
    /// A parameter of unknown name.
    #[error("unknown parameter '{name}'")]
    UnknownParameter {
        /// The name, shortened.
        name: String,
    },
    /// A parameter whose value is of another type.
    #[error("invalid {expected} value '{value}' for parameter '{name}'")]
    InvalidParameter {
        /// The name.
        name: String,
        /// What the value should be: `int`, `float`, `bool` or `string`.
        expected: &'static str,
        /// The value, shortened.
        value: String,
    },
    /// A version that is none.
    #[error("requires must be a valid semver (e.g. 0.14.0)")]
    InvalidVersion,
    /// An instruction or parameter that ends before its value.
    #[error("unexpected EOF: {what} has no value")]
    MissingValue {
        /// The instruction or parameter, shortened.
        what: String,
    },
    /// Quotes that are never closed.
    #[error(
        "unexpected EOF: the text that {quotes} opens here is never closed by {quotes} at the end of a line"
    )]
    Unclosed {
        /// `"` or `"""`.
        quotes: &'static str,
    },
    /// More bytes than are read.
    #[error("the Modelfile is {size} bytes long, and at most {MAX_BYTES} are read")]
    TooLarge {
        /// Its length in bytes.
        size: usize,
    },
    /// Bytes that are no text.
    #[error("the Modelfile is not {encoding} text; save it as UTF-8")]
    NotText {
        /// The encoding that its first bytes announce.
        encoding: &'static str,
    },
    /// A value that the grammar cannot express.
    #[error("the value of {instruction} cannot be written in a Modelfile: a line ends with \"\"\"")]
    Unprintable {
        /// The instruction.
        instruction: &'static str,
    },
}

impl Fault {
    /// This fault on a line, counted from 1.
    pub(super) fn on(self, line: usize) -> Error {
        Error {
            line: Some(line),
            fault: self,
        }
    }

    /// This fault on no line in particular.
    pub(super) fn anywhere(self) -> Error {
        Error {
            line: None,
            fault: self,
        }
    }
}

/// How many characters of a word an error shows.
const SHOWN_CHARACTERS: usize = 80;

/// A word from the file, fit for a message: short and without control characters.
pub(super) fn shown(word: &str) -> String {
    let mut text: String = word
        .chars()
        .take(SHOWN_CHARACTERS)
        .flat_map(char::escape_debug)
        .collect();
    if word.chars().nth(SHOWN_CHARACTERS).is_some() {
        text.push('…');
    }
    text
}
