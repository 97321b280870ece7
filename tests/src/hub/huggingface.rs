//! Hugging Face: information, listings, references, and files.

use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use serde_json::{Value, json};

use super::repository::{Access, File, Files, Storage};
use super::{State, answers};
use crate::wire::{After, Content, Request, Wire, content, send_small};

/// An answer whose body is short.
struct Short {
    status: u16,
    headers: String,
    body: String,
}

impl Short {
    fn json(value: &Value) -> Self {
        Self {
            status: 200,
            headers: "content-type: application/json; charset=utf-8\r\n".to_owned(),
            body: value.to_string(),
        }
    }

    fn error(status: u16, code: &str, message: &str) -> Self {
        Self {
            status,
            headers: format!(
                "content-type: application/json\r\nx-error-code: {code}\r\n\
                 x-error-message: {message}\r\n"
            ),
            body: json!({ "error": message }).to_string(),
        }
    }
}

/// Either an answer, or the bytes of a file that the hub itself has.
enum Found {
    Short(Short),
    File(String, String, Bytes),
}

pub(super) async fn answer(
    wire: &mut Wire,
    state: &State,
    second: SocketAddr,
    request: &Request,
) -> io::Result<After> {
    match find(state, second, request) {
        Found::Short(short) => {
            let body = if request.is_head() { "" } else { &short.body };
            send_small(wire, short.status, &short.headers, body.as_bytes()).await
        }
        Found::File(name, headers, body) => {
            let sent = state.sent(&name);
            let found = Content {
                body: &body,
                headers: &headers,
                faults: &state.of_content,
                sent: &[&sent],
            };
            content(wire, request, found).await
        }
    }
}

/// The name and the bytes behind a signed path, `/repos/<owner>/<name>/<sha256>`.
pub(super) fn in_lfs(state: &State, path: &str) -> (String, Option<Bytes>) {
    let inner = state.lock();
    let unknown = || (path.to_owned(), None);
    let Some((id, sha256)) = path
        .strip_prefix("/repos/")
        .and_then(|rest| rest.rsplit_once('/'))
    else {
        return unknown();
    };
    let Some(repository) = inner.repositories.get(id) else {
        return unknown();
    };
    let commits = repository.branches.values();
    let found = commits
        .filter_map(|commit| repository.files(commit))
        .flat_map(|(_, files)| files)
        .find(|(_, file)| file.sha256() == sha256);
    match found {
        Some((path, file)) => (format!("{id}/{path}"), Some(file.bytes.clone())),
        None => unknown(),
    }
}

fn find(state: &State, second: SocketAddr, request: &Request) -> Found {
    let path = percent_decoded(request.bare_path());
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    match parts.as_slice() {
        ["api", "whoami-v2"] => Found::Short(whoami(state, request)),
        ["api", "models", owner, name, rest @ ..] => {
            Found::Short(api(state, request, &format!("{owner}/{name}"), rest))
        }
        [owner, name, "resolve", revision, file @ ..] => {
            let id = format!("{owner}/{name}");
            resolve(state, second, request, &id, revision, &file.join("/"))
        }
        _ => Found::Short(Short::error(404, "", "Not Found")),
    }
}

fn whoami(state: &State, request: &Request) -> Short {
    if is_known(state, request) {
        Short::json(&json!({ "type": "user", "name": "test" }))
    } else {
        Short::error(401, "", "Invalid username or password.")
    }
}

/// Whether the request carries the token that lets in.
fn is_known(state: &State, request: &Request) -> bool {
    let token = state.lock().token.clone();
    token.is_some_and(|token| {
        request.header("authorization") == Some(format!("Bearer {token}").as_str())
    })
}

/// The name of a repository as it is spelled here, or an answer in its stead: a redirect for
/// another spelling, 401 for one that is not there, as for one that nobody may know of.
fn canonical(state: &State, request: &Request, id: &str) -> Result<String, Short> {
    let is_known = is_known(state, request);
    let inner = state.lock();
    let absent = || {
        Short::error(
            401,
            "RepoNotFound",
            "Repository not found. Invalid username or password.",
        )
    };
    let mut names = inner.repositories.keys();
    let found = names
        .find(|name| name.eq_ignore_ascii_case(id))
        .ok_or_else(absent)?;
    if inner.repositories[found].access == Access::Private && !is_known {
        return Err(absent());
    }
    if found != id {
        return Err(Short {
            status: 307,
            headers: format!("location: {}\r\n", request.path.replacen(id, found, 1)),
            body: format!("Temporary Redirect. Redirecting to {found}"),
        });
    }
    Ok(found.clone())
}

