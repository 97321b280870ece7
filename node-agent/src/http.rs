//! The agent's API over HTTP: the paths and types of [`artifact::agent_api`].

use std::convert::Infallible;
use std::time::Duration;

use artifact::agent_api::{
    AgentErrorCode, ENSURE_PATH, EnsureRequest, MODEL_PATH, MODELS_PATH, ModelEntry, ModelList,
    PIN_PATH, PinRequest, PullEvent,
};
use artifact::{Reference, trace};
use axum::body::{Body, Bytes};
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, MatchedPath, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures::StreamExt;
use serde::Deserialize;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::trace::TraceLayer;
use tracing::{Instrument, Span};

use crate::error::Error;
use crate::pull::Puller;

/// Largest request body, in bytes.
const MAX_BODY_BYTES: usize = 64 * 1024;
/// Events that may wait for a slow reader; those beyond are dropped.
const EVENTS_AHEAD: usize = 1024;

/// What the handlers share.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    pub(crate) puller: Puller,
    /// Turns true when the agent shuts down: event streams end then.
    pub(crate) stopping: watch::Receiver<bool>,
}

/// The routes.
pub(crate) fn router(api: Api) -> Router {
    let traces = TraceLayer::new_for_http()
        .make_span_with(request_span)
        .on_response(|response: &Response, _: Duration, span: &Span| {
            trace::answered(span, response.status().as_u16());
        });
    Router::new()
        .route(ENSURE_PATH, post(ensure))
        .route(MODELS_PATH, get(list))
        .route(MODEL_PATH, get(show).delete(remove))
        .route(PIN_PATH, post(pin))
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(ready))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(CatchPanicLayer::new())
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

#[derive(Deserialize)]
struct ModelQuery {
    reference: Reference,
}

/// Starts or joins a pull and streams its events. The pull is a task of its own: it goes on when
/// the asker leaves.
async fn ensure(
    State(api): State<Api>,
    request: Result<Json<EnsureRequest>, JsonRejection>,
) -> Result<Response, Error> {
    let Json(request) = request.map_err(|refusal| bad_request(refusal.body_text()))?;
    let (sender, receiver) = mpsc::channel(EVENTS_AHEAD);
    let puller = api.puller.clone();
    let pull = async move {
        let mut tell = |event: &PullEvent| {
            // Gone or asleep: the pull does not depend on who watches it.
            let _ = sender.try_send(event.clone());
        };
        if let Err(error) = puller.ensure(&request, &mut tell).await {
            tracing::warn!(reference = %request.reference, error = %error.to_agent_error(), "the pull failed");
            tell(&PullEvent::Failed {
                error: error.to_agent_error(),
            });
        }
    };
    tokio::spawn(pull.in_current_span());
    let mut stopping = api.stopping.clone();
    let stopped = async move {
        // An error means that the agent is gone, which ends the stream as well.
        let _ = stopping.wait_for(|stopping| *stopping).await;
    };
    let lines = ReceiverStream::new(receiver)
        .take_until(stopped)
        .map(|event| {
            let mut line = serde_json::to_vec(&event).unwrap_or_default();
            line.push(b'\n');
            Ok::<_, Infallible>(Bytes::from(line))
        });
    let headers = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((headers, Body::from_stream(lines)).into_response())
}

async fn list(State(api): State<Api>) -> Result<Json<ModelList>, Error> {
    let models = api.puller.cache().blocking(|cache| cache.list()).await?;
    Ok(Json(ModelList { models }))
}

async fn show(
    State(api): State<Api>,
    query: Result<Query<ModelQuery>, QueryRejection>,
) -> Result<Json<ModelEntry>, Error> {
    let Query(ModelQuery { reference }) = query.map_err(|e| bad_request(e.body_text()))?;
    let cache = api.puller.cache();
    let found = cache.blocking(move |cache| {
        cache.find(&reference)?.ok_or_else(|| Error::NotCached {
            reference: Box::new(reference),
        })
    });
    found.await.map(Json)
}

async fn remove(
    State(api): State<Api>,
    query: Result<Query<ModelQuery>, QueryRejection>,
) -> Result<StatusCode, Error> {
    let Query(ModelQuery { reference }) = query.map_err(|e| bad_request(e.body_text()))?;
    let cache = api.puller.cache();
    cache
        .blocking(move |cache| cache.remove(&reference))
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn pin(
    State(api): State<Api>,
    request: Result<Json<PinRequest>, JsonRejection>,
) -> Result<Json<ModelEntry>, Error> {
    let Json(request) = request.map_err(|refusal| bad_request(refusal.body_text()))?;
    let cache = api.puller.cache();
    let pinned = cache.blocking(move |cache| cache.set_pinned(&request.reference, request.pinned));
    pinned.await.map(Json)
}

/// Ready means that the cache can be written to.
async fn ready(State(api): State<Api>) -> Result<&'static str, Error> {
    api.puller
        .cache()
        .blocking(|cache| cache.check_writable())
        .await?;
    Ok("ready")
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
        (status_of(error.code), Json(error)).into_response()
    }
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
