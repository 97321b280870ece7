//! A file: `HEAD` and `GET` of `/<repo>/resolve/<rev>/<path>`.

use artifact::Digest;
use axum::response::Response;
use http::header::HeaderName;
use http::{HeaderValue, Method, header};

use crate::error::Error;
use crate::http::hub::Caller;
use crate::http::hub::endpoint::{Asked, Named};
use crate::http::hub::failure::HubFailure;
use crate::http::{blobs, insert, warn};
use crate::service::hub::Refusal;
use crate::service::hub::revision::Revision;

/// The commit that a file belongs to. Clients file what they download under it.
pub(super) const REPO_COMMIT: HeaderName = HeaderName::from_static("x-repo-commit");
/// What the content hashes to, also where the answer is a redirect to it.
const LINKED_ETAG: HeaderName = HeaderName::from_static("x-linked-etag");
/// The size of the content, likewise.
const LINKED_SIZE: HeaderName = HeaderName::from_static("x-linked-size");
/// What a branch holds may change with the next request.
const ASK_AGAIN: HeaderValue = HeaderValue::from_static("no-cache");

/// The file, whole or in part, or what is known of it.
pub(super) async fn resolve(
    caller: &Caller<'_>,
    named: &Named,
    asked: &Asked,
    path: Option<String>,
) -> Result<Response, HubFailure> {
    let (state, parts) = (caller.state, caller.parts);
    let (repository, snapshot) = caller.snapshot(named, asked).await?;
    let path = path.ok_or_else(|| Refusal::EntryUnknown {
        path: parts.uri.path().chars().take(200).collect(),
        commit: snapshot.commit.to_string(),
    });
    let file = snapshot.file(&path.map_err(Error::Hub)?)?;
    let etag = etag_of(&file.digest);
    let mut response = if parts.method == Method::HEAD {
        blobs::head(state, repository, file.digest).await?
    } else {
        blobs::get_tagged(state, parts, repository, file.digest, &etag).await?
    };
    let is_commit = matches!(asked.revision, Some(Revision::Commit(_)));
    if !response.status().is_redirection() && !is_commit {
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, ASK_AGAIN);
    }
    insert(&mut response, REPO_COMMIT, snapshot.commit.as_str());
    insert(&mut response, header::ETAG, &etag);
    insert(&mut response, LINKED_ETAG, &etag);
    insert(&mut response, LINKED_SIZE, &file.size.to_string());
    let disposition = disposition_of(&file.path);
    insert(&mut response, header::CONTENT_DISPOSITION, &disposition);
    if let Some(warning) = &snapshot.warning {
        warn(&mut response, warning);
    }
    Ok(response)
}

fn etag_of(digest: &Digest) -> String {
    format!("\"{}\"", digest.hex())
}

/// The name to save the file under, in both forms that clients read.
fn disposition_of(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or(path);
    let plain: String = name
        .chars()
        .map(|letter| match letter {
            '"' | '\\' | ';' => '_',
            letter if letter.is_ascii_graphic() || letter == ' ' => letter,
            _ => '_',
        })
        .collect();
    let mut encoded = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    format!("inline; filename*=UTF-8''{encoded}; filename=\"{plain}\";")
}

#[cfg(test)]
mod tests {
    use crate::http::hub::resolve::disposition_of;

    #[test]
    fn a_name_cannot_end_its_header() {
        assert_eq!(
            disposition_of("a/b \"c\";\u{e4}.gguf"),
            "inline; filename*=UTF-8''b%20%22c%22%3B%C3%A4.gguf; filename=\"b _c___.gguf\";"
        );
    }
}
