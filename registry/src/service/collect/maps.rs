//! Chunk maps without a blob: what a power cut between the removal of the one and of the other leaves.

use futures::StreamExt;

use crate::error::Error;
use crate::service::collect::{PAGE, Run};
use crate::store::IndexLock;

impl Run<'_> {
    /// Removes chunk maps whose blobs have gone.
    pub(super) async fn sweep_maps(&self, turn: &mut (dyn IndexLock + '_)) -> Result<(), Error> {
        let registry = self.registry;
        let mut mapped = registry.maps.mapped();
        let mut looked: usize = 0;
        while let Some(blob) = mapped.next().await {
            let blob = blob?;
            looked += 1;
            if looked.is_multiple_of(PAGE) {
                turn.check().await?;
            }
            // Nearly every one is held, which costs a look into the index and no request to a bucket.
            if self.is_held(&blob).await? {
                continue;
            }
            let _lock = registry.lock_content(&blob).await?;
            if registry.blobs.stat(&blob).await?.is_none() {
                registry.maps.forget_map(&blob).await?;
                tracing::info!(blob.digest = %blob, "removed the chunk map of a blob that has gone");
            }
        }
        Ok(())
    }
}
