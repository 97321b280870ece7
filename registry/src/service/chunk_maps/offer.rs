//! Offer: the maps of a manifest's blobs as a referrer of it, made when its referrers are asked for.
//!
//! It is made once all maps are there, so it is never outdated, and the same on every replica.

use std::collections::BTreeSet;
use std::sync::Arc;

use artifact::chunk_map::{CHUNK_MAPS, ChunkMap, MIN_MAPPED_BYTES};
use artifact::dialect::Dialect;
use artifact::manifest::{Descriptor, Manifest};
use artifact::media_type::{DOCKER_MANIFEST, OCI_MANIFEST};
use artifact::{Digest, Repository};
use bytes::Bytes;
use futures::TryStreamExt;

use crate::config::ChunkMapPolicy;
use crate::error::Error;
use crate::service::chunk_maps::manifest;
use crate::service::chunk_maps::read::Outlook;
use crate::service::dialects::Wish;
use crate::service::manifests::FoundManifest;
use crate::service::{Registry, detached};
use crate::store::Page;
use crate::store::paging::each;

/// Referrers of a mirrored manifest that are looked through for its upstream's maps.
const REFERRERS: usize = 256;

/// What there is of the map of a blob.
enum Known {
    /// Its bytes.
    Map(Bytes),
    /// It has none, and never will.
    None,
    /// It may have one later.
    NotYet,
}

impl Registry {
    /// Sees to it that the maps of a manifest's blobs are listed among its referrers, if they are all
    /// there. Those of its upstream have been brought in before, and are as good as ours. Gives the manifest that names them where it lies in memory alone, so that no index
    /// lists it.
    pub(crate) async fn offer_chunk_maps(
        self: &Arc<Self>,
        repository: &Repository,
        subject: &Digest,
    ) -> Option<FoundManifest> {
        if self.chunk_maps.policy == ChunkMapPolicy::Off {
            return None;
        }
        match self.offered(repository, subject).await {
            Ok(in_memory) => in_memory,
            Err(error) => {
                tracing::warn!(%repository, %subject, error = error.chain(), "chunk maps cannot be offered");
                None
            }
        }
    }

    async fn offered(
        self: &Arc<Self>,
        repository: &Repository,
        subject: &Digest,
    ) -> Result<Option<FoundManifest>, Error> {
        let Some(manifest) = self.mapped_manifest(repository, subject).await? else {
            return Ok(None);
        };
        let wish = (repository.clone(), *subject, Dialect::Other);
        let mut found = self.derived_before(&wish).await?;
        if found.is_none() && !self.has_brought_maps(repository, subject).await? {
            // To its end even when the client goes away: the next one has it then.
            let registry = Arc::clone(self);
            found = detached(async move { registry.publish(wish, &manifest).await }).await?;
        }
        let Some(found) = found else {
            return Ok(None);
        };
        let stored = self.index.manifest(repository, &found.digest).await?;
        Ok(stored.is_none().then_some(found))
    }

    /// The manifest, if its maps are to be offered and it can have any.
    async fn mapped_manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Option<Manifest>, Error> {
        let Some(record) = self.index.manifest(repository, digest).await? else {
            return Ok(None);
        };
        let media_type = record.media_type.as_str();
        let is_of_maps = record.artifact_type.as_deref() == Some(CHUNK_MAPS);
        if is_of_maps || ![OCI_MANIFEST, DOCKER_MANIFEST].contains(&media_type) {
            return Ok(None);
        }
        let content = self.manifest_content(repository, digest).await?;
        let manifest =
            Manifest::parse(content.to_vec(), Some(media_type)).map_err(Error::ManifestInvalid)?;
        let is_wanted = match self.chunk_maps.policy {
            ChunkMapPolicy::Models => Dialect::of(&manifest) != Dialect::Other,
            ChunkMapPolicy::All => true,
            ChunkMapPolicy::Off => false,
        };
        let is_wanted = is_wanted && manifest.blobs().any(is_mapped);
        Ok(is_wanted.then_some(manifest))
    }

