//! HTTP: the router, the order in which a request is looked at, and what all handlers share.

mod access;
mod admin;
mod bare;
mod blobs;
mod body;
mod connection;
mod dialects;
mod endpoint;
mod error;
pub(crate) mod front;
mod health;
mod hub;
mod incoming;
mod leases;
mod listings;
mod manifests;
mod metrics;
mod passes;
mod query;
mod range;
mod redirect;
mod remote_body;
mod server;
mod tls;
mod uploads;

use std::sync::Arc;
use std::time::Duration;

use artifact::{Digest, Repository};
use axum::Router;
use axum::extract::{Request, State as Extracted};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use http::header::HeaderName;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, header};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::error::Error;
use crate::http::access::{Access, Identity, Policy};
use crate::http::endpoint::Endpoint;
use crate::http::error::Failure;
use crate::http::health::Health;
use crate::http::incoming::Incoming;
use crate::http::metrics::Tally;
use crate::http::passes::Passes;
use crate::metrics::Metrics;
use crate::metrics::labels::{Route, Verb};
use crate::service::Registry;

/// Names the digest of what is answered.
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
/// Longest text of a warning, in characters.
const MAX_WARNING: usize = 500;
/// How Docker recognises a registry.
const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");

/// How HTTP is spoken, apart from what is stored.
#[derive(Debug)]
struct Setup {
    /// Who may do what.
    policy: Arc<dyn Policy>,
    /// Opens blobs by their addresses alone, where a login is needed otherwise.
    passes: Option<Passes>,
    /// The address under which clients reach the registry.
    external_url: Option<Url>,
    /// Whether downloads may be answered by redirects to the bucket.
    redirect: bool,
    /// Whether clients reach it by https, for addresses that are made from what they call it.
    is_tls: bool,
    /// Whether everything that would change the storage is refused.
    read_only: bool,
    /// A client whose request body brings nothing for this long is taken to be gone.
    body_idle: Duration,
    /// Cuts request bodies off when the server ends.
    closing: CancellationToken,
    /// Where everything is counted.
    metrics: Metrics,
}

/// What every handler can reach.
#[derive(Clone, Debug)]
struct State {
    registry: Arc<Registry>,
    setup: Arc<Setup>,
    health: Arc<Health>,
}

impl State {
    /// Of this registry.
    fn new(registry: Arc<Registry>, setup: Setup) -> Self {
        Self {
            health: Arc::new(Health::new(Arc::clone(&registry))),
            registry,
            setup: Arc::new(setup),
        }
    }
}

/// The whole HTTP service.
fn router(state: State) -> Router {
    let metrics = state.setup.metrics.clone();
    Router::new()
        .route("/metrics", get(metrics_page))
        .route("/v2", any(api))
        .route("/v2/", any(api))
        .route("/v2/{*path}", any(api))
        .merge(hub::routes())
        .merge(health::routes())
        .fallback(|| async { Failure::NoSuchPath.into_response() })
        .layer(middleware::from_fn_with_state(metrics, metrics::observe))
        .with_state(state)
}

/// Metrics and health without a login, for an address that only the operator reaches.
fn operator_router(state: State) -> Router {
    Router::new()
        .route(
            "/metrics",
            get(|state: Extracted<State>| async move { metrics::page(&state.setup.metrics) }),
        )
        .merge(health::routes())
        .with_state(state)
}

/// The counters, for those who may see them.
async fn metrics_page(Extracted(state): Extracted<State>, headers: HeaderMap) -> Response {
    let policy = state.setup.policy.as_ref();
    let allowed = match access::identify(policy, &headers).await {
        Ok(identity) => access::require(policy, &identity, &Access::Metrics),
        Err(failure) => Err(failure),
    };
    let mut response = match allowed {
        Ok(()) => metrics::page(&state.setup.metrics),
        Err(failure) => failure.into_response(),
    };
    response.extensions_mut().insert(Route::Health);
    response
}

/// Everything below `/v2/`.
async fn api(Extracted(state): Extracted<State>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let endpoint = Endpoint::parse(parts.uri.path());
    let route = match &endpoint {
        Some(Ok(endpoint)) => Route::of(endpoint),
        _ => Route::Other,
    };
    let mut response = match answer(&state, &parts, endpoint, body).await {
        Ok(response) => response,
        Err(failure) => bare::refusal(refuse(&state, &parts, failure), &parts),
    };
    let version = HeaderValue::from_static("registry/2.0");
    response.headers_mut().insert(API_VERSION, version);
    response.extensions_mut().insert(route);
    response
}

/// What a request is refused for when the server has too much of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TooMuch {
    /// Request head.
    Head,
    /// Connections.
    Connections,
}

/// The refusal, in the words of the specification.
fn too_much(reason: TooMuch, parts: &Parts) -> Response {
    let refusal = match reason {
        TooMuch::Head => Failure::HeadTooLarge.into_response(),
        TooMuch::Connections => Failure::Busy("too many connections").into_response(),
    };
    bare::refusal(refusal, parts)
}

