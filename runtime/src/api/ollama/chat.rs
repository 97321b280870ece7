//! `/api/generate` and `/api/chat`: request to inference.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use serde_json::Value;

use super::super::read_json;
use super::respond;
use super::stream::{ChunkWriter, Endpoint};
use super::types::{ChatMessage, ChatRequest, Common, GenerateRequest};
use crate::app::Runtime;
use crate::chat::Message;
use crate::chat::template;
use crate::error::Error;
use crate::inference::{Format, Inference, Prompt};
use crate::models::Model;
use crate::models::keep_alive::KeepAlive;
use crate::options::Options;

/// `POST /api/generate`.
pub(super) async fn generate(State(runtime): State<Arc<Runtime>>, body: Body) -> Response {
    respond(try_generate(&runtime, body).await)
}

/// `POST /api/chat`.
pub(super) async fn chat(State(runtime): State<Arc<Runtime>>, body: Body) -> Response {
    respond(try_chat(&runtime, body).await)
}

async fn try_generate(runtime: &Runtime, body: Body) -> Result<Response, Error> {
    let began = Instant::now();
    let request: GenerateRequest = read_json(body).await?;
    refuse_unsupported(&request)?;
    let name = request.model.filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| Error::invalid("model is required"))?;
    let model = runtime.catalog.find(&name).await?;
    let writer = ChunkWriter {
        endpoint: Endpoint::Generate,
        model: name,
    };
    let text = request.prompt.unwrap_or_default();
    if text.is_empty() {
        return load_or_unload(runtime, &model, &writer, &request.common).await;
    }
    check_capability(&model, &writer.model, "generate")?;
    let prompt = if request.raw.unwrap_or(false) {
        Prompt::Raw(text)
    } else {
        Prompt::Question {
            system: request.system.or_else(|| model.defaults.system.clone()),
            text,
        }
    };
    answer(runtime, &model, writer, prompt, request.common, began).await
}

async fn try_chat(runtime: &Runtime, body: Body) -> Result<Response, Error> {
    let began = Instant::now();
    let request: ChatRequest = read_json(body).await?;
    let name = request.model.filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| Error::invalid("model is required"))?;
    let model = runtime.catalog.find(&name).await?;
    let writer = ChunkWriter {
        endpoint: Endpoint::Chat,
        model: name,
    };
    let messages = request.messages.unwrap_or_default();
    if messages.is_empty() {
        return load_or_unload(runtime, &model, &writer, &request.common).await;
    }
    check_capability(&model, &writer.model, "chat")?;
    if request.tools.is_some_and(|tools| !tools.is_empty()) {
        return Err(tools_refused(&model, &writer.model));
    }
    let prompt = Prompt::Chat(conversation(&model, messages)?);
    answer(runtime, &model, writer, prompt, request.common, began).await
}

/// What both endpoints do once the prompt is known.
async fn answer(
    runtime: &Runtime,
    model: &Model,
    writer: ChunkWriter,
    prompt: Prompt,
    common: Common,
    began: Instant,
) -> Result<Response, Error> {
    if common.logprobs.unwrap_or(false) {
        return Err(Error::NotYet {
            what: "logprobs".to_owned(),
        });
    }
    let inference = Inference {
        prompt,
        options: Runtime::options(Options::default(), model, common.options.as_ref())?,
        format: format(common.format)?,
        truncate: common.truncate.unwrap_or(true),
        keep_alive: keep_alive(common.keep_alive.as_ref())?,
        thinking: thinking(model, &writer.model, common.think.as_ref())?,
    };
    let answer = runtime.infer(model, inference, began).await?;
    if common.stream.unwrap_or(true) {
        Ok(writer.stream(answer))
    } else {
        writer.whole(answer).await
    }
}

/// A request without a prompt loads the model, or with `keep_alive: 0` unloads it.
async fn load_or_unload(
    runtime: &Runtime,
    model: &Model,
    writer: &ChunkWriter,
    common: &Common,
) -> Result<Response, Error> {
    let keep_alive = keep_alive(common.keep_alive.as_ref())?;
    if keep_alive == Some(KeepAlive::For(std::time::Duration::ZERO)) {
        runtime.loaded.unload(&model.weights()?);
        return Ok(writer.without_text("unload"));
    }
    check_capability(model, &writer.model, "generate")?;
    let options = Runtime::options(Options::default(), model, common.options.as_ref())?;
    let (lease, _load) = runtime.load(model, &options, keep_alive).await?;
    drop(lease);
    Ok(writer.without_text("load"))
}

