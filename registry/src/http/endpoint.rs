//! Endpoint: the path of a request below `/v2/`, parsed once into a typed value.
//!
//! Repository names contain slashes, so a path is read from its end. Each segment is
//! percent-decoded once and then checked by the grammar of what it must be; nothing that could
//! leave a folder, collide with another name or change meaning later gets through. Upper case in a
//! name is folded here, so that nobody below meets it.

use artifact::reference::InvalidReference;
use artifact::{Digest, Repository};
use uuid::Uuid;

use crate::error::Error;
use crate::service::manifests::ManifestReference;

/// What a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// `/v2/`: end-1.
    Ping,
    /// `/v2/_catalog`: the list of repositories, as Docker's registry has it.
    Catalog,
    /// `/v2/<name>/blobs/<digest>`: end-2, end-10.
    Blob(Repository, Digest),
    /// `/v2/<name>/blobs/uploads/`: end-4, end-11.
    Uploads(Repository),
    /// `/v2/<name>/blobs/uploads/<id>`: end-5, end-6, end-13, end-14.
    Upload(Repository, Uuid),
    /// `/v2/<name>/manifests/<tag-or-digest>`: end-3, end-7, end-9.
    Manifest(Repository, ManifestReference),
    /// `/v2/<name>/tags/list`: end-8.
    Tags(Repository),
    /// `/v2/<name>/referrers/<digest>`: end-12.
    Referrers(Repository, Digest),
    /// `/v2/<name>/_hayloft/leases/<id>`: a lease on content of the repository.
    Lease(Repository, Uuid),
    /// `/v2/<name>/_hayloft/annotations/<digest>`: what is known of a blob.
    Annotations(Repository, Digest),
    /// `/v2/_hayloft/<task>`: looking after the storage.
    Admin(AdminTask),
}

/// Work on the storage of a running registry. No repository begins with an underscore, so these
/// paths cannot meet a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AdminTask {
    /// Collect what nobody refers to.
    Collect,
    /// Check that everything is there and right.
    Fsck,
    /// Make the index follow the records.
    Reindex,
    /// Tell how the mirror stands.
    Mirror,
    /// Bring a mirrored model in before anybody asks for it.
    Warm,
}

impl Endpoint {
    /// The repository that it is about, if it is about one.
    pub(crate) fn repository(&self) -> Option<&Repository> {
        match self {
            Self::Blob(repository, _)
            | Self::Uploads(repository)
            | Self::Upload(repository, _)
            | Self::Manifest(repository, _)
            | Self::Tags(repository)
            | Self::Referrers(repository, _)
            | Self::Annotations(repository, _)
            | Self::Lease(repository, _) => Some(repository),
            Self::Ping | Self::Catalog | Self::Admin(_) => None,
        }
    }

    /// Reads the path of a request. `None` when it is not of this API at all.
    pub(crate) fn parse(path: &str) -> Option<Result<Self, Error>> {
        let rest = path.strip_prefix("/v2")?;
        if rest.is_empty() || rest == "/" {
            return Some(Ok(Self::Ping));
        }
        let rest = rest.strip_prefix('/')?;
        let decoded: Option<Vec<String>> = rest.split('/').map(decode_segment).collect();
        let Some(decoded) = decoded else {
            return Some(Err(not_decodable(rest)));
        };
        let segments: Vec<&str> = decoded.iter().map(String::as_str).collect();
        match segments.as_slice() {
            ["_catalog"] => Some(Ok(Self::Catalog)),
            ["_hayloft", "collect"] => Some(Ok(Self::Admin(AdminTask::Collect))),
            ["_hayloft", "fsck"] => Some(Ok(Self::Admin(AdminTask::Fsck))),
            ["_hayloft", "reindex"] => Some(Ok(Self::Admin(AdminTask::Reindex))),
            ["_hayloft", "mirror"] => Some(Ok(Self::Admin(AdminTask::Mirror))),
            ["_hayloft", "mirror", "warm"] => Some(Ok(Self::Admin(AdminTask::Warm))),
            [name @ .., "_hayloft", "leases", id] => Some(lease(name, id)),
            [name @ .., "_hayloft", "annotations", text] => {
                Some(with_digest(name, text, Self::Annotations))
            }
            [name @ .., "blobs", "uploads", ""] | [name @ .., "blobs", "uploads"] => {
                Some(repository(name).map(Self::Uploads))
            }
            [name @ .., "blobs", "uploads", id] => Some(upload(name, id)),
            [name @ .., "blobs", text] => Some(with_digest(name, text, Self::Blob)),
            [name @ .., "manifests", reference] => Some(manifest(name, reference)),
            [name @ .., "tags", "list"] => Some(repository(name).map(Self::Tags)),
            [name @ .., "referrers", text] => Some(with_digest(name, text, Self::Referrers)),
            _ => None,
        }
    }
}

