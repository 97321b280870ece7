//! `/healthz` and `/readyz`: whether the process lives, and whether it can do its job.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State as Extracted;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::StatusCode;
use tokio::sync::Mutex;

use crate::http::State;
use crate::metrics::labels::Route;
use crate::service::{Part, Registry};

/// What a check found holds for so long: a storm of probes costs one check.
const FRESH: Duration = Duration::from_secs(3);
/// A check that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the last check of storage and index found.
#[derive(Debug)]
pub(crate) struct Health {
    registry: Arc<Registry>,
    last: Mutex<Option<(Instant, Option<Part>)>>,
}

impl Health {
    /// Nothing checked yet.
    pub(crate) fn new(registry: Arc<Registry>) -> Self {
        Self {
            registry,
            last: Mutex::new(None),
        }
    }

    /// The part that does not do its job, if one does not. Others who ask meanwhile wait for the
    /// same answer.
    async fn broken_part(&self) -> Option<Part> {
        let mut last = self.last.lock().await;
        if let Some((at, found)) = *last
            && at.elapsed() < FRESH
        {
            return found;
        }
        let found = check(&self.registry).await;
        *last = Some((Instant::now(), found));
        found
    }
}

async fn check(registry: &Registry) -> Option<Part> {
    for part in [Part::Index, Part::Storage] {
        match tokio::time::timeout(PATIENCE, registry.check(part)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::error!(error = error.chain(), %part, "not ready");
                return Some(part);
            }
            Err(_) => {
                tracing::error!(%part, seconds = PATIENCE.as_secs(), "not ready: no answer");
                return Some(part);
            }
        }
    }
    None
}

/// The paths; nobody has to log in for them.
pub(super) fn routes() -> Router<State> {
    Router::new()
        .route(
            "/healthz",
            get(|| async { told("alive\n".into_response()) }),
        )
        .route("/readyz", get(ready))
}

/// Names the part that fails, and leaves paths and causes to the log.
async fn ready(Extracted(state): Extracted<State>) -> Response {
    told(match state.health.broken_part().await {
        None => "ready\n".into_response(),
        Some(part) => {
            let message = format!("not ready: the {part} does not do its job; the log says why\n");
            (StatusCode::SERVICE_UNAVAILABLE, message).into_response()
        }
    })
}

fn told(mut response: Response) -> Response {
    response.extensions_mut().insert(Route::Health);
    response
}
