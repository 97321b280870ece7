//! POST, PATCH, PUT, GET and DELETE of upload sessions: end-4, 5, 6, 11, 13, 14.

use std::time::Duration;

use artifact::{Algorithm, Digest, ErrorCode, Repository};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use http::header::HeaderName;
use http::request::Parts;
use http::{Method, StatusCode, header};
use uuid::Uuid;

use crate::error::Error;
use crate::http::access::{Access, Identity};
use crate::http::endpoint;
use crate::http::error::Failure;
use crate::http::incoming::Incoming;
use crate::http::query::Query;
use crate::http::{CONTENT_DIGEST, State, base_url, blob_path, header_text, insert, range, warn};
use crate::metrics::labels::UploadEvent;
use crate::service::uploads::{Body, ChunkRange};

/// Docker's name for the session.
const UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");
/// Where Ollama looks for the session first.
const UPLOAD_LOCATION: HeaderName = HeaderName::from_static("docker-upload-location");
/// How large the blob will be, as newer versions of Ollama announce it before they send anything.
const CONTENT_BYTES: HeaderName = HeaderName::from_static("x-content-length");
/// The number of bytes stored, which `Range` cannot say when it is none: `0-0` is also one byte.
const UPLOAD_OFFSET: HeaderName = HeaderName::from_static("upload-offset");
/// After a refusal so much of the body is still taken in, so that the client, busy sending, comes
/// to read the answer.
const DRAIN_BYTES: u64 = 64 * 1024 * 1024;
/// ... and for so long.
const DRAIN_TIME: Duration = Duration::from_secs(3);

/// POST: mount, push in one request, or open a session.
pub(super) async fn post(
    state: &State,
    parts: &Parts,
    identity: &Identity,
    repository: Repository,
    body: Incoming,
) -> Result<Response, Failure> {
    let query = Query::parse(&parts.uri);
    if let Some(digest) = query.digest("mount")? {
        // Ollama names the file it made the model from, which is no repository: nothing can be
        // mounted from there, and the specification asks for a session then, not for an error.
        let source = query.get("from").map(endpoint::folded).transpose();
        if let Ok(source) = source
            && may_mount(state, identity, source.as_ref())
        {
            let registry = &state.registry;
            if registry
                .mount_blob(&repository, digest, source.as_ref())
                .await?
            {
                return Ok(created(&repository, &digest));
            }
        }
        return begin(state, parts, &repository, digest.algorithm()).await;
    }
    if let Some(digest) = query.digest("digest")? {
        // An empty body with the digest of something is a client asking whether the blob is here, and
        // whether this form is supported; it gets a session to put the content to.
        let is_empty = body.size() == Some(0);
        let is_question = is_empty && digest != empty(digest.algorithm());
        if is_question {
            return answer_question(state, parts, &repository, digest).await;
        }
        let registry = &state.registry;
        let id = registry
            .begin_upload(&repository, digest.algorithm())
            .await?;
        state.setup.metrics.upload(UploadEvent::Begun, 1);
        return finish(state, &repository, id, None, digest, body, true).await;
    }
    let algorithm = match query.get("digest-algorithm") {
        Some(name) => name.parse().map_err(Error::Digest)?,
        None => Algorithm::Sha256,
    };
    begin(state, parts, &repository, algorithm).await
}

/// The answer to an empty push of content that is not empty: 201 when the repository has the blob
/// already, else a session.
async fn answer_question(
    state: &State,
    parts: &Parts,
    repository: &Repository,
    digest: Digest,
) -> Result<Response, Failure> {
    match state.registry.blob_size(repository, &digest).await {
        Ok(_) => Ok(created(repository, &digest)),
        Err(Error::BlobUnknown { .. }) => {
            let announced = header_text(&parts.headers, &CONTENT_BYTES);
            let announced = announced.and_then(|text| text.parse().ok());
            state.registry.require_room_for(announced)?;
            begin(state, parts, repository, digest.algorithm()).await
        }
        Err(error) => Err(error.into()),
    }
}

