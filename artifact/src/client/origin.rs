//! Origin: one repository where models come from: of a registry, the Ollama library or Hugging Face.
//!
//! The three differ in what they can be asked for; the answer is always a manifest whose blobs can
//! be had by ranges. What an origin does not have by itself (a manifest, a config) is made here,
//! from the same facts always with the same bytes.

mod huggingface;
mod oci;
mod ollama;
mod url;

use std::fmt;

use bytes::Bytes;

use crate::client::error::Error;
use crate::client::fetch::BlobSource;
use crate::client::registry::{RegistryClient, RegistryOptions};
use crate::client::retry::RetryPolicy;
use crate::client::transport::Transport;
use crate::digest::Digest;
use crate::manifest::{Descriptor, Manifest};
pub(crate) use huggingface::Api;
use huggingface::Hub;
pub use url::{InvalidOrigin, OriginKind, OriginUrl};

/// Which manifest of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// The one that a tag names now. At Hugging Face a tag is a quantisation or a revision.
    Tag(String),
    /// The one with this digest.
    Digest(Digest),
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => f.write_str(tag),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

/// What is known of a tag from an earlier answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The digest of the manifest.
    pub digest: Digest,
    /// What the origin calls this state: an entity tag, a commit.
    pub etag: Option<String>,
}

/// What an origin says of a manifest.
#[derive(Clone, Debug)]
pub enum Answer {
    /// What is known still holds.
    Unchanged {
        /// What the origin calls this state now.
        etag: Option<String>,
    },
    /// The manifest.
    Found(Box<Found>),
}

/// A manifest as an origin gave it.
#[derive(Clone, Debug)]
pub struct Found {
    /// The manifest or index.
    pub manifest: Manifest,
    /// Its digest, checked against its bytes.
    pub digest: Digest,
    /// What the origin calls this state.
    pub etag: Option<String>,
    /// Blobs of the manifest that are in hand already: a config made here, small files that had to
    /// be fetched for their digest.
    pub documents: Vec<(Digest, Bytes)>,
}

/// One repository at one origin. A clone shares connections and tokens.
#[derive(Clone, Debug)]
pub struct Origin {
    at: OriginUrl,
    repository: String,
    client: Client,
}

#[derive(Clone, Debug)]
enum Client {
    Oci(RegistryClient),
    Ollama(RegistryClient),
    HuggingFace(Hub),
}

impl Origin {
    /// The repository of this name at an origin. Nothing is sent yet. Upper case in the name is
    /// kept for the kinds that know it.
    ///
    /// # Errors
    /// [`Error::Url`] when the name is none that this kind of origin can have, and
    /// [`Error::Setup`] when the HTTP client cannot be built.
    pub async fn open(
        transport: &Transport,
        at: &OriginUrl,
        repository: &str,
        options: &RegistryOptions,
    ) -> Result<Self, Error> {
        let client = match at.kind {
            OriginKind::Oci => Client::Oci(oci::open(transport, at, repository, options)?),
            OriginKind::Ollama => Client::Ollama(ollama::open(transport, at, repository, options)?),
            OriginKind::HuggingFace => {
                Client::HuggingFace(Hub::open(transport, at, repository, options)?)
            }
        };
        Ok(Self {
            at: at.clone(),
            repository: repository.to_owned(),
            client,
        })
    }

    /// A repository of a registry that was opened by its name.
    ///
    /// # Errors
    /// [`Error::Url`] when the registry has no URL that an origin can have.
    pub fn from_registry(registry: RegistryClient) -> Result<Self, Error> {
        Ok(Self {
            at: oci::place_of(&registry)?,
            repository: registry.reference().repository().as_str().to_owned(),
            client: Client::Oci(registry),
        })
    }

    /// Where it is.
    #[must_use]
    pub fn at(&self) -> &OriginUrl {
        &self.at
    }

    /// Its name, as it was given.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Asks for a manifest; with `known`, only for what is new, at the least cost that this kind
    /// of origin allows.
    ///
    /// # Errors
    /// One that [`Error::is_absent`] when there is none; [`Error::DigestMismatch`] when the bytes
    /// are not those that were asked for or announced; [`Error::Unsupported`] for a selector that
    /// this kind does not have; and those of any request.
    pub async fn manifest(
        &self,
        selector: &Selector,
        known: Option<&Known>,
    ) -> Result<Answer, Error> {
        match &self.client {
            Client::Oci(registry) => oci::manifest(registry, selector, known).await,
            Client::Ollama(registry) => ollama::manifest(registry, &self.at, selector, known).await,
            Client::HuggingFace(hub) => hub.manifest(selector, known).await,
        }
    }

    /// Where the bytes of a blob of `manifest` come from. Nothing is sent yet.
    ///
    /// # Errors
    /// [`Error::Answer`] when the manifest does not say where its blob is, which this kind of
    /// origin needs.
    pub fn blob(
        &self,
        layer: &Descriptor,
        manifest: &Manifest,
        retry: RetryPolicy,
    ) -> Result<BlobSource, Error> {
        match &self.client {
            Client::Oci(registry) | Client::Ollama(registry) => Ok(BlobSource::new(
                registry.clone(),
                layer.digest,
                layer.size,
                retry,
            )),
            Client::HuggingFace(hub) => hub.blob(layer, manifest, retry),
        }
    }

    /// The size of a blob in bytes, if the repository has it and the origin can be asked.
    ///
    /// # Errors
    /// Those of any request.
    pub async fn blob_size(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        match &self.client {
            Client::Oci(registry) | Client::Ollama(registry) => registry.blob_size(digest).await,
            Client::HuggingFace(_) => Ok(None),
        }
    }

    /// The first `at_most` tags.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the origin has no list, and those of any request.
    pub async fn tags(&self, at_most: usize) -> Result<Vec<String>, Error> {
        match &self.client {
            Client::Oci(registry) => registry.tags(at_most).await,
            Client::Ollama(_) => Err(Error::Unsupported {
                what: "a list of tags".to_owned(),
                place: self.at.to_string(),
                reason: "the Ollama library has none",
            }),
            Client::HuggingFace(hub) => hub.tags(at_most).await,
        }
    }

    /// The index of the manifests that refer to `subject`, as JSON; nothing where the origin does
    /// not offer the question.
    ///
    /// # Errors
    /// Those of any request.
    pub async fn referrers(&self, subject: &Digest) -> Result<Option<Bytes>, Error> {
        match &self.client {
            Client::Oci(registry) => registry.referrers(subject).await,
            Client::Ollama(_) | Client::HuggingFace(_) => Ok(None),
        }
    }

    /// The registry behind it, for what only a registry offers; none at Hugging Face and none at
    /// the Ollama library.
    #[must_use]
    pub fn registry(&self) -> Option<&RegistryClient> {
        match &self.client {
            Client::Oci(registry) => Some(registry),
            Client::Ollama(_) | Client::HuggingFace(_) => None,
        }
    }
}
