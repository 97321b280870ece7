//! Blobs of a repository: look, open, mount, delete.
//!
//! Content is stored once, but a repository sees only the blobs that were pushed or mounted into
//! it: what one repository holds says nothing to another.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use artifact::{Digest, Repository};
use futures::TryStreamExt;
use url::Url;

use crate::error::Error;
use crate::service::{Registry, detached};
use crate::store::key::RecordKey;
use crate::store::records::{BlobRecord, Entry};
use crate::store::{Change, IndexLock, OpenBlob};

impl Registry {
    /// The size of a blob in bytes.
    pub(crate) async fn blob_size(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<u64, Error> {
        if let Some(size) = self.shelved_size(repository, digest).await {
            return Ok(size);
        }
        if let Some(mirrored) = self.mirrored(repository) {
            return mirrored.blob_size(digest).await;
        }
        self.renew_blob(repository, digest).await?;
        self.require_blob(repository, digest).await?;
        // The storage itself is asked: a record of content that has gone must not lead a client
        // to skip its upload.
        self.blobs
            .stat(digest)
            .await?
            .ok_or_else(|| unknown(repository, digest))
    }

    /// What is known of a blob of the repository by its content.
    pub(crate) async fn blob_annotations(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<BTreeMap<String, String>, Error> {
        let record = self.index.blob(repository, digest).await?;
        record
            .map(|record| record.annotations)
            .ok_or_else(|| unknown(repository, digest))
    }

    /// Opens a blob for reading.
    pub(crate) async fn open_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<OpenBlob, Error> {
        if let Some(content) = self.shelved(repository, digest) {
            return Ok(OpenBlob::in_memory(content));
        }
        if let Some(mirrored) = self.mirrored(repository) {
            return mirrored.open_blob(digest).await;
        }
        self.require_blob(repository, digest).await?;
        self.blobs
            .open(digest)
            .await?
            .ok_or_else(|| unknown(repository, digest))
    }

    /// An address in the bucket that gives the blob to whoever has it, and the blob's size, if that is
    /// `smallest` bytes or more and the storage makes such addresses.
    pub(crate) async fn signed_url(
        &self,
        repository: &Repository,
        digest: &Digest,
        smallest: u64,
        valid: Duration,
    ) -> Result<Option<(Url, u64)>, Error> {
        match self.index.blob(repository, digest).await? {
            Some(record) if record.size >= smallest => {
                let url = self.blobs.signed_url(digest, valid).await?;
                Ok(url.map(|url| (url, record.size)))
            }
            _ => Ok(None),
        }
    }

    /// Makes a blob of another repository a blob of this one too. `false` when the source, or for
    /// `None` every repository, does not hold it.
    pub(crate) async fn mount_blob(
        self: &Arc<Self>,
        repository: &Repository,
        digest: Digest,
        source: Option<&Repository>,
    ) -> Result<bool, Error> {
        self.refuse_if_mirrored(repository)?;
        let registry = Arc::clone(self);
        let repository = repository.clone();
        let source = source.cloned();
        detached(async move {
            registry
                .mount_if_held(&repository, &digest, source.as_ref())
                .await
        })
        .await
    }

    pub(super) async fn mount_if_held(
        &self,
        repository: &Repository,
        digest: &Digest,
        source: Option<&Repository>,
    ) -> Result<bool, Error> {
        // Before it is looked at, so that what was seen is still there when it is linked.
        let mut lock = self.lock_content(digest).await?;
        let holder = match source {
            Some(source) => Some(source.clone()),
            None => self.index.holder_of(digest).await?,
        };
        let held = match holder {
            Some(holder) => self.index.blob(&holder, digest).await?,
            None => None,
        };
        let Some(held) = held else {
            return Ok(false);
        };
        let Some(size) = self.blobs.stat(digest).await? else {
            return Ok(false);
        };
        let record = BlobRecord::new(size).annotated(held.annotations);
        self.link_record(lock.as_mut(), repository, digest, record)
            .await?;
        Ok(true)
    }

    /// Notes that the repository holds a blob whose content is stored. The caller holds the
    /// content with `lock`.
    pub(crate) async fn link_blob(
        &self,
        lock: &mut dyn IndexLock,
        repository: &Repository,
        digest: &Digest,
        size: u64,
    ) -> Result<(), Error> {
        self.link_record(lock, repository, digest, BlobRecord::new(size))
            .await
    }

    /// The same with what is known of the content.
    pub(crate) async fn link_record(
        &self,
        lock: &mut dyn IndexLock,
        repository: &Repository,
        digest: &Digest,
        mut record: BlobRecord,
    ) -> Result<(), Error> {
        self.lock_more(lock, repository).await?;
        if let Some(stored) = self.index.blob(repository, digest).await? {
            let is_news =
                !record.annotations.is_empty() && record.annotations != stored.annotations;
            if !is_news {
                return self.touch_blob(repository, digest).await;
            }
            record.linked = stored.linked;
        }
        let entry = Entry::Blob(repository.clone(), *digest, record);
        let created = self.missing_repository(repository).await?;
        let changes = created.into_iter().chain([Change::Put(Box::new(entry))]);
        self.change(lock, changes.collect()).await?;
        self.touch_blob(repository, digest).await
    }

    /// Takes a blob out of the repository. Its content goes with garbage collection, when no
    /// repository holds it any more.
    pub(crate) async fn delete_blob(
        self: &Arc<Self>,
        repository: Repository,
        digest: Digest,
    ) -> Result<(), Error> {
        let registry = Arc::clone(self);
        detached(async move { registry.unlink_blob(&repository, &digest).await }).await
    }

    pub(super) async fn unlink_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<(), Error> {
        let mut lock = self.lock_repository(repository, None).await?;
        self.require_blob(repository, digest).await?;
        if let Some(manifest) = self.index.manifest_naming(repository, digest).await? {
            return Err(Error::BlobInUse {
                repository: repository.clone(),
                digest: Box::new(*digest),
                manifest: Box::new(manifest),
            });
        }
        let key = RecordKey::Blob(repository.clone(), *digest);
        self.change(lock.as_mut(), vec![Change::Remove(key)]).await
    }

    /// How many blobs are stored, and their bytes together.
    pub(crate) async fn stored(&self) -> Result<(u64, u64), Error> {
        let mut listed = self.blobs.list();
        let (mut blobs, mut bytes) = (0, 0_u64);
        while let Some(blob) = listed.try_next().await? {
            blobs += 1;
            bytes = bytes.saturating_add(blob.size);
        }
        Ok((blobs, bytes))
    }

    async fn require_blob(&self, repository: &Repository, digest: &Digest) -> Result<(), Error> {
        match self.index.blob(repository, digest).await? {
            Some(_) => Ok(()),
            None => Err(unknown(repository, digest)),
        }
    }
}

pub(super) fn unknown(repository: &Repository, digest: &Digest) -> Error {
    Error::BlobUnknown {
        repository: repository.clone(),
        digest: *digest,
    }
}
