//! `/v1/chat/completions` and `/v1/completions`: request to inference.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use serde_json::Value;

use super::super::read_json;
use super::respond;
use super::stream::{AnswerWriter, Endpoint};
use super::types::{ChatMessage, ChatRequest, Common, TextRequest};
use crate::app::Runtime;
use crate::chat::{Message, template};
use crate::engine::protocol::Sampling;
use crate::error::Error;
use crate::inference::{Format, Inference, Prompt};
use crate::models::Model;
use crate::options::Options;

/// `POST /v1/chat/completions`.
pub(super) async fn chat(State(runtime): State<Arc<Runtime>>, body: Body) -> Response {
    respond(try_chat(&runtime, body).await)
}

/// `POST /v1/completions`.
pub(super) async fn text(State(runtime): State<Arc<Runtime>>, body: Body) -> Response {
    respond(try_text(&runtime, body).await)
}

async fn try_chat(runtime: &Runtime, body: Body) -> Result<Response, Error> {
    let began = Instant::now();
    let request: ChatRequest = read_json(body).await?;
    let (model, name) = find(runtime, request.model, "chat").await?;
    if request.tools.is_some_and(|tools| !tools.is_empty()) {
        return Err(
            if model.chat_template().is_some_and(template::knows_tools) {
                Error::NotYet {
                    what: "calling tools".to_owned(),
                }
            } else {
                Error::Unsupported {
                    name,
                    capability: "tools",
                }
            },
        );
    }
    let messages = request.messages.unwrap_or_default();
    if messages.is_empty() {
        return Err(Error::invalid("[] is too short - 'messages'"));
    }
    let prompt = Prompt::Chat(conversation(&model, messages)?);
    let format = request
        .response_format
        .map_or(Ok(Format::Free), super::types::ResponseFormat::format)?;
    let call = Call {
        endpoint: Endpoint::Chat,
        name,
        prompt,
        format,
        max_completion_tokens: request.max_completion_tokens,
        common: request.common,
        began,
    };
    call.answer(runtime, &model).await
}

async fn try_text(runtime: &Runtime, body: Body) -> Result<Response, Error> {
    let began = Instant::now();
    let request: TextRequest = read_json(body).await?;
    let (model, name) = find(runtime, request.model, "generate").await?;
    if request.suffix.is_some_and(|suffix| !suffix.is_empty()) {
        return Err(Error::Unsupported {
            name,
            capability: "insert",
        });
    }
    if request.echo.unwrap_or(false) {
        return Err(Error::invalid("echo is not supported"));
    }
    let prompt = Prompt::Question {
        system: model.defaults.system.clone(),
        text: single_prompt(request.prompt)?,
    };
    let call = Call {
        endpoint: Endpoint::Text,
        name,
        prompt,
        format: Format::Free,
        max_completion_tokens: None,
        common: request.common,
        began,
    };
    call.answer(runtime, &model).await
}

/// What both endpoints know once their request is read.
struct Call {
    endpoint: Endpoint,
    name: String,
    prompt: Prompt,
    format: Format,
    max_completion_tokens: Option<i64>,
    common: Common,
    began: Instant,
}

impl Call {
    async fn answer(self, runtime: &Runtime, model: &Model) -> Result<Response, Error> {
        let request = self.common.options(self.max_completion_tokens)?;
        let inference = Inference {
            prompt: self.prompt,
            options: Runtime::options(defaults(), model, Some(&request))?,
            format: self.format,
            truncate: true,
            keep_alive: None,
            thinking: None,
        };
        let answer = runtime.infer(model, inference, self.began).await?;
        let include_usage = self
            .common
            .stream_options
            .and_then(|options| options.include_usage)
            .unwrap_or(false);
        let writer = AnswerWriter::new(self.endpoint, self.name, include_usage);
        if self.common.stream.unwrap_or(false) {
            Ok(writer.stream(answer))
        } else {
            writer.whole(answer).await
        }
    }
}

/// OpenAI's defaults where they differ from Ollama's.
fn defaults() -> Options {
    Options {
        sampling: Sampling {
            temperature: 1.0,
            top_p: 1.0,
            ..Sampling::default()
        },
        ..Options::default()
    }
}

async fn find(
    runtime: &Runtime,
    name: Option<String>,
    capability: &'static str,
) -> Result<(Model, String), Error> {
    let name = name
        .filter(|name| !name.is_empty())
        .ok_or_else(|| Error::invalid("model is required"))?;
    let model = runtime.catalog.find(&name).await?;
    if !model.facts.generates {
        return Err(Error::Unsupported { name, capability });
    }
    Ok((model, name))
}

/// The model's own messages first; its system text in front unless the client brings one.
fn conversation(model: &Model, messages: Vec<ChatMessage>) -> Result<Vec<Message>, Error> {
    let mut all = model.defaults.messages.clone();
    for message in messages {
        all.push(message.into_message()?);
    }
    if let Some(system) = &model.defaults.system
        && !all.first().is_some_and(Message::is_system)
    {
        all.insert(
            0,
            Message {
                role: "system".to_owned(),
                content: system.clone(),
            },
        );
    }
    Ok(all)
}

/// One text, as itself or as the only one of a list.
fn single_prompt(prompt: Option<Value>) -> Result<String, Error> {
    let wrong = || Error::invalid("prompt must be one non-empty string");
    let text = match prompt {
        Some(Value::String(text)) => text,
        Some(Value::Array(mut several)) if several.len() == 1 => match several.pop() {
            Some(Value::String(text)) => text,
            _ => return Err(wrong()),
        },
        _ => return Err(wrong()),
    };
    if text.is_empty() {
        return Err(wrong());
    }
    Ok(text)
}
