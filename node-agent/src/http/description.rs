//! The description of the API in OpenAPI 3.1, gathered from the handlers.

use artifact::agent_api::DESCRIPTION_PATH;
use axum::Extension;
use axum::body::Bytes;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use utoipa::OpenApi;

/// What the description says before its paths.
#[derive(OpenApi)]
#[openapi(info(
    title = "Hayloft node agent",
    description = "Keeps the models of one node. Served over TCP and over the Unix socket \
                   agent.sock in the cache folder.",
))]
pub(super) struct Preface;

/// The description, written once.
#[derive(Clone, Debug)]
pub(super) struct Description(Bytes);

impl Description {
    pub(super) fn new(description: &utoipa::openapi::OpenApi) -> Self {
        // It holds nothing that JSON could not: text, numbers and maps by text.
        Self(serde_json::to_vec(description).unwrap_or_default().into())
    }
}

/// This description.
#[utoipa::path(
    get,
    path = DESCRIPTION_PATH,
    responses((status = 200, description = "OpenAPI 3.1", content_type = "application/json", body = serde_json::Value)),
)]
pub(super) async fn describe(Extension(Description(text)): Extension<Description>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}
