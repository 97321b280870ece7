//! The path of a request below `/hf`, parsed once into a typed value.
//!
//! Hugging Face's repositories have one or two segments, ours any number. The word that ends the name
//! is looked for where a two-segment name ends first, then after one segment, then deeper: so every
//! name that its clients can spell means what they mean, and deeper ones can be reached as well.

use artifact::hub::clean_path;
use artifact::{Algorithm, Digest, Repository};
use http::Method;
use uuid::Uuid;

use crate::error::Error;
use crate::http::access::Access;
use crate::http::endpoint::decode;
use crate::http::hub::failure::HubFailure;
use crate::service::hub::Refusal;
use crate::service::hub::revision::Revision;

/// Most segments of a path: those of a repository, a revision and a file.
const MAX_SEGMENTS: usize = 100;
/// What other kinds of repositories begin with.
const OTHER_KINDS: [&str; 4] = ["datasets", "spaces", "kernels", "buckets"];

/// A repository as the request names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    /// As it was spelled.
    pub(super) id: String,
    /// The registry's repository: the same in lower case.
    pub(super) repository: Repository,
}

/// A revision as the request names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    /// As it was spelled.
    pub(super) text: String,
    /// What it means; `None` for what no revision can be called.
    pub(super) revision: Option<Revision>,
}

impl Asked {
    /// The revision of this repository.
    pub(super) fn of(&self, repository: &Repository) -> Result<&Revision, HubFailure> {
        self.revision.as_ref().ok_or_else(|| {
            let revision = self.text.chars().take(200).collect();
            let repository = repository.clone();
            HubFailure::from(Error::Hub(Refusal::RevisionUnknown {
                repository,
                revision,
            }))
        })
    }
}

/// Where content is put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Upload {
    /// The repository it is for.
    pub(super) repository: Repository,
    /// The session that takes it.
    pub(super) id: Uuid,
    /// What it must hash to.
    pub(super) digest: Digest,
}

/// What a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum HubEndpoint {
    /// `/api/whoami-v2`
    WhoAmI,
    /// `/api/models`
    Models,
    /// `/api/models/<repo>` and `…/revision/<rev>`
    Model(Named, Asked),
    /// `/api/models/<repo>/refs`
    Refs(Named),
    /// `/api/models/<repo>/commits/<rev>`
    Commits(Named, Asked),
    /// `/api/models/<repo>/tree/<rev>[/<folder>]`; `None` for a folder that cannot be one.
    Tree(Named, Asked, Option<String>),
    /// `/api/models/<repo>/paths-info/<rev>`
    PathsInfo(Named, Asked),
    /// `/<repo>/resolve/<rev>/<path>` and `…/raw/…`; `None` for a path that no file has.
    Resolve(Named, Asked, Option<String>),
    /// `/v2/<repo>/manifests/<tag>`: what llama.cpp asked before March 2026.
    LlamaManifest(Named, String),
    /// `/api/validate-yaml`
    ValidateYaml,
    /// `/api/repos/create`
    CreateRepository,
    /// `/api/models/<repo>/preupload/<rev>`
    Preupload(Named, Asked),
    /// `/api/models/<repo>/commit/<rev>`
    Commit(Named, Asked),
    /// `POST /api/models/<repo>/branch/<name>` and `…/tag/<rev>`
    Branch(Named, String),
    /// `DELETE /api/models/<repo>/branch/<name>` and `…/tag/<name>`
    DeleteBranch(Named, String),
    /// `/<repo>.git/info/lfs/objects/batch`
    LfsBatch(Named),
    /// `/_upload/<session>/<sha256>/<repo>`
    Upload(Upload),
}

