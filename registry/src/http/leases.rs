//! PUT and DELETE of a lease: content of a repository stays while a node pulls it.

use std::time::Duration;

use artifact::{Digest, ErrorCode, Repository};
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{Method, StatusCode};
use http_body_util::{BodyExt, Limited};
use serde::Deserialize;
use uuid::Uuid;

use crate::http::State;
use crate::http::error::Failure;
use crate::service::leases::NewLease;

/// Largest body: a thousand digests of the longest kind, and room.
const MAX_BODY: usize = 256 * 1024;

/// What the body of a PUT says.
#[derive(Debug, Deserialize)]
struct Asked {
    digests: Vec<Digest>,
    seconds: u64,
    #[serde(default)]
    holder: String,
}

/// The methods a lease takes.
pub(super) async fn dispatch(
    state: &State,
    parts: &Parts,
    repository: Repository,
    id: Uuid,
    body: Body,
) -> Result<Response, Failure> {
    match parts.method {
        Method::PUT => {
            let asked = read(body).await?;
            let lease = NewLease {
                repository,
                id,
                digests: asked.digests,
                time: Duration::from_secs(asked.seconds),
                holder: asked.holder,
            };
            let expires = state.registry.put_lease(lease).await?;
            Ok(axum::Json(serde_json::json!({ "expires": expires })).into_response())
        }
        Method::DELETE => {
            state.registry.delete_lease(repository, id).await?;
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        _ => Err(Failure::Method("PUT, DELETE")),
    }
}

async fn read(body: Body) -> Result<Asked, Failure> {
    let malformed = |reason: String| Failure::Malformed(ErrorCode::Unsupported, reason);
    let body = Limited::new(body, MAX_BODY).collect().await;
    let body = body.map_err(|error| malformed(format!("the lease cannot be read: {error}")))?;
    serde_json::from_slice(&body.to_bytes())
        .map_err(|error| malformed(format!("this is not a lease: {error}")))
}
