//! `/api/tags` and `/api/ps`: what is on the node, what is loaded.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};

use super::super::json as json_response;
use super::respond;
use super::types::Details;
use crate::app::Runtime;
use crate::error::Error;
use crate::llama;
use crate::models::Model;
use crate::models::loaded::Status;

/// What Ollama shows for a model that stays for ever: some hundred years.
const FOREVER: Duration = Duration::from_secs(292 * 365 * 24 * 3600);

/// `GET /api/tags`.
pub(super) async fn tags(State(runtime): State<Arc<Runtime>>) -> Response {
    respond(try_tags(&runtime).await)
}

/// `GET /api/ps`.
pub(super) async fn running(State(runtime): State<Arc<Runtime>>) -> Response {
    let models: Vec<Value> = runtime.loaded.status().iter().map(loaded).collect();
    json_response(StatusCode::OK, &json!({ "models": models }))
}

async fn try_tags(runtime: &Runtime) -> Result<Response, Error> {
    let mut models = Vec::new();
    for entry in runtime.catalog.list().await? {
        let name = entry.reference.to_string();
        match runtime.catalog.read(entry).await {
            Ok(model) => models.push(tag(&model)),
            Err(error) => tracing::warn!(model = name, %error, "left out of the list"),
        }
    }
    Ok(json_response(StatusCode::OK, &json!({ "models": models })))
}

fn tag(model: &Model) -> Value {
    let name = model.name();
    json!({
        "name": name,
        "model": name,
        "modified_at": model.entry.pulled_at,
        "size": model.entry.size,
        "digest": model.digest_hex(),
        "details": details(model),
        "capabilities": model.facts.capabilities(model.chat_template()),
    })
}

fn loaded(status: &Status) -> Value {
    let name = status.model.name();
    let expires = jiff::Timestamp::now()
        .checked_add(status.remaining.unwrap_or(FOREVER))
        .unwrap_or(jiff::Timestamp::MAX);
    json!({
        "name": name,
        "model": name,
        "size": status.size,
        "digest": status.model.digest_hex(),
        "details": details(&status.model),
        // Six digits: more than that Python's fromisoformat does not read.
        "expires_at": format!("{expires:.6}"),
        "size_vram": if llama::computes_on_gpu() { status.size } else { 0 },
        "context_length": status.context_length,
    })
}

/// The details of a model, as in tags, ps and show.
pub(super) fn details(model: &Model) -> Details {
    let facts = &model.facts;
    Details {
        parent_model: "",
        format: "gguf",
        family: facts.architecture.clone(),
        families: vec![facts.architecture.clone()],
        parameter_size: facts.parameter_size.clone(),
        quantization_level: facts.quantisation.clone(),
        context_length: facts.context_length,
        embedding_length: facts.embedding_length,
    }
}
