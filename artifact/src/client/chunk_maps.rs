//! ChunkMaps: the chunk maps that an origin offers for the blobs of a manifest, as referrers of it.
//!
//! Whoever can push may offer anything here, so nothing is believed: manifests and maps must have
//! their digests, and a map must be of the blob and of the size that it was asked for. Of several
//! offers the first good one counts; each kind is looked at a few times only.

use crate::chunk_map::{CHUNK_MAP, CHUNK_MAPS, ChunkMap, MAP_OF, MAX_MAP_BYTES};
use crate::client::error::Error;
use crate::client::fetch::{BlobSource, Mode};
use crate::client::origin::Origin;
use crate::client::registry::{Asked, Fetched, RegistryClient};
use crate::client::retry::RetryPolicy;
use crate::digest::Digest;
use crate::manifest::{Descriptor, MAX_MANIFEST_BYTES, Manifest};
use crate::media_type::{OCI_INDEX, OCI_MANIFEST};

/// Most manifests with maps that are looked at.
const MAX_MANIFESTS: usize = 4;
/// Most maps that are tried for one blob.
const MAX_OFFERS: usize = 4;
/// Tries of one request: a map that does not come is no reason to wait long.
const TRIES: usize = 3;

/// What an origin offers.
#[derive(Clone, Debug, Default)]
pub struct ChunkMaps {
    registry: Option<RegistryClient>,
    offers: Vec<Offer>,
}

#[derive(Clone, Debug)]
struct Offer {
    blob: Digest,
    map: Digest,
    size: u64,
}

impl Origin {
    /// Asks which blobs of `manifest` there are chunk maps for: empty where the origin has none,
    /// or is of a kind that has none.
    ///
    /// # Errors
    /// Those of any request, and those of an answer that cannot be used, if that leaves nothing.
    /// The caller can always do without.
    pub async fn chunk_maps(&self, manifest: &Digest) -> Result<ChunkMaps, Error> {
        match self.registry() {
            Some(registry) => ChunkMaps::ask(registry, manifest).await,
            None => Ok(ChunkMaps::default()),
        }
    }
}

impl ChunkMaps {
    async fn ask(registry: &RegistryClient, subject: &Digest) -> Result<Self, Error> {
        let mut maps = Self {
            registry: Some(registry.clone()),
            offers: Vec::new(),
        };
        let answer = registry.referrers_of_type(subject, CHUNK_MAPS).await?;
        let Some(index) = answer else {
            return Ok(maps);
        };
        let index = Manifest::parse(index.to_vec(), Some(OCI_INDEX)).map_err(|fault| {
            let place = registry.reference();
            Error::Answer {
                url: format!("the referrers of {subject} in {place}"),
                reason: fault.to_string(),
            }
        })?;
        // Filtering is the registry's choice, so it is done here as well.
        let candidates = index
            .manifests()
            .iter()
            .filter(|entry| entry.artifact_type.as_deref() == Some(CHUNK_MAPS))
            .take(MAX_MANIFESTS);
        let mut fault = None;
        for candidate in candidates {
            match offers_of(registry, candidate, subject).await {
                Ok(offers) => maps.offers.extend(offers),
                Err(error) => fault = Some(error),
            }
        }
        match fault {
            Some(fault) if maps.is_empty() => Err(fault),
            _ => Ok(maps),
        }
    }

    /// Whether no blob has a map.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.offers.is_empty()
    }

    /// The map of a blob of `size` bytes, fetched and checked; none where none is offered.
    ///
    /// # Errors
    /// Why the last map on offer cannot be used, if none of them can: those of any request,
    /// [`Error::DigestMismatch`] and [`Error::ChunkMap`].
    pub async fn of(&self, blob: &Digest, size: u64) -> Result<Option<ChunkMap>, Error> {
        let offers = self.offers.iter().filter(|offer| offer.blob == *blob);
        let mut fault = None;
        for offer in offers.take(MAX_OFFERS) {
            match self.fetch(offer, size).await {
                Ok(map) => return Ok(map),
                Err(error) => fault = Some(error),
            }
        }
        fault.map_or(Ok(None), Err)
    }

    async fn fetch(&self, offer: &Offer, size: u64) -> Result<Option<ChunkMap>, Error> {
        let Some(registry) = &self.registry else {
            return Ok(None);
        };
        let bytes = read(registry, offer).await?;
        let actual = Digest::of(offer.map.algorithm(), &bytes);
        if actual != offer.map {
            return Err(Error::DigestMismatch {
                what: format!("the chunk map of blob {}", offer.blob),
                expected: Box::new(offer.map),
                actual: Box::new(actual),
            });
        }
        let unusable = |reason: String| Error::ChunkMap {
            map: Box::new(offer.map),
            blob: Box::new(offer.blob),
            reason,
        };
        let map = ChunkMap::parse(&bytes).map_err(|fault| unusable(fault.to_string()))?;
        if map.blob() != offer.blob {
            return Err(unusable(format!("it is of blob {}", map.blob())));
        }
        if map.size() != size {
            let found = map.size();
            return Err(unusable(format!(
                "it is of {found} bytes, and the blob has {size}"
            )));
        }
        Ok(Some(map))
    }
}

/// What a manifest with maps offers, after a look at whether it is one, and of this subject.
async fn offers_of(
    registry: &RegistryClient,
    entry: &Descriptor,
    subject: &Digest,
) -> Result<Vec<Offer>, Error> {
    let unusable = |reason: &str| Error::ChunkMap {
        map: Box::new(entry.digest),
        blob: Box::new(*subject),
        reason: reason.to_owned(),
    };
    if entry.media_type != OCI_MANIFEST || entry.size > MAX_MANIFEST_BYTES as u64 {
        return Err(unusable(
            "its entry among the referrers is not of a manifest",
        ));
    }
    let asked = Asked {
        selector: &entry.digest.to_string(),
        accept: OCI_MANIFEST,
        etag: None,
    };
    let Fetched::Found { manifest, .. } = registry.manifest(asked).await? else {
        return Err(unusable("the registry does not send it"));
    };
    if manifest.artifact_type() != Some(CHUNK_MAPS) {
        return Err(unusable("it is of another artifact type"));
    }
    if manifest.subject().map(|found| found.digest) != Some(*subject) {
        return Err(unusable("it is of another manifest"));
    }
    Ok(manifest.layers().iter().filter_map(offer_of).collect())
}

/// What a layer offers, if it is a map and not too large for one.
fn offer_of(layer: &Descriptor) -> Option<Offer> {
    let blob = layer.annotations.get(MAP_OF)?;
    let is_map = layer.media_type == CHUNK_MAP && layer.size <= MAX_MAP_BYTES;
    is_map.then_some(Offer {
        blob: Digest::parse(blob).ok()?,
        map: layer.digest,
        size: layer.size,
    })
}

/// The bytes of a map: exactly as many as the manifest says, which is within the limit.
async fn read(registry: &RegistryClient, offer: &Offer) -> Result<Vec<u8>, Error> {
    let retry = RetryPolicy {
        attempts: TRIES,
        ..RetryPolicy::default()
    };
    let source = BlobSource::new(registry.clone(), offer.map, offer.size, retry);
    let mut reader = source.reader(0..offer.size, Mode::Whole);
    let mut bytes = Vec::new();
    while let Some((_, piece)) = reader.next().await? {
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}
