//! What is known of repositories: lists of them, one of them, its branches and commits, and who asks.

use artifact::hub::HubFile;
use axum::Json;
use axum::response::{IntoResponse, Response};
use http::header;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::http::access::Identity;
use crate::http::error::Failure;
use crate::http::hub::Caller;
use crate::http::hub::endpoint::{Asked, Named};
use crate::http::hub::failure::HubFailure;
use crate::http::hub::tree::object_name;
use crate::http::query::Query;
use crate::http::{insert, warn};
use crate::service::hub::Snapshot;
use crate::service::hub::facts::Facts;
use crate::store::Page;

/// Models of one page, when the client asks for no number.
const DEFAULT_PAGE: usize = 100;
/// Most models of one page.
const MAX_PAGE: usize = 1_000;
/// Repositories looked at together.
const STEP: usize = 500;
/// Most repositories that one request looks at: a search that finds nothing ends, too.
const MOST_SEEN: usize = 10_000;

/// `GET /api/whoami-v2`
pub(super) fn who_am_i(caller: &Caller<'_>) -> Result<Response, HubFailure> {
    let Identity::User(name) = caller.identity else {
        let challenge = caller.state.setup.policy.challenge();
        return Err(Failure::Unauthorized(challenge).into());
    };
    let name = name.as_ref();
    let who = json!({
        "type": "user",
        "id": name,
        "name": name,
        "fullname": name,
        "isPro": false,
        "canPay": false,
        "orgs": [],
        "auth": {
            "type": "access_token",
            "accessToken": { "displayName": "login of the registry", "role": "write" },
        },
    });
    Ok(Json(who).into_response())
}

/// `GET /api/models?search=&author=&limit=&cursor=`
pub(super) async fn models(caller: &Caller<'_>) -> Result<Response, HubFailure> {
    let query = Query::parse(&caller.parts.uri);
    let lower = |name| query.get(name).map(str::to_lowercase);
    let (search, author) = (lower("search"), lower("author"));
    let is_wanted = |name: &str| {
        let is_theirs = author.as_ref().is_none_or(|author| {
            let rest = name.strip_prefix(author.as_str());
            rest.is_some_and(|rest| rest.starts_with('/'))
        });
        is_theirs && search.as_ref().is_none_or(|part| name.contains(part))
    };
    let limit = match query.get("limit") {
        None => DEFAULT_PAGE,
        Some(text) => text.parse::<usize>().map_err(|_| {
            HubFailure::Malformed("limit must be a whole number, 1 or more".to_owned())
        })?,
    };
    let limit = limit.clamp(1, MAX_PAGE);
    let mut after = query.get("cursor").map(str::to_owned);
    let mut models = Vec::new();
    let (mut seen, mut is_complete) = (0, false);
    while models.len() < limit && seen < MOST_SEEN && !is_complete {
        let page = Page {
            after: after.clone(),
            limit: STEP,
        };
        let names = caller.state.registry.repositories(page).await?;
        is_complete = names.len() < STEP;
        for name in names {
            if models.len() == limit {
                is_complete = false;
                break;
            }
            seen += 1;
            after = Some(name.as_str().to_owned());
            if is_wanted(name.as_str()) {
                models.push(listed(name.as_str()));
            }
        }
    }
    let mut response = Json(models).into_response();
    if let Some(last) = after.filter(|_| !is_complete) {
        let link = next_page(caller, &query, limit, &last);
        insert(&mut response, header::LINK, &link);
    }
    Ok(response)
}

fn next_page(caller: &Caller<'_>, query: &Query, limit: usize, last: &str) -> String {
    let mut next = url::form_urlencoded::Serializer::new(String::new());
    for name in ["search", "author"] {
        if let Some(value) = query.get(name) {
            next.append_pair(name, value);
        }
    }
    next.append_pair("limit", &limit.to_string());
    next.append_pair("cursor", last);
    let next = next.finish();
    format!("<{}/api/models?{next}>; rel=\"next\"", caller.root_url())
}