/// The methods a session takes.
pub(super) async fn dispatch(
    state: &State,
    parts: &Parts,
    repository: Repository,
    id: Uuid,
    mut body: Incoming,
) -> Result<Response, Failure> {
    match parts.method {
        Method::PATCH => {
            let _receiving = state.setup.metrics.receiving();
            let appended = match chunk_range(parts) {
                Ok(range) => {
                    let registry = &state.registry;
                    registry
                        .append_upload(&repository, id, range, &mut body)
                        .await
                        .map_err(Failure::from)
                }
                Err(failure) => Err(failure),
            };
            match appended {
                Ok(offset) => {
                    let place = Place::of(state, parts, &repository, id);
                    Ok(place.response(StatusCode::ACCEPTED, offset))
                }
                Err(failure) => {
                    if matches!(&failure, Failure::Registry(error) if ends_session(error)) {
                        state.setup.metrics.upload(UploadEvent::Failed, 1);
                    }
                    drain(&mut body).await;
                    Err(failure)
                }
            }
        }
        Method::PUT => {
            let range = chunk_range(parts)?;
            let digest = Query::parse(&parts.uri).digest("digest")?;
            let digest = digest.ok_or_else(|| {
                let message = "closing an upload needs the query parameter digest".to_owned();
                Failure::Malformed(ErrorCode::DigestInvalid, message)
            })?;
            finish(state, &repository, id, range, digest, body, false).await
        }
        Method::GET => {
            let offset = state.registry.upload_offset(&repository, id).await?;
            let place = Place::of(state, parts, &repository, id);
            Ok(place.response(StatusCode::NO_CONTENT, offset))
        }
        Method::DELETE => {
            state.registry.cancel_upload(&repository, id).await?;
            state.setup.metrics.upload(UploadEvent::Cancelled, 1);
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        _ => Err(Failure::Method("GET, PATCH, PUT, DELETE")),
    }
}

async fn begin(
    state: &State,
    parts: &Parts,
    repository: &Repository,
    algorithm: Algorithm,
) -> Result<Response, Failure> {
    let id = state.registry.begin_upload(repository, algorithm).await?;
    state.setup.metrics.upload(UploadEvent::Begun, 1);
    let place = Place::of(state, parts, repository, id);
    Ok(place.response(StatusCode::ACCEPTED, 0))
}

/// Receives the rest and commits. A session that only this request knows is cancelled on failure.
pub(super) async fn finish(
    state: &State,
    repository: &Repository,
    id: Uuid,
    range: Option<ChunkRange>,
    digest: Digest,
    mut body: impl Body,
    is_private: bool,
) -> Result<Response, Failure> {
    let registry = &state.registry;
    let metrics = &state.setup.metrics;
    let _receiving = metrics.receiving();
    let finished = registry
        .finish_upload(repository, id, range, digest, &mut body)
        .await;
    match finished {
        Ok(warning) => {
            metrics.upload(UploadEvent::Finished, 1);
            let mut response = created(repository, &digest);
            if let Some(warning) = warning {
                warn(&mut response, &warning);
            }
            Ok(response)
        }
        Err(error) => {
            if ends_session(&error) {
                metrics.upload(UploadEvent::Failed, 1);
            }
            if is_private {
                // Already gone for most errors; what remains expires.
                let _ = registry.cancel_upload(repository, id).await;
            }
            drain(&mut body).await;
            Err(error.into())
        }
    }
}

/// Whether a session is over after this error.
fn ends_session(error: &Error) -> bool {
    matches!(
        error,
        Error::DigestMismatch { .. } | Error::BlobTooLarge { .. } | Error::GgufRefused { .. }
    )
}

/// Where a session is reached.
struct Place {
    location: String,
    id: Uuid,
}

impl Place {
    /// Absolute, because some clients (Ollama) do not resolve a relative address.
    fn of(state: &State, parts: &Parts, repository: &Repository, id: Uuid) -> Self {
        let base = base_url(state, parts);
        let location = format!("{base}/v2/{}/blobs/uploads/{id}", repository.as_str());
        Self { location, id }
    }

    fn response(&self, status: StatusCode, offset: u64) -> Response {
        let mut response = status.into_response();
        insert(&mut response, header::LOCATION, &self.location);
        insert(&mut response, UPLOAD_LOCATION, &self.location);
        insert(&mut response, UPLOAD_UUID, &self.id.to_string());
        insert_offset(&mut response, offset);
        response
    }
}

/// The answer to a chunk that does not continue the upload says where it stands.
pub(super) fn out_of_order(
    mut response: Response,
    state: &State,
    parts: &Parts,
    repository: &Repository,
    id: Uuid,
    offset: u64,
) -> Response {
    let place = Place::of(state, parts, repository, id);
    insert(&mut response, header::LOCATION, &place.location);
    insert(&mut response, UPLOAD_UUID, &id.to_string());
    insert_offset(&mut response, offset);
    response
}

fn insert_offset(response: &mut Response, offset: u64) {
    let range = format!("0-{}", offset.saturating_sub(1));
    insert(response, header::RANGE, &range);
    insert(response, UPLOAD_OFFSET, &offset.to_string());
}

fn created(repository: &Repository, digest: &Digest) -> Response {
    let mut response = StatusCode::CREATED.into_response();
    insert(
        &mut response,
        header::LOCATION,
        &blob_path(repository, digest),
    );
    insert(&mut response, CONTENT_DIGEST, &digest.to_string());
    response
}

fn empty(algorithm: Algorithm) -> Digest {
    Digest::of(algorithm, b"")
}

/// Whether a mount from there gives nothing away: who may not read the source gets a session, as
/// for a blob that is not there. Without a source all repositories are meant.
fn may_mount(state: &State, identity: &Identity, source: Option<&Repository>) -> bool {
    let access = source.map_or(Access::Catalog, Access::Pull);
    state.setup.policy.allows(identity, &access)
}

/// Takes in what the client is still sending, within limits.
pub(super) async fn drain(body: &mut impl Body) {
    let reading = async {
        let mut taken = 0;
        while let Some(Ok(piece)) = body.next().await {
            taken += piece.len() as u64;
            if taken > DRAIN_BYTES {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(DRAIN_TIME, reading).await;
}

/// `Content-Range`, which must fit `Content-Length` where both are given.
fn chunk_range(parts: &Parts) -> Result<Option<ChunkRange>, Failure> {
    let Some(value) = parts.headers.get(header::CONTENT_RANGE) else {
        return Ok(None);
    };
    let range = value.to_str().ok().and_then(range::chunk).ok_or_else(|| {
        let message = "Content-Range must be <first>-<last>, counted in bytes".to_owned();
        Failure::Malformed(ErrorCode::BlobUploadInvalid, message)
    })?;
    let announced = (range.end - range.start).saturating_add(1);
    match content_length(parts)?.filter(|length| *length > 0 && *length != announced) {
        Some(received) => Err(Failure::Registry(Error::ChunkLength {
            announced,
            received,
        })),
        None => Ok(Some(range)),
    }
}

fn content_length(parts: &Parts) -> Result<Option<u64>, Failure> {
    let Some(text) = header_text(&parts.headers, &header::CONTENT_LENGTH) else {
        return Ok(None);
    };
    let length = text.parse().map_err(|_| {
        let message = "Content-Length must be a number of bytes".to_owned();
        Failure::Malformed(ErrorCode::SizeInvalid, message)
    })?;
    Ok(Some(length))
}