fn refuse_unsupported(request: &GenerateRequest) -> Result<(), Error> {
    let given = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
    let has_context = request
        .context
        .as_ref()
        .is_some_and(|context| !context.is_empty());
    if request.raw.unwrap_or(false)
        && (given(&request.template) || given(&request.system) || has_context)
    {
        return Err(Error::invalid(
            "raw mode does not support template, system, or context",
        ));
    }
    if given(&request.suffix) {
        return Err(Error::Unsupported {
            name: request.model.clone().unwrap_or_default(),
            capability: "insert",
        });
    }
    if given(&request.template) {
        return Err(Error::invalid(
            "template is not supported: prompts are rendered with the model's own chat template; \
             send raw: true with a prompt that is rendered already",
        ));
    }
    if has_context {
        return Err(Error::invalid(
            "context is not supported: send the conversation to /api/chat",
        ));
    }
    refuse_images(request.images.as_deref(), request.model.as_deref())
}

fn refuse_images(images: Option<&[Value]>, model: Option<&str>) -> Result<(), Error> {
    if images.is_some_and(|images| !images.is_empty()) {
        return Err(Error::Unsupported {
            name: model.unwrap_or_default().to_owned(),
            capability: "images",
        });
    }
    Ok(())
}

/// The model's own messages first; its system text in front unless the client brings one.
fn conversation(model: &Model, messages: Vec<ChatMessage>) -> Result<Vec<Message>, Error> {
    let mut all = model.defaults.messages.clone();
    for message in messages {
        refuse_images(message.images.as_deref(), Some(&model.name()))?;
        all.push(Message {
            role: message.role.to_lowercase(),
            content: message.content.unwrap_or_default(),
        });
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

/// Refuses models that cannot continue a text, such as embedding models.
fn check_capability(model: &Model, name: &str, capability: &'static str) -> Result<(), Error> {
    if model.facts.generates {
        return Ok(());
    }
    Err(Error::Unsupported {
        name: name.to_owned(),
        capability,
    })
}

fn tools_refused(model: &Model, name: &str) -> Error {
    if model.chat_template().is_some_and(template::knows_tools) {
        Error::NotYet {
            what: "calling tools".to_owned(),
        }
    } else {
        Error::Unsupported {
            name: name.to_owned(),
            capability: "tools",
        }
    }
}

fn thinking(model: &Model, name: &str, think: Option<&Value>) -> Result<Option<bool>, Error> {
    let wanted = match think {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Bool(wanted)) => *wanted,
        Some(Value::String(level))
            if ["low", "medium", "high", "max"].contains(&level.as_str()) =>
        {
            true
        }
        Some(other) => {
            return Err(Error::invalid(format!(
                "invalid think value: {other}; expected a boolean, \"low\", \"medium\", \"high\" or \"max\""
            )));
        }
    };
    if wanted && !model.chat_template().is_some_and(template::knows_thinking) {
        return Err(Error::Unsupported {
            name: name.to_owned(),
            capability: "thinking",
        });
    }
    Ok(Some(wanted))
}

fn keep_alive(value: Option<&Value>) -> Result<Option<KeepAlive>, Error> {
    value.map_or(Ok(None), KeepAlive::parse)
}

fn format(value: Option<Value>) -> Result<Format, Error> {
    match value {
        None | Some(Value::Null) => Ok(Format::Free),
        Some(Value::String(name)) if name.is_empty() => Ok(Format::Free),
        Some(Value::String(name)) if name == "json" => Ok(Format::Json),
        Some(schema @ Value::Object(_)) => Ok(Format::Schema(schema)),
        Some(other) => Err(Error::invalid(format!(
            "invalid format: {}; expected \"json\" or a valid JSON Schema object",
            other.to_string().chars().take(200).collect::<String>()
        ))),
    }
}
