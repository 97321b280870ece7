//! Check: what llama.cpp takes on trust in a header, and refuses a file or ends its process over.
//!
//! [`Header::parse`] makes sure that a header can be read. This is the next question, and the same
//! one wherever it is asked: before a push, at the registry's gate, before the runtime loads. The
//! rules are those of llama.cpp's `gguf.cpp`, `llama-model-loader.cpp`, `llama-model.cpp` and
//! `llama-vocab.cpp`; none of them depends on which architectures one build of it knows, since a
//! registry serves newer ones as well.

mod numbers;
mod unsound;
mod vocabulary;

use super::error::shown;
use super::{Header, Value};

use numbers::Numbers;
pub use unsound::Unsound;

/// What a GGUF file is to llama.cpp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A language model, or the first part of one in several files.
    Model,
    /// A tokenizer without weights: sound, and nothing to serve.
    Vocabulary,
    /// A further part of a model in several files: tensors alone.
    Part,
    /// A vision or audio projector.
    Projector,
    /// An adapter (`LoRA`).
    Adapter,
    /// Something that llama.cpp does not serve: an image model, an importance matrix.
    Other,
}

impl Kind {
    /// The word for it, as annotations have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Vocabulary => "vocabulary",
            Self::Part => "part",
            Self::Projector => "projector",
            Self::Adapter => "adapter",
            Self::Other => "other",
        }
    }
}

/// Which file of a model in several files this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Split {
    /// From 0.
    pub number: u16,
    /// How many files there are.
    pub count: u16,
}

/// Checks a header by the rules of llama.cpp, and says what the file is.
///
/// # Errors
/// What llama.cpp would refuse the file for, or abort over.
pub fn check(header: &Header) -> Result<Kind, Unsound> {
    check_layout(header)?;
    text(header, "general.architecture")?;
    text(header, "general.name")?;
    let kind = kind_of(header, split_of(header)?);
    match (kind, header.architecture()) {
        (Kind::Model, Some(architecture)) => {
            Numbers::new(header, architecture).check()?;
            vocabulary::check(header)?;
        }
        (Kind::Vocabulary, _) => vocabulary::check(header)?,
        _ => {}
    }
    Ok(kind)
}

/// Which part of a model in several files this is; `None` for a model in one.
///
/// # Errors
/// When the file says so in a way that llama.cpp does not read.
pub fn split_of(header: &Header) -> Result<Option<Split>, Unsound> {
    let Some(count) = number_u16(header, "split.count")?.filter(|count| *count > 1) else {
        return Ok(None);
    };
    let number = number_u16(header, "split.no")?.ok_or(Unsound::Missing {
        key: "split.no".to_owned(),
    })?;
    if number >= count {
        return Err(Unsound::Split { number, count });
    }
    match header.metadata().get("split.tensors.count") {
        Some(Value::I32(_)) => Ok(Some(Split { number, count })),
        Some(other) => Err(Unsound::wrong_type("split.tensors.count", other, "int32")),
        // Only the first file is asked how many tensors there are in all.
        None if number > 0 => Ok(Some(Split { number, count })),
        None => Err(Unsound::Missing {
            key: "split.tensors.count".to_owned(),
        }),
    }
}

/// gguf.cpp takes tensors that follow each other in the order of the table, and no others.
fn check_layout(header: &Header) -> Result<(), Unsound> {
    let alignment = u64::from(header.alignment());
    let mut expected = 0_u64;
    for tensor in header.tensors() {
        if tensor.offset() != expected {
            return Err(Unsound::Misplaced {
                tensor: shown(tensor.name()),
                offset: tensor.offset(),
                expected,
            });
        }
        expected = tensor
            .bytes()
            .checked_next_multiple_of(alignment)
            .and_then(|bytes| expected.checked_add(bytes))
            .ok_or_else(|| Unsound::Misplaced {
                tensor: shown(tensor.name()),
                offset: tensor.offset(),
                expected,
            })?;
    }
    Ok(())
}

fn kind_of(header: &Header, split: Option<Split>) -> Kind {
    if split.is_some_and(|split| split.number > 0) {
        return Kind::Part;
    }
    let metadata = header.metadata();
    match (metadata.text("general.type"), header.architecture()) {
        (Some("mmproj"), _) | (_, Some("clip")) => return Kind::Projector,
        (Some("adapter"), _) => return Kind::Adapter,
        (None | Some("model"), Some(architecture)) => {
            let has_blocks = metadata
                .get(&format!("{architecture}.block_count"))
                .is_some();
            let has_tokenizer = metadata.get("tokenizer.ggml.model").is_some()
                || metadata.get("tokenizer.ggml.tokens").is_some();
            match (header.tensors().is_empty(), has_tokenizer) {
                (true, true) => return Kind::Vocabulary,
                (false, true) => return Kind::Model,
                (false, false) if has_blocks => return Kind::Model,
                (_, false) => {}
            }
        }
        _ => {}
    }
    Kind::Other
}

fn text(header: &Header, key: &str) -> Result<(), Unsound> {
    match header.metadata().get(key) {
        None | Some(Value::String(_)) => Ok(()),
        Some(other) => Err(Unsound::wrong_type(key, other, "string")),
    }
}

fn number_u16(header: &Header, key: &str) -> Result<Option<u16>, Unsound> {
    match header.metadata().get(key) {
        None => Ok(None),
        Some(Value::U16(number)) => Ok(Some(*number)),
        Some(other) => Err(Unsound::wrong_type(key, other, "uint16")),
    }
}

#[cfg(test)]
mod tests;