fn api(state: &State, request: &Request, id: &str, rest: &[&str]) -> Short {
    let id = match canonical(state, request, id) {
        Ok(id) => id,
        Err(short) => return short,
    };
    let inner = state.lock();
    let repository = &inner.repositories[&id];
    let unknown = || Short::error(404, "RevisionNotFound", "Invalid rev id");
    match rest {
        ["refs"] => {
            let branches = repository.branches.iter().map(|(name, commit)| {
                json!({ "name": name, "ref": format!("refs/heads/{name}"), "targetCommit": commit })
            });
            let branches: Vec<_> = branches.collect();
            Short::json(&json!({ "branches": branches, "tags": [], "converts": [] }))
        }
        [] | ["revision", _] => {
            let revision = rest.get(1).copied().unwrap_or("main");
            let Some((commit, files)) = repository.files(revision) else {
                return unknown();
            };
            let siblings: Vec<_> = files
                .keys()
                .map(|path| json!({ "rfilename": path }))
                .collect();
            Short::json(&json!({
                "id": id, "modelId": id, "sha": commit, "siblings": siblings,
                "private": repository.access == Access::Private,
                "gated": repository.access == Access::Gated, "tags": ["gguf"],
            }))
        }
        ["tree", revision] => match repository.files(revision) {
            Some((_, files)) => tree(request, files, inner.page),
            None => unknown(),
        },
        ["paths-info", revision] => match repository.files(revision) {
            Some((_, files)) => paths_info(request, files),
            None => unknown(),
        },
        _ => Short::error(404, "", "Not Found"),
    }
}

/// A page of the listing; the cursor is the number of the first entry.
fn tree(request: &Request, files: &Files, page: usize) -> Short {
    let start = request
        .parameter("cursor")
        .and_then(|cursor| cursor.parse().ok())
        .unwrap_or(0);
    let entries: Vec<_> = files.iter().skip(start).take(page).map(entry).collect();
    let mut short = Short::json(&Value::Array(entries));
    if start + page < files.len() {
        let path = request.bare_path();
        let host = request.header("host").unwrap_or_default();
        short.headers.push_str(&format!(
            "link: <http://{host}{path}?recursive=true&expand=false&cursor={}>; rel=\"next\"\r\n",
            start + page
        ));
    }
    short
}

fn entry((path, file): (&String, &File)) -> Value {
    let mut entry = json!({
        "type": "file", "oid": file.oid(), "size": file.bytes.len(), "path": path,
    });
    if file.storage == Storage::Lfs {
        entry["lfs"] = json!({
            "oid": file.sha256(), "size": file.bytes.len(), "pointerSize": 135,
        });
        entry["xetHash"] = json!(file.sha256());
    }
    entry
}

fn paths_info(request: &Request, files: &Files) -> Short {
    let asked: Vec<String> = match serde_json::from_slice::<Value>(&request.body) {
        Ok(body) => body["paths"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|path| path.as_str().map(str::to_owned))
            .collect(),
        Err(_) => String::from_utf8_lossy(&request.body)
            .split('&')
            .filter_map(|pair| pair.strip_prefix("paths="))
            .map(percent_decoded)
            .collect(),
    };
    let found = files.iter().filter(|(path, _)| asked.contains(path));
    Short::json(&Value::Array(found.map(entry).collect()))
}

fn resolve(
    state: &State,
    second: SocketAddr,
    request: &Request,
    id: &str,
    revision: &str,
    path: &str,
) -> Found {
    let id = match canonical(state, request, id) {
        Ok(id) => id,
        Err(short) => return Found::Short(short),
    };
    let is_known = is_known(state, request);
    let (commit, file) = {
        let inner = state.lock();
        let repository = &inner.repositories[&id];
        if repository.access == Access::Gated && !is_known {
            let message = format!("Access to model {id} is restricted.");
            let has_token = request.header("authorization").is_some();
            let status = if has_token { 403 } else { 401 };
            return Found::Short(Short::error(status, "GatedRepo", &message));
        }
        let Some((commit, files)) = repository.files(revision) else {
            return Found::Short(Short::error(404, "RevisionNotFound", "Invalid rev id"));
        };
        let Some(file) = files.get(path) else {
            let mut short = Short::error(404, "EntryNotFound", "Entry not found");
            short
                .headers
                .push_str(&format!("x-repo-commit: {commit}\r\n"));
            return Found::Short(short);
        };
        (commit.to_owned(), file.clone())
    };
    let headers = format!("x-repo-commit: {commit}\r\naccept-ranges: bytes\r\n");
    match file.storage {
        Storage::Git => {
            let headers = format!("{headers}etag: \"{}\"\r\n", file.etag());
            Found::File(format!("{id}/{path}"), headers, file.bytes)
        }
        Storage::Lfs => {
            let sha256 = file.sha256();
            let url = answers::sign(state, second, &format!("/repos/{id}/{sha256}"));
            let endpoint = request.header("host").unwrap_or_default();
            Found::Short(Short {
                status: 302,
                headers: format!(
                    "{headers}location: {url}\r\nx-linked-etag: \"{sha256}\"\r\n\
                     x-linked-size: {}\r\nx-xet-hash: {sha256}\r\n\
                     link: <http://{endpoint}/api/models/{id}/xet-read-token/{commit}>; \
                     rel=\"xet-auth\"\r\n",
                    file.bytes.len()
                ),
                body: String::new(),
            })
        }
    }
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..2).filter(|_| *first == b'%');
        let code = code.and_then(|hex| std::str::from_utf8(hex).ok());
        match code.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