impl HubEndpoint {
    /// Reads the path of a request, below `/hf`.
    pub(super) fn parse(path: &str, method: &Method) -> Result<Self, HubFailure> {
        let raw: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        if raw.len() > MAX_SEGMENTS {
            return Err(not_spoken());
        }
        let decoded: Vec<Option<String>> = raw.iter().map(|segment| decode(segment)).collect();
        let segments: Vec<&str> = decoded
            .iter()
            .map(|segment| segment.as_deref().unwrap_or("\0"))
            .collect();
        let endpoint = match segments.as_slice() {
            ["api", "whoami-v2"] => Self::WhoAmI,
            ["api", "models"] | ["api", "models", ""] => Self::Models,
            ["api", "validate-yaml"] => Self::ValidateYaml,
            ["api", "repos", "create"] => Self::CreateRepository,
            ["api", "models", rest @ ..] => of_model(rest, method)?,
            ["api", kind, ..] if OTHER_KINDS.contains(kind) => return Err(other_kind(kind)),
            ["api", ..] => return Err(not_spoken()),
            ["v2", name @ .., "manifests", tag] => {
                Self::LlamaManifest(named(name)?, (*tag).to_owned())
            }
            ["_upload", id, oid, name @ ..] => Self::Upload(upload(id, oid, name)?),
            [kind, ..] if OTHER_KINDS.contains(kind) => return Err(other_kind(kind)),
            [name @ .., last, "info", "lfs", "objects", "batch"] => {
                let bare = last.strip_suffix(".git").ok_or_else(not_spoken)?;
                let mut name = name.to_vec();
                name.push(bare);
                Self::LfsBatch(named(&name)?)
            }
            segments => of_file(segments)?,
        };
        endpoint.check(method)?;
        Ok(endpoint)
    }

    /// The repository that it is about, if it is about one.
    pub(super) fn repository(&self) -> Option<&Named> {
        match self {
            Self::Model(named, _)
            | Self::Refs(named)
            | Self::Commits(named, _)
            | Self::Tree(named, ..)
            | Self::PathsInfo(named, _)
            | Self::Resolve(named, ..)
            | Self::LlamaManifest(named, _)
            | Self::Preupload(named, _)
            | Self::Commit(named, _)
            | Self::Branch(named, _)
            | Self::DeleteBranch(named, _)
            | Self::LfsBatch(named) => Some(named),
            Self::WhoAmI
            | Self::Models
            | Self::ValidateYaml
            | Self::CreateRepository
            | Self::Upload(_) => None,
        }
    }

    /// What it comes to. Which repository is created stands in the body, and is asked for then.
    pub(super) fn access(&self) -> Access<'_> {
        match self {
            Self::WhoAmI | Self::ValidateYaml | Self::CreateRepository | Self::Upload(_) => {
                Access::Ping
            }
            Self::Models => Access::Catalog,
            Self::Model(named, _)
            | Self::Refs(named)
            | Self::Commits(named, _)
            | Self::Tree(named, ..)
            | Self::PathsInfo(named, _)
            | Self::Resolve(named, ..)
            | Self::LlamaManifest(named, _) => Access::Pull(&named.repository),
            Self::Preupload(named, _)
            | Self::Commit(named, _)
            | Self::Branch(named, _)
            | Self::LfsBatch(named) => Access::Push(&named.repository),
            Self::DeleteBranch(named, _) => Access::Delete(&named.repository),
        }
    }

    /// Whether it changes what is stored.
    pub(super) fn changes(&self) -> bool {
        let changes = matches!(self.access(), Access::Push(_) | Access::Delete(_));
        changes || matches!(self, Self::CreateRepository | Self::Upload(_))
    }

    fn check(&self, method: &Method) -> Result<(), HubFailure> {
        let allowed = match self {
            Self::Upload(_) => &["PUT", "POST"][..],
            Self::Branch(..) | Self::DeleteBranch(..) => &["POST", "DELETE"],
            Self::PathsInfo(..) | Self::ValidateYaml => &["POST"],
            _ if self.changes() => &["POST"],
            _ => &["GET", "HEAD"],
        };
        if allowed.contains(&method.as_str()) {
            return Ok(());
        }
        Err(HubFailure::Method(match allowed {
            ["PUT", _] => "PUT, POST",
            ["POST", _] => "POST, DELETE",
            ["POST"] => "POST",
            _ => "GET, HEAD",
        }))
    }
}

