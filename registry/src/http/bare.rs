//! Refusals without a page, for those who would take the page for content.
//!
//! Ollama writes whatever comes from the address of a part into the file, without a look at the
//! status; an error page shows up hours later, as a digest that does not match. An answer that ends
//! before the first byte it takes for a broken connection, and tries again. The status tells
//! everybody else as much, so whoever asks for a range of a blob, or comes with a pass, is refused
//! without a body.

use axum::body::Body;
use axum::response::Response;
use http::request::Parts;
use http::{HeaderValue, Method, header};

use crate::http::endpoint::Endpoint;
use crate::http::passes;

/// The refusal as this client may get it.
pub(super) fn refusal(mut response: Response, parts: &Parts) -> Response {
    if parts.method != Method::GET || !is_part(parts) {
        return response;
    }
    *response.body_mut() = Body::empty();
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_TYPE);
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    response
}

fn is_part(parts: &Parts) -> bool {
    (parts.headers.contains_key(header::RANGE) || passes::is_borne(parts))
        && matches!(
            Endpoint::parse(parts.uri.path()),
            Some(Ok(Endpoint::Blob(..)))
        )
}
