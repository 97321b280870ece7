//! What a repository holds at a commit: its files, with the digests of those that are in LFS.
//!
//! Hints at Xet (`xetHash`) are not read: the plain way works for every file.

use serde::Deserialize;

use crate::client::answer::json;
use crate::client::error::Error;
use crate::client::origin::huggingface::api::Api;
use crate::client::registry::next_page;
use crate::digest::Digest;
use crate::manifest::MAX_BLOB_BYTES;

/// Most files of a repository that are looked at.
const MAX_FILES: usize = 100_000;
/// Most bytes of one page of a listing; a page of a thousand files is about 300 KiB.
const MAX_PAGE_BYTES: usize = 16 * 1024 * 1024;
/// Most bytes of the answer about a model; its list of files is in it.
const MAX_INFO_BYTES: usize = 16 * 1024 * 1024;
/// Longest path of a file, in bytes.
const MAX_PATH_BYTES: usize = 1024;

/// A repository at a commit.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Revision {
    /// Its name in the spelling that Hugging Face uses.
    pub(super) id: String,
    /// The commit: 40 hexadecimal digits.
    pub(super) sha: String,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct File {
    /// Its path in the repository.
    pub(super) path: String,
    /// Its size in bytes.
    pub(super) size: u64,
    /// The digest of its content, if it is in LFS.
    pub(super) digest: Option<Digest>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(default)]
    size: u64,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    oid: String,
    size: Option<u64>,
}

#[derive(Deserialize)]
struct Refs {
    #[serde(default)]
    branches: Vec<Ref>,
}

#[derive(Deserialize)]
struct Ref {
    name: String,
}

/// Asks which commit a revision is.
pub(super) async fn revision(api: &Api, name: &str, revision: &str) -> Result<Revision, Error> {
    let path = ["api", "models"].into_iter().chain(name.split('/'));
    let url = api.url(path.chain(["revision", revision]))?;
    let answer = api.get(url.clone(), name).await?;
    let found: Revision = json(answer, MAX_INFO_BYTES).await?;
    let is_commit = found.sha.len() == 40 && found.sha.bytes().all(|b| b.is_ascii_hexdigit());
    if !is_commit || !is_name(&found.id) {
        return Err(Error::Answer {
            url: url.to_string(),
            reason: "it names no repository and commit".to_owned(),
        });
    }
    Ok(found)
}

/// Lists the files of a commit, in the order of their paths.
pub(super) async fn files(api: &Api, at: &Revision) -> Result<Vec<File>, Error> {
    let path = ["api", "models"].into_iter().chain(at.id.split('/'));
    let mut url = api.url(path.chain(["tree", &at.sha]))?;
    url.set_query(Some("recursive=true&expand=false"));
    let place = url.to_string();
    let mut files = Vec::new();
    let mut next = Some(url);
    while let Some(url) = next.take() {
        let answer = api.get(url.clone(), &at.id).await?;
        let following = next_page(&answer, &url);
        let page: Vec<Entry> = json(answer, MAX_PAGE_BYTES).await?;
        next = following.filter(|following| !page.is_empty() && *following != url);
        for entry in page.into_iter().filter(|entry| entry.kind == "file") {
            files.push(file(entry, &place)?);
        }
        if files.len() > MAX_FILES {
            return Err(Error::Unsupported {
                what: at.id.clone(),
                place: api.place(),
                reason: "it has more than 100,000 files",
            });
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files.dedup_by(|a, b| a.path == b.path);
    Ok(files)
}

/// The branches of a repository.
pub(super) async fn branches(api: &Api, name: &str) -> Result<Vec<String>, Error> {
    let path = ["api", "models"].into_iter().chain(name.split('/'));
    let answer = api.get(api.url(path.chain(["refs"]))?, name).await?;
    let refs: Refs = json(answer, MAX_INFO_BYTES).await?;
    Ok(refs
        .branches
        .into_iter()
        .map(|branch| branch.name)
        .collect())
}

fn file(entry: Entry, url: &str) -> Result<File, Error> {
    let fault = |reason: &str| Error::Answer {
        url: url.to_owned(),
        reason: format!(
            "{reason}: {:?}",
            entry.path.chars().take(200).collect::<String>()
        ),
    };
    let is_path = entry.path.len() <= MAX_PATH_BYTES
        && !entry.path.contains(['\0', '\\'])
        && entry
            .path
            .split('/')
            .all(|part| !part.is_empty() && part != "." && part != "..");
    if !is_path {
        return Err(fault("a file has a path that cannot be one"));
    }
    let digest = entry.lfs.as_ref().map(|lfs| {
        Digest::parse(&format!("sha256:{}", lfs.oid))
            .map_err(|_| fault("a file in LFS has no SHA-256"))
    });
    let size = entry
        .lfs
        .as_ref()
        .and_then(|lfs| lfs.size)
        .unwrap_or(entry.size);
    if size > MAX_BLOB_BYTES {
        return Err(fault("a file has a size that cannot be one"));
    }
    Ok(File {
        digest: digest.transpose()?,
        size,
        path: entry.path,
    })
}

/// `name` or `owner/name`, in the letters that Hugging Face allows.
pub(super) fn is_name(text: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty()
            && part.len() <= 96
            && part != "."
            && part != ".."
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
    };
    text.split('/').count() <= 2 && text.split('/').all(is_part)
}
