//! Where to upload content: the batch API of Git LFS, as Hugging Face's libraries ask it.
//!
//! Clients send no login with the content itself. So the address that they are given is the
//! permission: it names an upload session, 122 random bits, opened for somebody who may push.

use artifact::{Algorithm, Digest};
use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::error::Error;
use crate::http::access::Access;
use crate::http::hub::endpoint::Named;
use crate::http::hub::failure::HubFailure;
use crate::http::hub::upload::PartOf;
use crate::http::hub::{Caller, read_json};
use crate::http::incoming::Incoming;
use crate::metrics::labels::UploadEvent;
use crate::service::hub::Refusal;

/// Largest body of a batch.
const BATCH_BYTES: usize = 1024 * 1024;
/// Most objects of a batch; Hugging Face's libraries ask for 256.
const MOST_OBJECTS: usize = 1_000;
/// The media type of this API.
const LFS_JSON: HeaderValue = HeaderValue::from_static("application/vnd.git-lfs+json");

#[derive(Debug, Deserialize)]
struct Batch {
    operation: String,
    #[serde(default)]
    transfers: Vec<String>,
    objects: Vec<Object>,
    #[serde(default)]
    hash_algo: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Object {
    oid: String,
    size: u64,
}

/// `POST /<repo>.git/info/lfs/objects/batch`
pub(super) async fn batch(
    caller: &Caller<'_>,
    named: &Named,
    body: &mut Incoming,
) -> Result<Response, HubFailure> {
    let batch: Batch = read_json(body, BATCH_BYTES).await?;
    if batch.operation != "upload" {
        let why = "only uploads go this way: files are fetched from /resolve/";
        return Err(HubFailure::Malformed(why.to_owned()));
    }
    if batch.hash_algo.is_some_and(|algo| algo != "sha256") {
        let why = "content is named by its sha256 here";
        return Err(HubFailure::Malformed(why.to_owned()));
    }
    if batch.objects.len() > MOST_OBJECTS {
        return Err(Error::Hub(Refusal::TooMany {
            what: "objects at once",
            most: MOST_OBJECTS,
        })
        .into());
    }
    let takes_parts = batch.transfers.iter().any(|name| name == "multipart");
    let mut objects = Vec::new();
    for object in &batch.objects {
        objects.push(answer(caller, named, object, takes_parts).await?);
    }
    let has_parts = objects
        .iter()
        .any(|object| object["actions"]["upload"]["header"]["chunk_size"].is_string());
    let transfer = if has_parts { "multipart" } else { "basic" };
    let answer = json!({ "transfer": transfer, "objects": objects, "hash_algo": "sha256" });
    let mut response = Json(answer).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, LFS_JSON);
    Ok(response)
}

/// What to do with one object: nothing, or upload it there.
async fn answer(
    caller: &Caller<'_>,
    named: &Named,
    object: &Object,
    takes_parts: bool,
) -> Result<Value, HubFailure> {
    let Ok(digest) = Digest::from_hex(Algorithm::Sha256, &object.oid) else {
        let oid: String = object.oid.chars().take(80).collect();
        let error = json!({ "code": 422, "message": "the oid must be a SHA-256 in hexadecimal" });
        return Ok(json!({ "oid": oid, "size": object.size, "error": error }));
    };
    let mut answer = json!({ "oid": object.oid, "size": object.size, "authenticated": true });
    if is_held(caller, named, &digest).await? {
        return Ok(answer);
    }
    let state = caller.state;
    let registry = &state.registry;
    let id = registry
        .begin_upload(&named.repository, Algorithm::Sha256)
        .await?;
    state.setup.metrics.upload(UploadEvent::Begun, 1);
    let place = format!(
        "{}/_upload/{id}/{}/{}",
        caller.root_url(),
        object.oid,
        named.repository.as_str()
    );
    let mut headers = Map::new();
    if takes_parts && let Some(parts) = PartOf::size_for(object.size) {
        headers.insert("chunk_size".to_owned(), json!(parts.to_string()));
        for part in 1..=object.size.div_ceil(parts) {
            let url = format!("{place}?part={part}&size={parts}");
            headers.insert(part.to_string(), json!(url));
        }
    }
    answer["actions"] = json!({ "upload": { "href": place, "header": headers } });
    Ok(answer)
}

/// Whether the repository holds the content already, or can have it from another one: then it is
/// not uploaded again. Whether it is elsewhere is told only to those who may see all repositories.
async fn is_held(caller: &Caller<'_>, named: &Named, digest: &Digest) -> Result<bool, HubFailure> {
    let registry = &caller.state.registry;
    match registry.blob_size(&named.repository, digest).await {
        Ok(_) => return Ok(true),
        Err(Error::BlobUnknown { .. } | Error::ContentGone { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    if !caller.allows(&Access::Catalog) {
        return Ok(false);
    }
    Ok(registry
        .mount_blob(&named.repository, *digest, None)
        .await?)
}
