//! The only map from [`Error`] to status, OCI code, headers and text.

use std::time::Duration;

use artifact::error_code::{ErrorBody, ErrorEntry};
use artifact::manifest::InvalidManifest;
use artifact::reference::InvalidReference;
use artifact::{Digest, ErrorCode};
use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};

use crate::error::Error;
use crate::http::incoming::Broken;
use crate::metrics::labels::Fault;

/// Why a request is refused: by the rules of HTTP, or by the registry.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The registry says so.
    Registry(Error),
    /// No such path in this API.
    NoSuchPath,
    /// The path does not take this method; these it takes.
    Method(&'static str),
    /// A query parameter or header is not what it must be: which, and why.
    Malformed(ErrorCode, String),
    /// The manifest is larger than a manifest may be.
    ManifestTooLarge,
    /// The caller may not do this.
    Denied,
    /// The caller has to log in first, or otherwise: how.
    Unauthorized(HeaderValue),
    /// Nothing may be changed.
    ReadOnly,
    /// The request head is larger than the limit.
    HeadTooLarge,
    /// Too much at once: of what.
    Busy(&'static str),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Registry(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        match self {
            Self::Registry(error) => refuse(&error),
            Self::NoSuchPath => answer(
                StatusCode::NOT_FOUND,
                ErrorCode::Unsupported,
                "this path is not part of the registry API".to_owned(),
            ),
            Self::Method(allowed) => with_header(
                answer(
                    StatusCode::METHOD_NOT_ALLOWED,
                    ErrorCode::Unsupported,
                    format!("this path takes {allowed} only"),
                ),
                header::ALLOW,
                HeaderValue::from_static(allowed),
            ),
            Self::Malformed(code, message) => answer(StatusCode::BAD_REQUEST, code, message),
            Self::ManifestTooLarge => answer(
                StatusCode::PAYLOAD_TOO_LARGE,
                ErrorCode::ManifestInvalid,
                format!(
                    "the manifest is larger than {} bytes, the most that is accepted",
                    artifact::manifest::MAX_MANIFEST_BYTES
                ),
            ),
            Self::Denied => answer(
                StatusCode::FORBIDDEN,
                ErrorCode::Denied,
                "access is denied".to_owned(),
            ),
            Self::Unauthorized(challenge) => with_header(
                answer(
                    StatusCode::UNAUTHORIZED,
                    ErrorCode::Unauthorized,
                    "log in first: name or password are missing or wrong".to_owned(),
                ),
                header::WWW_AUTHENTICATE,
                challenge,
            ),
            Self::ReadOnly => with_header(
                answer(
                    StatusCode::METHOD_NOT_ALLOWED,
                    ErrorCode::Unsupported,
                    "the registry is read-only at present: pulls work, nothing can be changed"
                        .to_owned(),
                ),
                header::ALLOW,
                HeaderValue::from_static("GET, HEAD"),
            ),
            Self::HeadTooLarge => answer(
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                ErrorCode::Unsupported,
                "the request head is larger than this registry accepts".to_owned(),
            ),
            Self::Busy(what) => with_header(
                answer(
                    StatusCode::SERVICE_UNAVAILABLE,
                    ErrorCode::TooManyRequests,
                    format!("{what}: try again in a moment"),
                ),
                header::RETRY_AFTER,
                HeaderValue::from_static("1"),
            ),
        }
    }
}

/// The answer to an error.
fn refuse(error: &Error) -> Response {
    match error {
        Error::ManifestBlobUnknown { missing, .. } => return missing_content(error, missing),
        Error::BodyCutOff { source, .. } if source.is::<Broken>() => {
            return broken(error, source.as_ref());
        }
        _ => {}
    }
    let (status, code) = place(error);
    let fault = fault_of(error);
    if fault.is_some() {
        log(error);
    }
    let mut response = answer(status, code, told(error));
    if let Some(wait) = asked_wait(error) {
        response = with_header(response, header::RETRY_AFTER, wait.as_secs().max(1).into());
    }
    if let Some((name, value)) = advice(error) {
        response = with_header(response, name, HeaderValue::from_static(value));
    }
    if let Some(fault) = fault {
        response.extensions_mut().insert(fault);
    }
    response
}

