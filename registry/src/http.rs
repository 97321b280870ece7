//! HTTP: the router, the order in which a request is looked at, and what all handlers share.

mod access;
mod admin;
mod blobs;
mod body;
mod endpoint;
mod error;
mod leases;
mod listings;
mod manifests;
mod metrics;
mod query;
mod range;
mod redirect;
mod remote_body;
pub(crate) mod server;
mod uploads;

use std::sync::Arc;

use artifact::{Digest, Repository};
use axum::Router;
use axum::extract::{Request, State as Extracted};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use http::header::HeaderName;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use url::Url;

use crate::error::Error;
use crate::http::access::{Access, OpenPolicy, Policy};
use crate::http::endpoint::Endpoint;
use crate::http::error::Failure;
use crate::metrics::Metrics;
use crate::metrics::labels::Route;
use crate::service::Registry;

/// Names the digest of what is answered.
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
/// How Docker recognises a registry.
const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");

/// What every handler can reach.
#[derive(Clone, Debug)]
pub(crate) struct State {
    registry: Arc<Registry>,
    policy: Arc<dyn Policy>,
    external_url: Option<Url>,
    /// Whether downloads may be answered by redirects to the bucket.
    redirect: bool,
    metrics: Metrics,
}

/// The whole HTTP service.
pub(crate) fn router(
    registry: Arc<Registry>,
    external_url: Option<Url>,
    redirect: bool,
    metrics: Metrics,
) -> Router {
    let state = State {
        registry,
        policy: Arc::new(OpenPolicy),
        external_url,
        redirect,
        metrics: metrics.clone(),
    };
    Router::new()
        .route("/healthz", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .route(
            "/metrics",
            get(|state: Extracted<State>| async move { metrics::page(&state.metrics) }),
        )
        .route("/v2", any(api))
        .route("/v2/", any(api))
        .route("/v2/{*path}", any(api))
        .fallback(|| async { Failure::NoSuchPath.into_response() })
        .layer(middleware::from_fn_with_state(metrics, metrics::observe))
        .with_state(state)
}

/// Whether the registry can do its job: its storage and its index answer.
async fn ready(Extracted(state): Extracted<State>) -> Response {
    match state.registry.check().await {
        Ok(()) => "ready\n".into_response(),
        Err(error) => {
            tracing::warn!(error = %error, "not ready");
            let message = "storage or index do not answer; the log says why\n";
            (StatusCode::SERVICE_UNAVAILABLE, message).into_response()
        }
    }
}

/// Everything below `/v2/`.
async fn api(Extracted(state): Extracted<State>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let mut response = match answer(&state, &parts, body).await {
        Ok(response) => response,
        Err(failure) => refuse(&state, &parts, failure),
    };
    let version = HeaderValue::from_static("registry/2.0");
    response.headers_mut().insert(API_VERSION, version);
    if let Some(Ok(endpoint)) = Endpoint::parse(parts.uri.path()) {
        response.extensions_mut().insert(Route::of(&endpoint));
    }
    response
}

async fn answer(state: &State, parts: &Parts, body: axum::body::Body) -> Result<Response, Failure> {
    let endpoint = Endpoint::parse(parts.uri.path()).ok_or(Failure::NoSuchPath)??;
    if let Some(repository) = endpoint.repository() {
        tracing::Span::current().record("repository", repository.as_str());
    }
    let identity = state.policy.identify(&parts.headers);
    let access = Access::of(&parts.method, &endpoint);
    if !state.policy.allows(&identity, &access) {
        return Err(Failure::Denied);
    }
    let is_read = matches!(parts.method, Method::GET | Method::HEAD);
    match endpoint {
        Endpoint::Blob(repository, digest) => {
            blobs::dispatch(state, parts, repository, digest).await
        }
        Endpoint::Uploads(repository) if parts.method == Method::POST => {
            uploads::post(state, parts, repository, body).await
        }
        Endpoint::Uploads(_) => Err(Failure::Method("POST")),
        Endpoint::Upload(repository, id) => {
            uploads::dispatch(state, parts, repository, id, body).await
        }
        Endpoint::Manifest(repository, reference) => {
            manifests::dispatch(state, parts, repository, reference, body).await
        }
        Endpoint::Lease(repository, id) => {
            leases::dispatch(state, parts, repository, id, body).await
        }
        Endpoint::Admin(task) => admin::dispatch(state, parts, task).await,
        Endpoint::Ping | Endpoint::Catalog | Endpoint::Tags(_) | Endpoint::Referrers(..)
            if !is_read =>
        {
            Err(Failure::Method("GET, HEAD"))
        }
        Endpoint::Ping => Ok(axum::Json(serde_json::json!({})).into_response()),
        Endpoint::Catalog => listings::catalog(state, &parts.uri).await,
        Endpoint::Tags(repository) => listings::tags(state, &parts.uri, &repository).await,
        Endpoint::Referrers(repository, subject) => {
            listings::referrers(state, &parts.uri, &repository, &subject).await
        }
    }
}

fn refuse(state: &State, parts: &Parts, failure: Failure) -> Response {
    let stands_at = match &failure {
        Failure::Registry(Error::OutOfOrder { id, offset }) => Some((*id, *offset)),
        _ => None,
    };
    let response = failure.into_response();
    match (stands_at, Endpoint::parse(parts.uri.path())) {
        (Some((id, offset)), Some(Ok(Endpoint::Upload(repository, _)))) => {
            uploads::out_of_order(response, state, parts, &repository, id, offset)
        }
        _ => response,
    }
}

/// The address under which the client reaches this registry: as configured, else as the client
/// itself names it, provided that it is the name of a host.
fn base_url(state: &State, parts: &Parts) -> String {
    if let Some(url) = &state.external_url {
        return url.as_str().trim_end_matches('/').to_owned();
    }
    let host = parts
        .uri
        .authority()
        .map(http::uri::Authority::as_str)
        .or_else(|| header_text(&parts.headers, &header::HOST))
        .filter(|host| is_host(host));
    let forwarded = HeaderName::from_static("x-forwarded-proto");
    let scheme = match header_text(&parts.headers, &forwarded) {
        Some("https") => "https",
        _ => "http",
    };
    // Without a usable host the address stays relative, which the specification allows.
    host.map_or_else(String::new, |host| format!("{scheme}://{host}"))
}

fn is_host(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]_".contains(&byte);
    !text.is_empty() && text.len() <= 300 && text.bytes().all(is_plain)
}

fn blob_path(repository: &Repository, digest: &Digest) -> String {
    format!("/v2/{}/blobs/{digest}", repository.as_str())
}

/// A header as text, if it is there once and is text.
fn header_text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Sets a header; a value that cannot stand in one, such as a stored media type with a line
/// break, is left out.
fn insert(response: &mut Response, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use crate::http::is_host;

    #[test]
    fn only_host_names_are_taken_over_into_addresses() {
        for host in [
            "localhost:5000",
            "127.0.0.1:1",
            "[::1]:5000",
            "registry.example.com",
        ] {
            assert!(is_host(host), "{host}");
        }
        for host in ["", "a/b", "a\"b", "a b", "user@host", "a?b", "a#b", "a\\b"] {
            assert!(!is_host(host), "{host}");
        }
    }
}
