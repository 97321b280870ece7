//! An OCI registry as an origin.

use url::Url;

use crate::client::error::Error;
use crate::client::origin::{Answer, Found, Known, OriginKind, OriginUrl, Selector};
use crate::client::registry::{Asked, Fetched, Head, RegistryClient, RegistryOptions};
use crate::client::transport::Transport;
use crate::media_type::ACCEPT_MANIFESTS;
use crate::reference::{DEFAULT_REGISTRY, Reference, Repository, Tag};

/// The hosts that are Docker Hub, by its name and by those of its registry.
const DOCKER_HUB: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];

pub(super) fn open(
    transport: &Transport,
    at: &OriginUrl,
    repository: &str,
    options: &RegistryOptions,
) -> Result<RegistryClient, Error> {
    let host = at.host();
    let is_hub = DOCKER_HUB.contains(&host.as_str());
    let name = if is_hub && at.prefix().is_empty() && !repository.contains('/') {
        format!("library/{repository}")
    } else {
        repository.to_owned()
    };
    // The grammar of the distribution-spec has no upper case.
    let reference = reference(at, &name.to_ascii_lowercase())?;
    let host = if is_hub { DOCKER_HUB[2] } else { &host };
    let base = base(at, host, reference.repository().as_str())?;
    RegistryClient::with_base(transport, &reference, options, base)
}

/// The name of a repository at an origin as a reference, for messages, logins and scopes.
pub(super) fn reference(at: &OriginUrl, name: &str) -> Result<Reference, Error> {
    let fault = |reason| Error::Url {
        url: format!("{at}/{}", name.chars().take(300).collect::<String>()),
        reason,
    };
    let path = match at.prefix() {
        "" => name.to_owned(),
        prefix => format!("{}/{name}", prefix.to_ascii_lowercase()),
    };
    let repository =
        Repository::parse(&path).map_err(|_| fault("that is not the name of a repository"))?;
    let host = at.host();
    let host = if DOCKER_HUB.contains(&host.as_str()) {
        DEFAULT_REGISTRY
    } else {
        &host
    };
    Reference::from_parts(host, repository, Tag::default())
        .map_err(|_| fault("that is not the name of a host"))
}

/// Where a registry is, by the client for one of its repositories.
pub(super) fn place_of(registry: &RegistryClient) -> Result<OriginUrl, Error> {
    let mut url = registry.url("")?;
    url.set_path("/");
    let text = url.to_string();
    OriginUrl::new(OriginKind::Oci, url).map_err(|_| Error::Url {
        url: text,
        reason: "it is not the URL of a registry",
    })
}

/// `<scheme>://<host>/v2/<path>/`.
pub(super) fn base(at: &OriginUrl, host: &str, path: &str) -> Result<Url, Error> {
    let text = format!("{}://{host}/v2/{path}/", at.url.scheme());
    Url::parse(&text).map_err(|_| Error::Url {
        url: text,
        reason: "it is not a URL",
    })
}

pub(super) async fn manifest(
    registry: &RegistryClient,
    selector: &Selector,
    known: Option<&Known>,
) -> Result<Answer, Error> {
    let text = checked(selector)?;
    let asked = Asked {
        selector: &text,
        accept: ACCEPT_MANIFESTS,
        etag: known.and_then(|known| known.etag.as_deref()),
    };
    // A HEAD first: it is not counted as a pull, and is all that is needed most of the time.
    if let Some(known) = known {
        match registry.head_manifest(asked).await? {
            Head::Unchanged { etag } => return Ok(Answer::Unchanged { etag }),
            Head::Is { digest, etag } if digest == Some(known.digest) => {
                return Ok(Answer::Unchanged { etag });
            }
            Head::Is { .. } | Head::Unanswered => {}
        }
    }
    fetched(registry.manifest(asked).await?, known)
}

/// What stands in the path of a request: a tag of a stranger's only when it is one.
pub(super) fn checked(selector: &Selector) -> Result<String, Error> {
    let text = selector.to_string();
    if let Selector::Tag(tag) = selector {
        Tag::parse(tag).map_err(|_| Error::Url {
            url: tag.chars().take(200).collect(),
            reason: "that is not a tag",
        })?;
    }
    Ok(text)
}

/// What was fetched, as an answer: bytes that are known already are nothing new.
pub(super) fn fetched(fetched: Fetched, known: Option<&Known>) -> Result<Answer, Error> {
    Ok(match fetched {
        Fetched::Unchanged { etag } => Answer::Unchanged { etag },
        Fetched::Found { digest, etag, .. }
            if known.is_some_and(|known| known.digest == digest) =>
        {
            Answer::Unchanged { etag }
        }
        Fetched::Found {
            manifest,
            digest,
            etag,
        } => Answer::Found(Box::new(Found {
            manifest: *manifest,
            digest,
            etag,
            documents: Vec::new(),
        })),
    })
}