/// Who asks, what for, whether they may: only then is anything done.
async fn answer(
    state: &State,
    parts: &Parts,
    endpoint: Option<Result<Endpoint, Error>>,
    body: axum::body::Body,
) -> Result<Response, Failure> {
    if let Some(Ok(Endpoint::Blob(repository, digest))) = &endpoint
        && passes::admit(state, parts, repository, digest)?
    {
        let (repository, digest) = (repository.clone(), *digest);
        tracing::Span::current().record("repository", repository.as_str());
        return blobs::dispatch(state, parts, None, repository, digest).await;
    }
    let policy = state.setup.policy.as_ref();
    let identity = access::identify(policy, &parts.headers).await?;
    let endpoint = match endpoint {
        Some(Ok(endpoint)) => endpoint,
        unknown => {
            // Whoever may not even ask whether there is an API learns nothing of its paths.
            access::require(policy, &identity, &Access::Ping)?;
            return Err(unknown.map_or(Failure::NoSuchPath, |bad| {
                bad.err().map_or(Failure::NoSuchPath, Failure::Registry)
            }));
        }
    };
    if let Some(repository) = endpoint.repository() {
        tracing::Span::current().record("repository", repository.as_str());
    }
    access::require(policy, &identity, &Access::of(&parts.method, &endpoint))?;
    if let (Some(mirror), Some(repository)) = (state.registry.mirror(), endpoint.repository())
        && let Some(spelled) = endpoint::spelled(parts.uri.path(), repository)
    {
        mirror.note_spelling(repository, spelled);
    }
    let is_read = matches!(parts.method, Method::GET | Method::HEAD);
    // Work on the whole storage knows itself what of it changes nothing.
    let is_admin = matches!(endpoint, Endpoint::Admin(_));
    if state.setup.read_only && !is_read && !is_admin {
        return Err(Failure::ReadOnly);
    }
    let body = receive(state, parts, &endpoint, body);
    dispatch(state, parts, &identity, endpoint, body).await
}

/// The body of a request, watched while it comes in.
fn receive(state: &State, parts: &Parts, endpoint: &Endpoint, body: axum::body::Body) -> Incoming {
    let setup = &state.setup;
    let counter = setup
        .metrics
        .request_bytes(Route::of(endpoint), Verb::from(&parts.method));
    Incoming::new(
        body,
        setup.body_idle,
        setup.closing.clone(),
        Tally::new(counter),
    )
}

async fn dispatch(
    state: &State,
    parts: &Parts,
    identity: &Identity,
    endpoint: Endpoint,
    body: Incoming,
) -> Result<Response, Failure> {
    let is_read = matches!(parts.method, Method::GET | Method::HEAD);
    match endpoint {
        Endpoint::Blob(repository, digest) => {
            blobs::dispatch(state, parts, Some(identity), repository, digest).await
        }
        Endpoint::Uploads(repository) if parts.method == Method::POST => {
            uploads::post(state, parts, identity, repository, body).await
        }
        Endpoint::Uploads(_) => Err(Failure::Method("POST")),
        Endpoint::Upload(repository, id) => {
            uploads::dispatch(state, parts, repository, id, body).await
        }
        Endpoint::Manifest(repository, reference) => {
            manifests::dispatch(state, parts, repository, reference, body).await
        }
        Endpoint::Lease(repository, id) => {
            let body = axum::body::Body::from_stream(body);
            leases::dispatch(state, parts, repository, id, body).await
        }
        Endpoint::Admin(task) => admin::dispatch(state, parts, task).await,
        Endpoint::Ping
        | Endpoint::Catalog
        | Endpoint::Tags(_)
        | Endpoint::Referrers(..)
        | Endpoint::Annotations(..)
            if !is_read =>
        {
            Err(Failure::Method("GET, HEAD"))
        }
        Endpoint::Ping => Ok(axum::Json(serde_json::json!({})).into_response()),
        Endpoint::Catalog => listings::catalog(state, &parts.uri).await,
        Endpoint::Tags(repository) => listings::tags(state, &parts.uri, &repository).await,
        Endpoint::Annotations(repository, digest) => {
            listings::annotations(state, &repository, &digest).await
        }
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
    if let Some(url) = &state.setup.external_url {
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
        _ if state.setup.is_tls => "https",
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

/// Adds a warning (RFC 7234, 299: for people) that stays with the answer wherever it goes.
fn warn(response: &mut Response, text: &str) {
    let plain = text.chars().map(|c| match c {
        '"' | '\\' => '\'',
        ' '..='~' => c,
        _ => '?',
    });
    let text: String = plain.take(MAX_WARNING).collect();
    if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{text}\"")) {
        response.headers_mut().append(header::WARNING, value);
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
