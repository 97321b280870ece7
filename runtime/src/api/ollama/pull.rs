//! `/api/pull` and `/api/delete`: both go to the node agent; progress in Ollama's form.

use std::sync::Arc;

use artifact::agent_api::PullEvent;
use artifact::dialect::Role;
use artifact::{Digest, ModelName};
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use serde_json::{Value, json};

use super::super::error::ollama_body;
use super::super::{json as json_response, read_json};
use super::respond;
use super::stream::{line, ndjson};
use super::types::ModelRequest;
use crate::app::Runtime;
use crate::error::Error;

/// `POST /api/pull`.
pub(super) async fn pull(State(runtime): State<Arc<Runtime>>, body: Body) -> Response {
    respond(try_pull(&runtime, body).await)
}

/// `DELETE /api/delete`.
pub(super) async fn remove(State(runtime): State<Arc<Runtime>>, body: Body) -> Response {
    respond(try_remove(&runtime, body).await)
}

async fn try_pull(runtime: &Runtime, body: Body) -> Result<Response, Error> {
    let request: ModelRequest = read_json(body).await?;
    let name = request.model();
    if name.is_empty() {
        return Err(Error::invalid("model is required"));
    }
    let name = ModelName::parse(name).map_err(|source| Error::InvalidName {
        name: name.to_owned(),
        source,
    })?;
    let insecure = request.insecure.unwrap_or(false);
    let events = runtime.catalog.pull(&name, insecure).await?;
    let progress = events
        .map_err(|source| Error::Agent { source })
        .map(|event| event.and_then(progress))
        .boxed();
    if request.stream.unwrap_or(true) {
        Ok(stream(progress))
    } else {
        let lines: Vec<Vec<Value>> = progress.try_collect().await?;
        let last = lines.into_iter().flatten().next_back();
        Ok(json_response(StatusCode::OK, &last.unwrap_or(Value::Null)))
    }
}

async fn try_remove(runtime: &Runtime, body: Body) -> Result<Response, Error> {
    let request: ModelRequest = read_json(body).await?;
    if request.model().is_empty() {
        return Err(Error::invalid("model is required"));
    }
    let entry = runtime.catalog.remove(request.model()).await?;
    if let Some(weights) = entry.blob(Role::Model) {
        runtime.loaded.unload(&weights.digest);
    }
    tracing::info!(reference = %entry.reference, "model removed");
    Ok(StatusCode::OK.into_response())
}

fn stream(progress: BoxStream<'static, Result<Vec<Value>, Error>>) -> Response {
    ndjson(progress.flat_map(|lines| {
        let lines = match lines {
            Ok(lines) => lines.iter().map(line).collect(),
            Err(error) => vec![line(&ollama_body(&error))],
        };
        futures::stream::iter(lines)
    }))
}

/// The agent's event in Ollama's words; none, one or several lines.
fn progress(event: PullEvent) -> Result<Vec<Value>, Error> {
    Ok(match event {
        PullEvent::Resolving { .. } => vec![json!({ "status": "pulling manifest" })],
        PullEvent::Resolved { blobs, .. } => blobs
            .iter()
            .map(|blob| {
                let completed = if blob.cached { blob.size } else { 0 };
                layer(&blob.digest, completed, blob.size)
            })
            .collect(),
        PullEvent::Progress {
            digest,
            completed,
            total,
        } => vec![layer(&digest, completed, total)],
        PullEvent::Verifying { .. } => vec![json!({ "status": "verifying sha256 digest" })],
        PullEvent::Ready { .. } => vec![
            json!({ "status": "writing manifest" }),
            json!({ "status": "success" }),
        ],
        PullEvent::Failed { error } => {
            return Err(Error::Agent {
                source: artifact::client::Error::Agent { error },
            });
        }
    })
}

fn layer(digest: &Digest, completed: u64, total: u64) -> Value {
    let hex = digest.hex().to_string();
    let short: String = hex.chars().take(12).collect();
    let mut line = json!({
        "status": format!("pulling {short}"),
        "digest": digest.to_string(),
        "total": total,
    });
    // Ollama leaves out what is zero, and clients know.
    if completed > 0 {
        line["completed"] = completed.into();
    }
    line
}
