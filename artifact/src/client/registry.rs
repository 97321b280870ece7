//! RegistryClient: one repository of one registry: resolve, exists, put_manifest.

mod annotations;
mod auth;
mod copy;
mod lease;
mod listing;
mod manifest;
pub mod scheme;

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use url::Url;

use crate::client::error::Error;
use crate::client::transport::Transport;
use crate::digest::Digest;
use crate::manifest::Manifest;
use crate::reference::{DEFAULT_TAG, Reference, Tag};

use auth::Authorization;
pub use auth::Credentials;
pub(crate) use auth::Operation;
pub(crate) use listing::next_page;
pub(crate) use manifest::{Asked, Fetched, Head};

/// How to speak to a registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryOptions {
    /// Plain HTTP, whatever the host. Without it a loopback host is spoken to as it answers, and
    /// every other one by TLS.
    pub plain_http: bool,
    /// Who asks.
    pub credentials: Credentials,
}

/// A manifest as a registry gave it.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The manifest of an image, never an index.
    pub manifest: Manifest,
    /// Its digest, checked against its bytes.
    pub digest: Digest,
}

/// One repository of one registry. A clone shares connections and tokens.
#[derive(Clone, Debug)]
pub struct RegistryClient {
    transport: Transport,
    http: reqwest::Client,
    reference: Reference,
    base: Url,
    is_plain: bool,
    credentials: Credentials,
    tokens: Arc<RwLock<HashMap<Operation, Authorization>>>,
}

impl RegistryClient {
    /// A client for the repository that `reference` names. Nothing is sent yet, but for a question
    /// to a loopback host whether it speaks TLS.
    ///
    /// # Errors
    /// [`Error::Setup`] when the HTTP client cannot be built.
    pub async fn open(
        transport: &Transport,
        reference: &Reference,
        options: &RegistryOptions,
    ) -> Result<Self, Error> {
        let is_plain = options.plain_http
            || (reference.is_loopback() && scheme::is_plain(reference.registry()).await);
        let scheme = if is_plain { "http" } else { "https" };
        let host = oci_reference(reference).resolve_registry().to_owned();
        let text = format!("{scheme}://{host}/v2/{}/", reference.repository().as_str());
        let base = Url::parse(&text).map_err(|_| Error::Url {
            url: text,
            reason: "it is not a URL",
        })?;
        Self::with_base(transport, reference, options, base)
    }

    /// A client for a repository at a place that is known to the letter: `base` ends in
    /// `/v2/<repository>/`, in the spelling that the registry knows it by. `reference` is its name
    /// in messages and in the scope of tokens.
    pub(crate) fn with_base(
        transport: &Transport,
        reference: &Reference,
        options: &RegistryOptions,
        base: Url,
    ) -> Result<Self, Error> {
        let is_plain = base.scheme() == "http";
        Ok(Self {
            http: transport.http(reference.is_loopback())?,
            transport: transport.clone(),
            reference: reference.clone(),
            base,
            is_plain,
            credentials: options.credentials.clone(),
            tokens: Arc::default(),
        })
    }

    /// The reference given to [`RegistryClient::open`].
    #[must_use]
    pub fn reference(&self) -> &Reference {
        &self.reference
    }

    /// The transport it was opened with.
    pub(crate) fn transport(&self) -> &Transport {
        &self.transport
    }

    /// Whether the repository has a blob.
    ///
    /// # Errors
    /// Those of any request.
    pub async fn has_blob(&self, digest: &Digest) -> Result<bool, Error> {
        let url = self.url(&format!("blobs/{digest}"))?;
        let answer = self
            .send(Operation::Push, || {
                self.http
                    .head(url.clone())
                    .timeout(self.transport.timeouts().stall)
            })
            .await?;
        match answer.status() {
            StatusCode::OK => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(self.fault(answer).await),
        }
    }

    /// Stores a manifest under the reference's tag.
    ///
    /// # Errors
    /// [`Error::Denied`], [`Error::Status`] with what the registry said, and those of any request.
    pub async fn put_manifest(&self, raw: &[u8], media_type: &str) -> Result<(), Error> {
        let selector = self.reference.manifest_selector();
        self.put_manifest_at(&selector, raw, media_type).await
    }

