//! Making commits: a repository created, files asked about, and the commit itself.

use artifact::hub::{MAX_FILES, clean_path};
use artifact::{Algorithm, Digest};
use axum::Json;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::Error;
use crate::http::access::Access;
use crate::http::error::Failure;
use crate::http::hub::endpoint::{Asked, Named, named_by};
use crate::http::hub::failure::HubFailure;
use crate::http::hub::{Caller, read_json};
use crate::http::incoming::Incoming;
use crate::http::query::Query;
use crate::service::hub::commit::{NewCommit, Operation};
use crate::service::hub::revision::Revision;
use crate::service::hub::{Reader, Refusal};

/// Largest body that creates a repository.
const CREATE_BYTES: usize = 64 * 1024;
/// Largest body that asks about files: 256 of them, each with a sample of 512 bytes.
const ASK_BYTES: usize = 4 * 1024 * 1024;
/// Longest line of a commit: a file in it, in Base64. Larger files are uploaded before.
const LINE_BYTES: usize = 16 * 1024 * 1024;
/// Most files that are asked about at once.
const MOST_ASKED: usize = 1_000;
/// What git calls a file with nothing in it.
const EMPTY_FILE: &str = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391";

/// `POST /api/validate-yaml`: model cards are not read here, so none is wrong.
pub(super) fn validate_yaml() -> Response {
    Json(json!({ "errors": [], "warnings": [] })).into_response()
}

/// What a repository is created with.
#[derive(Debug, Deserialize)]
struct Creation {
    name: String,
    #[serde(default)]
    organization: Option<String>,
    #[serde(default, rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    private: Option<bool>,
    #[serde(default)]
    visibility: Option<String>,
}

/// `POST /api/repos/create`
pub(super) async fn create(
    caller: &Caller<'_>,
    body: &mut Incoming,
) -> Result<Response, HubFailure> {
    let new: Creation = read_json(body, CREATE_BYTES).await?;
    if let Some(kind) = new.kind.as_deref().filter(|kind| *kind != "model") {
        let kind: String = kind.chars().take(40).collect();
        let why = format!("there are models here, and no repositories of type {kind:?}");
        return Err(HubFailure::Malformed(why));
    }
    let is_hidden = new.visibility.as_deref().is_some_and(|how| how != "public");
    if is_hidden || new.private == Some(true) {
        let why = "a repository cannot be private by itself: the registry's access rules say who \
                   sees what";
        return Err(HubFailure::Malformed(why.to_owned()));
    }
    let id = match new.organization {
        Some(organization) => format!("{organization}/{}", new.name),
        None => new.name,
    };
    let named = named_by(&id)?;
    caller.require(&Access::Push(&named.repository))?;
    let url = format!("{}/{}", caller.root_url(), named.id);
    let registry = &caller.state.registry;
    if registry.create_repository(&named.repository).await? {
        let answer = json!({ "url": url, "name": named.id, "id": named.id });
        return Ok(Json(answer).into_response());
    }
    Err(HubFailure::Exists(url))
}

/// The files that a client is about to commit.
#[derive(Debug, Deserialize)]
struct Announced {
    files: Vec<AnnouncedFile>,
}

#[derive(Debug, Deserialize)]
struct AnnouncedFile {
    path: String,
    #[serde(default)]
    size: u64,
}

/// `POST …/preupload/<rev>`: every file is uploaded by its SHA-256, which is its digest here. Only
/// empty ones, which clients never upload so, come with the commit.
pub(super) async fn preupload(
    caller: &Caller<'_>,
    named: &Named,
    asked: &Asked,
    body: &mut Incoming,
) -> Result<Response, HubFailure> {
    refuse_pull_request(caller)?;
    let announced: Announced = read_json(body, ASK_BYTES).await?;
    require_few(announced.files.len(), "files at once", MOST_ASKED)?;
    let repository = &named.repository;
    let revision = asked.of(repository)?;
    let registry = &caller.state.registry;
    let found = registry.snapshot(repository, revision, Reader::Whole).await;
    let present = match found {
        Ok(snapshot) => Some(snapshot),
        Err(Error::RepositoryUnknown { .. }) if *revision == Revision::Main => None,
        Err(error) => return Err(error.into()),
    };
    let files: Result<Vec<Value>, HubFailure> = announced
        .files
        .iter()
        .map(|file| {
            let path = committed_path(&file.path)?;
            let there = present
                .as_ref()
                .and_then(|snapshot| snapshot.file(&path).ok());
            let (mode, oid) = match there {
                Some(there) if there.size == 0 => ("regular", Some(EMPTY_FILE.to_owned())),
                Some(there) => ("lfs", Some(there.digest.hex())),
                None if file.size == 0 => ("regular", None),
                None => ("lfs", None),
            };
            Ok(json!({
                "path": file.path,
                "uploadMode": mode,
                "shouldIgnore": false,
                "oid": oid,
            }))
        })
        .collect();
    Ok(Json(json!({ "files": files? })).into_response())
}

/// One line of a commit.
#[derive(Debug, Deserialize)]
#[serde(tag = "key", content = "value", rename_all = "camelCase")]
enum Line {
    #[serde(rename_all = "camelCase")]
    Header {
        #[serde(default)]
        parent_commit: Option<String>,
    },
    File {
        path: String,
        content: String,
        #[serde(default)]
        encoding: Option<String>,
    },
    LfsFile {
        path: String,
        #[serde(default)]
        algo: Option<String>,
        oid: String,
        #[serde(default)]
        size: Option<u64>,
    },
    DeletedFile {
        path: String,
    },
    DeletedFolder {
        path: String,
    },
}

