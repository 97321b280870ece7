//! Soundness: numbers of a GGUF header that llama.cpp takes on trust, and ends the process over.

use artifact::gguf::{Header, Value};

/// llama.cpp's own limit.
const MAX_BLOCKS: u64 = 512;
/// Far beyond any model; keeps products of these numbers small.
const MAX_WIDTH: u64 = 1 << 20;
/// Positions, likewise.
const MAX_CONTEXT: u64 = 1 << 30;
/// Heads, likewise.
const MAX_HEADS: u64 = 1 << 14;
/// Experts, likewise: llama.cpp's own limit.
const MAX_EXPERTS: u64 = 1024;

/// Checks what can be checked without knowing the architecture.
///
/// # Errors
/// What is wrong, for people.
pub(crate) fn check(header: &Header) -> Result<(), String> {
    let Some(architecture) = header.architecture() else {
        return Err("it names no architecture".to_owned());
    };
    if header.tensors().is_empty() {
        return Err("it has no weights, only a vocabulary".to_owned());
    }
    let numbers = Numbers {
        header,
        architecture,
    };
    numbers.within("block_count", 1, MAX_BLOCKS)?;
    numbers.within("embedding_length", 1, MAX_WIDTH)?;
    numbers.within("context_length", 1, MAX_CONTEXT)?;
    numbers.within("feed_forward_length", 1, MAX_WIDTH)?;
    numbers.within("attention.head_count", 0, MAX_HEADS)?;
    numbers.within("attention.head_count_kv", 0, MAX_HEADS)?;
    numbers.within("attention.key_length", 1, MAX_WIDTH)?;
    numbers.within("attention.value_length", 1, MAX_WIDTH)?;
    numbers.within("rope.dimension_count", 0, MAX_WIDTH)?;
    numbers.within("expert_count", 0, MAX_EXPERTS)?;
    numbers.within("expert_used_count", 0, MAX_EXPERTS)?;
    numbers.check_heads()?;
    check_vocabulary(header, &numbers)
}

struct Numbers<'header> {
    header: &'header Header,
    architecture: &'header str,
}

impl Numbers<'_> {
    fn value(&self, key: &str) -> Option<&Value> {
        let key = format!("{}.{key}", self.architecture);
        self.header.metadata().get(&key)
    }

    /// The number under a key; none when it is absent or differs by layer.
    fn number(&self, key: &str) -> Option<u64> {
        self.value(key)?.as_u64()
    }

    /// A number, or each of an array by layers, lies within bounds.
    fn within(&self, key: &str, least: u64, most: u64) -> Result<(), String> {
        let Some(value) = self.value(key) else {
            return Ok(());
        };
        let check = |value: &Value| match value.as_u64() {
            Some(number) if (least..=most).contains(&number) => Ok(()),
            Some(number) => Err(format!(
                "its {key} is {number}, which is not from {least} to {most}"
            )),
            None => Err(format!("its {key} is not a number of the right kind")),
        };
        match value.as_array() {
            Some(array) => array.iter().try_for_each(|value| match value {
                // Flags by layer share names with numbers by layer in some architectures.
                Value::Bool(_) => Ok(()),
                value => check(&value),
            }),
            None => check(value),
        }
    }

    /// Heads divide what they are to divide.
    fn check_heads(&self) -> Result<(), String> {
        let Some(heads) = self.number("attention.head_count") else {
            return Ok(());
        };
        if heads == 0 {
            return Ok(());
        }
        let width = self.number("embedding_length").unwrap_or(0);
        let key_length = self
            .number("attention.key_length")
            .unwrap_or_else(|| width / heads);
        if self.value("attention.key_length").is_none() && !width.is_multiple_of(heads) {
            return Err(format!(
                "its width of {width} is not divided by its {heads} heads"
            ));
        }
        if let Some(pairs) = self.number("attention.head_count_kv")
            && (pairs > heads || (pairs > 0 && !heads.is_multiple_of(pairs)))
        {
            return Err(format!(
                "its {heads} heads are not divided by {pairs} for keys and values"
            ));
        }
        if let Some(rotated) = self.number("rope.dimension_count")
            && (rotated > key_length || !rotated.is_multiple_of(2))
        {
            return Err(format!(
                "it rotates {rotated} dimensions of heads of {key_length}"
            ));
        }
        Ok(())
    }
}

/// Tokens that are named by number exist.
fn check_vocabulary(header: &Header, numbers: &Numbers<'_>) -> Result<(), String> {
    let metadata = header.metadata();
    let Some(tokens) = metadata
        .get("tokenizer.ggml.tokens")
        .and_then(Value::as_array)
    else {
        return Err("it has no vocabulary".to_owned());
    };
    let count = u64::try_from(tokens.len()).unwrap_or(u64::MAX);
    for parallel in ["tokenizer.ggml.scores", "tokenizer.ggml.token_type"] {
        if let Some(array) = metadata.get(parallel).and_then(Value::as_array)
            && array.len() != tokens.len()
        {
            return Err(format!(
                "{parallel} has {} entries for {count} tokens",
                array.len()
            ));
        }
    }
    if let Some(size) = numbers.number("vocab_size")
        && size != count
    {
        return Err(format!(
            "its vocab_size is {size}, its vocabulary has {count} tokens"
        ));
    }
    Ok(())
}
