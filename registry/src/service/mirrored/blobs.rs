//! Blobs of mirrored repositories: here, elsewhere in the storage, on their way, or to be fetched.

use std::sync::Arc;

use artifact::manifest::Descriptor;
use artifact::{Digest, Manifest};

use crate::error::Error;
use crate::mirror::fill::{Fill, FillContent};
use crate::service::blobs::unknown;
use crate::service::mirrored::Mirrored;
use crate::store::{BlobContent, OpenBlob};

/// A blob that a mirrored repository should have.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    pub(super) digest: Digest,
    /// Its size in bytes.
    pub(super) size: u64,
    /// The manifest that names it, if one is here, and how.
    pub(super) named: Option<(Descriptor, Box<Manifest>)>,
}

impl Mirrored<'_> {
    /// The size of a blob in bytes, whether it is here or not.
    pub(crate) async fn blob_size(&self, digest: &Digest) -> Result<u64, Error> {
        if let Some(size) = self.held_size(digest).await? {
            return Ok(size);
        }
        let expected = self.expected(digest).await?;
        if let Some(error) = self.wrong(digest) {
            return Err(error);
        }
        Ok(expected.size)
    }

    /// Opens a blob for reading; what is not here begins to come.
    pub(crate) async fn open_blob(&self, digest: &Digest) -> Result<OpenBlob, Error> {
        if let Some(open) = self.open_held(digest).await? {
            return Ok(open);
        }
        if let Some(fill) = self.begin_fill(digest).await? {
            return Ok(OpenBlob {
                size: fill.size(),
                content: BlobContent::Remote(Box::new(FillContent(fill))),
            });
        }
        let open = self.open_held(digest).await?;
        open.ok_or_else(|| unknown(self.repository, digest))
    }

    /// Begins or joins the fill of a blob; `None` when it is here.
    pub(super) async fn begin_fill(&self, digest: &Digest) -> Result<Option<Arc<Fill>>, Error> {
        if self.held_size(digest).await?.is_some() {
            return Ok(None);
        }
        let expected = self.expected(digest).await?;
        // Content that another repository brought here is not fetched again.
        if expected.named.is_some() && self.link_stored(&expected).await? {
            return Ok(None);
        }
        self.fill(&expected).await.map(Some)
    }

    /// The size of a blob that this repository holds and the storage has.
    async fn held_size(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        let registry = self.registry;
        match registry.index.blob(self.repository, digest).await? {
            Some(_) => registry.blobs.stat(digest).await,
            None => Ok(None),
        }
    }

    async fn open_held(&self, digest: &Digest) -> Result<Option<OpenBlob>, Error> {
        let index = &self.registry.index;
        if index.blob(self.repository, digest).await?.is_none() {
            return Ok(None);
        }
        let open = self.registry.blobs.open(digest).await?;
        if open.is_some() {
            self.mirror.usage.touch(digest);
        }
        Ok(open)
    }

    /// Links content that is stored, if it has the right size.
    pub(super) async fn link_stored(&self, expected: &Expected) -> Result<bool, Error> {
        let mut lock = self.registry.lock_content(&expected.digest).await?;
        if self.registry.blobs.stat(&expected.digest).await? != Some(expected.size) {
            return Ok(false);
        }
        self.registry
            .link_blob(
                lock.as_mut(),
                self.repository,
                &expected.digest,
                expected.size,
            )
            .await?;
        Ok(true)
    }

    /// What is known of a blob that is not here: what a manifest of this repository says of it, or
    /// else what its upstream says.
    pub(super) async fn expected(&self, digest: &Digest) -> Result<Expected, Error> {
        if let Some(fill) = self.mirror.fills.running(digest)
            && fill.note().repository().as_ref() == Some(self.repository)
        {
            return Ok(Expected {
                digest: *digest,
                size: fill.size(),
                named: None,
            });
        }
        if let Some((descriptor, manifest)) = self.named(digest).await? {
            return Ok(Expected {
                digest: *digest,
                size: descriptor.size,
                named: Some((descriptor, manifest)),
            });
        }
        if self.mirror.settings.offline {
            return Err(self.offline(digest));
        }
        let size = self.size_at_upstream(digest).await?;
        Ok(Expected {
            digest: *digest,
            size: size.ok_or_else(|| unknown(self.repository, digest))?,
            named: None,
        })
    }

    /// The manifest of this repository that names a blob.
    pub(super) async fn named(
        &self,
        digest: &Digest,
    ) -> Result<Option<(Descriptor, Box<Manifest>)>, Error> {
        let registry = self.registry;
        let index = &registry.index;
        let Some(mut by) = index.manifest_naming(self.repository, digest).await? else {
            return Ok(None);
        };
        // What was made here from it says nothing of where its blobs are.
        if let Some(record) = index.manifest(self.repository, &by).await?
            && let Some(derivation) = record.derived
        {
            by = derivation.from;
        }
        // One in another dialect was made here: its source says where the blob came from.
        let by = registry.origin_of(self.repository, &by).await?;
        let content = registry.manifest_content(self.repository, &by).await?;
        let manifest = Manifest::parse(content.to_vec(), None).map_err(Error::ManifestInvalid)?;
        let descriptor = manifest
            .blobs()
            .find(|blob| blob.digest == *digest)
            .cloned();
        Ok(descriptor.map(|descriptor| (descriptor, Box::new(manifest))))
    }

    async fn size_at_upstream(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        let mut failure = None;
        for upstream in self.route.in_turn() {
            let origin = self.mirror.origin(self.route, &upstream, self.repository);
            match origin.await?.blob_size(digest).await {
                Ok(Some(size)) => return Ok(Some(size)),
                Ok(None) => {}
                Err(error) if error.is_absent() => {}
                Err(error) => {
                    upstream.failed(&error);
                    failure = Some(Error::upstream(error));
                }
            }
        }
        failure.map_or(Ok(None), Err)
    }

    /// Why a blob is not to be had, if that was found out lately.
    pub(super) fn wrong(&self, digest: &Digest) -> Option<Error> {
        let time = self.mirror.settings.negative_ttl;
        self.mirror.fills.wrong(digest, time).map(Error::Shared)
    }
}
