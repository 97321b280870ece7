//! Branches made and removed: tags of the registry.

use artifact::Repository;
use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;

use crate::error::Error;
use crate::http::hub::endpoint::{Asked, Named, asked};
use crate::http::hub::failure::HubFailure;
use crate::http::hub::{Caller, read};
use crate::http::incoming::Incoming;
use crate::service::hub::Refusal;
use crate::service::hub::commit::NewCommit;
use crate::service::hub::revision::Revision;
use crate::service::manifests::ManifestReference;

/// Largest body of such a request.
const BODY_BYTES: usize = 64 * 1024;

/// What a branch is made with.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Making {
    /// Where a branch begins: `main` if nothing is said.
    starting_point: Option<String>,
    /// The name of a tag, whose beginning stands in the path.
    tag: Option<String>,
}

/// `POST …/branch/<name>`: `name` begins where the body says; `POST …/tag/<rev>`: the name stands in
/// the body. Hugging Face tells the two apart, here both can be set anew by a push.
pub(super) async fn make(
    caller: &Caller<'_>,
    named: &Named,
    text: &str,
    body: &mut Incoming,
) -> Result<Response, HubFailure> {
    let content = read(body, BODY_BYTES).await?;
    let making: Making = if content.is_empty() {
        Making::default()
    } else {
        serde_json::from_slice(&content).map_err(|error| {
            HubFailure::Malformed(format!("the body is not what it must be: {error}"))
        })?
    };
    let (name, from) = match making.tag {
        Some(tag) => (tag, text.to_owned()),
        None => {
            let from = making.starting_point.unwrap_or_else(|| "main".to_owned());
            (text.to_owned(), from)
        }
    };
    let repository = named.repository.clone();
    let branch = branch_of(&repository, &asked(&name))?;
    let from = asked(&from).of(&repository)?.clone();
    let registry = &caller.state.registry;
    let commit = registry
        .hub_commit(NewCommit {
            repository,
            branch,
            from: Some(from),
            parent: None,
            operations: Vec::new(),
        })
        .await?;
    Ok((
        StatusCode::CREATED,
        Json(json!({ "commitOid": commit.as_str() })),
    )
        .into_response())
}

/// `DELETE …/branch/<name>` and `DELETE …/tag/<name>`
pub(super) async fn delete(
    caller: &Caller<'_>,
    named: &Named,
    name: &str,
) -> Result<Response, HubFailure> {
    let repository = named.repository.clone();
    let Revision::Tag(tag) = branch_of(&repository, &asked(name))? else {
        return Err(Error::Hub(Refusal::NotABranch {
            revision: name.chars().take(200).collect(),
        })
        .into());
    };
    let registry = &caller.state.registry;
    registry
        .delete_manifest(repository, ManifestReference::Tag(tag))
        .await?;
    Ok(StatusCode::OK.into_response())
}

fn branch_of(repository: &Repository, asked: &Asked) -> Result<Revision, HubFailure> {
    Ok(asked.of(repository)?.clone())
}
