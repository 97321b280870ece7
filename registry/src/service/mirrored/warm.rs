//! Warming: a mirrored model is brought in whole before anybody asks for it.

use std::time::Duration;

use artifact::{Digest, Manifest, Repository};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::mirror::fill::Fill;
use crate::service::Registry;
use crate::service::events::{Outlet, Told};
use crate::service::manifests::ManifestReference;
use crate::service::mirrored::Mirrored;

/// Time between two progress events of one blob.
const PROGRESS_PERIOD: Duration = Duration::from_millis(250);
/// Manifests that an image index may bring along.
const MOST_MANIFESTS: usize = 256;

/// What happens while a model is brought in, one by one. As NDJSON these are the answer of
/// `POST /v2/_hayloft/mirror/warm`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum WarmEvent {
    /// The manifest is here.
    Resolved {
        /// Its digest.
        digest: Digest,
        /// Bytes of all that it names.
        total: u64,
    },
    /// A blob comes.
    Progress {
        /// The blob.
        digest: Digest,
        /// Bytes that are here.
        completed: u64,
        /// Its size in bytes.
        total: u64,
    },
    /// Everything is here.
    Done {
        /// Bytes that came for this request.
        fetched: u64,
        /// Bytes that were here already.
        held: u64,
    },
    /// It was given up; what has come stays.
    Failed {
        /// Why.
        message: String,
    },
}

impl Told for WarmEvent {
    fn is_failure(&self) -> bool {
        matches!(self, Self::Failed { .. })
    }
}

/// Bytes that came, and bytes that were here.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    fetched: u64,
    held: u64,
}

impl Registry {
    /// Brings a mirrored model in whole, and tells how it goes, its end or failure last.
    pub(crate) async fn warm(
        &self,
        repository: &Repository,
        reference: &ManifestReference,
        outlet: &Outlet<WarmEvent>,
    ) -> Result<(), Error> {
        let outcome = match self.mirrored(repository) {
            Some(mirrored) => mirrored.bring_in(reference, outlet).await,
            None => Err(Error::NotMirrored {
                repository: repository.clone(),
            }),
        };
        outlet
            .tell(match &outcome {
                Ok(Sum { fetched, held }) => WarmEvent::Done {
                    fetched: *fetched,
                    held: *held,
                },
                Err(error) => WarmEvent::Failed {
                    message: error.chain(),
                },
            })
            .await;
        outcome.map(drop)
    }
}

impl Mirrored<'_> {
    async fn bring_in(
        &self,
        reference: &ManifestReference,
        outlet: &Outlet<WarmEvent>,
    ) -> Result<Sum, Error> {
        let digest = self.find_manifest(reference).await?.digest;
        let manifests = self.manifests_below(digest).await?;
        let blobs = manifests.iter().flat_map(Manifest::blobs);
        let mut blobs: Vec<_> = blobs
            .filter(|blob| !blob.is_foreign)
            .map(|blob| (blob.size, blob.digest))
            .collect();
        // Small ones first: what cannot be had at all shows before the weights are fetched.
        blobs.sort_unstable();
        blobs.dedup();
        let total = blobs.iter().map(|(size, _)| size).sum();
        outlet.tell(WarmEvent::Resolved { digest, total }).await;
        let mut sum = Sum::default();
        for (size, digest) in blobs {
            match self.begin_fill(&digest).await? {
                None => sum.held += size,
                Some(fill) => {
                    let here = fill.completed();
                    follow(&fill, outlet).await?;
                    sum.held += here;
                    sum.fetched += size.saturating_sub(here);
                }
            }
        }
        Ok(sum)
    }

    /// A manifest, and those that it names if it is an image index.
    async fn manifests_below(&self, digest: Digest) -> Result<Vec<Manifest>, Error> {
        let mut manifests = Vec::new();
        let mut left = vec![digest];
        while let Some(digest) = left.pop() {
            if manifests.len() >= MOST_MANIFESTS {
                break;
            }
            let found = self
                .find_manifest(&ManifestReference::Digest(digest))
                .await?;
            let content = self
                .registry
                .manifest_content(self.repository, &found.digest)
                .await?;
            let manifest =
                Manifest::parse(content.to_vec(), None).map_err(Error::ManifestInvalid)?;
            left.extend(manifest.manifests().iter().map(|named| named.digest));
            manifests.push(manifest);
        }
        Ok(manifests)
    }
}

/// Tells how a fill goes, to its end.
async fn follow(fill: &Fill, outlet: &Outlet<WarmEvent>) -> Result<(), Error> {
    let mut period = tokio::time::interval(PROGRESS_PERIOD);
    loop {
        let ended = tokio::select! {
            ended = fill.ended() => Some(ended),
            _ = period.tick() => None,
        };
        let progress = WarmEvent::Progress {
            digest: fill.digest(),
            completed: fill.completed(),
            total: fill.size(),
        };
        outlet.tell(progress).await;
        if let Some(ended) = ended {
            return ended.map_err(Error::Shared);
        }
    }
}
