//! What it takes to give a manifest another name in the same registry: its exact bytes, and its
//! blobs mounted from where they are.

use reqwest::header::CONTENT_LENGTH;
use reqwest::{Method, StatusCode};

use crate::client::error::Error;
use crate::client::registry::manifest::{Asked, Fetched};
use crate::client::registry::{Operation, RegistryClient, Resolved};
use crate::digest::Digest;
use crate::media_type::ACCEPT_MANIFESTS;
use crate::reference::Repository;

impl RegistryClient {
    /// As [`RegistryClient::resolve`], also for an index: the manifest with this digest, or the one
    /// that the reference names.
    ///
    /// # Errors
    /// As [`RegistryClient::resolve`], but for [`Error::NotAModel`].
    pub async fn any_manifest(&self, digest: Option<&Digest>) -> Result<Resolved, Error> {
        let named = || self.reference().manifest_selector();
        let asked = Asked {
            selector: &digest.map_or_else(named, ToString::to_string),
            accept: ACCEPT_MANIFESTS,
            etag: None,
        };
        match self.manifest(asked).await? {
            Fetched::Found {
                manifest, digest, ..
            } => Ok(Resolved {
                manifest: *manifest,
                digest,
            }),
            Fetched::Unchanged { .. } => Err(self.unasked(StatusCode::NOT_MODIFIED)),
        }
    }

    /// Makes a blob of another repository of this registry a blob of this one, without moving a
    /// byte. `false` when the registry does not do that.
    ///
    /// # Errors
    /// Those of any request.
    pub async fn mount_blob(&self, digest: &Digest, from: &Repository) -> Result<bool, Error> {
        let url = self.url(&format!("blobs/uploads/?mount={digest}&from={from}"))?;
        let answer = self
            .send(Operation::Push, || {
                self.request(Method::POST, url.clone())
                    .header(CONTENT_LENGTH, 0)
                    .timeout(self.transport().timeouts().stall)
            })
            .await?;
        match answer.status() {
            StatusCode::CREATED => Ok(true),
            StatusCode::ACCEPTED => {
                // The session that was opened instead is of no use; one that cannot be cancelled
                // expires.
                if let Ok(session) = self.location(&url, &answer) {
                    let cancel = || self.request(Method::DELETE, session.clone());
                    let _ = self.send(Operation::Push, cancel).await;
                }
                Ok(false)
            }
            _ => Err(self.fault(answer).await),
        }
    }
}