/// Below `/api/models/`.
fn of_model(segments: &[&str], method: &Method) -> Result<HubEndpoint, HubFailure> {
    let words = [
        "revision",
        "refs",
        "commits",
        "tree",
        "paths-info",
        "preupload",
        "commit",
        "branch",
        "tag",
        "xet-read-token",
        "xet-write-token",
    ];
    let fits = |at: &usize| {
        let rest = segments.len() - at;
        match segments[*at] {
            "refs" => rest == 1,
            "tree" => rest >= 2,
            word => words.contains(&word) && rest == 2,
        }
    };
    let Some(at) = word_at(segments.len(), fits) else {
        return Ok(HubEndpoint::Model(named(segments)?, asked("main")));
    };
    let named = named(&segments[..at])?;
    let rest = &segments[at + 1..];
    let text = rest.first().copied().unwrap_or("main");
    Ok(match segments[at] {
        "refs" => HubEndpoint::Refs(named),
        "commits" => HubEndpoint::Commits(named, asked(text)),
        "tree" => HubEndpoint::Tree(named, asked(text), folder(&rest[1..])),
        "paths-info" => HubEndpoint::PathsInfo(named, asked(text)),
        "preupload" => HubEndpoint::Preupload(named, asked(text)),
        "commit" => HubEndpoint::Commit(named, asked(text)),
        "branch" | "tag" if *method == Method::DELETE => {
            HubEndpoint::DeleteBranch(named, text.to_owned())
        }
        "branch" | "tag" => HubEndpoint::Branch(named, text.to_owned()),
        "xet-read-token" | "xet-write-token" => {
            return Err(HubFailure::NotSpoken(
                "Xet is not spoken here: set HF_HUB_DISABLE_XET=1".to_owned(),
            ));
        }
        _ => HubEndpoint::Model(named, asked(text)),
    })
}

/// `<repo>/resolve/<rev>/<path>`
fn of_file(segments: &[&str]) -> Result<HubEndpoint, HubFailure> {
    let fits = |at: &usize| matches!(segments[*at], "resolve" | "raw") && segments.len() - at >= 3;
    let at = word_at(segments.len(), fits).ok_or_else(not_spoken)?;
    let named = named(&segments[..at])?;
    let path = segments[at + 2..].join("/");
    let path = clean_path(&path).map(str::to_owned);
    Ok(HubEndpoint::Resolve(named, asked(segments[at + 1]), path))
}

/// Where the word stands that ends the name of the repository.
fn word_at(count: usize, fits: impl Fn(&usize) -> bool) -> Option<usize> {
    let places = [2, 1].into_iter().chain(3..count);
    places.filter(|at| *at < count).find(|at| fits(at))
}

/// The folder of a tree, empty for its root. Clients encode its slashes or do not.
fn folder(segments: &[&str]) -> Option<String> {
    let path = segments.join("/");
    let path = path.trim_end_matches('/');
    if path.is_empty() {
        return Some(String::new());
    }
    clean_path(path).map(str::to_owned)
}

/// The revision that a request calls `text`.
pub(super) fn asked(text: &str) -> Asked {
    Asked {
        text: text.to_owned(),
        revision: Revision::parse(text),
    }
}

/// Reads a repository's name. Upper case means the same as lower case.
fn named(segments: &[&str]) -> Result<Named, HubFailure> {
    // A slash that was encoded is part of a segment, and no segment has one.
    let id = if segments.iter().any(|segment| segment.contains('/')) {
        "\0".to_owned()
    } else {
        segments.join("/")
    };
    let repository = Repository::parse(&id.to_ascii_lowercase()).map_err(Error::Name)?;
    Ok(Named { id, repository })
}

/// The repository that a client calls `id`.
pub(super) fn named_by(id: &str) -> Result<Named, HubFailure> {
    let segments: Vec<&str> = id.split('/').collect();
    named(&segments)
}

