//! `ensure`: a model is asked for, and how that goes is told as it goes.

use std::convert::Infallible;

use artifact::agent_api::{AgentError, ENSURE_PATH, EnsureRequest, PullEvent};
use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tracing::Instrument;

use crate::error::Error;
use crate::http::{Api, bad_request};

/// Events that may wait for a slow reader; those beyond are dropped.
const EVENTS_AHEAD: usize = 1024;

/// Sees to it that a model is on this node.
///
/// Starts a pull, or joins one, and streams its events as lines of JSON; the last one is `ready` or
/// `failed`. The pull is a task of its own: it goes on when the asker leaves. A stream that ends
/// without one of the two was cut off by the agent's end.
#[utoipa::path(
    post,
    path = ENSURE_PATH,
    request_body = EnsureRequest,
    responses(
        (status = 200, description = "Events, one JSON object a line",
            body = PullEvent, content_type = "application/x-ndjson"),
        (status = 400, description = "The request cannot be read", body = AgentError),
    ),
)]
pub(super) async fn ensure(
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
