//! The files of a revision: whole trees, folders, and what is known of single paths.

use std::collections::HashSet;

use artifact::Digest;
use artifact::hub::HubFile;
use axum::Json;
use axum::response::{IntoResponse, Response};
use http::header;
use http::request::Parts;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::Error;
use crate::http::hub::endpoint::{Asked, Named};
use crate::http::hub::failure::HubFailure;
use crate::http::hub::info::moment;
use crate::http::hub::{Caller, is_form, read};
use crate::http::incoming::Incoming;
use crate::http::insert;
use crate::http::query::Query;
use crate::service::hub::{Refusal, Snapshot};

/// Most entries of one page, as Hugging Face has it.
const PAGE: usize = 1_000;
/// Most paths that are asked for at once; its libraries ask for 500.
const MOST_PATHS: usize = 1_000;
/// Largest body that names paths.
const PATHS_BYTES: usize = 2 * 1024 * 1024;

/// `GET …/tree/<rev>[/<folder>]?recursive=&expand=&cursor=`
pub(super) async fn tree(
    caller: &Caller<'_>,
    named: &Named,
    asked: &Asked,
    folder: Option<String>,
) -> Result<Response, HubFailure> {
    let uri = &caller.parts.uri;
    let (_, snapshot) = caller.snapshot(named, asked).await?;
    let folder = folder
        .filter(|folder| snapshot.has_folder(folder))
        .ok_or_else(|| Refusal::EntryUnknown {
            path: uri.path().chars().take(200).collect(),
            commit: snapshot.commit.to_string(),
        })
        .map_err(Error::Hub)?;
    let query = Query::parse(uri);
    let is_set = |name| query.get(name).is_some_and(is_true);
    let (is_recursive, is_expanded) = (is_set("recursive"), is_set("expand"));
    let number = |name| query.get(name).and_then(|text| text.parse::<usize>().ok());
    let from = number("cursor").unwrap_or(0);
    let limit = number("limit").unwrap_or(PAGE).clamp(1, PAGE);
    let entries = entries(&snapshot, &folder, is_recursive, is_expanded);
    let page: Vec<&Value> = entries.iter().skip(from).take(limit).collect();
    let next = from.saturating_add(page.len());
    let mut response = Json(&page).into_response();
    if next < entries.len() && !page.is_empty() {
        // The rest of this commit, whatever becomes of the branch meanwhile.
        let link = format!(
            "<{}/api/models/{}/tree/{}{}?recursive={is_recursive}&expand={is_expanded}&limit={limit}&cursor={next}>; rel=\"next\"",
            caller.root_url(),
            named.id,
            snapshot.commit,
            if folder.is_empty() {
                String::new()
            } else {
                format!("/{}", encoded(&folder))
            },
        );
        insert(&mut response, header::LINK, &link);
    }
    Ok(response)
}

/// `POST …/paths-info/<rev>`: what is known of these paths; absent ones are left out.
pub(super) async fn paths_info(
    caller: &Caller<'_>,
    named: &Named,
    asked: &Asked,
    body: &mut Incoming,
) -> Result<Response, HubFailure> {
    let wanted = Wanted::read(caller.parts, body).await?;
    let (_, snapshot) = caller.snapshot(named, asked).await?;
    let mut found = Vec::new();
    for path in &wanted.paths {
        let path = path.trim_matches('/');
        if let Some(file) = snapshot.files.iter().find(|file| file.path == path) {
            found.push(file_entry(&snapshot, file, wanted.expand));
        } else if !path.is_empty() && snapshot.has_folder(path) {
            found.push(folder_entry(&snapshot, path, wanted.expand));
        }
    }
    Ok(Json(found).into_response())
}

/// What `paths-info` is asked for, as JSON or as a form.
#[derive(Debug, Deserialize)]
struct Wanted {
    paths: Vec<String>,
    #[serde(default)]
    expand: bool,
}

impl Wanted {
    async fn read(parts: &Parts, body: &mut Incoming) -> Result<Self, HubFailure> {
        let content = read(body, PATHS_BYTES).await?;
        let wanted = if is_form(parts) {
            let mut wanted = Self {
                paths: Vec::new(),
                expand: false,
            };
            for (key, value) in url::form_urlencoded::parse(&content) {
                match key.as_ref() {
                    "paths" => wanted.paths.push(value.into_owned()),
                    "expand" => wanted.expand = is_true(&value),
                    _ => {}
                }
            }
            wanted
        } else {
            serde_json::from_slice(&content).map_err(|error| {
                HubFailure::Malformed(format!("the body must name paths: {error}"))
            })?
        };
        if wanted.paths.len() > MOST_PATHS {
            let what = "paths at once";
            return Err(Error::Hub(Refusal::TooMany {
                what,
                most: MOST_PATHS,
            })
            .into());
        }
        Ok(wanted)
    }
}