    /// Whether the upstream of a mirrored manifest has its maps, and they are listed here.
    async fn has_brought_maps(
        &self,
        repository: &Repository,
        subject: &Digest,
    ) -> Result<bool, Error> {
        if self.mirrored(repository).is_none() {
            return Ok(false);
        }
        let referrers = each(Page::first(REFERRERS), |page| {
            self.index.referrers(repository, subject, page)
        });
        let maps = referrers.try_filter(|(_, record)| {
            std::future::ready(record.artifact_type.as_deref() == Some(CHUNK_MAPS))
        });
        let first = std::pin::pin!(maps).try_next().await?;
        Ok(first.is_some())
    }

    /// Stores the manifest that offers the maps, if all of them are there; those that are not will be
    /// made.
    async fn publish(
        &self,
        wish: Wish,
        manifest: &Manifest,
    ) -> Result<Option<FoundManifest>, Error> {
        let _turn = self.chunk_maps.turn.lock().await;
        if let Some(found) = self.derived_before(&wish).await? {
            return Ok(Some(found));
        }
        let (repository, subject, _) = &wish;
        let mut maps = Vec::new();
        let mut is_complete = true;
        let mut seen = BTreeSet::new();
        for blob in manifest.blobs().filter(|blob| is_mapped(blob)) {
            if !seen.insert(blob.digest) {
                continue;
            }
            match self.known_map(repository, blob).await? {
                Known::Map(map) => maps.push((blob.digest, map)),
                Known::None => {}
                // The others are looked at all the same, so that they are asked for too.
                Known::NotYet => is_complete = false,
            }
        }
        if !is_complete || maps.is_empty() {
            return Ok(None);
        }
        let derived =
            manifest::offering(manifest, *subject, maps).map_err(|source| Error::Storage {
                action: "encode",
                path: "the manifest of chunk maps".into(),
                source: source.into(),
            })?;
        let found = self.keep(&wish, derived).await?;
        self.chunk_maps.metrics.maps_published();
        tracing::info!(%repository, %subject, digest = %found.digest, "chunk maps are offered");
        Ok(Some(found))
    }

    async fn known_map(&self, repository: &Repository, blob: &Descriptor) -> Result<Known, Error> {
        let digest = &blob.digest;
        if self.index.blob(repository, digest).await?.is_none() {
            // Of a mirrored manifest: it comes when somebody pulls it.
            return Ok(Known::NotYet);
        }
        if let Some(map) = self.kept_map(digest, blob.size).await? {
            return Ok(Known::Map(map));
        }
        if self.is_read_only() {
            return Ok(Known::NotYet);
        }
        Ok(match self.chunk_maps.wanted.ask(*digest) {
            Outlook::Asked | Outlook::Corrupt => Known::NotYet,
            Outlook::Unmapped => Known::None,
        })
    }

    /// The map beside a blob of this size, if it is one, and of this blob.
    pub(super) async fn kept_map(&self, blob: &Digest, size: u64) -> Result<Option<Bytes>, Error> {
        let Some(bytes) = self.maps.map(blob).await? else {
            return Ok(None);
        };
        match ChunkMap::parse(&bytes) {
            Ok(map) if map.blob() == *blob && map.size() == size => return Ok(Some(bytes)),
            Ok(map) => {
                tracing::warn!(blob.digest = %blob, of = %map.blob(), "the chunk map beside a blob is of another one");
            }
            Err(error) => {
                tracing::warn!(blob.digest = %blob, %error, "the chunk map beside a blob is damaged");
            }
        }
        Ok(None)
    }
}

/// Whether a blob is here, or may be, and large enough for a map.
fn is_mapped(blob: &Descriptor) -> bool {
    !blob.is_foreign && blob.size >= MIN_MAPPED_BYTES
}
