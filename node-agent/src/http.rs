//! The agent's API over HTTP: the paths and types of [`artifact::agent_api`].
//!
//! Handlers carry their description and are registered with it, so that the description that is
//! served at [`DESCRIPTION_PATH`](artifact::agent_api::DESCRIPTION_PATH) names every route and no
//! other. A new operation is a handler with `#[utoipa::path]` in a file of its resource, and a line
//! in [`operations`].

mod description;
mod ensure;
mod health;
mod leases;
mod models;
mod observe;
mod status;

use std::time::Duration;

use artifact::agent_api::{AgentError, AgentErrorCode};
use artifact::trace;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json, Router, middleware};
use tokio::sync::watch;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::trace::TraceLayer;
use tracing::Span;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::error::Error;
use crate::preload::Board;
use crate::pull::Puller;
use description::Description;
use observe::Observer;

/// Largest request body, in bytes.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// What the handlers share.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    pub(crate) puller: Puller,
    /// When the agent was started, RFC 3339.
    pub(crate) started_at: String,
    /// How far it is with the desired list, if it has one.
    pub(crate) preload: Option<Board>,
    /// Turns true when the agent shuts down: event streams end then.
    pub(crate) stopping: watch::Receiver<bool>,
}

/// Everything the agent answers.
fn operations() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(description::Preface::openapi())
        .routes(routes!(ensure::ensure))
        .routes(routes!(models::list_models))
        .routes(routes!(models::show_model, models::remove_model))
        .routes(routes!(models::pin_model))
        .routes(routes!(leases::put_lease, leases::end_lease))
        .routes(routes!(leases::list_leases))
        .routes(routes!(status::show_status))
        .routes(routes!(description::describe))
        .routes(routes!(health::alive))
        .routes(routes!(health::ready))
        .routes(routes!(health::metrics))
}

/// The routes.
pub(crate) fn router(api: Api) -> Router {
    let traces = TraceLayer::new_for_http()
        .make_span_with(request_span)
        .on_response(|response: &Response, _: Duration, span: &Span| {
            trace::answered(span, response.status().as_u16());
        });
    let (routes, description) = operations().split_for_parts();
    let observer = Observer::new(&description, api.puller.cache().metrics().clone());
    routes
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(Extension(Description::new(&description)))
        .layer(CatchPanicLayer::new())
        .layer(middleware::from_fn_with_state(observer, observe::count))
        .layer(traces)
        .with_state(api)
}

fn request_span(request: &Request) -> Span {
    let span = trace::request_span(request.method(), request.uri().path(), request.headers());
    if let Some(route) = request.extensions().get::<MatchedPath>() {
        trace::routed(&span, request.method(), route.as_str());
    }
    span
}

async fn unknown_path(uri: Uri) -> Response {
    let message = format!("{} is no path of the agent's API", uri.path());
    answer(
        StatusCode::NOT_FOUND,
        AgentError {
            code: AgentErrorCode::NotFound,
            message,
        },
    )
}

async fn unknown_method(uri: Uri) -> Response {
    let message = format!("{} has no such method", uri.path());
    answer(
        StatusCode::METHOD_NOT_ALLOWED,
        AgentError {
            code: AgentErrorCode::BadRequest,
            message,
        },
    )
}

fn bad_request(reason: String) -> Error {
    Error::BadRequest { reason }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let error = self.to_agent_error();
        if error.code == AgentErrorCode::Internal {
            tracing::error!(%error, "a request failed");
        }
        answer(status_of(error.code), error)
    }
}

/// An error as every operation answers it; its code is left where it is counted.
fn answer(status: StatusCode, error: AgentError) -> Response {
    (status, Extension(error.code), Json(error)).into_response()
}

/// The only map from what went wrong to an HTTP status.
fn status_of(code: AgentErrorCode) -> StatusCode {
    match code {
        AgentErrorCode::BadRequest => StatusCode::BAD_REQUEST,
        AgentErrorCode::NotFound => StatusCode::NOT_FOUND,
        AgentErrorCode::Denied => StatusCode::FORBIDDEN,
        AgentErrorCode::Unreachable | AgentErrorCode::Corrupt => StatusCode::BAD_GATEWAY,
        AgentErrorCode::Unsupported => StatusCode::UNPROCESSABLE_ENTITY,
        AgentErrorCode::NoSpace => StatusCode::INSUFFICIENT_STORAGE,
        AgentErrorCode::Conflict => StatusCode::CONFLICT,
        AgentErrorCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
