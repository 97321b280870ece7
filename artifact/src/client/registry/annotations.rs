//! What a registry of ours knows of a blob without its being read.

use std::collections::BTreeMap;

use reqwest::StatusCode;
use serde::Deserialize;

use crate::client::answer::json;
use crate::client::error::Error;
use crate::client::registry::{Operation, RegistryClient};
use crate::digest::Digest;

/// Most bytes of an answer.
const MAX_BYTES: usize = 256 * 1024;

#[derive(Deserialize)]
struct Known {
    annotations: BTreeMap<String, String>,
}

impl RegistryClient {
    /// What the registry noted of a blob, by the keys of [`mod@crate::gguf::annotations`]; nothing
    /// where it notes nothing, as any other registry than ours.
    ///
    /// # Errors
    /// Those of any request, but for an answer of another form: that is of another registry.
    pub async fn blob_annotations(
        &self,
        digest: &Digest,
    ) -> Result<BTreeMap<String, String>, Error> {
        let url = self.url(&format!("_hayloft/annotations/{digest}"))?;
        let answer = self
            .send(Operation::Pull, || {
                self.http
                    .get(url.clone())
                    .timeout(self.transport.timeouts().stall)
            })
            .await?;
        if answer.status() != StatusCode::OK {
            return Ok(BTreeMap::new());
        }
        match json::<Known>(answer, MAX_BYTES).await {
            Ok(known) => Ok(known.annotations),
            Err(Error::Answer { .. } | Error::WebPage { .. } | Error::TooLong { .. }) => {
                Ok(BTreeMap::new())
            }
            Err(error) => Err(error),
        }
    }
}
