//! Whether the agent lives and can do its job, and what it has counted.

use artifact::agent_api::{AgentError, AgentErrorCode, PreloadState};
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::http::{Api, answer};
use crate::preload::Board;

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

/// What readiness is asked for.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ReadyQuery {
    /// Given, whatever its value: all models of the desired list must be here as well.
    preload: Option<String>,
}

/// The agent can do its job: its cache can be written to, and it is not about to end.
#[utoipa::path(
    get,
    path = "/readyz",
    params(ReadyQuery),
    responses(
        (status = 200, description = "It can", body = String, content_type = "text/plain"),
        (status = 503, description = "It cannot, and why", body = AgentError),
    ),
)]
pub(super) async fn ready(
    State(api): State<Api>,
    Query(query): Query<ReadyQuery>,
) -> Result<&'static str, Response> {
    let writable = api
        .puller
        .cache()
        .blocking(|cache| cache.check_writable())
        .await;
    match writable {
        Ok(()) => match query.preload.and(api.preload).as_ref().and_then(missing) {
            None => Ok("ready"),
            Some(message) => Err(answer(
                StatusCode::SERVICE_UNAVAILABLE,
                AgentError {
                    code: AgentErrorCode::NotFound,
                    message,
                },
            )),
        },
        Err(error) => Err(answer(
            StatusCode::SERVICE_UNAVAILABLE,
            error.to_agent_error(),
        )),
    }
}

/// What of the desired list is not here; nothing when all of it is.
fn missing(board: &Board) -> Option<String> {
    let status = board.status();
    if status.is_ready() {
        return None;
    }
    if !status.is_known {
        let problem = status.problem.unwrap_or_default();
        return Some(format!("{} is not read yet {problem}", status.file));
    }
    let models = status.models.iter();
    let missing: Vec<String> = models
        .filter(|model| !matches!(model.state, PreloadState::Ready { .. }))
        .map(|model| format!("{} is {}", model.name, model.state.as_str()))
        .collect();
    Some(missing.join(", "))
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
    let cache = api.puller.cache();
    // The disk is looked at when somebody asks: others fill it too. What cannot be looked at keeps
    // its last number.
    let measured = cache.blocking(|cache| {
        let disk = cache.disk()?;
        cache.metrics().disk(disk.available, disk.usable());
        cache.metrics().cache_bytes(cache.used_bytes()?);
        Ok(())
    });
    if let Err(error) = measured.await {
        tracing::warn!(error = %error.to_agent_error(), "the disk cannot be measured");
    }
    match cache.metrics().text() {
        Ok(text) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
