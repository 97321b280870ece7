//! The OpenAI API: routes, and errors in its form.

mod completions;
mod models;
mod stream;
mod types;

use std::sync::Arc;

use axum::Router;
use axum::extract::OriginalUri;
use axum::response::Response;
use axum::routing::{get, post};

use super::error::openai as error_response;
use crate::app::Runtime;
use crate::error::Error;

/// All paths of the API.
pub(super) fn routes() -> Router<Arc<Runtime>> {
    Router::new()
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*model}", get(models::retrieve))
        .route("/v1/chat/completions", post(completions::chat))
        .route("/v1/completions", post(completions::text))
        .route("/v1/embeddings", post(not_yet))
        .route("/v1/responses", post(not_yet))
}

async fn not_yet(OriginalUri(uri): OriginalUri) -> Response {
    error_response(&Error::NotYet {
        what: uri.path().to_owned(),
    })
}

/// A handler's result as a response.
fn respond(result: Result<Response, Error>) -> Response {
    result.unwrap_or_else(|error| error_response(&error))
}
