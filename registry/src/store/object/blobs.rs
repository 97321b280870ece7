//! Committed content in a bucket.

use std::path::Path;
use std::sync::PoisonError;
use std::time::{Duration, Instant, SystemTime};

use artifact::Digest;
use artifact::chunk_map::MIN_MAPPED_BYTES;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt};
use jiff::Timestamp;
use object_store::ObjectMeta;
use url::Url;
use uuid::Uuid;

use crate::error::Error;
use crate::store::object::content::{Data, Inline};
use crate::store::object::objects::Objects;
use crate::store::object::pointer::{self, Place, Pointer};
use crate::store::object::{Inner, ObjectStore, data_key, discard, maps};
use crate::store::{BlobContent, BlobStore, OpenBlob, RemoteContent, StoredBlob};

/// Pointers that a listing reads at once.
const READ_AT_ONCE: usize = 16;
/// A check must be over by then: a bucket that takes longer is not ready.
const CHECK_TIME: Duration = Duration::from_secs(10);
/// A check that went well is good for so long, so that asking often costs the bucket nothing.
const CHECK_VALID: Duration = Duration::from_secs(5);

impl ObjectStore {
    async fn pointer(&self, digest: &Digest) -> Result<Option<Pointer>, Error> {
        let found = pointer::read(&self.inner.objects, digest).await?;
        Ok(found.map(|(pointer, _)| pointer))
    }
}

impl BlobStore for ObjectStore {
    fn stat<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<Option<u64>, Error>> {
        async move {
            let Some(pointer) = self.pointer(digest).await? else {
                return Ok(None);
            };
            if pointer::is_whole(&self.inner.objects, &pointer).await? {
                return Ok(Some(pointer.size));
            }
            // Said to be absent, so that a client pushes it again.
            tracing::error!(%digest, "a blob's content has gone from the bucket");
            Ok(None)
        }
        .boxed()
    }

    fn open<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<Option<OpenBlob>, Error>> {
        async move {
            let Some(pointer) = self.pointer(digest).await? else {
                return Ok(None);
            };
            let content: Box<dyn RemoteContent> = match pointer.place {
                Place::Content(content) => Box::new(Inline(content)),
                Place::Data(id) => Box::new(Data {
                    objects: self.inner.objects.clone(),
                    digest: *digest,
                    key: data_key(id),
                    size: pointer.size,
                }),
            };
            Ok(Some(OpenBlob {
                size: pointer.size,
                content: BlobContent::Remote(content),
            }))
        }
        .boxed()
    }

    fn read<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<Option<Bytes>, Error>> {
        async move {
            let Some(pointer) = self.pointer(digest).await? else {
                return Ok(None);
            };
            match pointer.place {
                Place::Content(content) => Ok(Some(content)),
                Place::Data(id) => {
                    let found = self.inner.objects.get(&data_key(id)).await?;
                    Ok(found.map(|(content, _)| content))
                }
            }
        }
        .boxed()
    }

    fn put<'a>(&'a self, digest: &'a Digest, content: Bytes) -> BoxFuture<'a, Result<(), Error>> {
        async move {
            self.inner.health.require()?;
            let pointer = Pointer::with_content(content);
            pointer::commit(&self.inner.objects, digest, &pointer).await?;
            Ok(())
        }
        .boxed()
    }

