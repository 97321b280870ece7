//! What can be wrong with a header that can be read, in words that a person can act on.

use crate::gguf::Value;
use crate::gguf::error::shown;

/// Why llama.cpp would refuse a file, or abort over it. Names from the file are shortened and
/// escaped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unsound {
    /// A key that llama.cpp needs is not there.
    #[error("it has no {key}, which llama.cpp needs; convert the model again")]
    Missing {
        /// The key.
        key: String,
    },
    /// A key has a type that llama.cpp does not take for it.
    #[error("its {key} is of type {found}, and llama.cpp reads {expected}")]
    WrongType {
        /// The key.
        key: String,
        /// The type in the file.
        found: String,
        /// What it must be.
        expected: &'static str,
    },
    /// A number is outside what any model has.
    #[error("its {key} is {found}, which is not from {least} to {most}")]
    OutOfRange {
        /// The key.
        key: String,
        /// The number in the file.
        found: u64,
        /// The least.
        least: u64,
        /// The most.
        most: u64,
    },
    /// An array by layers has another length than there are layers.
    #[error("its {key} has {found} entries for {expected} layers")]
    Layers {
        /// The key.
        key: String,
        /// Its entries.
        found: u64,
        /// The layers.
        expected: u64,
    },
    /// Numbers that do not fit each other.
    #[error("{0}")]
    Contradiction(String),
    /// A tensor is not where gguf.cpp expects it.
    #[error(
        "the data of tensor \"{tensor}\" begins at {offset}, and llama.cpp expects it at \
         {expected}, behind the tensor before it"
    )]
    Misplaced {
        /// The tensor.
        tensor: String,
        /// Where its data begins, from the start of the data section.
        offset: u64,
        /// Where it must begin.
        expected: u64,
    },
    /// A part that the model does not have.
    #[error("it says that it is part {} of {count}", u32::from(*number) + 1)]
    Split {
        /// From 0.
        number: u16,
        /// How many parts there are.
        count: u16,
    },
    /// An array of the tokenizer is shorter than the vocabulary.
    #[error("its {key} has {found} entries for {tokens} tokens")]
    TooShort {
        /// The key.
        key: &'static str,
        /// Its entries.
        found: usize,
        /// The tokens.
        tokens: usize,
    },
    /// Two tokens have the same text: llama.cpp aborts.
    #[error("its tokens {first} and {second} are both \"{token}\", which llama.cpp aborts over")]
    DuplicateToken {
        /// The text.
        token: String,
        /// The one that comes first.
        first: usize,
        /// The other.
        second: usize,
    },
    /// The embeddings have another number of rows than there are tokens.
    #[error("its token embeddings have {rows} rows for {tokens} tokens")]
    Embeddings {
        /// Rows of `token_embd.weight`.
        rows: u64,
        /// The tokens.
        tokens: u64,
    },
}

impl Unsound {
    pub(super) fn wrong_type(key: &str, found: &Value, expected: &'static str) -> Self {
        let found = match found {
            Value::Array(array) => format!("array of {}", array.element_type()),
            scalar => scalar.value_type().to_string(),
        };
        Self::WrongType {
            key: shown(key),
            found,
            expected,
        }
    }
}
