//! `/v1/models`: what is on the node, in OpenAI's form.

use std::sync::Arc;

use artifact::agent_api::ModelEntry;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};

use super::super::json as json_response;
use super::respond;
use crate::app::Runtime;
use crate::error::Error;

/// `GET /v1/models`.
pub(super) async fn list(State(runtime): State<Arc<Runtime>>) -> Response {
    respond(try_list(&runtime).await)
}

/// `GET /v1/models/{model}`; a model's name may have slashes.
pub(super) async fn retrieve(
    State(runtime): State<Arc<Runtime>>,
    Path(name): Path<String>,
) -> Response {
    let found = runtime.catalog.find(&name).await;
    respond(found.map(|model| json_response(StatusCode::OK, &card(&model.entry))))
}

async fn try_list(runtime: &Runtime) -> Result<Response, Error> {
    let data: Vec<Value> = runtime.catalog.list().await?.iter().map(card).collect();
    Ok(json_response(
        StatusCode::OK,
        &json!({ "object": "list", "data": data }),
    ))
}

fn card(entry: &ModelEntry) -> Value {
    let created = entry
        .pulled_at
        .parse::<jiff::Timestamp>()
        .map_or(0, jiff::Timestamp::as_second);
    let segments: Vec<&str> = entry.reference.repository().segments().collect();
    let owner = match segments.as_slice() {
        [owner, _, ..] => owner,
        _ => "library",
    };
    json!({
        "id": entry.reference.to_string(),
        "object": "model",
        "created": created,
        "owned_by": owner,
    })
}