/// Places every error. No wildcard: a new variant does not compile until it has its place here.
fn place(error: &Error) -> (StatusCode, ErrorCode) {
    match error {
        Error::Name(InvalidReference::Tag { .. })
        | Error::ManifestInvalid(_)
        | Error::WeightsRefused { .. }
        | Error::EmbeddedContent { .. } => (status_of(error), ErrorCode::ManifestInvalid),
        Error::Name(_) => (StatusCode::BAD_REQUEST, ErrorCode::NameInvalid),
        Error::Digest(_) | Error::DigestMismatch { .. } => {
            (StatusCode::BAD_REQUEST, ErrorCode::DigestInvalid)
        }
        Error::BlobUnknown { .. } => (StatusCode::NOT_FOUND, ErrorCode::BlobUnknown),
        // An alarm: content that was promised is gone. The client may push it again.
        Error::ContentGone { .. } => (StatusCode::NOT_FOUND, ErrorCode::BlobUnknown),
        // The specification knows only 400 and 405 for a blob that may not be deleted.
        Error::BlobInUse { .. } => (StatusCode::METHOD_NOT_ALLOWED, ErrorCode::Denied),
        Error::BlobTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::SizeInvalid),
        Error::RepositoryUnknown { .. } | Error::NotMirrored { .. } => {
            (StatusCode::NOT_FOUND, ErrorCode::NameUnknown)
        }
        Error::ManifestUnknown { .. } => (StatusCode::NOT_FOUND, ErrorCode::ManifestUnknown),
        Error::ManifestBlobUnknown { .. } => {
            (StatusCode::NOT_FOUND, ErrorCode::ManifestBlobUnknown)
        }
        Error::DescriptorSize { .. } | Error::ChunkLength { .. } => {
            (StatusCode::BAD_REQUEST, ErrorCode::SizeInvalid)
        }
        // These have their own words in Hugging Face's protocol (`http/hub/failure.rs`).
        Error::Hub(_) => (StatusCode::BAD_REQUEST, ErrorCode::Unsupported),
        Error::UploadUnknown { .. } => (StatusCode::NOT_FOUND, ErrorCode::BlobUploadUnknown),
        Error::OutOfOrder { .. } => (
            StatusCode::RANGE_NOT_SATISFIABLE,
            ErrorCode::BlobUploadInvalid,
        ),
        Error::BodyCutOff { .. } | Error::GgufRefused { .. } => {
            (StatusCode::BAD_REQUEST, ErrorCode::BlobUploadInvalid)
        }
        Error::TooManyUploads { .. } => (StatusCode::TOO_MANY_REQUESTS, ErrorCode::TooManyRequests),
        Error::Dialect { .. } => (StatusCode::NOT_ACCEPTABLE, ErrorCode::Unsupported),
        Error::ReadOnly => (StatusCode::METHOD_NOT_ALLOWED, ErrorCode::Unsupported),
        Error::LeaseInvalid { .. } => (StatusCode::BAD_REQUEST, ErrorCode::Unsupported),
        Error::CollectionRuns | Error::TooMuch { .. } | Error::RecordsDamaged { .. } => {
            (StatusCode::CONFLICT, ErrorCode::Denied)
        }
        Error::StorageFull { .. } | Error::MirrorFull { .. } => {
            (StatusCode::INSUFFICIENT_STORAGE, ErrorCode::Unknown)
        }
        Error::Shared(error) => place(error),
        Error::Upstream { source } => place_upstream(source),
        Error::Offline { .. } => (StatusCode::NOT_FOUND, ErrorCode::ManifestUnknown),
        Error::FillMismatch { .. } => (StatusCode::BAD_GATEWAY, ErrorCode::Unknown),
        Error::FillRefused { .. } => (StatusCode::FORBIDDEN, ErrorCode::Denied),
        Error::Mirrored { .. } => (StatusCode::METHOD_NOT_ALLOWED, ErrorCode::Unsupported),
        Error::Closing
        | Error::IndexUnavailable { .. }
        | Error::IndexEncryption { .. }
        | Error::IndexForeign
        | Error::Object { .. }
        | Error::ObjectDenied { .. }
        | Error::Degraded { .. } => (StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Unknown),
        Error::Storage { .. }
        | Error::Sync { .. }
        | Error::ContentLength
        | Error::DamagedObject { .. }
        | Error::BucketConfig { .. }
        | Error::BucketInUse { .. }
        | Error::Unconditional
        | Error::Record { .. }
        | Error::DamagedRecord { .. }
        | Error::Index { .. }
        | Error::IndexUrl { .. }
        | Error::IndexMigration { .. }
        | Error::RetentionRule { .. }
        | Error::InUse { .. }
        | Error::Htpasswd { .. }
        | Error::Certificate { .. }
        | Error::Random
        | Error::Task(_)
        | Error::Listen(_) => (StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::Unknown),
    }
}

/// What an upstream says of one thing is passed on; what is wrong with the upstream itself is the
/// fault of a gateway.
fn place_upstream(source: &artifact::client::Error) -> (StatusCode, ErrorCode) {
    if source.is_absent() {
        (StatusCode::NOT_FOUND, ErrorCode::ManifestUnknown)
    } else if source.is_refused() {
        // Not 401: the client would log in here, which does not help.
        (StatusCode::FORBIDDEN, ErrorCode::Denied)
    } else if source.is_busy() {
        (StatusCode::TOO_MANY_REQUESTS, ErrorCode::TooManyRequests)
    } else {
        (StatusCode::BAD_GATEWAY, ErrorCode::Unknown)
    }
}

