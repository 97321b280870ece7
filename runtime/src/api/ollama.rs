//! The Ollama API: routes, and errors in its form.

mod chat;
mod listing;
mod pull;
mod show;
mod stream;
mod types;

use std::sync::Arc;

use axum::Router;
use axum::extract::{OriginalUri, Request};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use serde_json::json;

use super::error::ollama as error_response;
use super::json as json_response;
use crate::app::Runtime;
use crate::error::Error;

/// All paths of the API. axum answers HEAD wherever there is a GET.
pub(super) fn routes() -> Router<Arc<Runtime>> {
    Router::new()
        .route("/", get(alive))
        .route("/api/version", get(version))
        .route("/api/tags", get(listing::tags))
        .route("/api/ps", get(listing::running))
        .route("/api/show", post(show::show))
        .route("/api/generate", post(chat::generate))
        .route("/api/chat", post(chat::chat))
        .route("/api/pull", post(pull::pull))
        .route("/api/delete", delete(pull::remove))
        .route("/api/embed", post(not_yet))
        .route("/api/embeddings", post(not_yet))
        .route("/api/create", post(not_yet))
        .route("/api/copy", post(not_yet))
        .route("/api/push", post(not_yet))
}

async fn alive() -> &'static str {
    "Ollama is running"
}

async fn version() -> Response {
    json_response(
        StatusCode::OK,
        &json!({ "version": env!("CARGO_PKG_VERSION") }),
    )
}

async fn not_yet(OriginalUri(uri): OriginalUri) -> Response {
    error_response(&Error::NotYet {
        what: uri.path().to_owned(),
    })
}

/// 404 for paths that nobody knows.
pub(super) async fn unknown_path(request: Request) -> Response {
    let error = format!("{} not found", request.uri().path());
    json_response(StatusCode::NOT_FOUND, &json!({ "error": error }))
}

/// 405 for paths that know other methods.
pub(super) async fn unknown_method(method: Method, request: Request) -> Response {
    let error = format!("{method} is not allowed on {}", request.uri().path());
    json_response(StatusCode::METHOD_NOT_ALLOWED, &json!({ "error": error }))
}

/// A handler's result as a response.
fn respond(result: Result<Response, Error>) -> Response {
    result
        .unwrap_or_else(|error| error_response(&error))
        .into_response()
}