fn listed(name: &str) -> Value {
    json!({
        "id": name,
        "modelId": name,
        "author": author_of(name),
        "private": false,
        "gated": false,
        "disabled": false,
        "downloads": 0,
        "likes": 0,
        "tags": [],
    })
}

/// `GET /api/models/<repo>[/revision/<rev>]`
pub(super) async fn model(
    caller: &Caller<'_>,
    named: &Named,
    asked: &Asked,
) -> Result<Response, HubFailure> {
    let (repository, snapshot) = caller.snapshot(named, asked).await?;
    let has_weights = snapshot.files.iter().any(HubFile::is_gguf);
    let facts = if has_weights {
        caller
            .state
            .registry
            .hub_facts(&repository, &snapshot)
            .await?
    } else {
        Facts::default()
    };
    let mut tags = Vec::new();
    if has_weights {
        tags.push("gguf".to_owned());
    }
    tags.extend(facts.architecture.clone());
    tags.extend(facts.quantisation.clone());
    let date = moment(snapshot.updated);
    let mut info = listed(&named.id);
    info["_id"] = json!(snapshot.commit.as_str());
    info["sha"] = json!(snapshot.commit.as_str());
    info["lastModified"] = json!(date);
    info["createdAt"] = json!(date);
    info["tags"] = json!(tags);
    info["usedStorage"] = json!(snapshot.files.iter().map(|file| file.size).sum::<u64>());
    info["siblings"] = siblings(&snapshot);
    if has_weights {
        info["library_name"] = json!("gguf");
        info["gguf"] = facts.to_json();
    }
    let mut response = Json(info).into_response();
    if let Some(warning) = &snapshot.warning {
        warn(&mut response, warning);
    }
    Ok(response)
}

fn siblings(snapshot: &Snapshot) -> Value {
    let sibling = |file: &HubFile| {
        json!({
            "rfilename": file.path,
            "size": file.size,
            "blobId": object_name(&file.digest),
            "lfs": {
                "sha256": file.digest.hex(),
                "size": file.size,
                "pointerSize": file.pointer_size(),
            },
        })
    };
    snapshot.files.iter().map(sibling).collect()
}

/// `GET /api/models/<repo>/refs`. Tags can be set anew, so they are branches here.
pub(super) async fn refs(caller: &Caller<'_>, named: &Named) -> Result<Response, HubFailure> {
    let repository = caller.place(named).await?;
    let registry = &caller.state.registry;
    let branches = registry.branches(&repository, caller.reader()).await?;
    let branches: Vec<Value> = branches
        .iter()
        .map(|(name, commit)| {
            json!({
                "name": name,
                "ref": format!("refs/heads/{name}"),
                "targetCommit": commit.as_str(),
            })
        })
        .collect();
    let refs = json!({
        "branches": branches,
        "tags": [],
        "converts": [],
        "pullRequests": [],
    });
    Ok(Json(refs).into_response())
}

/// `GET /api/models/<repo>/commits/<rev>`: the commit alone, as no history is kept.
pub(super) async fn commits(
    caller: &Caller<'_>,
    named: &Named,
    asked: &Asked,
) -> Result<Response, HubFailure> {
    let (_, snapshot) = caller.snapshot(named, asked).await?;
    let commits = json!([{
        "id": snapshot.commit.as_str(),
        "title": format!("{} files", snapshot.files.len()),
        "message": "",
        "authors": [],
        "date": moment(snapshot.updated),
    }]);
    Ok(Json(commits).into_response())
}

fn author_of(name: &str) -> Option<&str> {
    name.split_once('/').map(|(author, _)| author)
}

/// A point in time in the one form that clients read.
pub(super) fn moment(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use crate::http::hub::info::moment;

    #[test]
    fn times_are_written_in_the_form_that_python_reads() {
        assert_eq!(moment(Timestamp::UNIX_EPOCH), "1970-01-01T00:00:00.000Z");
    }
}
