//! Offer: the chunk map of a blob, from those origins that have one. A pull can do without, so
//! whatever goes wrong here is only logged.

use std::sync::Arc;
use std::time::Duration;

use artifact::client::Origin;
use artifact::{ChunkMap, Digest};

/// How long the origins may take, while the download waits.
const PATIENCE: Duration = Duration::from_secs(10);

/// The map of a blob of `size` bytes that `manifest` names, from the first origin that offers one.
pub(super) async fn offered(
    origins: Vec<Origin>,
    manifest: Digest,
    blob: Digest,
    size: u64,
) -> Option<Arc<ChunkMap>> {
    let asking = async {
        for origin in &origins {
            let map = match origin.chunk_maps(&manifest).await {
                Ok(maps) => maps.of(&blob, size).await,
                Err(error) => Err(error),
            };
            match map {
                Ok(Some(map)) => return Some(Arc::new(map)),
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(origin = %origin.at(), %error, "it offers no chunk map");
                }
            }
        }
        None
    };
    tokio::time::timeout(PATIENCE, asking).await.ok().flatten()
}