/// One segment, percent-decoded once; `None` when that gives a slash, a zero byte or no UTF-8.
fn decode_segment(segment: &str) -> Option<String> {
    decode(segment).filter(|decoded| !decoded.contains(['/', '\0']))
}

/// Percent-decoded once; `None` when that gives no UTF-8.
pub(super) fn decode(segment: &str) -> Option<String> {
    if !segment.contains('%') {
        return Some(segment.to_owned());
    }
    let bytes = segment.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b'%' {
            let mut byte = [0];
            hex_pair(bytes.get(at + 1..at + 3)?, &mut byte)?;
            decoded.push(byte[0]);
            at += 3;
        } else {
            decoded.push(bytes[at]);
            at += 1;
        }
    }
    String::from_utf8(decoded).ok()
}

/// No name that needs such an encoding is valid, whatever endpoint it stands in.
fn not_decodable(path: &str) -> Error {
    Error::Name(InvalidReference::Repository {
        name: path.chars().take(80).collect(),
    })
}

fn hex_pair(digits: &[u8], byte: &mut [u8; 1]) -> Option<()> {
    let digit = |at: usize| char::from(digits[at]).to_digit(16);
    byte[0] = u8::try_from(digit(0)? * 16 + digit(1)?).ok()?;
    Some(())
}

/// The name of a repository as a request spelled it, if it has upper case in it: an upstream may
/// want to hear it so.
pub(crate) fn spelled<'p>(path: &'p str, repository: &Repository) -> Option<&'p str> {
    let name = path
        .strip_prefix("/v2/")?
        .get(..repository.as_str().len())?;
    let is_it = name.eq_ignore_ascii_case(repository.as_str()) && name != repository.as_str();
    is_it.then_some(name)
}

/// Names are one in any case: Ollama and Hugging Face have upper case in theirs, the specification
/// does not.
pub(crate) fn folded(name: &str) -> Result<Repository, Error> {
    Repository::parse(&name.to_ascii_lowercase()).map_err(Error::Name)
}

fn repository(segments: &[&str]) -> Result<Repository, Error> {
    folded(&segments.join("/"))
}

fn upload(name: &[&str], id: &str) -> Result<Endpoint, Error> {
    let repository = repository(name)?;
    let id = Uuid::parse_str(id).map_err(|_| Error::UploadUnknown {
        id: id.chars().take(80).collect(),
    })?;
    Ok(Endpoint::Upload(repository, id))
}

fn lease(name: &[&str], id: &str) -> Result<Endpoint, Error> {
    let repository = repository(name)?;
    let id = Uuid::parse_str(id).map_err(|_| Error::LeaseInvalid {
        reason: "its name must be a UUID".to_owned(),
    })?;
    Ok(Endpoint::Lease(repository, id))
}

fn with_digest(
    name: &[&str],
    text: &str,
    endpoint: impl FnOnce(Repository, Digest) -> Endpoint,
) -> Result<Endpoint, Error> {
    let repository = repository(name)?;
    let digest = Digest::parse(text).map_err(Error::Digest)?;
    Ok(endpoint(repository, digest))
}

