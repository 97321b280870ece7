//! Model and vocabulary: load by mmap, tokenize, and turn tokens into bytes.

use std::path::Path;

use llama_cpp_2::LlamaModelLoadError;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::model::VocabType;
use llama_cpp_2::model::params::LlamaModelParams;

use super::{LlamaFault, Token, backend};

/// A loaded model. Its weights are mapped from the file, so processes on one node share them.
pub(crate) struct Model {
    inner: LlamaModel,
}

impl Model {
    /// Maps `path`, whose header has been checked before. `gpu_layers` go to a GPU if one is built
    /// in; without one the number has no effect.
    pub(crate) fn load(path: &Path, gpu_layers: Option<u32>) -> Result<Self, LlamaFault> {
        let refused = |reason: String| LlamaFault::Load {
            path: path.display().to_string(),
            reason,
        };
        let mut params = LlamaModelParams::default().with_use_mmap(true);
        if let Some(layers) = gpu_layers {
            params = params.with_n_gpu_layers(layers);
        }
        let inner =
            LlamaModel::load_from_file(backend()?, path, &params).map_err(|error| match error {
                LlamaModelLoadError::NullResult => refused(
                    "it is not a model that this version knows; the log says more".to_owned(),
                ),
                other => refused(other.to_string()),
            })?;
        if inner.vocab().vocab_type() == VocabType::NONE {
            return Err(refused("it has no vocabulary".to_owned()));
        }
        Ok(Self { inner })
    }

    /// For the other wrappers.
    pub(super) fn inner(&self) -> &LlamaModel {
        &self.inner
    }

    /// Positions the model was trained on.
    pub(crate) fn trained_context(&self) -> u32 {
        self.inner.n_ctx_train()
    }

    /// Bytes of all tensors.
    pub(crate) fn size(&self) -> u64 {
        self.inner.size()
    }

    /// Tokens in the vocabulary.
    pub(crate) fn vocabulary_size(&self) -> i32 {
        self.inner.n_vocab()
    }

    /// Whether the vocabulary asks for a beginning-of-sequence token before every text.
    pub(crate) fn adds_beginning(&self) -> bool {
        self.inner.vocab().should_add_bos()
    }

    /// The text of the beginning-of-sequence token, empty when there is none.
    pub(crate) fn beginning_text(&self) -> String {
        self.token_text(self.inner.vocab().bos())
    }

    /// The text of the end-of-sequence token, empty when there is none.
    pub(crate) fn end_text(&self) -> String {
        self.token_text(self.inner.vocab().eos())
    }

    /// Tokens of `text`. Special tokens written out in the text are recognised, as chat templates
    /// need; `add_special` puts the vocabulary's own beginning in front.
    pub(crate) fn tokenize(&self, text: &str, add_special: bool) -> Vec<Token> {
        self.inner
            .vocab()
            .tokenize(text.as_bytes(), add_special, true)
    }

    /// The bytes of a token as they appear in an answer; control tokens have none. May end inside
    /// a UTF-8 character.
    pub(crate) fn piece(&self, token: Token) -> Vec<u8> {
        self.inner.vocab().token_to_piece(token, false, None)
    }

    /// Whether the token ends a generation.
    pub(crate) fn ends_generation(&self, token: Token) -> bool {
        self.inner.vocab().is_eog(token)
    }

    fn token_text(&self, token: Token) -> String {
        // A vocabulary without the token answers with -1, which must not reach the C lookup.
        if token.0 < 0 || token.0 >= self.vocabulary_size() {
            return String::new();
        }
        self.inner
            .vocab()
            .text(token)
            .map(|text| text.to_string_lossy().into_owned())
            .unwrap_or_default()
    }
}
