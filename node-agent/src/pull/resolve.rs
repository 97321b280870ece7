//! Resolve: which origins a name leads to, and what the first of them that answers says of it.

use artifact::client::{self, Answer, Known, Origin, RegistryOptions, RetryPolicy, Selector};
use artifact::{Digest, Manifest, ModelName, Reference};
use bytes::Bytes;

use crate::error::Error;
use crate::pull::Puller;

/// A manifest, and where its blobs come from.
#[derive(Debug)]
pub(super) struct Resolved {
    pub(super) manifest: Manifest,
    pub(super) digest: Digest,
    /// Small blobs that are in hand already.
    pub(super) documents: Vec<(Digest, Bytes)>,
    /// The origins, the one that answered first.
    pub(super) origins: Vec<Origin>,
}

impl Puller {
    /// The origins of a model, in the order in which they are asked.
    pub(super) async fn origins(
        &self,
        name: &ModelName,
        plain_http: bool,
    ) -> Result<Vec<Origin>, Error> {
        let options = RegistryOptions {
            plain_http,
            credentials: self.options.credentials.clone(),
        };
        let sources = &self.options.sources;
        Ok(sources.open(&self.transport, name, &options).await?)
    }

    /// The manifest: from the cache if it is named by its digest, else from the first origin that
    /// has it; nothing when it is the one that is cached.
    pub(super) async fn resolve(
        &self,
        reference: &Reference,
        mut origins: Vec<Origin>,
        cached: Option<Digest>,
    ) -> Result<Option<Resolved>, Error> {
        if let Some(digest) = reference.digest().copied() {
            let here = self
                .cache
                .blocking(move |cache| cache.manifest(&digest))
                .await?;
            if let Some(manifest) = here {
                return Ok(Some(Resolved {
                    manifest,
                    digest,
                    documents: Vec::new(),
                    origins,
                }));
            }
        }
        let mut worst: Option<client::Error> = None;
        for place in 0..origins.len() {
            let is_last = place + 1 == origins.len();
            let retry = if is_last && cached.is_none() {
                Some(self.options.retry)
            } else {
                None
            };
            match ask(&origins[place], reference, cached, retry).await {
                Ok(Answer::Unchanged { .. }) => return Ok(None),
                Ok(Answer::Found(found)) => {
                    if found.manifest.config().is_none() {
                        return Err(Error::Registry(not_a_model(reference)));
                    }
                    origins.rotate_left(place);
                    return Ok(Some(Resolved {
                        manifest: found.manifest,
                        digest: found.digest,
                        documents: found.documents,
                        origins,
                    }));
                }
                Err(error) => {
                    if !is_last {
                        tracing::warn!(%reference, origin = %origins[place].at(), %error, "the next origin is asked");
                    }
                    // That one does not have it says less than that another cannot be asked.
                    if worst.as_ref().is_none_or(client::Error::is_absent) {
                        worst = Some(error);
                    }
                }
            }
        }
        Err(Error::Registry(worst.unwrap_or_else(|| {
            client::Error::ManifestUnknown {
                reference: Box::new(reference.clone()),
            }
        })))
    }
}

/// Asks one origin; a busy one again, as `retry` allows.
async fn ask(
    origin: &Origin,
    reference: &Reference,
    cached: Option<Digest>,
    retry: Option<RetryPolicy>,
) -> Result<Answer, client::Error> {
    let selector = match (reference.digest(), reference.tag()) {
        (Some(digest), _) => Selector::Digest(*digest),
        (None, Some(tag)) => Selector::Tag(tag.as_str().to_owned()),
        (None, None) => Selector::Tag(artifact::reference::DEFAULT_TAG.to_owned()),
    };
    let known = cached.map(|digest| Known { digest, etag: None });
    let mut delays = retry.map(|retry| retry.delays());
    loop {
        let error = match origin.manifest(&selector, known.as_ref()).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let delay = delays.as_mut().and_then(Iterator::next);
        match delay {
            Some(delay) if error.is_retryable() && !error.is_down() => {
                let asked = error.retry_after().unwrap_or_default();
                tokio::time::sleep(delay.max(asked)).await;
            }
            _ => return Err(error),
        }
    }
}

fn not_a_model(reference: &Reference) -> client::Error {
    client::Error::NotAModel {
        reference: Box::new(reference.clone()),
        reason: "it is an index of several manifests; name one of them by its digest",
    }
}
