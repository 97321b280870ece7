//! Listings, page by page: tags (end-8), referrers (end-12), and Docker's catalog.

use artifact::chunk_map::CHUNK_MAPS;
use artifact::{Digest, Repository, media_type};
use axum::Json;
use axum::response::{IntoResponse, Response};
use http::header::HeaderName;
use http::{HeaderValue, Uri, header};
use serde_json::{Value, json};

use crate::http::error::Failure;
use crate::http::query::Query;
use crate::http::{State, insert};
use crate::service::manifests::FoundManifest;
use crate::store::Page;
use crate::store::records::ManifestRecord;

/// Tells which filters the list has gone through.
const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");
/// A page of referrers ends when it has reached about this many bytes: a client may hold it to
/// the limit of a manifest, 4 MiB.
const REFERRERS_BYTES: usize = 3 * 1024 * 1024;
/// How many referrers are looked at together.
const REFERRERS_STEP: usize = 256;

/// The list of repositories.
pub(super) async fn catalog(state: &State, uri: &Uri) -> Result<Response, Failure> {
    let page = Query::parse(uri).page()?;
    let limit = page.limit;
    let found = state.registry.repositories(one_more(page)).await?;
    let names = found.iter().map(Repository::as_str).collect();
    let (names, next) = cut(names, limit);
    let link = next.map(|last| format!("/v2/_catalog?n={limit}&last={}", encoded(last)));
    Ok(listing(&json!({ "repositories": names }), link))
}

/// The list of tags of a repository.
pub(super) async fn tags(
    state: &State,
    uri: &Uri,
    repository: &Repository,
) -> Result<Response, Failure> {
    let page = Query::parse(uri).page()?;
    let limit = page.limit;
    let found = state.registry.tags(repository, one_more(page)).await?;
    let names = found.iter().map(artifact::Tag::as_str).collect();
    let (names, next) = cut(names, limit);
    let name = repository.as_str();
    let link = next.map(|last| format!("/v2/{name}/tags/list?n={limit}&last={}", encoded(last)));
    Ok(listing(&json!({ "name": name, "tags": names }), link))
}

/// What is known of a blob by its content.
pub(super) async fn annotations(
    state: &State,
    repository: &Repository,
    digest: &Digest,
) -> Result<Response, Failure> {
    let found = state.registry.blob_annotations(repository, digest).await?;
    Ok(Json(json!({ "digest": digest, "annotations": found })).into_response())
}

/// The list of manifests that refer to `subject`, as an image index.
pub(super) async fn referrers(
    state: &State,
    uri: &Uri,
    repository: &Repository,
    subject: &Digest,
) -> Result<Response, Failure> {
    let query = Query::parse(uri);
    let filter = query
        .get("artifactType")
        .filter(|wanted| !wanted.is_empty());
    let mut after = query.page()?.after;
    let mut descriptors = Vec::new();
    if after.is_none() {
        let in_memory = first_asked(state, repository, subject, filter).await;
        descriptors.extend(in_memory.map(|maps| descriptor(&maps.digest, &maps.record)));
    }
    let mut bytes = 0;
    let mut is_complete = false;
    while bytes < REFERRERS_BYTES && !is_complete {
        let page = Page {
            after: after.clone(),
            limit: REFERRERS_STEP,
        };
        let found = state.registry.referrers(repository, subject, page).await?;
        is_complete = found.len() < REFERRERS_STEP;
        for (digest, record) in found {
            if bytes >= REFERRERS_BYTES {
                is_complete = false;
                break;
            }
            after = Some(digest.to_string());
            if filter.is_none_or(|wanted| record.artifact_type.as_deref() == Some(wanted)) {
                let descriptor = descriptor(&digest, &record);
                bytes += descriptor.to_string().len();
                descriptors.push(descriptor);
            }
        }
    }
    let last = after.filter(|_| !is_complete);
    let link = last.map(|last| referrers_link(repository, subject, filter, &last));
    let body = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_INDEX,
        "manifests": descriptors,
    });
    let mut response = listing(&body, link);
    insert(&mut response, header::CONTENT_TYPE, media_type::OCI_INDEX);
    if filter.is_some() {
        let applied = HeaderValue::from_static("artifactType");
        response.headers_mut().insert(FILTERS_APPLIED, applied);
    }
    Ok(response)
}

/// What is done before the first page of a list of referrers. Gives what no index lists.
async fn first_asked(
    state: &State,
    repository: &Repository,
    subject: &Digest,
    filter: Option<&str>,
) -> Option<FoundManifest> {
    let registry = &state.registry;
    registry.bring_referrers(repository, subject).await;
    if filter.is_some_and(|wanted| wanted != CHUNK_MAPS) {
        return None;
    }
    registry.offer_chunk_maps(repository, subject).await
}

fn referrers_link(
    repository: &Repository,
    subject: &Digest,
    filter: Option<&str>,
    last: &str,
) -> String {
    let mut link = format!(
        "/v2/{}/referrers/{subject}?last={}",
        repository.as_str(),
        encoded(last)
    );
    if let Some(wanted) = filter {
        link.push_str("&artifactType=");
        link.push_str(&encoded(wanted));
    }
    link
}

fn descriptor(digest: &Digest, record: &ManifestRecord) -> Value {
    let mut descriptor = json!({
        "mediaType": record.media_type,
        "digest": digest,
        "size": record.size,
    });
    if let Some(artifact_type) = &record.artifact_type {
        descriptor["artifactType"] = json!(artifact_type);
    }
    if !record.annotations.is_empty() {
        descriptor["annotations"] = json!(record.annotations);
    }
    descriptor
}

/// One more than wanted is looked up, to know whether there is a next page.
fn one_more(page: Page) -> Page {
    Page {
        limit: page.limit + 1,
        ..page
    }
}

/// The page itself, and its last name when more follows.
fn cut(mut names: Vec<&str>, limit: usize) -> (Vec<&str>, Option<&str>) {
    let more_follows = names.len() > limit;
    names.truncate(limit);
    let last = names.last().copied().filter(|_| more_follows);
    (names, last)
}

fn encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

fn listing(body: &Value, link: Option<String>) -> Response {
    let mut response = Json(body).into_response();
    if let Some(link) = link {
        insert(
            &mut response,
            header::LINK,
            &format!("<{link}>; rel=\"next\""),
        );
    }
    response
}
