//! Whether the agent lives and can do its job, and what it has counted.

use artifact::agent_api::AgentError;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::http::{Api, answer};

/// What Prometheus expects of the OpenMetrics format.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The process lives.
#[utoipa::path(
    get,
    path = "/healthz",
    responses((status = 200, description = "It does", body = String, content_type = "text/plain")),
)]
pub(super) async fn alive() -> &'static str {
    "ok"
}

/// The agent can do its job: its cache can be written to, and it is not about to end.
#[utoipa::path(
    get,
    path = "/readyz",
    responses(
        (status = 200, description = "It can", body = String, content_type = "text/plain"),
        (status = 503, description = "It cannot, and why", body = AgentError),
    ),
)]
pub(super) async fn ready(State(api): State<Api>) -> Result<&'static str, Response> {
    let writable = api
        .puller
        .cache()
        .blocking(|cache| cache.check_writable())
        .await;
    match writable {
        Ok(()) => Ok("ready"),
        Err(error) => Err(answer(
            StatusCode::SERVICE_UNAVAILABLE,
            error.to_agent_error(),
        )),
    }
}

/// What was counted, for Prometheus.
#[utoipa::path(
    get,
    path = "/metrics",
    responses(
        (status = 200, description = "Text in the OpenMetrics format", body = String,
            content_type = "application/openmetrics-text"),
    ),
)]
pub(super) async fn metrics(State(api): State<Api>) -> Response {
    match api.puller.cache().metrics().text() {
        Ok(text) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
