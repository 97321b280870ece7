//! What a header says about its model, in the words of llama.cpp and Ollama.

use std::collections::HashMap;

use super::Header;

/// Marks a file type that a converter guessed (llama.cpp's `LLAMA_FTYPE_GUESSED`).
const FILE_TYPE_GUESSED: u64 = 1024;

impl Header {
    /// The architecture, as in `"llama"`.
    #[must_use]
    pub fn architecture(&self) -> Option<&str> {
        self.metadata().text("general.architecture")
    }

    /// The model's own name. Text of a stranger: escape it before showing it.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.metadata().text("general.name")
    }

    /// The licence, as in `"apache-2.0"`. Text of a stranger.
    #[must_use]
    pub fn license(&self) -> Option<&str> {
        self.metadata().text("general.license")
    }

    /// The kind of tokenizer, as in `"gpt2"` (byte-level BPE) or `"llama"` (SentencePiece).
    #[must_use]
    pub fn tokenizer_model(&self) -> Option<&str> {
        self.metadata().text("tokenizer.ggml.model")
    }

    /// The Jinja chat template. A stranger's program: run it with limits only.
    #[must_use]
    pub fn chat_template(&self) -> Option<&str> {
        self.metadata().text("tokenizer.chat_template")
    }

    /// How many positions the model was made for.
    #[must_use]
    pub fn context_length(&self) -> Option<u64> {
        self.of_architecture("context_length")
    }

    /// The width of the model.
    #[must_use]
    pub fn embedding_length(&self) -> Option<u64> {
        self.of_architecture("embedding_length")
    }

    /// The elements of all tensors together; 0 for a vocabulary-only file.
    #[must_use]
    pub fn parameter_count(&self) -> u64 {
        let elements = self.tensors().iter().map(super::TensorInfo::elements);
        elements.fold(0, u64::saturating_add)
    }

    /// The parameter count for people, as [`size_label`] writes it; `None` without tensors.
    #[must_use]
    pub fn parameter_size(&self) -> Option<String> {
        (!self.tensors().is_empty()).then(|| size_label(self.parameter_count()))
    }

    /// The quantisation, as in `"Q4_K_M"`: from `general.file_type`, else the type that most
    /// elements are stored in.
    #[must_use]
    pub fn quantisation(&self) -> Option<&'static str> {
        self.metadata()
            .number("general.file_type")
            .and_then(|number| file_type_name(number & !FILE_TYPE_GUESSED))
            .or_else(|| self.most_used_type())
    }

    fn of_architecture(&self, key: &str) -> Option<u64> {
        self.metadata()
            .number(&format!("{}.{key}", self.architecture()?))
    }

    fn most_used_type(&self) -> Option<&'static str> {
        let mut elements = HashMap::new();
        for tensor in self.tensors() {
            let sum: &mut u64 = elements.entry(tensor.tensor_type().name()).or_default();
            *sum = sum.saturating_add(tensor.elements());
        }
        // The name breaks ties, so that the answer does not hang on the order of a hash map.
        elements
            .into_iter()
            .max_by_key(|(name, sum)| (*sum, *name))
            .map(|(name, _)| name)
    }
}

/// A parameter count for people, in the form of Ollama's `parameter_size`: `"7.6B"`, `"2.79M"`,
/// `"137K"`.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
pub fn size_label(count: u64) -> String {
    const THOUSAND: u64 = 1_000;
    const MILLION: u64 = 1_000_000;
    const BILLION: u64 = 1_000_000_000;
    match count {
        BILLION.. if count.is_multiple_of(BILLION) => format!("{}B", count / BILLION),
        BILLION.. => format!("{:.1}B", count as f64 / BILLION as f64),
        MILLION.. if count.is_multiple_of(MILLION) => format!("{}M", count / MILLION),
        MILLION.. => format!("{:.2}M", count as f64 / MILLION as f64),
        THOUSAND.. => format!("{:.0}K", count as f64 / THOUSAND as f64),
        _ => count.to_string(),
    }
}

/// The name of llama.cpp's `general.file_type` number.
fn file_type_name(number: u64) -> Option<&'static str> {
    Some(match number {
        0 => "F32",
        1 => "F16",
        2 => "Q4_0",
        3 => "Q4_1",
        7 => "Q8_0",
        8 => "Q5_0",
        9 => "Q5_1",
        10 => "Q2_K",
        11 => "Q3_K_S",
        12 => "Q3_K_M",
        13 => "Q3_K_L",
        14 => "Q4_K_S",
        15 => "Q4_K_M",
        16 => "Q5_K_S",
        17 => "Q5_K_M",
        18 => "Q6_K",
        19 => "IQ2_XXS",
        20 => "IQ2_XS",
        21 => "Q2_K_S",
        22 => "IQ3_XS",
        23 => "IQ3_XXS",
        24 => "IQ1_S",
        25 => "IQ4_NL",
        26 => "IQ3_S",
        27 => "IQ3_M",
        28 => "IQ2_S",
        29 => "IQ2_M",
        30 => "IQ4_XS",
        31 => "IQ1_M",
        32 => "BF16",
        36 => "TQ1_0",
        37 => "TQ2_0",
        38 => "MXFP4",
        39 => "NVFP4",
        40 => "Q1_0",
        41 => "Q2_0",
        _ => return None,
    })
}
