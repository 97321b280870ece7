//! llama.cpp before March 2026: one request names the files of a quantisation.
//!
//! It asks the path of an Ollama manifest, so what tells the two apart is who asks. The files are
//! then fetched from `resolve/main`, where llama.cpp sees those of all tags together.

use artifact::hub::HubFile;
use artifact::{Repository, Tag};
use axum::Json;
use axum::response::{IntoResponse, Response};
use http::header;
use http::request::Parts;
use serde_json::{Value, json};

use crate::error::Error;
use crate::http::hub::failure::HubFailure;
use crate::http::hub::tree::object_name;
use crate::http::{State, header_text};
use crate::service::hub::revision::Revision;
use crate::service::hub::{Reader, Refusal};

/// What llama.cpp takes when no quantisation is named, in this order; then the first file.
const DEFAULTS: [&str; 2] = ["q4_k_m", "q8_0"];

/// Whether llama.cpp asks.
pub(super) fn is_llama(parts: &Parts) -> bool {
    let agent = header_text(&parts.headers, &header::USER_AGENT).unwrap_or_default();
    agent.starts_with("llama-cpp") || agent.starts_with("llama.cpp")
}

/// The answer to a manifest that llama.cpp asks for below `/v2/`; `None` when somebody else asks.
pub(in crate::http) async fn of_llama(
    state: &State,
    parts: &Parts,
    repository: &Repository,
    tag: &Tag,
) -> Option<Response> {
    if !is_llama(parts) {
        return None;
    }
    let answer = manifest(state, repository, tag.as_str()).await;
    Some(answer.unwrap_or_else(|failure| failure.into_response(&parts.headers)))
}

/// The files of a quantisation, named by `tag`.
pub(super) async fn manifest(
    state: &State,
    repository: &Repository,
    tag: &str,
) -> Result<Response, HubFailure> {
    let registry = &state.registry;
    let all = registry
        .snapshot(repository, &Revision::Main, Reader::Picking)
        .await?;
    let tagged = tag_named(state, repository, tag).await?;
    let weights = match &tagged {
        Some(tag) => {
            let revision = Revision::Tag(tag.clone());
            let own = registry.snapshot(repository, &revision, Reader::Whole);
            let own = own.await?;
            first_weights(&own.files).and_then(|weights| {
                // Under the name that it has among the files of all tags.
                all.files.iter().find(|file| file.digest == weights.digest)
            })
        }
        None => None,
    };
    let weights = weights.or_else(|| matching(&all.files, tag));
    let weights = weights.ok_or_else(|| {
        Error::Hub(Refusal::RevisionUnknown {
            repository: repository.clone(),
            revision: tag.chars().take(200).collect(),
        })
    })?;
    let mut answer = json!({
        "schemaVersion": 2,
        "ggufFile": described(weights),
    });
    if let Some(projector) = all.files.iter().find(|file| file.is_projector()) {
        answer["mmprojFile"] = described(projector);
    }
    Ok(Json(answer).into_response())
}

/// The tag of this name, in whatever case it is written.
async fn tag_named(
    state: &State,
    repository: &Repository,
    name: &str,
) -> Result<Option<Tag>, Error> {
    let tags = state.registry.hub_tags(repository).await?;
    let names = tags.into_iter().map(|(tag, _)| tag);
    Ok(names
        .into_iter()
        .find(|tag| tag.as_str().eq_ignore_ascii_case(name)))
}

/// The weights whose name contains the quantisation.
fn matching<'a>(files: &'a [HubFile], tag: &str) -> Option<&'a HubFile> {
    let tag = tag.to_lowercase();
    let wanted: &[&str] = match tag.as_str() {
        "latest" | "" => &DEFAULTS,
        tag => &[tag],
    };
    let named = |part: &&str| {
        let is_named =
            |file: &&HubFile| file.is_weights() && file.path.to_lowercase().contains(part);
        files.iter().find(is_named)
    };
    let found = wanted.iter().find_map(named);
    found.or_else(|| first_weights(files).filter(|_| matches!(tag.as_str(), "latest" | "")))
}

fn first_weights(files: &[HubFile]) -> Option<&HubFile> {
    files.iter().find(|file| file.is_weights())
}

fn described(file: &HubFile) -> Value {
    json!({
        "rfilename": file.path,
        "blobId": object_name(&file.digest),
        "size": file.size,
        "lfs": {
            "sha256": file.digest.hex(),
            "size": file.size,
            "pointerSize": file.pointer_size(),
        },
    })
}
