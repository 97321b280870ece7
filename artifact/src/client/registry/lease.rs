//! Leases: a registry of ours keeps content while somebody pulls it, whatever becomes of its tags.

use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, StatusCode};

use crate::client::error::Error;
use crate::client::registry::{Operation, RegistryClient};
use crate::digest::Digest;

impl RegistryClient {
    /// Takes a lease on content of the repository, or renews the one of the same name, a UUID.
    /// `false` when the registry does not offer leases, which is no fault.
    ///
    /// # Errors
    /// Those of any request.
    pub async fn put_lease(
        &self,
        id: &str,
        digests: &[Digest],
        time: Duration,
        holder: &str,
    ) -> Result<bool, Error> {
        let url = self.url(&format!("_hayloft/leases/{id}"))?;
        let lease = serde_json::json!({
            "digests": digests,
            "seconds": time.as_secs(),
            "holder": holder,
        });
        let answer = self
            .send(Operation::Pull, || {
                self.request(Method::PUT, url.clone())
                    .header(CONTENT_TYPE, "application/json")
                    .timeout(self.transport().timeouts().stall)
                    .body(lease.to_string())
            })
            .await?;
        match answer.status() {
            StatusCode::OK => Ok(true),
            StatusCode::NOT_FOUND
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::NOT_IMPLEMENTED => Ok(false),
            _ => Err(self.fault(answer).await),
        }
    }

    /// Ends a lease.
    ///
    /// # Errors
    /// Those of any request.
    pub async fn delete_lease(&self, id: &str) -> Result<(), Error> {
        let url = self.url(&format!("_hayloft/leases/{id}"))?;
        let answer = self
            .send(Operation::Pull, || {
                self.request(Method::DELETE, url.clone())
                    .timeout(self.transport().timeouts().stall)
            })
            .await?;
        match answer.status() {
            StatusCode::NO_CONTENT | StatusCode::NOT_FOUND => Ok(()),
            _ => Err(self.fault(answer).await),
        }
    }
}
