//! GET, HEAD and DELETE of a blob: end-2 and end-10.

use std::sync::atomic::Ordering;

use artifact::{Digest, Repository};
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, header};

use crate::http::access::Identity;
use crate::http::body::FileBody;
use crate::http::error::Failure;
use crate::http::range::{self, Requested};
use crate::http::remote_body::RemoteBody;
use crate::http::{CONTENT_DIGEST, State, header_text, insert};
use crate::http::{passes, redirect};
use crate::store::{BlobContent, OpenBlob};

/// Content under a digest never changes, so whoever has it may keep it.
const CACHE_FOR_EVER: HeaderValue =
    HeaderValue::from_static("private, max-age=31536000, immutable");

/// GET: the content, or the range of it that was asked for.
pub(super) async fn get(
    state: &State,
    parts: &Parts,
    identity: Option<&Identity>,
    repository: Repository,
    digest: Digest,
) -> Result<Response, Failure> {
    let etag = format!("\"{digest}\"");
    let mut response = get_tagged(state, parts, repository.clone(), digest, &etag).await?;
    if response.status() == StatusCode::OK {
        // Ollama reads Location from a plain 200 and then fetches ranges of that address.
        let place = passes::place(state, parts, identity, &repository, &digest);
        insert(&mut response, header::LOCATION, &place);
    }
    Ok(response)
}

/// The same without an address for later, for clients that know the content by this `etag`, which
/// the caller has to put into the answer.
pub(super) async fn get_tagged(
    state: &State,
    parts: &Parts,
    repository: Repository,
    digest: Digest,
    etag: &str,
) -> Result<Response, Failure> {
    let headers = &parts.headers;
    let known = header_text(headers, &header::IF_NONE_MATCH);
    if known.is_some_and(|known| known.split(',').any(|tag| tag.trim() == etag)) {
        state.registry.blob_size(&repository, &digest).await?;
        return Ok(described(StatusCode::NOT_MODIFIED, &digest, None).into_response());
    }
    if let Some(elsewhere) = redirect::answer(state, parts, &repository, &digest).await? {
        return Ok(elsewhere);
    }
    let blob = state.registry.open_blob(&repository, &digest).await?;
    let asked = header_text(headers, &header::RANGE);
    match range::requested(asked, blob.size) {
        Requested::Whole => {
            let size = blob.size;
            let mut response = described(StatusCode::OK, &digest, Some(size));
            *response.body_mut() = content(blob, 0, size).await?;
            Ok(response)
        }
        Requested::Part(part) => {
            let length = part.end - part.start;
            let mut response = described(StatusCode::PARTIAL_CONTENT, &digest, Some(length));
            let place = format!("bytes {}-{}/{}", part.start, part.end - 1, blob.size);
            insert(&mut response, header::CONTENT_RANGE, &place);
            *response.body_mut() = content(blob, part.start, part.end).await?;
            Ok(response)
        }
        Requested::Unsatisfiable => {
            let mut response = described(StatusCode::RANGE_NOT_SATISFIABLE, &digest, Some(0));
            let place = format!("bytes */{}", blob.size);
            insert(&mut response, header::CONTENT_RANGE, &place);
            Ok(response)
        }
    }
}

/// HEAD: size and digest, without the content.
pub(super) async fn head(
    state: &State,
    repository: Repository,
    digest: Digest,
) -> Result<Response, Failure> {
    let size = state.registry.blob_size(&repository, &digest).await?;
    Ok(described(StatusCode::OK, &digest, Some(size)))
}

/// DELETE: takes the blob out of the repository.
pub(super) async fn delete(
    state: &State,
    repository: Repository,
    digest: Digest,
) -> Result<Response, Failure> {
    state.registry.delete_blob(repository, digest).await?;
    Ok(StatusCode::ACCEPTED.into_response())
}

/// The methods a blob takes. `identity` is `None` for a request that needs none, because its
/// address is a pass.
pub(super) async fn dispatch(
    state: &State,
    parts: &Parts,
    identity: Option<&Identity>,
    repository: Repository,
    digest: Digest,
) -> Result<Response, Failure> {
    match parts.method {
        Method::GET => get(state, parts, identity, repository, digest).await,
        Method::HEAD => head(state, repository, digest).await,
        Method::DELETE => delete(state, repository, digest).await,
        _ => Err(Failure::Method("GET, HEAD, DELETE")),
    }
}

async fn content(blob: OpenBlob, start: u64, end: u64) -> Result<Body, Failure> {
    match blob.content {
        BlobContent::File {
            file,
            direct,
            served,
        } => {
            let served_before = served.fetch_add(end - start, Ordering::Relaxed);
            let is_first_pass = served_before + (end - start) <= blob.size;
            let direct = direct.filter(|_| is_first_pass);
            Ok(Body::new(FileBody::new(file, direct, start, end)))
        }
        // Asked for before the answer begins, so that content which cannot be had is an error
        // and not a body that is cut off.
        BlobContent::Remote(remote) => {
            let pieces = remote.read(start..end).await?;
            Ok(Body::new(RemoteBody::new(pieces, end - start)))
        }
    }
}

fn described(status: StatusCode, digest: &Digest, length: Option<u64>) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    insert(&mut response, CONTENT_DIGEST, &digest.to_string());
    insert(&mut response, header::ETAG, &format!("\"{digest}\""));
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, CACHE_FOR_EVER);
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if let Some(length) = length {
        let octets = HeaderValue::from_static("application/octet-stream");
        headers.insert(header::CONTENT_TYPE, octets);
        headers.insert(header::CONTENT_LENGTH, length.into());
    }
    response
}
