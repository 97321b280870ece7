//! Wire types of the OpenAI API.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::chat::Message;
use crate::engine::protocol::{DoneReason, Usage as EngineUsage};
use crate::error::Error;
use crate::inference::Format;
use crate::options;

/// Body of `/v1/chat/completions`.
#[derive(Debug, Deserialize)]
pub(super) struct ChatRequest {
    pub(super) model: Option<String>,
    pub(super) messages: Option<Vec<ChatMessage>>,
    pub(super) max_completion_tokens: Option<i64>,
    pub(super) response_format: Option<ResponseFormat>,
    pub(super) tools: Option<Vec<Value>>,
    #[serde(flatten)]
    pub(super) common: Common,
}

/// Body of `/v1/completions`.
#[derive(Debug, Deserialize)]
pub(super) struct TextRequest {
    pub(super) model: Option<String>,
    pub(super) prompt: Option<Value>,
    pub(super) suffix: Option<String>,
    pub(super) echo: Option<bool>,
    #[serde(flatten)]
    pub(super) common: Common,
}

/// What both have.
#[derive(Debug, Deserialize)]
pub(super) struct Common {
    pub(super) stream: Option<bool>,
    pub(super) stream_options: Option<StreamOptions>,
    pub(super) max_tokens: Option<i64>,
    pub(super) seed: Option<Value>,
    pub(super) stop: Option<Value>,
    pub(super) temperature: Option<Value>,
    pub(super) top_p: Option<Value>,
    pub(super) frequency_penalty: Option<Value>,
    pub(super) presence_penalty: Option<Value>,
    pub(super) n: Option<u64>,
    pub(super) logprobs: Option<Value>,
}

/// `stream_options`.
#[derive(Debug, Deserialize)]
pub(super) struct StreamOptions {
    pub(super) include_usage: Option<bool>,
}

/// `response_format`.
#[derive(Debug, Deserialize)]
pub(super) struct ResponseFormat {
    #[serde(rename = "type")]
    kind: String,
    json_schema: Option<JsonSchema>,
}

#[derive(Debug, Deserialize)]
struct JsonSchema {
    schema: Option<Value>,
}

/// A message of a chat request.
#[derive(Debug, Deserialize)]
pub(super) struct ChatMessage {
    role: String,
    content: Option<Value>,
}

impl Common {
    /// The same options in Ollama's words.
    pub(super) fn options(
        &self,
        max_completion_tokens: Option<i64>,
    ) -> Result<Map<String, Value>, Error> {
        if self.n.is_some_and(|n| n != 1) {
            return Err(Error::invalid("n must be 1"));
        }
        let wants_logprobs = match &self.logprobs {
            None | Some(Value::Null | Value::Bool(false)) => false,
            Some(_) => true,
        };
        if wants_logprobs {
            return Err(Error::NotYet {
                what: "logprobs".to_owned(),
            });
        }
        let mut options = Map::new();
        for (name, value) in [
            ("seed", &self.seed),
            ("stop", &self.stop),
            ("temperature", &self.temperature),
            ("top_p", &self.top_p),
            ("frequency_penalty", &self.frequency_penalty),
            ("presence_penalty", &self.presence_penalty),
        ] {
            if let Some(value) = value {
                options.insert(name.to_owned(), value.clone());
            }
        }
        if let Some(stop) = &self.stop {
            options::stops("stop", stop)?;
        }
        if let Some(most) = max_completion_tokens.or(self.max_tokens) {
            if most < 1 {
                return Err(Error::invalid("max_tokens must be at least 1"));
            }
            options.insert(
                "num_predict".to_owned(),
                most.min(i64::from(i32::MAX)).into(),
            );
        }
        Ok(options)
    }
}

impl ResponseFormat {
    /// What it asks for.
    pub(super) fn format(self) -> Result<Format, Error> {
        match self.kind.as_str() {
            "text" => Ok(Format::Free),
            "json_object" => Ok(Format::Json),
            "json_schema" => self
                .json_schema
                .and_then(|wrapper| wrapper.schema)
                .map(Format::Schema)
                .ok_or_else(|| Error::invalid("response_format.json_schema.schema is missing")),
            other => Err(Error::invalid(format!(
                "response_format.type {other:?} is not one of text, json_object, json_schema"
            ))),
        }
    }
}

impl ChatMessage {
    /// The message with its text parts joined; other parts are refused.
    pub(super) fn into_message(self) -> Result<Message, Error> {
        let content = match self.content {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text,
            Some(Value::Array(parts)) => parts.iter().map(part_text).collect::<Result<_, _>>()?,
            Some(_) => {
                return Err(Error::invalid(
                    "content must be a string or an array of parts",
                ));
            }
        };
        let role = match self.role.to_lowercase().as_str() {
            // The newer word for the same.
            "developer" => "system".to_owned(),
            other => other.to_owned(),
        };
        Ok(Message { role, content })
    }
}

fn part_text(part: &Value) -> Result<&str, Error> {
    match part.get("type").and_then(Value::as_str) {
        Some("text") => part
            .get("text")
            .and_then(Value::as_str)
            .ok_or_else(|| Error::invalid("a text part has no text")),
        Some(other) => Err(Error::invalid(format!(
            "content parts of type {other:?} are not supported"
        ))),
        None => Err(Error::invalid("a content part has no type")),
    }
}

/// Counters at the end of an answer.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Usage {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
    prompt_tokens_details: PromptDetails,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct PromptDetails {
    cached_tokens: u64,
}

impl From<EngineUsage> for Usage {
    fn from(usage: EngineUsage) -> Self {
        Self {
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.generated_tokens,
            total_tokens: usage.prompt_tokens.saturating_add(usage.generated_tokens),
            prompt_tokens_details: PromptDetails {
                cached_tokens: usage.cached_tokens,
            },
        }
    }
}

/// Why an answer ended, in OpenAI's words.
pub(super) fn finish_reason(reason: DoneReason) -> &'static str {
    match reason {
        DoneReason::Stop => "stop",
        DoneReason::Length => "length",
    }
}