    /// Stores a manifest under its digest alone.
    ///
    /// # Errors
    /// As [`RegistryClient::put_manifest`].
    pub async fn put_manifest_by_digest(
        &self,
        digest: &Digest,
        raw: &[u8],
        media_type: &str,
    ) -> Result<(), Error> {
        self.put_manifest_at(&digest.to_string(), raw, media_type)
            .await
    }

    async fn put_manifest_at(
        &self,
        selector: &str,
        raw: &[u8],
        media_type: &str,
    ) -> Result<(), Error> {
        let content_type = HeaderValue::from_str(media_type).map_err(|_| Error::Header {
            url: self.base.to_string(),
            header: "Content-Type",
            value: media_type.to_owned(),
        })?;
        let url = self.url(&format!("manifests/{selector}"))?;
        let body = bytes::Bytes::copy_from_slice(raw);
        let answer = self
            .send(Operation::Push, || {
                self.http
                    .put(url.clone())
                    .header(CONTENT_TYPE, content_type.clone())
                    .timeout(self.transport.timeouts().stall)
                    .body(body.clone())
            })
            .await?;
        if answer.status().is_success() {
            Ok(())
        } else {
            Err(self.fault(answer).await)
        }
    }

    /// A URL below `/v2/<repository>/`.
    pub(crate) fn url(&self, path: &str) -> Result<Url, Error> {
        // `Url::join` would read the colon of `sha256:…` as a scheme; plain text has no such doubt.
        let text = format!("{}{path}", self.base);
        Url::parse(&text).map_err(|_| Error::Url {
            url: text,
            reason: "it is not a URL",
        })
    }

    /// A `Location` of the registry's as a URL: absolute, or relative to `from`.
    pub(crate) fn location(&self, from: &Url, answer: &Response) -> Result<Url, Error> {
        let value = answer
            .headers()
            .get(reqwest::header::LOCATION)
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let fault = |value: &str| Error::Header {
            url: from.to_string(),
            header: "Location",
            value: value.chars().take(200).collect(),
        };
        let value = value.ok_or_else(|| fault("(none)"))?;
        let url = from.join(&value).map_err(|_| fault(&value))?;
        let downgraded = from.scheme() == "https" && url.scheme() != "https";
        if !matches!(url.scheme(), "http" | "https") || downgraded {
            return Err(fault(&value));
        }
        Ok(url)
    }

    /// A request to any URL that the registry named; credentials go along only to its own host.
    pub(crate) fn request(&self, method: Method, url: Url) -> RequestBuilder {
        self.http.request(method, url)
    }
}

/// Whether a registry, `host[:port]`, lets this name in with this password.
///
/// # Errors
/// [`Error::Denied`] when it does not; [`Error::Url`] when `registry` is not the name of a host;
/// and those of any request.
pub async fn check_login(
    transport: &Transport,
    registry: &str,
    options: &RegistryOptions,
) -> Result<(), Error> {
    // The name of a repository is part of every client; nothing is asked about this one.
    let reference =
        Reference::parse(&format!("{registry}/login:check")).map_err(|_| Error::Url {
            url: registry.to_owned(),
            reason: "it is not the name of a registry: write HOST or HOST:PORT",
        })?;
    let client = RegistryClient::open(transport, &reference, options).await?;
    client.check_login().await
}

/// The name in the form of `oci_distribution`, which knows where Docker Hub's registry really is.
fn oci_reference(reference: &Reference) -> oci_distribution::Reference {
    let registry = reference.registry().to_owned();
    let repository = reference.repository().as_str().to_owned();
    match (reference.digest(), reference.tag()) {
        (Some(digest), _) => {
            oci_distribution::Reference::with_digest(registry, repository, digest.to_string())
        }
        (None, tag) => {
            let tag = tag.map_or(DEFAULT_TAG, Tag::as_str).to_owned();
            oci_distribution::Reference::with_tag(registry, repository, tag)
        }
    }
}
