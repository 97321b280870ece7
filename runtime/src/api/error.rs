//! The only map from [`Error`] to status and body, in the form of each API.

use artifact::agent_api::AgentErrorCode;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde_json::{Value, json};

use super::json as json_response;
use crate::error::Error;

/// Seconds after which a client that was turned away may try again.
const RETRY_AFTER: &str = "1";

/// The status of an error, and its type in OpenAI's words.
fn place(error: &Error) -> (StatusCode, &'static str) {
    const INVALID: &str = "invalid_request_error";
    const NOT_FOUND: &str = "not_found_error";
    const SERVER: &str = "api_error";
    match error {
        Error::MissingBody
        | Error::InvalidRequest { .. }
        | Error::InvalidName { .. }
        | Error::AmbiguousModel { .. }
        | Error::Unsupported { .. }
        | Error::PromptTooLong
        | Error::Format { .. }
        | Error::TemplateRefused { .. } => (StatusCode::BAD_REQUEST, INVALID),
        Error::BodyTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, INVALID),
        Error::UnknownModel { .. } => (StatusCode::NOT_FOUND, NOT_FOUND),
        Error::NotYet { .. } => (StatusCode::NOT_IMPLEMENTED, SERVER),
        Error::Overloaded | Error::Stopping => (StatusCode::SERVICE_UNAVAILABLE, SERVER),
        Error::Agent { source } => (agent_status(source), SERVER),
        Error::Template { .. }
        | Error::Load { .. }
        | Error::Engine { .. }
        | Error::Read { .. }
        | Error::Catalog(_)
        | Error::NoAgent
        | Error::Internal { .. }
        | Error::Serve(_) => (StatusCode::INTERNAL_SERVER_ERROR, SERVER),
    }
}

fn agent_status(error: &artifact::client::Error) -> StatusCode {
    let artifact::client::Error::Agent { error } = error else {
        return StatusCode::BAD_GATEWAY;
    };
    match error.code {
        AgentErrorCode::BadRequest => StatusCode::BAD_REQUEST,
        AgentErrorCode::NotFound => StatusCode::NOT_FOUND,
        AgentErrorCode::Denied => StatusCode::FORBIDDEN,
        AgentErrorCode::Unreachable | AgentErrorCode::Corrupt => StatusCode::BAD_GATEWAY,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The text of an error with its causes: what a person needs to see which link broke.
fn text(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        let more = inner.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = inner.source();
    }
    text
}

/// `{"error": text}`: Ollama's body, also the last line of a stream that failed.
pub(super) fn ollama_body(error: &Error) -> Value {
    json!({ "error": text(error) })
}

/// OpenAI's body, also the last event of a stream that failed.
pub(super) fn openai_body(error: &Error) -> Value {
    let (status, kind) = place(error);
    let code = match error {
        Error::UnknownModel { .. } => Value::from("model_not_found"),
        _ => Value::Null,
    };
    tracing::debug!(%status, %error, "request failed");
    json!({ "error": { "message": text(error), "type": kind, "param": null, "code": code } })
}

/// The answer in Ollama's form.
pub(super) fn ollama(error: &Error) -> Response {
    respond(error, &ollama_body(error))
}

/// The answer in OpenAI's form.
pub(super) fn openai(error: &Error) -> Response {
    respond(error, &openai_body(error))
}

fn respond(error: &Error, body: &Value) -> Response {
    let (status, _kind) = place(error);
    if status.is_server_error() {
        tracing::error!(%status, error = text(error), "request failed");
    }
    let mut response = json_response(status, body);
    if matches!(error, Error::Overloaded) {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER));
    }
    response
}