fn upload(id: &str, oid: &str, name: &[&str]) -> Result<Upload, HubFailure> {
    let id = Uuid::parse_str(id).map_err(|_| Error::UploadUnknown {
        id: id.chars().take(80).collect(),
    })?;
    let digest = Digest::from_hex(Algorithm::Sha256, oid).map_err(Error::Digest)?;
    let repository = named(name)?.repository;
    Ok(Upload {
        repository,
        id,
        digest,
    })
}

fn not_spoken() -> HubFailure {
    HubFailure::NotSpoken("this path is not part of the API that is spoken here".to_owned())
}

fn other_kind(kind: &str) -> HubFailure {
    HubFailure::NotSpoken(format!("there are models here, and no {kind}"))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use http::Method;
    use proptest::prelude::proptest;

    use crate::http::hub::endpoint::{HubEndpoint, asked, named_by};
    use crate::http::hub::failure::HubFailure;

    fn get(path: &str) -> HubEndpoint {
        HubEndpoint::parse(path, &Method::GET).unwrap()
    }

    #[test]
    fn every_spelling_of_the_clients_is_read() {
        let name = |id: &str| named_by(id).unwrap();
        let file = |id, revision, path: &str| {
            HubEndpoint::Resolve(name(id), asked(revision), Some(path.to_owned()))
        };
        for (path, wanted) in [
            ("/A/b/resolve/main/c.gguf", file("A/b", "main", "c.gguf")),
            ("/a/raw/v1/d/c.json", file("a", "v1", "d/c.json")),
            ("/a/resolve/resolve/x/y", file("a/resolve", "x", "y")),
            ("/a/b/c/resolve/main/x", file("a/b/c", "main", "x")),
            ("/a/b/resolve/main/%C3%A4", file("a/b", "main", "\u{e4}")),
            ("/api/models", HubEndpoint::Models),
            (
                "/api/models/a/b",
                HubEndpoint::Model(name("a/b"), asked("main")),
            ),
            (
                "/api/models/a",
                HubEndpoint::Model(name("a"), asked("main")),
            ),
            (
                "/api/models/a/b/revision/refs%2Fheads%2Fmain",
                HubEndpoint::Model(name("a/b"), asked("refs/heads/main")),
            ),
            ("/api/models/a/refs", HubEndpoint::Refs(name("a"))),
            (
                "/api/models/a/b/tree/main/d%2Fe",
                HubEndpoint::Tree(name("a/b"), asked("main"), Some("d/e".to_owned())),
            ),
            (
                "/v2/a/b/manifests/Q4_K_M",
                HubEndpoint::LlamaManifest(name("a/b"), "Q4_K_M".to_owned()),
            ),
        ] {
            assert_eq!(get(path), wanted, "{path}");
        }
    }

    #[test]
    fn paths_that_lead_elsewhere_are_no_files() {
        for path in ["%2e%2e/x", "../x", "a%2F..%2Fb", "%5C", "a//b", "%00"] {
            let parsed = get(&format!("/a/b/resolve/main/{path}"));
            assert!(matches!(parsed, HubEndpoint::Resolve(.., None)), "{path}");
        }
        for bad in [
            "/a%2Fb/resolve/main/x",
            "/../b/resolve/main/x",
            "/%ff/resolve/m/x",
        ] {
            let parsed = HubEndpoint::parse(bad, &Method::GET);
            assert!(matches!(parsed, Err(HubFailure::Registry(_))), "{bad}");
        }
        for unknown in ["/datasets/a/b/resolve/main/x", "/api/spaces/a/b", "/x", "/"] {
            let parsed = HubEndpoint::parse(unknown, &Method::GET);
            assert!(matches!(parsed, Err(HubFailure::NotSpoken(_))), "{unknown}");
        }
        let many = "/a".repeat(200);
        assert!(HubEndpoint::parse(&many, &Method::GET).is_err());
        let put = HubEndpoint::parse("/a/b/resolve/main/x", &Method::PUT);
        assert!(matches!(put, Err(HubFailure::Method(_))));
    }

    proptest! {
        #[test]
        fn parsing_never_panics(path in "/.{0,100}") {
            let _ = HubEndpoint::parse(&path, &Method::GET);
        }
    }
}
