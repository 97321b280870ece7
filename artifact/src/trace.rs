//! Traces across processes: the W3C `traceparent` of a request is continued, and passed on.
//!
//! Who sets up tracing decides whether spans are exported anywhere. Without that the functions
//! here find nothing and add nothing.

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use opentelemetry::Context;
use opentelemetry::global::get_text_map_propagator;
use opentelemetry::propagation::{Extractor, Injector};
use opentelemetry::trace::TraceContextExt;
use tracing::Span;
use tracing::field::Empty;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Paths that are asked for every few seconds; nobody wants a trace of that.
const QUIET: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// The span of a request that a server answers, as part of the caller's trace if the headers name
/// one. Its fields are filled in as they become known:
///
/// | field | known when |
/// | --- | --- |
/// | `http.route`, `repository` | the path is understood |
/// | `blob.digest`, `http.response.status_code` | the answer begins |
/// | `bytes` | the answer has ended: so many bytes of it were handed to the connection |
#[must_use]
pub fn request_span(method: &Method, path: &str, headers: &HeaderMap) -> Span {
    if QUIET.contains(&path) {
        return Span::none();
    }
    let span = tracing::info_span!(
        "request",
        otel.kind = "server",
        otel.status_code = Empty,
        trace_id = Empty,
        http.request.method = %method,
        http.route = Empty,
        http.response.status_code = Empty,
        url.path = path,
        repository = Empty,
        blob.digest = Empty,
        bytes = Empty,
    );
    let context = get_text_map_propagator(|propagator| propagator.extract(&Incoming(headers)));
    // This fails where spans are not exported; the caller's trace can still be named in the log.
    let _ = span.set_parent(context.clone());
    if let Some(id) = trace_id(&span.context()).or_else(|| trace_id(&context)) {
        span.record("trace_id", id);
    }
    span
}

/// Notes which route a request took, and names the span by it.
pub fn routed(span: &Span, method: &Method, route: &str) {
    span.record("http.route", route);
    name(span, method, route);
}

/// The beginning of an answer.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// Its status.
    pub status: u16,
    /// The digest of what is answered or was stored.
    pub digest: Option<&'a str>,
    /// The size of its body, if the body is handed over at once.
    pub bytes: Option<u64>,
}

/// What [`routed`] and [`answered`] do, and more, in one step: a log in JSON takes a span's fields
/// apart and puts them together again for each step, which costs more than a small answer does.
pub fn described(span: &Span, method: &Method, route: &str, answer: Answer<'_>) {
    tracing::record_all!(
        span,
        http.route = route,
        http.response.status_code = answer.status,
        blob.digest = answer.digest,
        bytes = answer.bytes,
    );
    note_failure(span, answer.status);
    name(span, method, route);
}

fn name(span: &Span, method: &Method, route: &str) {
    // The span has begun by now, so that a field could no longer change its name.
    let context = span.context();
    let exported = context.span();
    if exported.span_context().is_valid() {
        exported.update_name(format!("{method} {route}"));
    }
}

/// Notes the status of an answer.
pub fn answered(span: &Span, status: u16) {
    span.record("http.response.status_code", status);
    note_failure(span, status);
}

fn note_failure(span: &Span, status: u16) {
    if status >= 500 {
        span.record("otel.status_code", "ERROR");
    }
}

/// The headers that make a request part of the trace that runs here.
#[must_use]
pub fn headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    let context = Span::current().context();
    get_text_map_propagator(|propagator| {
        propagator.inject_context(&context, &mut Outgoing(&mut headers));
    });
    headers
}

fn trace_id(context: &Context) -> Option<String> {
    let span = context.span();
    let span = span.span_context();
    span.is_valid().then(|| span.trace_id().to_string())
}

struct Incoming<'a>(&'a HeaderMap);

impl Extractor for Incoming<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

struct Outgoing<'a>(&'a mut HeaderMap);

impl Injector for Outgoing<'_> {
    fn set(&mut self, key: &str, value: String) {
        let name = HeaderName::from_bytes(key.as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(&value)) {
            self.0.insert(name, value);
        }
    }
}
