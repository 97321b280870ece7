//! Reads what a derivation needs: small texts, and the header of the weights.

use artifact::dialect::{self, MAX_TEXT_BYTES, Parts};
use artifact::gguf::{Feed, Header, MAX_HEADER_BYTES};
use artifact::manifest::{Descriptor, Manifest};
use artifact::{Digest, Repository};
use bytes::{Bytes, BytesMut};
use futures::TryStreamExt;

use crate::error::Error;
use crate::service::Registry;

impl Registry {
    /// Every part of the model, each within its bounds; a text beyond them is left out.
    pub(super) async fn read_parts(
        &self,
        repository: &Repository,
        manifest: &Manifest,
    ) -> Result<Parts, Error> {
        let mut parts = Parts::default();
        for text in dialect::texts_of(manifest) {
            let content = self.read_text(repository, &text.digest).await?;
            parts
                .texts
                .extend(content.map(|content| (text.digest, content.into())));
        }
        if let Some(weights) = dialect::weights_of(manifest) {
            parts.header = self.read_header(repository, weights).await?;
        }
        Ok(parts)
    }

    async fn read_text(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Option<Bytes>, Error> {
        let blob = self.open_blob(repository, digest).await?;
        if blob.size > MAX_TEXT_BYTES as u64 {
            return Ok(None);
        }
        let mut content = BytesMut::new();
        let mut pieces = blob.stream().await?;
        while let Some(piece) = pieces.try_next().await? {
            content.extend_from_slice(&piece);
        }
        Ok(Some(content.freeze()))
    }

    /// The header; none of what is no GGUF file: clients say themselves what is wrong with it.
    async fn read_header(
        &self,
        repository: &Repository,
        weights: &Descriptor,
    ) -> Result<Option<Header>, Error> {
        let blob = self.open_blob(repository, &weights.digest).await?;
        let mut feed = Feed::new(Some(blob.size));
        let mut pieces = blob.stream_first(MAX_HEADER_BYTES).await?;
        while let Some(piece) = pieces.try_next().await? {
            // A tokenizer takes milliseconds to read: not on a thread that answers requests.
            let read = move || (feed.push(&piece), feed);
            let (pushed, fed) = tokio::task::spawn_blocking(read)
                .await
                .map_err(Error::Task)?;
            match pushed {
                Ok(None) => feed = fed,
                Ok(Some(header)) => return Ok(Some(header)),
                Err(_) => return Ok(None),
            }
        }
        Ok(None)
    }
}
