//! Pull secrets: logins as Kubernetes hands them out, mounted as files.
//!
//! Which entry is for which registry is told as the kubelet tells it (`credentialprovider`'s
//! keyring): a key is a host with an optional port and path, with or without a scheme; `*` stands
//! for any characters within one part of a host name; the path is a prefix of the repository; the
//! most specific key decides.

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::{Login, MAX_BYTES};

/// Names of files that hold logins, in the order in which they are looked for.
const FILE_NAMES: [&str; 3] = [".dockerconfigjson", "config.json", ".dockercfg"];
/// Most folders below a named one that are looked into.
const MAX_FOLDERS: usize = 256;
/// What Docker Hub is called in a key.
const DOCKER_HUB: [&str; 2] = ["index.docker.io", "registry-1.docker.io"];

/// Why a file cannot be used. The text never repeats what stands in it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub(super) struct Unusable {
    path: PathBuf,
    reason: String,
}

/// An entry of a file; what else stands there is not ours.
#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<String>,
    /// Name and password joined by a colon, in Base64.
    #[serde(default)]
    auth: Option<String>,
}

/// Docker's form since 2014.
#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

/// The files with logins at a place that was named: a file, a folder that holds one (a mounted
/// secret), or a folder of such folders. What is not there is passed over.
pub(super) fn files_at(place: &Path) -> Result<Vec<PathBuf>, Unusable> {
    let unusable = |error: std::io::Error| Unusable {
        path: place.to_owned(),
        reason: error.to_string(),
    };
    match fs::metadata(place) {
        Ok(found) if found.is_dir() => {}
        Ok(_) => return Ok(vec![place.to_owned()]),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unusable(error)),
    }
    let mut folders = vec![place.to_owned()];
    for entry in fs::read_dir(place).map_err(unusable)?.take(MAX_FOLDERS) {
        let entry = entry.map_err(unusable)?;
        // `..data` and the folder it leads to are how a secret changes at once; what lies in them
        // is linked from above.
        let is_inner = entry.file_name().to_string_lossy().starts_with("..");
        if !is_inner && entry.path().is_dir() {
            folders.push(entry.path());
        }
    }
    folders[1..].sort();
    let candidates = folders
        .iter()
        .flat_map(|folder| FILE_NAMES.map(|name| folder.join(name)));
    Ok(candidates.filter(|path| path.is_file()).collect())
}

/// The login in these files for a repository, or for the registry as a whole, and its file: of the most specific
/// key, and of the first file where two are equally so.
pub(super) fn find(
    files: &[PathBuf],
    registry: &str,
    repository: Option<&str>,
) -> Result<Option<(PathBuf, Login)>, Unusable> {
    let mut best: Option<(Rank, PathBuf, Login)> = None;
    for file in files {
        let Some(entries) = read(file)? else {
            continue;
        };
        for (key, entry) in entries {
            let Some(rank) = matches(&key, registry, repository) else {
                continue;
            };
            let is_better = best.as_ref().is_none_or(|(known, ..)| rank > *known);
            if is_better && let Some(login) = login_of(entry, file)? {
                best = Some((rank, file.clone(), login));
            }
        }
    }
    Ok(best.map(|(_, file, login)| (file, login)))
}

/// The entries of a file, or nothing when it went away.
fn read(path: &Path) -> Result<Option<BTreeMap<String, Entry>>, Unusable> {
    let unusable = |reason: String| Unusable {
        path: path.to_owned(),
        reason,
    };
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unusable(error.to_string())),
    };
    let mut text = Vec::new();
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut text)
        .map_err(|error| unusable(error.to_string()))?;
    if text.len() as u64 > MAX_BYTES {
        return Err(unusable(format!("it has more than {MAX_BYTES} bytes")));
    }
    // Not the parser's own words: they quote what they stumble over.
    let malformed = |error: serde_json::Error| {
        let (line, column) = (error.line(), error.column());
        unusable(format!(
            "it does not have the form of a Docker configuration (line {line}, column {column})"
        ))
    };
    let fields: BTreeMap<String, serde_json::Value> =
        serde_json::from_slice(&text).map_err(malformed)?;
    let is_docker_config = ["auths", "credsStore", "credHelpers"]
        .iter()
        .any(|field| fields.contains_key(*field));
    let entries = if is_docker_config {
        let config: DockerConfig = serde_json::from_slice(&text).map_err(malformed)?;
        config.auths
    } else {
        // `.dockercfg`: the entries alone.
        serde_json::from_slice(&text).map_err(malformed)?
    };
    Ok(Some(entries))
}