fn status_of(error: &Error) -> StatusCode {
    match error {
        Error::ManifestInvalid(InvalidManifest::TooLarge { .. }) => StatusCode::PAYLOAD_TOO_LARGE,
        _ => StatusCode::BAD_REQUEST,
    }
}

/// What the caller is told. Paths and causes are for the log; of what is not their doing they
/// learn no more than that.
pub(super) fn told(error: &Error) -> String {
    match error {
        Error::Shared(error) => told(error),
        Error::Object { .. } | Error::ObjectDenied { .. } => {
            "the registry's storage does not answer; try again later".to_owned()
        }
        Error::IndexEncryption { .. } => {
            "the registry's database cannot be reached; try again later".to_owned()
        }
        Error::Degraded { .. } => "the registry's storage failed, and it takes nothing in until \
                                   it was restarted; its log says why"
            .to_owned(),
        _ if place(error).0 == StatusCode::INTERNAL_SERVER_ERROR => {
            "the registry failed; its log says why".to_owned()
        }
        _ => error.to_string(),
    }
}

/// The header that says what to do.
fn advice(error: &Error) -> Option<(header::HeaderName, &'static str)> {
    match error {
        Error::BlobInUse { .. } | Error::ReadOnly | Error::Mirrored { .. } => {
            Some((header::ALLOW, "GET, HEAD"))
        }
        Error::Shared(error) => advice(error),
        Error::TooManyUploads { .. } => Some((header::RETRY_AFTER, "60")),
        Error::Closing
        | Error::IndexUnavailable { .. }
        | Error::IndexEncryption { .. }
        | Error::IndexForeign => Some((header::RETRY_AFTER, "5")),
        Error::Object { .. } | Error::ObjectDenied { .. } => Some((header::RETRY_AFTER, "10")),
        _ => None,
    }
}

/// How long an upstream asked to be left alone.
fn asked_wait(error: &Error) -> Option<Duration> {
    match error {
        Error::Shared(error) => asked_wait(error),
        Error::Upstream { source } => source.retry_after(),
        _ => None,
    }
}

/// A body that we gave up: the client was too slow, or the server ends.
fn broken(error: &Error, source: &(dyn std::error::Error + Send + Sync + 'static)) -> Response {
    let message = format!("{error}: {source}");
    if source.downcast_ref() == Some(&Broken::Closing) {
        let response = answer(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Unknown, message);
        return with_header(response, header::RETRY_AFTER, HeaderValue::from_static("5"));
    }
    answer(
        StatusCode::REQUEST_TIMEOUT,
        ErrorCode::BlobUploadInvalid,
        message,
    )
}

/// One entry for each missing digest, as the specification allows.
fn missing_content(error: &Error, missing: &[Digest]) -> Response {
    let errors = missing
        .iter()
        .map(|digest| ErrorEntry {
            code: ErrorCode::ManifestBlobUnknown,
            message: error.to_string(),
            detail: Some(serde_json::json!({ "digest": digest })),
        })
        .collect();
    (StatusCode::NOT_FOUND, Json(ErrorBody { errors })).into_response()
}

fn answer(status: StatusCode, code: ErrorCode, message: String) -> Response {
    (status, Json(ErrorBody::new(code, message))).into_response()
}

fn with_header(mut response: Response, name: header::HeaderName, value: HeaderValue) -> Response {
    response.headers_mut().insert(name, value);
    response
}

/// The part of the registry that failed, if it is our own failure: for the log and the metrics.
fn fault_of(error: &Error) -> Option<Fault> {
    match error {
        Error::Shared(error) => fault_of(error),
        Error::StorageFull { .. } => Some(Fault::StorageFull),
        Error::Storage { .. }
        | Error::Sync { .. }
        | Error::Record { .. }
        | Error::DamagedRecord { .. }
        | Error::DamagedObject { .. }
        | Error::Object { .. }
        | Error::ObjectDenied { .. }
        | Error::Degraded { .. }
        | Error::ContentGone { .. } => Some(Fault::Storage),
        Error::Index { .. }
        | Error::IndexUnavailable { .. }
        | Error::IndexEncryption { .. }
        | Error::IndexForeign => Some(Fault::Index),
        _ => (place(error).0 == StatusCode::INTERNAL_SERVER_ERROR).then_some(Fault::Internal),
    }
}

/// Logs an error with everything that led to it.
fn log(error: &Error) {
    tracing::error!(error = error.chain(), "a request failed");
}
