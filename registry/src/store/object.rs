//! Blobs and upload sessions in a bucket: S3 and what speaks it, Google Cloud Storage, Azure.
//!
//! Below the prefix of the storage URL:
//!
//! ```text
//! data/<uuid>                       the content of one upload, under a name of its own
//! blobs/<algorithm>/<hex>           a pointer: { "data": uuid, "size": n }, or small content itself.
//!                                   The commit point: a blob exists when its pointer does
//! maps/<algorithm>/<hex>            the chunk map of a blob
//! quarantine/<algorithm>/<hex>      the pointer of content that was found corrupt
//! uploads/<uuid>/state              an upload session: saved hash, parts done, who is writing to it
//! uploads/<uuid>/tail-<uuid>        ... its bytes after the last whole part, between two requests
//! uploads/<uuid>/discard            data/<uuid> belongs to no blob any more and is about to go
//! owner                             which registry uses the bucket, see `owner`
//! probe/<uuid>                      written and removed again by checks
//! records/…                         the records, under the keys they have in a folder
//! ```
//!
//! Why pointers: the key of a multipart upload must be named before its digest is known. Renaming
//! does not exist, and copying is limited to 5 GB and takes time. A pointer makes the commit one
//! small put, whatever the size of the blob, and a removal that arrives late can never hit a newer
//! upload of the same content, because that lies under another name.
//!
//! Whatever is decided by several processes is decided by a conditional put (`objects`).

mod blobs;
mod connect;
mod content;
mod discard;
mod maps;
mod objects;
mod owner;
mod parts;
mod pointer;
mod probe;
mod session;
mod state;
mod sweep;
mod unfinished;
mod uploads;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::error::Error;
use crate::store::health::Health;
pub(crate) use crate::store::object::connect::connect;
pub use crate::store::object::connect::is_option;
pub(crate) use crate::store::object::objects::Objects;
pub(crate) use crate::store::object::owner::{Owner, Sharing};
pub(crate) use crate::store::object::probe::honours_conditions;
use crate::store::object::uploads::Shared;

/// [`BlobStore`](crate::store::BlobStore) and [`UploadStore`](crate::store::UploadStore) in a
/// bucket.
#[derive(Clone, Debug)]
pub(crate) struct ObjectStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    objects: Objects,
    /// This registry among all that use the bucket; the same after a restart on the same data
    /// folder, which only one process can use at a time.
    instance: Uuid,
    health: Arc<Health>,
    max_uploads: usize,
    /// Sessions open in the bucket, as far as this process knows: counted by the sweeper, and kept
    /// up by itself in between.
    open_uploads: AtomicUsize,
    /// Sessions met since the start. Held for look-ups only, never across an await.
    sessions: Mutex<HashMap<Uuid, Arc<Shared>>>,
    /// Sessions of clients that have gone, keeping what arrived.
    settling: TaskTracker,
    /// When a check last went well.
    checked: Mutex<Option<Instant>>,
}

impl ObjectStore {
    /// The store over a connected bucket, for the registry `instance`.
    pub(crate) fn new(
        objects: Objects,
        instance: Uuid,
        health: Arc<Health>,
        max_uploads: usize,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                objects,
                instance,
                health,
                max_uploads,
                open_uploads: AtomicUsize::new(0),
                sessions: Mutex::default(),
                settling: TaskTracker::new(),
                checked: Mutex::default(),
            }),
        }
    }
}

impl Inner {
    /// Counts a session that has ended. The sweeper may have counted anew in between, and sessions
    /// that another replica began may end here: so never below zero.
    fn count_ended(&self) {
        let fewer = |open: usize| Some(open.saturating_sub(1));
        // The closure always gives a value, so this cannot fail.
        let _ = self
            .open_uploads
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, fewer);
    }
}

/// The key of the data of upload `id`.
fn data_key(id: Uuid) -> String {
    format!("data/{id}")
}

fn unknown(id: Uuid) -> Error {
    Error::UploadUnknown { id: id.to_string() }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use std::sync::Arc;

    use object_store::memory::InMemory;
    use uuid::Uuid;

    use crate::store::blob_conformance::{Store, verify};
    use crate::store::object::{ObjectStore, Objects, honours_conditions};

    #[tokio::test]
    async fn the_store_over_a_bucket_in_memory_keeps_every_promise() {
        let memory = Arc::new(InMemory::new());
        let objects = Objects::new(Arc::clone(&memory) as _, memory, "team/a".into());
        assert!(honours_conditions(&objects).await.unwrap());
        let store = ObjectStore::new(objects, Uuid::new_v4(), Arc::default(), 100);
        verify(Store {
            blobs: &store,
            maps: &store,
            uploads: &store,
        })
        .await;
    }
}