    fn adopt<'a>(
        &'a self,
        _digest: &'a Digest,
        _file: &'a Path,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        futures::future::ready(Ok(false)).boxed()
    }

    fn remove<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<bool, Error>> {
        async move {
            self.inner.health.require()?;
            let objects = &self.inner.objects;
            let Some(pointer) = self.pointer(digest).await? else {
                return Ok(false);
            };
            let key = pointer::key(digest);
            if pointer.size >= MIN_MAPPED_BYTES {
                objects.delete(&maps::key(digest)).await?;
            }
            match pointer.place {
                Place::Content(_) => objects.delete(&key).await?,
                Place::Data(id) => {
                    discard::note(objects, id, digest).await?;
                    objects.delete(&key).await?;
                    discard::carry_out(objects, id).await?;
                }
            }
            Ok(true)
        }
        .boxed()
    }

    fn list(&self) -> BoxStream<'_, Result<StoredBlob, Error>> {
        let objects = self.inner.objects.clone();
        objects
            .list("blobs")
            .try_filter_map(|(key, found)| async move {
                Ok(pointer::digest_of(&key).map(|digest| (digest, found)))
            })
            .map(move |found| {
                let objects = objects.clone();
                async move {
                    let (digest, found) = found?;
                    stored(&objects, digest, &found).await
                }
            })
            .buffer_unordered(READ_AT_ONCE)
            .try_filter_map(|blob| async move { Ok(blob) })
            .boxed()
    }

    fn quarantine<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<(), Error>> {
        async move {
            self.inner.health.require()?;
            let objects = &self.inner.objects;
            let key = pointer::key(digest);
            let Some((json, _)) = objects.get(&key).await? else {
                return Ok(());
            };
            objects.delete(&maps::key(digest)).await?;
            let aside = format!("quarantine/{}/{}", digest.algorithm(), digest.hex());
            objects.put(&aside, json).await?;
            objects.delete(&key).await
        }
        .boxed()
    }

    fn signed_url<'a>(
        &'a self,
        digest: &'a Digest,
        valid: Duration,
    ) -> BoxFuture<'a, Result<Option<Url>, Error>> {
        async move {
            let objects = &self.inner.objects;
            let Some(pointer) = self.pointer(digest).await? else {
                return Ok(None);
            };
            match pointer.place {
                // Content that has gone is for `open` to report, not for the bucket.
                Place::Data(id) if pointer::is_whole(objects, &pointer).await? => {
                    objects.signed_url(&data_key(id), valid).await
                }
                _ => Ok(None),
            }
        }
        .boxed()
    }

    fn check(&self) -> BoxFuture<'_, Result<(), Error>> {
        async move {
            self.inner.health.require()?;
            if self.inner.was_checked() {
                return Ok(());
            }
            let checked = tokio::time::timeout(CHECK_TIME, self.inner.probe()).await;
            checked.map_err(|elapsed| {
                let source = Box::new(elapsed);
                let store = "bucket";
                let source = object_store::Error::Generic { store, source };
                Error::object("check", "probe", source)
            })??;
            let mut last = self.inner.checked.lock();
            let last = last.as_deref_mut();
            *last.unwrap_or_else(|poisoned| poisoned.get_mut()) = Some(Instant::now());
            Ok(())
        }
        .boxed()
    }
}

impl Inner {
    fn was_checked(&self) -> bool {
        let last = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        last.is_some_and(|last| last.elapsed() < CHECK_VALID)
    }

    async fn probe(&self) -> Result<(), Error> {
        let key = format!("probe/{}", Uuid::now_v7());
        let content = Bytes::from(key.clone());
        self.objects.put(&key, content.clone()).await?;
        let found = self.objects.get(&key).await?;
        self.objects.delete(&key).await?;
        match found {
            Some((found, _)) if found == content => Ok(()),
            _ => Err(Error::ContentLength),
        }
    }
}

/// What a listing says of one blob; `None` when it was removed since.
async fn stored(
    objects: &Objects,
    digest: Digest,
    found: &ObjectMeta,
) -> Result<Option<StoredBlob>, Error> {
    let Some((pointer, _)) = pointer::read(objects, &digest).await? else {
        return Ok(None);
    };
    Ok(Some(StoredBlob {
        digest,
        size: pointer.size,
        modified: modified(found),
    }))
}

/// When an object was written last, by the clock of the store.
pub(super) fn modified(found: &ObjectMeta) -> Timestamp {
    Timestamp::try_from(SystemTime::from(found.last_modified)).unwrap_or_else(|_| Timestamp::now())
}
