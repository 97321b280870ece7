//! Wire types of the Ollama API.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::engine::protocol::DoneReason;
use crate::inference::Summary;

/// Body of `/api/generate`.
#[derive(Debug, Deserialize)]
pub(super) struct GenerateRequest {
    pub(super) model: Option<String>,
    pub(super) prompt: Option<String>,
    pub(super) suffix: Option<String>,
    pub(super) system: Option<String>,
    pub(super) template: Option<String>,
    pub(super) context: Option<Vec<i64>>,
    pub(super) raw: Option<bool>,
    pub(super) images: Option<Vec<Value>>,
    #[serde(flatten)]
    pub(super) common: Common,
}

/// Body of `/api/chat`.
#[derive(Debug, Deserialize)]
pub(super) struct ChatRequest {
    pub(super) model: Option<String>,
    pub(super) messages: Option<Vec<ChatMessage>>,
    pub(super) tools: Option<Vec<Value>>,
    #[serde(flatten)]
    pub(super) common: Common,
}

/// What both have.
#[derive(Debug, Deserialize)]
pub(super) struct Common {
    pub(super) stream: Option<bool>,
    pub(super) format: Option<Value>,
    pub(super) keep_alive: Option<Value>,
    pub(super) options: Option<Map<String, Value>>,
    pub(super) think: Option<Value>,
    pub(super) truncate: Option<bool>,
    pub(super) logprobs: Option<bool>,
}

/// A message of a chat request.
#[derive(Debug, Deserialize)]
pub(super) struct ChatMessage {
    pub(super) role: String,
    pub(super) content: Option<String>,
    pub(super) images: Option<Vec<Value>>,
}

/// Names a model; `name` is the older spelling.
#[derive(Debug, Deserialize)]
pub(super) struct ModelRequest {
    model: Option<String>,
    name: Option<String>,
    pub(super) verbose: Option<bool>,
    pub(super) insecure: Option<bool>,
    pub(super) stream: Option<bool>,
}

impl ModelRequest {
    /// The model's name, empty when none was given.
    pub(super) fn model(&self) -> &str {
        let given = |name: &'_ Option<String>| name.as_deref().is_some_and(|name| !name.is_empty());
        let name = if given(&self.model) {
            &self.model
        } else {
            &self.name
        };
        name.as_deref().unwrap_or_default()
    }
}

/// One object of an answer's stream, or the whole answer.
#[derive(Debug, Serialize)]
pub(super) struct AnswerChunk {
    pub(super) model: String,
    pub(super) created_at: String,
    #[serde(flatten)]
    pub(super) content: Content,
    pub(super) done: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) done_reason: Option<&'static str>,
    #[serde(flatten)]
    pub(super) metrics: Metrics,
}

/// The text, in the form of the endpoint.
#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Content {
    /// Of `/api/generate`.
    Response(String),
    /// Of `/api/chat`.
    Message(AnswerMessage),
}

/// The message of a chat answer.
#[derive(Debug, Serialize)]
pub(super) struct AnswerMessage {
    pub(super) role: &'static str,
    pub(super) content: String,
}

/// Counters and durations (in nanoseconds) at the end of an answer; zero ones are left out.
#[derive(Debug, Default, Serialize)]
pub(super) struct Metrics {
    #[serde(skip_serializing_if = "is_zero")]
    total_duration: u64,
    #[serde(skip_serializing_if = "is_zero")]
    load_duration: u64,
    #[serde(skip_serializing_if = "is_zero")]
    prompt_eval_count: u64,
    #[serde(skip_serializing_if = "is_zero")]
    prompt_eval_duration: u64,
    #[serde(skip_serializing_if = "is_zero")]
    eval_count: u64,
    #[serde(skip_serializing_if = "is_zero")]
    eval_duration: u64,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes what it skips by reference"
)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl From<Summary> for Metrics {
    fn from(summary: Summary) -> Self {
        let nanoseconds =
            |duration: std::time::Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self {
            total_duration: nanoseconds(summary.total),
            load_duration: nanoseconds(summary.load),
            prompt_eval_count: summary.usage.prompt_tokens,
            prompt_eval_duration: summary.usage.prompt_nanoseconds,
            eval_count: summary.usage.generated_tokens,
            eval_duration: summary.usage.generate_nanoseconds,
        }
    }
}

/// Why an answer ended, in Ollama's words.
pub(super) fn done_reason(reason: DoneReason) -> &'static str {
    match reason {
        DoneReason::Stop => "stop",
        DoneReason::Length => "length",
    }
}

/// `details` of a model in listings.
#[derive(Debug, Serialize)]
pub(super) struct Details {
    pub(super) parent_model: &'static str,
    pub(super) format: &'static str,
    pub(super) family: String,
    pub(super) families: Vec<String>,
    pub(super) parameter_size: String,
    pub(super) quantization_level: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) context_length: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) embedding_length: Option<u64>,
}
