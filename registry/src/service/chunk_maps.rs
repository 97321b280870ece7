//! Chunk maps: made while a blob comes in, kept beside it, and offered with the manifests that name it.
//!
//! - [`cutting`]: an upload is cut while it streams in, beside the thread that hashes it.
//! - [`read`]: a blob that came in without (its upload went on in another process, it is from before
//!   the maps, it came from an upstream) is read once, when its map is first asked for.
//! - [`offer`]: whoever asks for the referrers of a manifest finds the maps of its blobs among them,
//!   stored like any other manifest that the registry made.
//!
//! A map is a hint. Nothing waits for it, and nothing fails for want of it.

mod cutting;
mod manifest;
mod offer;
mod read;

use artifact::chunk_map::ChunkMap;
use bytes::Bytes;

use crate::config::ChunkMapPolicy;
use crate::metrics::Metrics;
use crate::metrics::labels::MapSource;
use crate::service::Registry;
pub(crate) use cutting::Cutting;
use cutting::Cuttings;
use read::Wanted;

/// What a registry knows of chunk maps beside those that it keeps.
#[derive(Debug)]
pub(crate) struct ChunkMaps {
    policy: ChunkMapPolicy,
    metrics: Metrics,
    cuttings: Cuttings,
    wanted: Wanted,
    /// Held while maps are stored to be offered, so that those who ask at once make them once.
    turn: tokio::sync::Mutex<()>,
}

impl ChunkMaps {
    /// Makes and offers maps by this policy.
    pub(crate) fn new(policy: ChunkMapPolicy, metrics: Metrics) -> Self {
        Self {
            policy,
            metrics,
            cuttings: Cuttings::default(),
            wanted: Wanted::default(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// The cuttings of uploads; none where no maps are made.
    pub(crate) fn cuttings(&self) -> Option<&Cuttings> {
        (self.policy != ChunkMapPolicy::Off).then_some(&self.cuttings)
    }
}

impl Registry {
    /// Keeps a map beside its blob. The caller holds the blob's lock and has found the blob there. A
    /// map that cannot be kept is lost, and made again when it is asked for.
    pub(crate) async fn keep_map(&self, map: &ChunkMap, source: MapSource) {
        if self.chunk_maps.policy == ChunkMapPolicy::Off {
            return;
        }
        let blob = map.blob();
        match self.maps.keep_map(&blob, Bytes::from(map.encode())).await {
            Ok(()) => self.chunk_maps.metrics.mapped(source, map.size()),
            Err(error) => {
                tracing::warn!(blob.digest = %blob, error = error.chain(), "a chunk map cannot be kept");
            }
        }
    }
}
