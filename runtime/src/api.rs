//! The router of both APIs, and what they share: reading bodies, health, unknown paths.

mod access;
mod error;
mod ollama;
mod openai;

use std::sync::Arc;
use std::time::Duration;

use artifact::trace;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::decompression::RequestDecompressionLayer;
use tower_http::trace::TraceLayer;
use tracing::Span;

use crate::app::Runtime;
use crate::error::Error;

/// Bytes of a request's body: long chats fit, floods do not.
const MAX_BODY: usize = 32 * 1024 * 1024;

/// Everything that the runtime answers.
pub(crate) fn router(runtime: Arc<Runtime>, origins: &[String], is_local: bool) -> Router {
    let traces = TraceLayer::new_for_http()
        .make_span_with(request_span)
        .on_response(|response: &Response, _: Duration, span: &Span| {
            trace::answered(span, response.status().as_u16());
        });
    let router = Router::new()
        .merge(ollama::routes())
        .merge(openai::routes())
        .route("/healthz", get(health))
        .route("/readyz", get(ready))
        .fallback(ollama::unknown_path)
        .method_not_allowed_fallback(ollama::unknown_method)
        .with_state(runtime)
        // Clients may send zstd, as Ollama allows; the limit of a body counts what it inflates to.
        .layer(RequestDecompressionLayer::new())
        .layer(CatchPanicLayer::new())
        .layer(access::cross_origin(origins))
        .layer(traces);
    if is_local {
        router.layer(axum::middleware::from_fn(access::check_host))
    } else {
        router
    }
}

fn request_span(request: &Request) -> Span {
    let span = trace::request_span(request.method(), request.uri().path(), request.headers());
    if let Some(route) = request.extensions().get::<MatchedPath>() {
        trace::routed(&span, request.method(), route.as_str());
    }
    span
}

async fn health() -> &'static str {
    "ok"
}

async fn ready(State(runtime): State<Arc<Runtime>>) -> Response {
    if runtime.catalog.is_ready().await {
        "ok".into_response()
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "the models cannot be listed",
        )
            .into_response()
    }
}

/// Reads and parses a JSON body. The content type is not looked at: curl users seldom set it.
async fn read_json<T: DeserializeOwned>(body: Body) -> Result<T, Error> {
    let bytes = axum::body::to_bytes(body, MAX_BODY)
        .await
        .map_err(|error| {
            if is_over_limit(&error) {
                Error::BodyTooLarge { limit: MAX_BODY }
            } else {
                Error::invalid("the request body broke off")
            }
        })?;
    if bytes.trim_ascii().is_empty() {
        return Err(Error::MissingBody);
    }
    serde_json::from_slice(&bytes).map_err(|error| Error::invalid(error.to_string()))
}

fn is_over_limit(error: &axum::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if inner.to_string().contains("length limit exceeded") {
            return true;
        }
        cause = inner.source();
    }
    false
}

/// A JSON answer.
fn json<T: Serialize>(status: StatusCode, value: &T) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => (
            status,
            [(header::CONTENT_TYPE, "application/json; charset=utf-8")],
            Bytes::from(bytes),
        )
            .into_response(),
        Err(error) => {
            tracing::error!(%error, "an answer could not be written as JSON");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
