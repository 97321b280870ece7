//! The tokenizer as llama.cpp reads it (`llama_vocab::impl::load`).

use std::collections::HashMap;

use super::unsound::Unsound;
use crate::gguf::error::shown;
use crate::gguf::{Array, Header, Value, ValueType};

/// Tokenizers of models that read no text.
const NO_TEXT: [&str; 2] = ["none", "no_vocab"];
/// Tokenizers whose merges llama.cpp looks up first thing. Newer kinds may do without.
const MERGED: [&str; 3] = ["gpt2", "hybriddna", "whitespace"];
/// The one pre-tokenizer that needs no merges.
const UNMERGED: &str = "kimi-k2";
/// Keys that are read as a truth value, wherever they stand.
const SWITCHES: [&str; 4] = [
    "tokenizer.ggml.add_bos_token",
    "tokenizer.ggml.add_eos_token",
    "tokenizer.ggml.add_sep_token",
    "tokenizer.ggml.add_space_prefix",
];
/// Keys that are read as the number of a token. One beyond the vocabulary is only warned of.
const TOKEN_NUMBERS: [&str; 8] = [
    "tokenizer.ggml.bos_token_id",
    "tokenizer.ggml.eos_token_id",
    "tokenizer.ggml.eot_token_id",
    "tokenizer.ggml.eom_token_id",
    "tokenizer.ggml.unknown_token_id",
    "tokenizer.ggml.seperator_token_id",
    "tokenizer.ggml.padding_token_id",
    "tokenizer.ggml.mask_token_id",
];

pub(super) fn check(header: &Header) -> Result<(), Unsound> {
    let metadata = header.metadata();
    let kind = match metadata.get("tokenizer.ggml.model") {
        Some(Value::String(kind)) => kind.as_str(),
        Some(other) => return Err(Unsound::wrong_type("tokenizer.ggml.model", other, "string")),
        None => return Err(missing("tokenizer.ggml.model")),
    };
    if NO_TEXT.contains(&kind) {
        return Ok(());
    }
    let pre = metadata.text("tokenizer.ggml.pre");
    match array(header, "tokenizer.ggml.merges")? {
        Some(merges) => require_elements("tokenizer.ggml.merges", merges, &[ValueType::String])?,
        None if MERGED.contains(&kind) && pre != Some(UNMERGED) => {
            return Err(missing("tokenizer.ggml.merges"));
        }
        None => {}
    }
    let tokens = array(header, "tokenizer.ggml.tokens")?;
    let tokens = tokens.ok_or_else(|| missing("tokenizer.ggml.tokens"))?;
    require_elements("tokenizer.ggml.tokens", tokens, &[ValueType::String])?;
    let numbers = [ValueType::F32, ValueType::I32];
    require_beside(header, "tokenizer.ggml.scores", &numbers, tokens.len())?;
    let numbers = [ValueType::I32];
    require_beside(header, "tokenizer.ggml.token_type", &numbers, tokens.len())?;
    check_keys(header)?;
    check_unique(tokens)?;
    check_embeddings(header, tokens)
}

fn missing(key: &str) -> Unsound {
    Unsound::Missing {
        key: key.to_owned(),
    }
}

fn array<'header>(header: &'header Header, key: &str) -> Result<Option<&'header Array>, Unsound> {
    match header.metadata().get(key) {
        None => Ok(None),
        Some(Value::Array(array)) => Ok(Some(array)),
        Some(other) => Err(Unsound::wrong_type(key, other, "array")),
    }
}

fn require_elements(key: &str, array: &Array, allowed: &[ValueType]) -> Result<(), Unsound> {
    if allowed.contains(&array.element_type()) {
        return Ok(());
    }
    let expected = match allowed {
        [ValueType::String] => "array of string",
        [ValueType::I32] => "array of int32",
        _ => "array of float32 or int32",
    };
    let found = Value::Array(array.clone());
    Err(Unsound::wrong_type(key, &found, expected))
}

/// An array with an entry for each token, if it is there.
fn require_beside(
    header: &Header,
    key: &'static str,
    allowed: &[ValueType],
    tokens: usize,
) -> Result<(), Unsound> {
    let Some(array) = array(header, key)? else {
        return Ok(());
    };
    require_elements(key, array, allowed)?;
    if array.len() < tokens {
        let found = array.len();
        return Err(Unsound::TooShort { key, found, tokens });
    }
    Ok(())
}

fn check_keys(header: &Header) -> Result<(), Unsound> {
    for key in SWITCHES {
        match header.metadata().get(key) {
            None | Some(Value::Bool(_)) => {}
            Some(other) => return Err(Unsound::wrong_type(key, other, "bool")),
        }
    }
    for key in TOKEN_NUMBERS {
        match header.metadata().get(key) {
            None | Some(Value::U32(_)) => {}
            Some(other) => return Err(Unsound::wrong_type(key, other, "uint32")),
        }
    }
    Ok(())
}

/// llama.cpp asserts that no text comes twice; empty ones it gives names of their own.
fn check_unique(tokens: &Array) -> Result<(), Unsound> {
    let mut seen = HashMap::with_capacity(tokens.len());
    for (index, token) in tokens.strings().enumerate() {
        if token.is_empty() {
            continue;
        }
        if let Some(first) = seen.insert(token, index) {
            return Err(Unsound::DuplicateToken {
                token: shown(&String::from_utf8_lossy(token)),
                first,
                second: index,
            });
        }
    }
    Ok(())
}

fn check_embeddings(header: &Header, tokens: &Array) -> Result<(), Unsound> {
    let embeddings = header
        .tensors()
        .iter()
        .find(|tensor| tensor.name() == "token_embd.weight");
    let rows = embeddings.and_then(|tensor| tensor.dimensions().get(1).copied());
    let tokens = tokens.len() as u64;
    match rows {
        Some(rows) if rows != tokens => Err(Unsound::Embeddings { rows, tokens }),
        _ => Ok(()),
    }
}