fn login_of(entry: Entry, file: &Path) -> Result<Option<Login>, Unusable> {
    if let (Some(username), Some(password)) = (entry.username, entry.password)
        && !username.is_empty()
    {
        return Ok(Some(Login { username, password }));
    }
    let Some(auth) = entry.auth.filter(|auth| !auth.is_empty()) else {
        return Ok(None);
    };
    let decoded = STANDARD.decode(auth.trim()).ok();
    let decoded = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
    match decoded.as_deref().and_then(|text| text.split_once(':')) {
        Some((username, password)) => Ok(Some(Login {
            username: username.to_owned(),
            // Docker on Windows once padded passwords so.
            password: password.trim_end_matches('\0').to_owned(),
        })),
        None => Err(Unusable {
            path: file.to_owned(),
            reason: "the auth of an entry is not NAME:PASSWORD in Base64".to_owned(),
        }),
    }
}

/// How specific a key is: by its path, then by how little of its host is a wildcard.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    path: usize,
    exact_host: bool,
    host: usize,
}

/// How well a key fits, or nothing when it does not.
fn matches(key: &str, registry: &str, repository: Option<&str>) -> Option<Rank> {
    let key = key.strip_prefix("https://").unwrap_or(key);
    let key = key.strip_prefix("http://").unwrap_or(key);
    let (host, path) = key.split_once('/').unwrap_or((key, ""));
    // Versions of the protocol, as docker login writes them, are no part of a repository's name.
    let path = path
        .strip_prefix("v1/")
        .or_else(|| path.strip_prefix("v2/"))
        .unwrap_or(if path == "v1" || path == "v2" {
            ""
        } else {
            path
        });
    let path = path.trim_end_matches('/');
    let host = if DOCKER_HUB.contains(&host) {
        "docker.io"
    } else {
        host
    };
    let fits = host_fits(host, registry)
        && (path.is_empty() || repository.is_some_and(|name| name.starts_with(path)));
    fits.then(|| Rank {
        path: path.len(),
        exact_host: !host.contains('*'),
        host: host.len(),
    })
}

/// Hosts part by part, `*` for any characters within one; ports to the letter.
fn host_fits(pattern: &str, registry: &str) -> bool {
    let (pattern, pattern_port) = split_port(pattern);
    let (host, port) = split_port(registry);
    if pattern_port != port {
        return false;
    }
    let (patterns, parts) = (pattern.split('.'), host.split('.'));
    patterns.clone().count() == parts.clone().count()
        && patterns
            .zip(parts)
            .all(|(pattern, part)| part_fits(pattern, part))
}

fn split_port(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (host, None),
    }
}