fn manifest(name: &[&str], reference: &str) -> Result<Endpoint, Error> {
    let repository = repository(name)?;
    let reference = ManifestReference::parse(reference)?;
    Ok(Endpoint::Manifest(repository, reference))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use artifact::{Digest, Repository, Tag};
    use proptest::prelude::proptest;

    use crate::error::Error;
    use crate::http::endpoint::{AdminTask, Endpoint, spelled};
    use crate::service::manifests::ManifestReference;

    fn name(text: &str) -> Repository {
        Repository::parse(text).unwrap()
    }

    fn parse(path: &str) -> Endpoint {
        Endpoint::parse(path).unwrap().unwrap()
    }

    #[test]
    fn every_endpoint_of_the_specification_is_read() {
        let digest = Digest::sha256(b"x");
        let id = uuid::Uuid::nil();
        assert_eq!(parse("/v2/"), Endpoint::Ping);
        assert_eq!(parse("/v2/_catalog"), Endpoint::Catalog);
        let path = format!("/v2/a/b/blobs/{digest}");
        assert_eq!(parse(&path), Endpoint::Blob(name("a/b"), digest));
        assert_eq!(parse("/v2/a/blobs/uploads/"), Endpoint::Uploads(name("a")));
        let path = format!("/v2/a/blobs/uploads/{id}");
        assert_eq!(parse(&path), Endpoint::Upload(name("a"), id));
        let tag = ManifestReference::Tag(Tag::parse("v1").unwrap());
        assert_eq!(
            parse("/v2/a/manifests/v1"),
            Endpoint::Manifest(name("a"), tag)
        );
        assert_eq!(parse("/v2/a/tags/list"), Endpoint::Tags(name("a")));
        let path = format!("/v2/a/referrers/{digest}");
        assert_eq!(parse(&path), Endpoint::Referrers(name("a"), digest));
        let path = format!("/v2/a/b/_hayloft/leases/{id}");
        assert_eq!(parse(&path), Endpoint::Lease(name("a/b"), id));
        let path = format!("/v2/a/_hayloft/annotations/{digest}");
        assert_eq!(parse(&path), Endpoint::Annotations(name("a"), digest));
        let collect = Endpoint::Admin(AdminTask::Collect);
        assert_eq!(parse("/v2/_hayloft/collect"), collect);
    }

    #[test]
    fn repository_names_may_contain_the_words_of_the_api() {
        let tag = ManifestReference::Tag(Tag::parse("v1").unwrap());
        let named = "blobs/uploads/manifests/tags/list";
        assert_eq!(
            parse(&format!("/v2/{named}/manifests/v1")),
            Endpoint::Manifest(name(named), tag)
        );
    }

    #[test]
    fn upper_case_names_are_folded_and_tags_are_not() {
        let tag = ManifestReference::Tag(Tag::parse("Q4_K_M").unwrap());
        assert_eq!(
            parse("/v2/Team/Llama-3.2/manifests/Q4_K_M"),
            Endpoint::Manifest(name("team/llama-3.2"), tag)
        );
        assert_eq!(
            parse("/v2/TEAM/blobs/uploads/"),
            Endpoint::Uploads(name("team"))
        );
        let path = "/v2/Team/Llama/tags/list";
        assert_eq!(spelled(path, &name("team/llama")), Some("Team/Llama"));
        assert_eq!(spelled("/v2/team/tags/list", &name("team")), None);
    }

    #[test]
    fn an_encoded_colon_is_a_colon() {
        let digest = Digest::sha256(b"x");
        let path = format!("/v2/a/blobs/sha256%3A{}", digest.hex());
        assert_eq!(parse(&path), Endpoint::Blob(name("a"), digest));
    }

    #[test]
    fn names_that_break_the_grammar_are_refused() {
        let long = "a".repeat(300);
        for bad in [
            "../etc",
            "a//b",
            "\u{c4}",
            "a/_uploads",
            "%2e%2e",
            "a%2fb",
            "a%00",
            "%252e",
            "\u{430}",
            "a..b",
            "a/",
            &long,
        ] {
            let path = format!("/v2/{bad}/tags/list");
            let refused = Endpoint::parse(&path).unwrap();
            assert!(matches!(refused, Err(Error::Name(_))), "{bad}: {refused:?}");
        }
    }

    #[test]
    fn digests_that_break_the_grammar_are_refused() {
        let hex = Digest::sha256(b"x").hex();
        for bad in [
            "sha256:../../etc/passwd".to_owned(),
            format!("sha256:{}", hex.to_uppercase()),
            format!("sha256:{}", &hex[1..]),
            format!("sha256:{hex}0"),
            format!("md5:{hex}"),
            "sha256:%2e%2e%2f".to_owned(),
            "plain".to_owned(),
        ] {
            let path = format!("/v2/a/blobs/{bad}");
            if let Some(parsed) = Endpoint::parse(&path) {
                assert!(parsed.is_err(), "{bad}: {parsed:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(path in "/v2/.{0,100}") {
            let _ = Endpoint::parse(&path);
        }
    }
}
