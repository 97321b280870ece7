//! Manifests: asked for by tag or digest, checked against what was asked for and announced.

use reqwest::header::{ACCEPT, ETAG, HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH};
use reqwest::{Method, Response, StatusCode};
use url::Url;

use crate::client::answer::{content_type, looks_like_a_page, read_bounded, shown};
use crate::client::error::Error;
use crate::client::registry::{Operation, RegistryClient, Resolved};
use crate::digest::Digest;
use crate::manifest::{MAX_MANIFEST_BYTES, Manifest};
use crate::media_type::ACCEPT_MANIFESTS;
use crate::reference::Reference;

const DOCKER_CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
/// Longest entity tag that is kept.
const MAX_ETAG_BYTES: usize = 256;

/// How a manifest is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    /// What stands after `/manifests/`: a tag or a digest.
    pub(crate) selector: &'a str,
    /// The media types that are understood.
    pub(crate) accept: &'static str,
    /// The entity tag of what is known already.
    pub(crate) etag: Option<&'a str>,
}

/// What came of it.
#[derive(Debug)]
pub(crate) enum Fetched {
    /// What is known still holds.
    Unchanged { etag: Option<String> },
    /// The manifest; its digest was checked against its bytes.
    Found {
        manifest: Box<Manifest>,
        digest: Digest,
        etag: Option<String>,
    },
}

/// What the head of a manifest says.
#[derive(Debug)]
pub(crate) enum Head {
    /// What is known still holds.
    Unchanged { etag: Option<String> },
    /// A manifest with this digest, if the registry says it.
    Is {
        digest: Option<Digest>,
        etag: Option<String>,
    },
    /// The registry does not answer this question; the manifest itself has to be asked for.
    Unanswered,
}

impl RegistryClient {
    /// Asks for the manifest that the reference names: by digest if it has one, else by tag.
    ///
    /// # Errors
    /// [`Error::ManifestUnknown`]; [`Error::DigestMismatch`] when the bytes are not those that were
    /// asked for or announced; [`Error::NotAModel`] for an index; and those of any request.
    pub async fn resolve(&self) -> Result<Resolved, Error> {
        let asked = Asked {
            selector: &self.reference.manifest_selector(),
            accept: ACCEPT_MANIFESTS,
            etag: None,
        };
        match self.manifest(asked).await? {
            Fetched::Found {
                manifest, digest, ..
            } if manifest.config().is_some() => Ok(Resolved {
                manifest: *manifest,
                digest,
            }),
            Fetched::Found { .. } => Err(Error::NotAModel {
                reference: Box::new(self.reference.clone()),
                reason: "it is an index of several manifests; name one of them by its digest",
            }),
            Fetched::Unchanged { .. } => Err(self.unasked(StatusCode::NOT_MODIFIED)),
        }
    }