/// `POST …/commit/<rev>`: a header and changes, one JSON object in a line.
pub(super) async fn commit(
    caller: &Caller<'_>,
    named: &Named,
    asked: &Asked,
    body: &mut Incoming,
) -> Result<Response, HubFailure> {
    refuse_pull_request(caller)?;
    let branch = asked.of(&named.repository)?.clone();
    let mut lines = Lines::new(body);
    let mut parent = None;
    let mut operations = Vec::new();
    while let Some((number, line)) = lines.next().await? {
        require_few(operations.len(), "changes in one commit", MAX_FILES)?;
        let line: Line = serde_json::from_slice(&line).map_err(|error| {
            HubFailure::Malformed(format!("line {number} is no change of a commit: {error}"))
        })?;
        match line {
            Line::Header { parent_commit } => parent = parent_commit,
            line => operations.push(operation(caller, named, number, line).await?),
        }
    }
    let registry = &caller.state.registry;
    let commit = registry
        .hub_commit(NewCommit {
            repository: named.repository.clone(),
            branch,
            from: None,
            parent,
            operations,
        })
        .await?;
    Ok(Json(json!({
        "success": true,
        "commitOid": commit.as_str(),
        "commitUrl": format!("{}/{}/commit/{commit}", caller.root_url(), named.id),
        "pullRequestUrl": null,
        "hookOutput": "",
    }))
    .into_response())
}

/// What a line changes. The content of a file in it is stored at once, so that no more than one is
/// in memory.
async fn operation(
    caller: &Caller<'_>,
    named: &Named,
    number: usize,
    line: Line,
) -> Result<Operation, HubFailure> {
    let wrong = |why: &str| HubFailure::Malformed(format!("line {number}: {why}"));
    Ok(match line {
        Line::Header { .. } => return Err(wrong("there is a header already")),
        Line::File {
            path,
            content,
            encoding,
        } => {
            let path = committed_path(&path)?;
            let content = match encoding.as_deref() {
                None | Some("base64") => STANDARD
                    .decode(content)
                    .map_err(|_| wrong("the content is not Base64"))?,
                Some("utf-8") => content.into_bytes(),
                Some(_) => return Err(wrong("the encoding must be base64 or utf-8")),
            };
            let size = Some(content.len() as u64);
            let registry = &caller.state.registry;
            let digest = registry
                .hub_store(&named.repository, Bytes::from(content))
                .await?;
            Operation::Put { path, digest, size }
        }
        Line::LfsFile {
            path,
            algo,
            oid,
            size,
        } => {
            if algo.is_some_and(|algo| algo != "sha256") {
                return Err(wrong("content is named by its sha256 here"));
            }
            let digest = Digest::from_hex(Algorithm::Sha256, &oid).map_err(Error::Digest)?;
            let path = committed_path(&path)?;
            Operation::Put { path, digest, size }
        }
        Line::DeletedFile { path } => Operation::DeleteFile(committed_path(&path)?),
        Line::DeletedFolder { path } => {
            Operation::DeleteFolder(committed_path(path.trim_end_matches('/'))?)
        }
    })
}

/// A path that a file may have here. Git's own folder would confuse whoever clones later.
fn committed_path(path: &str) -> Result<String, HubFailure> {
    let clean = clean_path(path).filter(|path| !path.split('/').any(|name| name == ".git"));
    let clean = clean.ok_or_else(|| Refusal::PathInvalid {
        path: path.chars().take(200).collect(),
    });
    Ok(clean.map_err(Error::Hub)?.to_owned())
}

fn require_few(count: usize, what: &'static str, most: usize) -> Result<(), HubFailure> {
    if count <= most {
        return Ok(());
    }
    Err(Error::Hub(Refusal::TooMany { what, most }).into())
}

fn refuse_pull_request(caller: &Caller<'_>) -> Result<(), HubFailure> {
    match Query::parse(&caller.parts.uri).get("create_pr") {
        None | Some("" | "0" | "false") => Ok(()),
        Some(_) => Err(HubFailure::Malformed(
            "there are no pull requests here: commit to a branch".to_owned(),
        )),
    }
}

/// The lines of a body, each of at most [`LINE_BYTES`].
struct Lines<'a> {
    body: &'a mut Incoming,
    rest: BytesMut,
    /// Up to here there is no line break.
    searched: usize,
    number: usize,
    received: u64,
}

impl<'a> Lines<'a> {
    fn new(body: &'a mut Incoming) -> Self {
        Self {
            body,
            rest: BytesMut::new(),
            searched: 0,
            number: 0,
            received: 0,
        }
    }

    /// The next line that is not blank, and its number.
    async fn next(&mut self) -> Result<Option<(usize, BytesMut)>, HubFailure> {
        loop {
            let found = self.rest[self.searched..]
                .iter()
                .position(|byte| *byte == b'\n');
            if let Some(at) = found {
                let line = self.rest.split_to(self.searched + at + 1);
                self.searched = 0;
                self.number += 1;
                if !line.trim_ascii().is_empty() {
                    return Ok(Some((self.number, line)));
                }
                continue;
            }
            self.searched = self.rest.len();
            if self.rest.len() > LINE_BYTES {
                return Err(HubFailure::TooLarge(LINE_BYTES));
            }
            match self.body.next().await {
                Some(Ok(piece)) => {
                    self.received += piece.len() as u64;
                    self.rest.extend_from_slice(&piece);
                }
                Some(Err(source)) => {
                    let received = self.received;
                    let broken = Error::BodyCutOff { received, source };
                    return Err(Failure::Registry(broken).into());
                }
                None => {
                    let line = self.rest.split();
                    self.searched = 0;
                    self.number += 1;
                    let is_blank = line.trim_ascii().is_empty();
                    return Ok((!is_blank).then_some((self.number, line)));
                }
            }
        }
    }
}
