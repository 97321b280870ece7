//! What an engine is told and what it answers: plain data, so that it may cross a process border.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub(crate) use crate::llama::sampler::Sampling;

/// What a model is loaded with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LoadRequest {
    /// The GGUF file, its header already checked.
    pub(crate) path: PathBuf,
    /// Positions that each sequence may use; cut to what the model was trained on.
    pub(crate) context_length: u32,
    /// Requests decoded together.
    pub(crate) sequences: u32,
    /// Threads to compute with.
    pub(crate) threads: u32,
    /// Layers given to a GPU; none: as many as fit.
    pub(crate) gpu_layers: Option<u32>,
}

/// What is known once a model is loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Loaded {
    /// Positions that each sequence may use.
    pub(crate) context_length: u32,
    /// Bytes of the weights.
    pub(crate) size: u64,
    /// Whether the vocabulary puts a beginning-of-sequence token before every text.
    pub(crate) adds_beginning: bool,
    /// The text of that token, for chat templates.
    pub(crate) beginning_text: String,
    /// The text of the end-of-sequence token, for chat templates.
    pub(crate) end_text: String,
}

/// One text to continue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct GenerateRequest {
    /// Chosen by the caller, unique per engine.
    pub(crate) id: u64,
    /// The text, special tokens written out.
    pub(crate) prompt: String,
    /// Put the vocabulary's own beginning in front.
    pub(crate) add_special: bool,
    /// What to do with a prompt that does not fit.
    pub(crate) overflow: Overflow,
    /// Use fewer positions than the engine has, as `num_ctx` asks.
    pub(crate) context_limit: Option<u32>,
    /// The most tokens to generate; none: until the context is full.
    pub(crate) max_tokens: Option<u32>,
    /// End before any of these texts.
    pub(crate) stop: Vec<String>,
    /// How tokens are chosen.
    pub(crate) sampling: Sampling,
    /// GBNF text that the answer must follow.
    pub(crate) grammar: Option<String>,
}

/// What to do with a prompt that leaves no room for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Overflow {
    /// Answer [`Failure::PromptTooLong`], also when less than `room` tokens would be left.
    Refuse {
        /// Tokens that must be left for the answer.
        room: u32,
    },
    /// Keep the first `keep` tokens and as many of the last as fit.
    Cut {
        /// Tokens kept from the start.
        keep: u32,
    },
}

/// One step of an answer. A stream is `Admitted`, any number of `Text`, then `Done`; or `Failed`
/// anywhere, which ends it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Event {
    /// The request has a sequence; decoding begins.
    Admitted,
    /// More of the answer, whole characters, may be of several tokens.
    Text(String),
    /// The answer is complete.
    Done {
        /// Why it ended.
        reason: DoneReason,
        /// What it took.
        usage: Usage,
    },
    /// There is no answer, or no more of it.
    Failed(Failure),
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum DoneReason {
    /// The model ended it, or a stop text did.
    Stop,
    /// The token limit or the context was reached.
    Length,
}

/// Counted and measured, not estimated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Usage {
    /// Tokens of the prompt, those taken from the cache included.
    pub(crate) prompt_tokens: u64,
    /// Of these, taken from the cache.
    pub(crate) cached_tokens: u64,
    /// Tokens generated, the end token included.
    pub(crate) generated_tokens: u64,
    /// From the start of the prompt to the first token, in nanoseconds.
    pub(crate) prompt_nanoseconds: u64,
    /// From the first token to the last, in nanoseconds.
    pub(crate) generate_nanoseconds: u64,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Failure {
    /// The prompt does not fit the context.
    PromptTooLong {
        /// Its tokens.
        tokens: u64,
        /// The most that would be taken.
        limit: u64,
    },
    /// The grammar was refused, or cannot be continued by this vocabulary.
    Format(String),
    /// The engine could not go on.
    Engine(String),
    /// The engine is stopping.
    Stopping,
}
