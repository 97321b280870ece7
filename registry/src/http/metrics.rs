//! What is counted of every request: the access log, the numbers, and the page that shows them.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use artifact::trace::{self, Answer};
use axum::body::Body;
use axum::extract::{Request, State as Extracted};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{Method, StatusCode, header};
use http_body::{Body as _, Frame, SizeHint};
use prometheus_client::metrics::counter::Counter;
use tracing::{Instrument, Span};

use crate::http::endpoint::Endpoint;
use crate::http::{CONTENT_DIGEST, header_text};
use crate::metrics::Metrics;
use crate::metrics::labels::{Fault, Route, Verb};

/// What Prometheus expects of the OpenMetrics format.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Bodies up to this size are counted when they are handed over, larger ones as they leave.
const SMALL_BODY: u64 = 64 * 1024;
/// So many bytes are gathered before they reach the counter, which all connections share.
const GATHER_BYTES: u64 = 8 * 1024 * 1024;

impl Route {
    /// The part of the API that an endpoint belongs to.
    pub(super) fn of(endpoint: &Endpoint) -> Self {
        match endpoint {
            Endpoint::Ping => Self::Ping,
            Endpoint::Catalog => Self::Catalog,
            Endpoint::Blob(..) => Self::Blob,
            Endpoint::Uploads(_) | Endpoint::Upload(..) => Self::Upload,
            Endpoint::Manifest(..) => Self::Manifest,
            Endpoint::Tags(_) => Self::Tags,
            Endpoint::Referrers(..) => Self::Referrers,
            Endpoint::Annotations(..) | Endpoint::Lease(..) | Endpoint::Admin(_) => Self::Own,
        }
    }
}

/// The page that Prometheus reads.
pub(super) fn page(metrics: &Metrics) -> Response {
    match metrics.text() {
        Ok(text) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// The access log, one line per request when its answer begins, and the counters. Handlers tell
/// the [`Route`] and the [`Fault`] of a request as extensions of their response.
pub(super) async fn observe(
    Extracted(metrics): Extracted<Metrics>,
    request: Request,
    next: Next,
) -> Response {
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let span = trace::request_span(&method, &path, request.headers());
    let began = Instant::now();
    let response = next.run(request).instrument(span.clone()).await;
    let took = began.elapsed();
    let verb = Verb::from(&method);
    let route = response.extensions().get().copied();
    let route = route.unwrap_or(Route::Other);
    describe(&span, &method, route, &response);
    let _inside = span.enter();
    tracing::info!(
        target: "registry::access",
        method = %method,
        path,
        status = response.status().as_u16(),
        elapsed_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        "request"
    );
    metrics.answered(route, verb, response.status().into(), took);
    if let Some(fault) = response.extensions().get::<Fault>() {
        metrics.fault(*fault);
    }
    response.map(|body| count_body(body, &span, || metrics.response_bytes(route, verb)))
}

/// What the beginning of an answer says about a request.
fn describe(span: &Span, method: &Method, route: Route, response: &Response) {
    if span.is_disabled() {
        return;
    }
    let answer = Answer {
        status: response.status().as_u16(),
        digest: header_text(response.headers(), &CONTENT_DIGEST),
        bytes: small(response.body()),
    };
    trace::described(span, method, route.text(), answer);
}

/// The size of a body that is small, and not empty.
fn small(body: &Body) -> Option<u64> {
    let size = body.size_hint().exact()?;
    (1..=SMALL_BODY).contains(&size).then_some(size)
}

/// Counts a body's bytes: whole when it is small, as it passes when it is not.
fn count_body(body: Body, span: &Span, counter: impl FnOnce() -> Counter) -> Body {
    if let Some(length) = small(&body) {
        counter().inc_by(length);
        return body;
    }
    match body.size_hint().exact() {
        Some(0) => body,
        _ => Body::new(CountedBody {
            body,
            bytes: Tally::new(counter()),
            sent: 0,
            span: span.clone(),
        }),
    }
}

/// Gathers a number before adding it to a counter that everybody writes to.
#[derive(Debug)]
pub(super) struct Tally {
    counter: Counter,
    gathered: u64,
}

impl Tally {
    /// Adds to `counter`, in large steps and when dropped.
    pub(super) fn new(counter: Counter) -> Self {
        Self {
            counter,
            gathered: 0,
        }
    }

    /// Adds `bytes`.
    pub(super) fn add(&mut self, bytes: usize) {
        self.gathered += bytes as u64;
        if self.gathered >= GATHER_BYTES {
            self.flush();
        }
    }

    fn flush(&mut self) {
        self.counter.inc_by(std::mem::take(&mut self.gathered));
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.flush();
    }
}

/// A response body whose bytes are counted as they are handed to the connection.
#[derive(Debug)]
struct CountedBody {
    body: Body,
    bytes: Tally,
    sent: u64,
    /// Held, so that the request's span lasts as long as its answer.
    span: Span,
}

impl Drop for CountedBody {
    fn drop(&mut self) {
        self.span.record("bytes", self.sent);
    }
}

impl http_body::Body for CountedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            self.bytes.add(data.len());
            self.sent += data.len() as u64;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