/// The entries of a folder, each folder before what is in it.
fn entries(snapshot: &Snapshot, folder: &str, is_recursive: bool, is_expanded: bool) -> Vec<Value> {
    let mut entries = Vec::new();
    let mut seen = HashSet::new();
    for file in snapshot.files.iter().filter(|file| file.is_below(folder)) {
        let start = if folder.is_empty() {
            0
        } else {
            folder.len() + 1
        };
        let mut is_direct = true;
        for (at, _) in file.path[start..].match_indices('/') {
            let above = &file.path[..start + at];
            if (is_recursive || is_direct) && seen.insert(above.to_owned()) {
                entries.push(folder_entry(snapshot, above, is_expanded));
            }
            is_direct = false;
        }
        if is_recursive || is_direct {
            entries.push(file_entry(snapshot, file, is_expanded));
        }
    }
    entries
}

fn file_entry(snapshot: &Snapshot, file: &HubFile, is_expanded: bool) -> Value {
    let mut entry = json!({
        "type": "file",
        "path": file.path,
        "size": file.size,
        "oid": object_name(&file.digest),
        "lfs": {
            "oid": file.digest.hex(),
            "size": file.size,
            "pointerSize": file.pointer_size(),
        },
    });
    expand(&mut entry, snapshot, is_expanded);
    entry
}

fn folder_entry(snapshot: &Snapshot, path: &str, is_expanded: bool) -> Value {
    let name = format!("{}/{path}", snapshot.commit);
    let mut entry = json!({
        "type": "directory",
        "path": path,
        "size": 0,
        "oid": object_name(&Digest::sha256(name.as_bytes())),
    });
    expand(&mut entry, snapshot, is_expanded);
    entry
}

fn expand(entry: &mut Value, snapshot: &Snapshot, is_expanded: bool) {
    if is_expanded {
        entry["lastCommit"] = json!({
            "id": snapshot.commit.as_str(),
            "title": "",
            "date": moment(snapshot.updated),
        });
    }
}

/// Git's name of the object, which no client checks against the content: every file is one of the
/// large ones that are known by their SHA-256.
pub(super) fn object_name(digest: &Digest) -> String {
    let mut hex = digest.hex();
    hex.truncate(40);
    hex
}

fn is_true(text: &str) -> bool {
    matches!(text, "true" | "True" | "1")
}

fn encoded(text: &str) -> String {
    let encoded: String = url::form_urlencoded::byte_serialize(text.as_bytes()).collect();
    encoded.replace('+', "%20")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use artifact::Digest;
    use artifact::dialect::Role;
    use artifact::hub::{Commit, HubFile};
    use jiff::Timestamp;

    use crate::http::hub::tree::entries;
    use crate::service::hub::Snapshot;

    fn snapshot(paths: &[&str]) -> Snapshot {
        let file = |path: &&str| HubFile {
            path: (*path).to_owned(),
            digest: Digest::sha256(path.as_bytes()),
            size: 7,
            role: Role::Other,
            media_type: String::new(),
        };
        Snapshot {
            commit: Commit::of_digest(&Digest::sha256(b"x")),
            files: paths.iter().map(file).collect(),
            updated: Timestamp::UNIX_EPOCH,
            config: None,
            manifest: None,
            warning: None,
        }
    }

    fn listed(folder: &str, is_recursive: bool) -> Vec<String> {
        let snapshot = snapshot(&["a", "d/b", "d/e/c", "dd/x"]);
        let entries = entries(&snapshot, folder, is_recursive, false);
        let path = |entry: &serde_json::Value| entry["path"].as_str().unwrap().to_owned();
        entries.iter().map(path).collect()
    }

    #[test]
    fn folders_are_listed_alone_and_recursively() {
        assert_eq!(listed("", false), ["a", "d", "dd"]);
        let all = ["a", "d", "d/b", "d/e", "d/e/c", "dd", "dd/x"];
        assert_eq!(listed("", true), all);
        assert_eq!(listed("d", false), ["d/b", "d/e"]);
        assert_eq!(listed("d", true), ["d/b", "d/e", "d/e/c"]);
        assert!(listed("x", true).is_empty());
    }
}
