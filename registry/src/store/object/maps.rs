//! The chunk maps of blobs in a bucket: small objects named after their blobs.

use artifact::Digest;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt};

use crate::error::Error;
use crate::store::MapStore;
use crate::store::key::parse_digest;
use crate::store::object::ObjectStore;

/// The key of the map of a blob.
pub(super) fn key(blob: &Digest) -> String {
    format!("maps/{}/{}", blob.algorithm(), blob.hex())
}

fn blob_of(key: &str) -> Option<Digest> {
    let (algorithm, hex) = key.strip_prefix("maps/")?.split_once('/')?;
    parse_digest(algorithm, hex)
}

impl MapStore for ObjectStore {
    fn map<'a>(&'a self, blob: &'a Digest) -> BoxFuture<'a, Result<Option<Bytes>, Error>> {
        async move {
            let found = self.inner.objects.get(&key(blob)).await?;
            Ok(found.map(|(map, _)| map))
        }
        .boxed()
    }

    fn keep_map<'a>(&'a self, blob: &'a Digest, map: Bytes) -> BoxFuture<'a, Result<(), Error>> {
        async move {
            self.inner.health.require()?;
            self.inner.objects.put(&key(blob), map).await.map(drop)
        }
        .boxed()
    }

    fn forget_map<'a>(&'a self, blob: &'a Digest) -> BoxFuture<'a, Result<(), Error>> {
        async move { self.inner.objects.delete(&key(blob)).await }.boxed()
    }

    fn mapped(&self) -> BoxStream<'_, Result<Digest, Error>> {
        self.inner
            .objects
            .list("maps")
            .try_filter_map(|(key, _)| async move { Ok(blob_of(&key)) })
            .boxed()
    }
}
