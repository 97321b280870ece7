//! The only map from [`Error`] to status, OCI code, headers and text.

use artifact::error_code::{ErrorBody, ErrorEntry};
use artifact::manifest::InvalidManifest;
use artifact::reference::InvalidReference;
use artifact::{Digest, ErrorCode};
use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};

use crate::error::Error;
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
                allowed,
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
        }
    }
}

/// Places every error. No wildcard: a new variant does not compile until it has its place here.
fn refuse(error: &Error) -> Response {
    let (status, code) = match error {
        Error::Name(InvalidReference::Tag { .. }) => {
            (StatusCode::BAD_REQUEST, ErrorCode::ManifestInvalid)
        }
        Error::Name(_) => (StatusCode::BAD_REQUEST, ErrorCode::NameInvalid),
        Error::Digest(_) | Error::DigestMismatch { .. } => {
            (StatusCode::BAD_REQUEST, ErrorCode::DigestInvalid)
        }
        Error::BlobUnknown { .. } => (StatusCode::NOT_FOUND, ErrorCode::BlobUnknown),
        Error::BlobInUse { .. } => {
            // The specification knows only 400 and 405 for a blob that may not be deleted.
            let response = answer(
                StatusCode::METHOD_NOT_ALLOWED,
                ErrorCode::Denied,
                error.to_string(),
            );
            return with_header(response, header::ALLOW, "GET, HEAD");
        }
        Error::BlobTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::SizeInvalid),
        Error::RepositoryUnknown { .. } => (StatusCode::NOT_FOUND, ErrorCode::NameUnknown),
        Error::ManifestUnknown { .. } => (StatusCode::NOT_FOUND, ErrorCode::ManifestUnknown),
        Error::ManifestInvalid(InvalidManifest::TooLarge { .. }) => {
            (StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::ManifestInvalid)
        }
        Error::ManifestInvalid(_) => (StatusCode::BAD_REQUEST, ErrorCode::ManifestInvalid),
        Error::DescriptorSize { .. } | Error::ChunkLength { .. } => {
            (StatusCode::BAD_REQUEST, ErrorCode::SizeInvalid)
        }
        Error::ManifestBlobUnknown { missing, .. } => return missing_content(error, missing),
        Error::UploadUnknown { .. } => (StatusCode::NOT_FOUND, ErrorCode::BlobUploadUnknown),
        Error::OutOfOrder { .. } => (
            StatusCode::RANGE_NOT_SATISFIABLE,
            ErrorCode::BlobUploadInvalid,
        ),
        Error::BodyCutOff { .. } => (StatusCode::BAD_REQUEST, ErrorCode::BlobUploadInvalid),
        Error::TooManyUploads { .. } => {
            let response = answer(
                StatusCode::TOO_MANY_REQUESTS,
                ErrorCode::TooManyRequests,
                error.to_string(),
            );
            return with_header(response, header::RETRY_AFTER, "60");
        }
        Error::ReadOnly => (StatusCode::METHOD_NOT_ALLOWED, ErrorCode::Unsupported),
        Error::LeaseInvalid { .. } => (StatusCode::BAD_REQUEST, ErrorCode::Unsupported),
        Error::CollectionRuns | Error::TooMuch { .. } | Error::RecordsDamaged { .. } => {
            (StatusCode::CONFLICT, ErrorCode::Denied)
        }
        Error::Closing => (StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Unknown),
        Error::StorageFull { .. } => {
            log(error);
            let status = StatusCode::INSUFFICIENT_STORAGE;
            let response = answer(status, ErrorCode::Unknown, error.to_string());
            return with_fault(response, Fault::StorageFull);
        }
        Error::ContentGone { .. } => {
            // An alarm: content that was promised is gone. The client may push it again.
            log(error);
            (StatusCode::NOT_FOUND, ErrorCode::BlobUnknown)
        }
        Error::Object { .. } | Error::ObjectDenied { .. } => {
            log(error);
            let message = "the registry's storage does not answer; try again later";
            let response = answer(
                StatusCode::SERVICE_UNAVAILABLE,
                ErrorCode::Unknown,
                message.to_owned(),
            );
            return with_header(response, header::RETRY_AFTER, "10");
        }
        Error::Degraded { .. } => {
            log(error);
            let message = "the registry's storage failed, and it takes nothing in until it was \
                           restarted; its log says why";
            return answer(
                StatusCode::SERVICE_UNAVAILABLE,
                ErrorCode::Unknown,
                message.to_owned(),
            );
        }
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
        | Error::RetentionRule { .. }
        | Error::InUse { .. }
        | Error::Task(_)
        | Error::Listen(_) => {
            log(error);
            // Paths and causes are for the log; the caller learns that it was not their doing.
            let response = answer(
                StatusCode::INTERNAL_SERVER_ERROR,
                ErrorCode::Unknown,
                "the registry failed; its log says why".to_owned(),
            );
            return with_fault(response, part_of(error));
        }
    };
    answer(status, code, error.to_string())
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

fn with_header(mut response: Response, name: header::HeaderName, value: &'static str) -> Response {
    response
        .headers_mut()
        .insert(name, HeaderValue::from_static(value));
    response
}

/// Tells the metrics what failed.
fn with_fault(mut response: Response, fault: Fault) -> Response {
    response.extensions_mut().insert(fault);
    response
}

/// The part of the registry that an internal error comes from.
fn part_of(error: &Error) -> Fault {
    match error {
        Error::Storage { .. } | Error::Record { .. } | Error::DamagedRecord { .. } => {
            Fault::Storage
        }
        Error::Index { .. } => Fault::Index,
        _ => Fault::Internal,
    }
}

/// Logs an error with everything that led to it.
fn log(error: &Error) {
    tracing::error!(error = error.chain(), "a request failed");
}