/// Whether `*` in the pattern can be filled so that it is the part: each piece between two of them
/// is taken at its first place, which leaves the most for the others.
fn part_fits(pattern: &str, part: &str) -> bool {
    let (pattern, part) = (pattern.to_ascii_lowercase(), part.to_ascii_lowercase());
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == part;
    };
    let Some(mut left) = part.strip_prefix(first) else {
        return false;
    };
    let mut pieces: Vec<&str> = rest.split('*').collect();
    let last = pieces.pop().unwrap_or_default();
    for piece in pieces {
        match left.find(piece) {
            Some(at) => left = &left[at + piece.len()..],
            None => return false,
        }
    }
    left.ends_with(last)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use crate::client::logins::secrets::{files_at, find, matches};

    fn secret(folder: &Path, version: &str, name: &str, text: &str) {
        let inner = folder.join(format!("..{version}"));
        fs::create_dir_all(&inner).unwrap();
        fs::write(inner.join(name), text).unwrap();
        let temporary = folder.join("..data_tmp");
        symlink(format!("..{version}"), &temporary).unwrap();
        fs::rename(temporary, folder.join("..data")).unwrap();
        if !folder.join(name).exists() {
            symlink(format!("..data/{name}"), folder.join(name)).unwrap();
        }
    }

    fn user(place: &Path, registry: &str, repository: &str) -> Option<String> {
        let files = files_at(place).unwrap();
        let found = find(&files, registry, Some(repository)).unwrap();
        found.map(|(_, login)| format!("{}:{}", login.username, login.password))
    }

    #[test]
    fn keys_fit_as_the_kubelet_fits_them() {
        let fits = |key, registry| matches(key, registry, Some("team/model")).is_some();
        for (key, registry) in [
            ("registry.example.com", "registry.example.com"),
            ("https://registry.example.com/v2/", "registry.example.com"),
            (
                "http://registry.example.com:5000",
                "registry.example.com:5000",
            ),
            ("*.example.com", "registry.example.com"),
            ("prefix.*.com", "prefix.example.com"),
            ("*-good.example.com", "very-good.example.com"),
            ("registry.example.com/team", "registry.example.com"),
            ("registry.example.com/team/model", "registry.example.com"),
            ("https://index.docker.io/v1/", "docker.io"),
            ("[::1]:5000", "[::1]:5000"),
        ] {
            assert!(fits(key, registry), "{key} for {registry}");
        }
        for (key, registry) in [
            ("*.example.com", "example.com"),
            ("*.example.com", "a.b.example.com"),
            ("registry.example.com:5000", "registry.example.com"),
            ("registry.example.com", "registry.example.com:5000"),
            ("registry.example.com/other", "registry.example.com"),
            ("*", "registry.example.com"),
            ("", "registry.example.com"),
        ] {
            assert!(!fits(key, registry), "{key} for {registry}");
        }
    }

    #[test]
    fn the_most_specific_key_decides_whatever_the_file() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [
            (
                "a",
                r#"{"auths":{"*.example.com":{"auth":"YW55OjE="},"r.example.com":{"auth":"aG9zdDoy"}}}"#,
            ),
            (
                "b",
                r#"{"auths":{"r.example.com/team":{"username":"team","password":"3"}}}"#,
            ),
        ] {
            fs::create_dir(folder.path().join(name)).unwrap();
            secret(&folder.path().join(name), "1", ".dockerconfigjson", text);
        }
        let user = |registry, repository| user(folder.path(), registry, repository);
        assert_eq!(user("r.example.com", "team/x").as_deref(), Some("team:3"));
        assert_eq!(user("r.example.com", "x").as_deref(), Some("host:2"));
        assert_eq!(user("s.example.com", "team/x").as_deref(), Some("any:1"));
        assert_eq!(user("example.org", "team/x"), None);
    }

    #[test]
    fn a_secret_that_changes_is_seen_and_one_that_is_gone_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("secret");
        assert_eq!(user(&place, "r", "x"), None);
        fs::create_dir(&place).unwrap();
        secret(&place, "1", ".dockercfg", r#"{"r":{"auth":"YTox"}}"#);
        assert_eq!(user(&place, "r", "x").as_deref(), Some("a:1"));
        secret(&place, "2", ".dockercfg", r#"{"r":{"auth":"Yjoy"}}"#);
        assert_eq!(user(&place, "r", "x").as_deref(), Some("b:2"));
        assert_eq!(
            user(&place.join(".dockercfg"), "r", "x").as_deref(),
            Some("b:2")
        );
    }

    #[test]
    fn what_is_wrong_with_a_file_is_told_without_what_stands_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.json");
        for text in [
            r#"{"auths":{"r":"geheim"}}"#,
            r#"{"auths":{"r":{"auth":"geheim"}}}"#,
            r#"{"auths":{"r":{"auth":["geheim"]}}}"#,
            "geheim",
        ] {
            fs::write(&file, text).unwrap();
            let Err(error) = find(std::slice::from_ref(&file), "r", None) else {
                panic!("{text}")
            };
            let said = error.to_string();
            assert!(
                said.contains("config.json") && !said.contains("geheim"),
                "{said}"
            );
        }
    }
}
