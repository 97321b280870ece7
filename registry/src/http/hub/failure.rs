//! Refusals in Hugging Face's words: its libraries go by `X-Error-Code`, people by
//! `X-Error-Message`.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::header::HeaderName;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::json;

use crate::error::Error;
use crate::http::error::{Failure, told};
use crate::http::hub::resolve::REPO_COMMIT;
use crate::http::insert;
use crate::service::hub::Refusal;

/// Which kind of error.
const CODE: HeaderName = HeaderName::from_static("x-error-code");
/// For a person.
const MESSAGE: HeaderName = HeaderName::from_static("x-error-message");
/// Longest message in a header.
const MESSAGE_BYTES: usize = 500;

const REPOSITORY: &str = "RepoNotFound";
const REVISION: &str = "RevisionNotFound";
const ENTRY: &str = "EntryNotFound";
const GATED: &str = "GatedRepo";

/// Why a request of this protocol is refused.
#[derive(Debug)]
pub(super) enum HubFailure {
    /// As any request of the registry.
    Registry(Failure),
    /// No such path in this protocol, or a part of it that is not spoken here: which.
    NotSpoken(String),
    /// The path does not take this method; these it takes.
    Method(&'static str),
    /// The request is not what it must be: why.
    Malformed(String),
    /// The body, or a part of it, is larger than this many bytes.
    TooLarge(usize),
    /// There is such a repository already, at this address.
    Exists(String),
}

impl From<Failure> for HubFailure {
    fn from(failure: Failure) -> Self {
        Self::Registry(failure)
    }
}

impl From<Error> for HubFailure {
    fn from(error: Error) -> Self {
        Self::Registry(Failure::Registry(error))
    }
}

impl HubFailure {
    /// The answer to a request with these headers.
    pub(super) fn into_response(self, headers: &HeaderMap) -> Response {
        match self {
            Self::Registry(Failure::Unauthorized(challenge)) => unauthorized(headers, challenge),
            Self::Registry(Failure::Denied) => {
                let text = "this login has no right to the repository";
                answer(StatusCode::FORBIDDEN, Some(GATED), text)
            }
            Self::Registry(Failure::Registry(Error::Hub(refusal))) => refused(&refusal),
            Self::Registry(Failure::Registry(error)) => failed(error),
            Self::Registry(failure) => {
                let mut response = failure.into_response();
                let text = response.status().canonical_reason().unwrap_or_default();
                insert(&mut response, MESSAGE, text);
                response
            }
            Self::NotSpoken(what) => answer(StatusCode::NOT_FOUND, None, &what),
            Self::Method(allowed) => {
                let text = format!("this path takes {allowed} only");
                let mut response = answer(StatusCode::METHOD_NOT_ALLOWED, None, &text);
                insert(&mut response, header::ALLOW, allowed);
                response
            }
            Self::Malformed(why) => answer(StatusCode::BAD_REQUEST, None, &why),
            Self::TooLarge(most) => {
                let text = format!("more than {most} bytes are not accepted here");
                answer(StatusCode::PAYLOAD_TOO_LARGE, None, &text)
            }
            Self::Exists(url) => {
                let text = "You already created this model repo";
                let body = json!({ "error": text, "url": url });
                let mut response = (StatusCode::CONFLICT, Json(body)).into_response();
                insert(&mut response, MESSAGE, text);
                response
            }
        }
    }
}

/// Hugging Face answers so for repositories that are private or absent; its libraries tell a login
/// that is wrong by exactly these words.
fn unauthorized(headers: &HeaderMap, challenge: HeaderValue) -> Response {
    let mut response = if headers.contains_key(header::AUTHORIZATION) {
        let text = "Invalid credentials in Authorization header";
        answer(StatusCode::UNAUTHORIZED, None, text)
    } else {
        let text = "log in first: this registry lets nobody in without a token (HF_TOKEN)";
        answer(StatusCode::UNAUTHORIZED, Some(REPOSITORY), text)
    };
    let headers = response.headers_mut();
    headers.insert(header::WWW_AUTHENTICATE, challenge);
    response
}

/// Places every refusal of this protocol.
fn refused(refusal: &Refusal) -> Response {
    let (status, code) = match refusal {
        Refusal::RevisionUnknown { .. } => (StatusCode::NOT_FOUND, Some(REVISION)),
        Refusal::EntryUnknown { .. } => (StatusCode::NOT_FOUND, Some(ENTRY)),
        Refusal::PathInvalid { .. } | Refusal::ContentMissing { .. } | Refusal::Size { .. } => {
            (StatusCode::BAD_REQUEST, None)
        }
        Refusal::NotABranch { .. } => (StatusCode::BAD_REQUEST, None),
        Refusal::Moved { .. } => (StatusCode::PRECONDITION_FAILED, None),
        Refusal::TooMany { .. } => (StatusCode::PAYLOAD_TOO_LARGE, None),
        Refusal::BranchExists { .. } => (StatusCode::CONFLICT, None),
    };
    let mut response = answer(status, code, &refusal.to_string());
    if let Refusal::EntryUnknown { commit, .. } = refusal {
        // Clients remember that this commit has no such file, and do not ask again.
        insert(&mut response, REPO_COMMIT, commit);
    }
    response
}

/// What any registry refuses, and our own failures.
fn failed(error: Error) -> Response {
    let code = match &error {
        Error::RepositoryUnknown { .. } | Error::Name(_) => Some(REPOSITORY),
        Error::ManifestUnknown { .. } => Some(REVISION),
        Error::BlobUnknown { .. } | Error::ContentGone { .. } => Some(ENTRY),
        error if is_refused_upstream(error) => Some(REPOSITORY),
        _ => None,
    };
    let text = told(&error);
    if code.is_some() {
        return answer(StatusCode::NOT_FOUND, code, &text);
    }
    let mut response = Failure::Registry(error).into_response();
    insert(&mut response, MESSAGE, &header_safe(&text));
    response
}

/// Whether an upstream refuses: Hugging Face answers so for what is private or absent alike.
fn is_refused_upstream(error: &Error) -> bool {
    match error {
        Error::Shared(error) => is_refused_upstream(error),
        Error::Upstream { source } => source.is_refused(),
        _ => false,
    }
}

fn answer(status: StatusCode, code: Option<&'static str>, text: &str) -> Response {
    let mut response = (status, Json(json!({ "error": text }))).into_response();
    if let Some(code) = code {
        insert(&mut response, CODE, code);
    }
    insert(&mut response, MESSAGE, &header_safe(text));
    response
}

/// Text of a stranger may stand in a message; in a header only plain characters may.
fn header_safe(text: &str) -> String {
    let plain = |letter: char| {
        if letter == ' ' || letter.is_ascii_graphic() {
            letter
        } else {
            '?'
        }
    };
    text.chars().take(MESSAGE_BYTES).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use artifact::Repository;
    use http::{HeaderMap, StatusCode};

    use crate::error::Error;
    use crate::http::error::Failure;
    use crate::http::hub::failure::HubFailure;

    #[test]
    fn whoever_has_no_right_is_told_so_as_for_a_gated_repository() {
        let response = HubFailure::from(Failure::Denied).into_response(&HeaderMap::new());
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
        assert_eq!(response.headers()["x-error-code"], "GatedRepo");
        assert!(response.headers().contains_key("x-error-message"));
    }

    #[test]
    fn an_unknown_repository_has_the_code_that_clients_look_for() {
        let Ok(repository) = Repository::parse("a/b") else {
            return;
        };
        let error = Error::RepositoryUnknown { repository };
        let response = HubFailure::from(error).into_response(&HeaderMap::new());
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        assert_eq!(response.headers()["x-error-code"], "RepoNotFound");
    }
}
