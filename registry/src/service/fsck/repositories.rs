//! The second pass: does every repository have what its tags, manifests and blobs name?

use artifact::{Digest, Manifest, Repository, Tag};
use futures::TryStreamExt;

use crate::error::Error;
use crate::service::fsck::Check;
use crate::service::fsck::report::Finding;
use crate::store::Page;
use crate::store::paging::each;
use crate::store::records::{ManifestRecord, TagRecord};

/// Entries of the index that are looked at together.
const PAGE: usize = 500;

impl Check<'_> {
    pub(super) async fn check_repositories(&mut self) -> Result<(), Error> {
        let index = &self.registry.index;
        let mut repositories = each(Page::first(PAGE), |page| index.repositories(page));
        while let Some(repository) = repositories.try_next().await? {
            self.check_tags(&repository).await?;
            self.check_manifests(&repository).await?;
            self.check_blobs(&repository).await?;
            self.report().await;
        }
        Ok(())
    }

    async fn check_tags(&mut self, repository: &Repository) -> Result<(), Error> {
        let index = &self.registry.index;
        let mut tags = each(Page::first(PAGE), |page| {
            index.tag_records(repository, page)
        });
        while let Some((tag, record)) = tags.try_next().await? {
            if self.is_dangling(repository, &tag, &record).await? {
                let finding = Finding::DanglingTag {
                    repository: repository.clone(),
                    tag,
                    digest: record.digest,
                };
                self.found(finding).await;
            }
        }
        Ok(())
    }

    async fn is_dangling(
        &self,
        repository: &Repository,
        tag: &Tag,
        record: &TagRecord,
    ) -> Result<bool, Error> {
        let index = &self.registry.index;
        if index.manifest(repository, &record.digest).await?.is_some() {
            return Ok(false);
        }
        let _lock = self.registry.lock_repository(repository, None).await?;
        Ok(index.tag(repository, tag).await?.as_ref() == Some(record)
            && index.manifest(repository, &record.digest).await?.is_none())
    }

    async fn check_manifests(&mut self, repository: &Repository) -> Result<(), Error> {
        let index = &self.registry.index;
        let mut manifests = each(Page::first(PAGE), |page| index.manifests(repository, page));
        while let Some((digest, record)) = manifests.try_next().await? {
            if self.registry.blobs.stat(&digest).await?.is_none() {
                self.check_manifest_content(repository, digest).await?;
            }
            self.check_parts(repository, &digest, &record).await?;
        }
        Ok(())
    }

    async fn check_manifest_content(
        &mut self,
        repository: &Repository,
        digest: Digest,
    ) -> Result<(), Error> {
        let registry = self.registry;
        let lock = registry.lock_repository(repository, Some(&digest)).await?;
        let is_missing = registry
            .index
            .manifest(repository, &digest)
            .await?
            .is_some()
            && registry.blobs.stat(&digest).await?.is_none();
        drop(lock);
        if is_missing {
            let repository = repository.clone();
            let finding = Finding::MissingManifest { repository, digest };
            self.found(finding).await;
        }
        Ok(())
    }

    /// The blobs and manifests that a manifest names must be in its repository.
    async fn check_parts(
        &mut self,
        repository: &Repository,
        manifest: &Digest,
        record: &ManifestRecord,
    ) -> Result<(), Error> {
        // What an upstream has is fetched from there when somebody asks for it.
        if record.is_mirrored {
            return Ok(());
        }
        for digest in record.blobs.iter().chain(&record.manifests) {
            if self.is_in(repository, digest).await? {
                continue;
            }
            let lock = self.registry.lock_repository(repository, None).await?;
            let is_missing = self
                .registry
                .index
                .manifest(repository, manifest)
                .await?
                .is_some()
                && !self.is_in(repository, digest).await?
                && !self.may_be_elsewhere(manifest, digest).await?;
            drop(lock);
            if is_missing {
                let finding = Finding::MissingPart {
                    repository: repository.clone(),
                    manifest: *manifest,
                    digest: *digest,
                };
                self.found(finding).await;
            }
        }
        Ok(())
    }

    async fn is_in(&self, repository: &Repository, digest: &Digest) -> Result<bool, Error> {
        let index = &self.registry.index;
        Ok(index.blob(repository, digest).await?.is_some()
            || index.manifest(repository, digest).await?.is_some())
    }

    /// Whether the manifest says that this content may stay at another place. Its record does not
    /// tell, so the manifest itself is read; one that cannot be read is told of elsewhere.
    async fn may_be_elsewhere(&self, manifest: &Digest, digest: &Digest) -> Result<bool, Error> {
        let Some(content) = self.registry.blobs.read(manifest).await? else {
            return Ok(true);
        };
        let Ok(manifest) = Manifest::parse(content.to_vec(), None) else {
            return Ok(true);
        };
        let mut named = manifest.blobs().chain(manifest.manifests());
        Ok(named.any(|named| named.digest == *digest && named.is_foreign))
    }

    async fn check_blobs(&mut self, repository: &Repository) -> Result<(), Error> {
        let registry = self.registry;
        let index = &registry.index;
        let mut blobs = each(Page::first(PAGE), |page| index.blobs(repository, page));
        while let Some((digest, _)) = blobs.try_next().await? {
            if registry.blobs.stat(&digest).await?.is_some() {
                continue;
            }
            let lock = registry.lock_repository(repository, Some(&digest)).await?;
            let is_missing = index.blob(repository, &digest).await?.is_some()
                && registry.blobs.stat(&digest).await?.is_none();
            drop(lock);
            if is_missing {
                let repository = repository.clone();
                let finding = Finding::MissingBlob { repository, digest };
                self.found(finding).await;
            }
        }
        Ok(())
    }
}
