//! GET, HEAD, PUT and DELETE of manifests by tag or digest: end-3, end-7, end-9.

use artifact::manifest::MAX_MANIFEST_BYTES;
use artifact::{ErrorCode, Repository};
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use http::header::HeaderName;
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, header};

use crate::error::Error;
use crate::http::dialects;
use crate::http::error::Failure;
use crate::http::incoming::Incoming;
use crate::http::query::Query;
use crate::http::{CONTENT_DIGEST, State, header_text, hub, insert, warn};
use crate::service::manifests::{FoundManifest, ManifestReference, NewManifest};

/// Tells the client that the registry has seen to the subject.
const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
/// A tag that was set beside the digest.
const OCI_TAG: HeaderName = HeaderName::from_static("oci-tag");

/// The methods a manifest takes.
pub(super) async fn dispatch(
    state: &State,
    parts: &Parts,
    repository: Repository,
    reference: ManifestReference,
    body: Incoming,
) -> Result<Response, Failure> {
    if let (&Method::GET, ManifestReference::Tag(tag)) = (&parts.method, &reference)
        && let Some(answer) = hub::of_llama(state, parts, &repository, tag).await
    {
        return Ok(answer);
    }
    match parts.method {
        Method::GET => get(state, parts, &repository, &reference).await,
        Method::HEAD => {
            let registry = &state.registry;
            let found = registry.look_at_manifest(&repository, &reference).await?;
            let found = dialects::spoken(state, parts, &repository, &reference, found).await?;
            Ok(described(StatusCode::OK, &reference, &found))
        }
        Method::PUT => put(state, parts, repository, reference, body).await,
        Method::DELETE => {
            state
                .registry
                .delete_manifest(repository, reference)
                .await?;
            Ok(StatusCode::ACCEPTED.into_response())
        }
        _ => Err(Failure::Method("GET, HEAD, PUT, DELETE")),
    }
}

async fn get(
    state: &State,
    parts: &Parts,
    repository: &Repository,
    reference: &ManifestReference,
) -> Result<Response, Failure> {
    let found = state.registry.find_manifest(repository, reference).await?;
    let found = dialects::spoken(state, parts, repository, reference, found).await?;
    let etag = format!("\"{}\"", found.digest);
    let known = header_text(&parts.headers, &header::IF_NONE_MATCH);
    if known.is_some_and(|known| known.split(',').any(|tag| tag.trim() == etag)) {
        let mut response = described(StatusCode::NOT_MODIFIED, reference, &found);
        response.headers_mut().remove(header::CONTENT_LENGTH);
        return Ok(response);
    }
    let content = state
        .registry
        .manifest_content(repository, &found.digest)
        .await?;
    let mut response = described(StatusCode::OK, reference, &found);
    *response.body_mut() = Body::from(content);
    Ok(response)
}

async fn put(
    state: &State,
    parts: &Parts,
    repository: Repository,
    reference: ManifestReference,
    body: Incoming,
) -> Result<Response, Failure> {
    let tags = Query::parse(&parts.uri).tags()?;
    if !tags.is_empty() && matches!(reference, ManifestReference::Tag(_)) {
        let message = "tag parameters go with a push by digest".to_owned();
        return Err(Failure::Malformed(ErrorCode::ManifestInvalid, message));
    }
    let content = read_bounded(body).await?;
    let content_type = header_text(&parts.headers, &header::CONTENT_TYPE)
        .map(|value| value.split(';').next().unwrap_or(value).trim().to_owned());
    let stored = state
        .registry
        .put_manifest(NewManifest {
            repository: repository.clone(),
            reference,
            tags: tags.clone(),
            content_type,
            content,
        })
        .await?;
    let mut response = StatusCode::CREATED.into_response();
    let location = format!("/v2/{}/manifests/{}", repository.as_str(), stored.digest);
    insert(&mut response, header::LOCATION, &location);
    insert(&mut response, CONTENT_DIGEST, &stored.digest.to_string());
    if let Some(subject) = stored.subject {
        insert(&mut response, OCI_SUBJECT, &subject.to_string());
    }
    for warning in &stored.warnings {
        warn(&mut response, warning);
    }
    for tag in &tags {
        if let Ok(value) = HeaderValue::from_str(tag.as_str()) {
            response.headers_mut().append(OCI_TAG, value);
        }
    }
    Ok(response)
}

/// Reads a body of at most [`MAX_MANIFEST_BYTES`]. What is beyond is read off and thrown away,
/// within limits, so that the client comes to read the answer.
async fn read_bounded(mut body: Incoming) -> Result<Bytes, Failure> {
    let mut content = BytesMut::new();
    let mut size = 0_usize;
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(|source| {
            let received = size as u64;
            Failure::Registry(Error::BodyCutOff { received, source })
        })?;
        size += piece.len();
        if size <= MAX_MANIFEST_BYTES {
            content.extend_from_slice(&piece);
        } else if size > 16 * MAX_MANIFEST_BYTES {
            break;
        }
    }
    if size > MAX_MANIFEST_BYTES {
        return Err(Failure::ManifestTooLarge);
    }
    Ok(content.freeze())
}

fn described(status: StatusCode, reference: &ManifestReference, found: &FoundManifest) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    let digest = found.digest.to_string();
    insert(&mut response, CONTENT_DIGEST, &digest);
    insert(&mut response, header::ETAG, &format!("\"{digest}\""));
    insert(
        &mut response,
        header::CONTENT_TYPE,
        &found.record.media_type,
    );
    if let Some(warning) = &found.warning {
        // RFC 9111 obsoleted the header; clients of registries still show it (OCI distribution-spec,
        // "Warnings").
        let text = warning.replace(['"', '\\'], "'");
        insert(&mut response, header::WARNING, &format!("299 - \"{text}\""));
    }
    let length = found.record.size.into();
    response
        .headers_mut()
        .insert(header::CONTENT_LENGTH, length);
    if matches!(reference, ManifestReference::Tag(_)) {
        let headers = response.headers_mut();
        headers.insert(header::VARY, dialects::VARY);
    }
    response
}