    /// Asks for any manifest or index of the repository.
    pub(crate) async fn manifest(&self, asked: Asked<'_>) -> Result<Fetched, Error> {
        let answer = self.ask(Method::GET, asked).await?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::NOT_MODIFIED if asked.etag.is_some() => {
                let etag = etag_of(answer.headers()).or_else(|| asked.etag.map(str::to_owned));
                return Ok(Fetched::Unchanged { etag });
            }
            StatusCode::NOT_FOUND => return Err(self.unknown(asked.selector)),
            _ => return Err(self.fault(answer).await),
        }
        let url = answer.url().clone();
        let headers = answer.headers().clone();
        let raw = read_bounded(answer, MAX_MANIFEST_BYTES).await?;
        let wanted = Digest::parse(asked.selector).ok();
        if looks_like_a_page(&raw) {
            return Err(Error::WebPage { url: shown(&url) });
        }
        let digest = checked_digest(&raw, wanted, &headers, &url)?;
        let content_type = content_type(&headers);
        let manifest =
            Manifest::parse(raw, content_type.as_deref()).map_err(|source| Error::Manifest {
                reference: Box::new(self.named(asked.selector)),
                source,
            })?;
        Ok(Fetched::Found {
            manifest: Box::new(manifest),
            digest,
            etag: etag_of(&headers),
        })
    }

    /// Asks what a manifest's digest is, without its bytes: registries count pulls by GET alone.
    pub(crate) async fn head_manifest(&self, asked: Asked<'_>) -> Result<Head, Error> {
        let answer = self.ask(Method::HEAD, asked).await?;
        let etag = etag_of(answer.headers());
        match answer.status() {
            StatusCode::OK => Ok(Head::Is {
                digest: announced_digest(answer.headers(), answer.url())
                    .ok()
                    .flatten(),
                etag,
            }),
            StatusCode::NOT_MODIFIED if asked.etag.is_some() => Ok(Head::Unchanged {
                etag: etag.or_else(|| asked.etag.map(str::to_owned)),
            }),
            StatusCode::NOT_FOUND => Err(self.unknown(asked.selector)),
            StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => Ok(Head::Unanswered),
            _ => Err(self.fault(answer).await),
        }
    }

    async fn ask(&self, method: Method, asked: Asked<'_>) -> Result<Response, Error> {
        let url = self.url(&format!("manifests/{}", asked.selector))?;
        let etag = asked.etag.and_then(|etag| HeaderValue::from_str(etag).ok());
        self.send(Operation::Pull, || {
            let request = self
                .http
                .request(method.clone(), url.clone())
                .header(ACCEPT, asked.accept)
                .timeout(self.transport.timeouts().stall);
            match &etag {
                Some(etag) => request.header(IF_NONE_MATCH, etag),
                None => request,
            }
        })
        .await
    }

    fn unknown(&self, selector: &str) -> Error {
        Error::ManifestUnknown {
            reference: Box::new(self.named(selector)),
        }
    }

    pub(super) fn unasked(&self, status: StatusCode) -> Error {
        Error::Status {
            url: self.base.to_string(),
            status,
            detail: "although nothing was said to be known".to_owned(),
            retry_after: None,
        }
    }

    /// The repository's reference with this tag or digest, for messages.
    fn named(&self, selector: &str) -> Reference {
        let separator = if selector.contains(':') { '@' } else { ':' };
        let registry = self.reference.registry();
        let repository = self.reference.repository();
        Reference::parse(&format!("{registry}/{repository}{separator}{selector}"))
            .unwrap_or_else(|_| self.reference.clone())
    }
}

/// The digest of a manifest's bytes, the one asked for or announced if there is one.
fn checked_digest(
    raw: &[u8],
    asked: Option<Digest>,
    headers: &HeaderMap,
    url: &Url,
) -> Result<Digest, Error> {
    let announced = announced_digest(headers, url)?;
    for expected in asked.into_iter().chain(announced) {
        let actual = Digest::of(expected.algorithm(), raw);
        if actual != expected {
            return Err(Error::DigestMismatch {
                what: format!("the manifest at {url}"),
                expected: Box::new(expected),
                actual: Box::new(actual),
            });
        }
    }
    Ok(asked.or(announced).unwrap_or_else(|| Digest::sha256(raw)))
}

fn announced_digest(headers: &HeaderMap, url: &Url) -> Result<Option<Digest>, Error> {
    let announced = headers.get(DOCKER_CONTENT_DIGEST).map(|value| {
        let text = String::from_utf8_lossy(value.as_bytes());
        Digest::parse(&text).map_err(|_| Error::Header {
            url: url.to_string(),
            header: "Docker-Content-Digest",
            value: text.chars().take(100).collect(),
        })
    });
    announced.transpose()
}

/// The entity tag, if it can be sent back as it came.
fn etag_of(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(ETAG)?.to_str().ok()?;
    (text.len() <= MAX_ETAG_BYTES).then(|| text.to_owned())
}
