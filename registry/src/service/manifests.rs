//! Manifests: validate, put, tag, delete. Referrers follow from the subject of what is put.

use std::collections::BTreeSet;
use std::sync::Arc;

use artifact::manifest::Descriptor;
use artifact::{Algorithm, Digest, Manifest, Repository, Tag};
use bytes::Bytes;
use jiff::Timestamp;

use crate::error::Error;
use crate::service::{Registry, detached, embedded};
use crate::store::Change;
use crate::store::key::RecordKey;
use crate::store::records::{Entry, ManifestRecord, TagRecord};

/// At most this many missing blobs are named in an error.
const MISSING_NAMED: usize = 100;

/// How a request names a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ManifestReference {
    /// By tag.
    Tag(Tag),
    /// By digest.
    Digest(Digest),
}

impl ManifestReference {
    /// Reads a tag or a digest: a colon cannot stand in a tag, so it tells a digest.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        if text.contains(':') {
            Digest::parse(text).map(Self::Digest).map_err(Error::Digest)
        } else {
            Tag::parse(text).map(Self::Tag).map_err(Error::Name)
        }
    }
}

impl std::fmt::Display for ManifestReference {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(formatter),
            Self::Digest(digest) => digest.fmt(formatter),
        }
    }
}

/// A manifest that was found.
#[derive(Clone, Debug)]
pub(crate) struct FoundManifest {
    /// The digest it was asked for, or that its tag points to.
    pub(crate) digest: Digest,
    /// What is known of it.
    pub(crate) record: ManifestRecord,
    /// Why it may not be what its upstream has now, if it may not.
    pub(crate) warning: Option<String>,
}

impl FoundManifest {
    /// One that nobody needs to be warned of.
    pub(crate) fn new(digest: Digest, record: ManifestRecord) -> Self {
        Self {
            digest,
            record,
            warning: None,
        }
    }
}

/// A manifest on its way in.
#[derive(Debug)]
pub(crate) struct NewManifest {
    /// Where it goes.
    pub(crate) repository: Repository,
    /// Under which name.
    pub(crate) reference: ManifestReference,
    /// Further tags to set.
    pub(crate) tags: Vec<Tag>,
    /// The Content-Type of the request, without parameters.
    pub(crate) content_type: Option<String>,
    /// The bytes, kept as they are.
    pub(crate) content: Bytes,
}

/// What came of a [`NewManifest`].
#[derive(Debug)]
pub(crate) struct StoredManifest {
    /// Its digest.
    pub(crate) digest: Digest,
    /// The manifest it refers to.
    pub(crate) subject: Option<Digest>,
    /// What is wrong with what it names, where that is let in.
    pub(crate) warnings: Vec<String>,
}

impl Registry {
    /// Finds a manifest; one of a mirrored repository is looked for at its upstream, if need be.
    pub(crate) async fn find_manifest(
        &self,
        repository: &Repository,
        reference: &ManifestReference,
    ) -> Result<FoundManifest, Error> {
        match self.mirrored(repository) {
            Some(mirrored) => mirrored.find_manifest(reference).await,
            None => self.find_held(repository, reference).await,
        }
    }

    /// Finds a manifest that is here.
    pub(super) async fn find_held(
        &self,
        repository: &Repository,
        reference: &ManifestReference,
    ) -> Result<FoundManifest, Error> {
        let digest = match reference {
            ManifestReference::Digest(digest) => Some(*digest),
            ManifestReference::Tag(tag) => {
                let tag = self.index.tag(repository, tag).await?;
                tag.map(|record| record.digest)
            }
        };
        if let Some(digest) = digest
            && let Some(record) = self.index.manifest(repository, &digest).await?
        {
            return Ok(FoundManifest::new(digest, record));
        }
        let shelved = digest.and_then(|digest| self.shelved_manifest(repository, &digest));
        shelved.ok_or_else(|| unknown(repository, reference))
    }

    /// Finds a manifest for a client that may not push it again because it is there.
    pub(crate) async fn look_at_manifest(
        &self,
        repository: &Repository,
        reference: &ManifestReference,
    ) -> Result<FoundManifest, Error> {
        if let ManifestReference::Digest(digest) = reference {
            self.renew_manifest(repository, digest).await?;
        }
        self.find_manifest(repository, reference).await
    }

    /// The bytes of a manifest that was found. Damaged ones count as absent, like those that have
    /// gone: a client that still has them pushes them again, which puts them right.
    pub(crate) async fn manifest_content(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Bytes, Error> {
        if let Some(content) = self.manifest_cache.get(digest) {
            return Ok(content);
        }
        if let Some(content) = self.shelved(repository, digest) {
            return Ok(content);
        }
        let content = self.blobs.read(digest).await?;
        match content {
            Some(content) if Digest::of(digest.algorithm(), &content) == *digest => {
                self.manifest_cache.insert(*digest, &content);
                return Ok(content);
            }
            Some(_) => tracing::error!(%repository, %digest, "a manifest's content is damaged"),
            None => tracing::error!(%repository, %digest, "a manifest's content has gone"),
        }
        Err(unknown(repository, &ManifestReference::Digest(*digest)))
    }

    /// Checks and stores a manifest, then points its tags to it. Detached from the caller, so
    /// that a client that goes away leaves all of it done or none.
    pub(crate) async fn put_manifest(
        self: &Arc<Self>,
        new: NewManifest,
    ) -> Result<StoredManifest, Error> {
        let registry = Arc::clone(self);
        detached(async move { registry.store_manifest(new).await }).await
    }

    pub(super) async fn store_manifest(&self, new: NewManifest) -> Result<StoredManifest, Error> {
        let digest = checked_digest(&new)?;
        let manifest = Manifest::parse(new.content.to_vec(), new.content_type.as_deref())
            .map_err(Error::ManifestInvalid)?;
        embedded::check(&new.content)?;
        let repository = &new.repository;
        self.refuse_if_mirrored(repository)?;
        // Before anybody waits for the repository: the beginnings of blobs may have to be read.
        let vetted = self.vet_weights(repository, &manifest).await?;
        let mut lock = self.lock_repository(repository, Some(&digest)).await?;
        self.require_content(repository, &manifest).await?;
        self.blobs.put(&digest, new.content.clone()).await?;
        let record = ManifestRecord::of(&manifest);
        let subject = record.subject;
        let mut changes = Vec::new();
        changes.extend(self.missing_repository(repository).await?);
        changes.extend(self.noting(repository, &vetted).await?);
        let missing = self.missing_manifest(repository, digest, record.clone());
        changes.extend(missing.await?);
        // Last, so that a tag never points to a manifest that is not there.
        let tag = match &new.reference {
            ManifestReference::Tag(tag) => Some(tag),
            ManifestReference::Digest(_) => None,
        };
        let tags: BTreeSet<&Tag> = tag.into_iter().chain(&new.tags).collect();
        changes.extend(
            tags.into_iter()
                .map(|tag| pointing(repository, tag, digest)),
        );
        self.change(lock.as_mut(), changes).await?;
        self.touch_manifest(repository, &digest, &record).await?;
        Ok(StoredManifest {
            digest,
            subject,
            warnings: vetted.warnings,
        })
    }

    /// The change that makes the repository hold the manifest, if it does not yet just so.
    pub(super) async fn missing_manifest(
        &self,
        repository: &Repository,
        digest: Digest,
        mut record: ManifestRecord,
    ) -> Result<Option<Change>, Error> {
        if let Some(stored) = self.index.manifest(repository, &digest).await? {
            record.succeed(&stored);
            if record == stored {
                return Ok(None);
            }
        }
        let entry = Entry::Manifest(repository.clone(), digest, record);
        Ok(Some(Change::Put(Box::new(entry))))
    }

    /// Removes a tag alone, or a manifest with every tag that points to it.
    pub(crate) async fn delete_manifest(
        self: &Arc<Self>,
        repository: Repository,
        reference: ManifestReference,
    ) -> Result<(), Error> {
        let registry = Arc::clone(self);
        detached(async move { registry.remove_manifest(&repository, &reference).await }).await
    }

    pub(super) async fn remove_manifest(
        &self,
        repository: &Repository,
        reference: &ManifestReference,
    ) -> Result<(), Error> {
        let mut lock = self.lock_repository(repository, None).await?;
        let changes = match reference {
            ManifestReference::Tag(tag) => {
                if self.index.tag(repository, tag).await?.is_none() {
                    return Err(unknown(repository, reference));
                }
                vec![RecordKey::Tag(repository.clone(), tag.clone())]
            }
            ManifestReference::Digest(digest) => {
                if self.index.manifest(repository, digest).await?.is_none() {
                    return Err(unknown(repository, reference));
                }
                // Tags first, for the reason that they are set last.
                let tags = self.index.tags_of(repository, digest).await?;
                let tags = tags
                    .into_iter()
                    .map(|tag| RecordKey::Tag(repository.clone(), tag));
                tags.chain([RecordKey::Manifest(repository.clone(), *digest)])
                    .collect()
            }
        };
        let changes = changes.into_iter().map(Change::Remove).collect();
        self.change(lock.as_mut(), changes).await
    }

    /// Everything the manifest names must be in the repository, with the size it says. Content
    /// that may stay elsewhere, and the subject, need not be.
    async fn require_content(
        &self,
        repository: &Repository,
        manifest: &Manifest,
    ) -> Result<(), Error> {
        let mut missing = Vec::new();
        let mut seen = BTreeSet::new();
        let named = manifest.blobs().chain(manifest.manifests());
        for descriptor in named.filter(|descriptor| !descriptor.is_foreign) {
            if !seen.insert((descriptor.digest, descriptor.size)) {
                continue;
            }
            match self.held_size(repository, &descriptor.digest).await? {
                Some(stored) => require_size(descriptor, stored)?,
                None if missing.len() < MISSING_NAMED => missing.push(descriptor.digest),
                None => break,
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        Err(Error::ManifestBlobUnknown {
            repository: repository.clone(),
            missing,
        })
    }

    /// The size of a blob or manifest of the repository.
    async fn held_size(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Option<u64>, Error> {
        if let Some(blob) = self.index.blob(repository, digest).await? {
            return Ok(Some(blob.size));
        }
        let manifest = self.index.manifest(repository, digest).await?;
        Ok(manifest.map(|record| record.size))
    }
}

pub(super) fn pointing(repository: &Repository, tag: &Tag, digest: Digest) -> Change {
    let record = TagRecord {
        digest,
        updated: Timestamp::now(),
    };
    let entry = Entry::Tag(repository.clone(), tag.clone(), record);
    Change::Put(Box::new(entry))
}

fn require_size(descriptor: &Descriptor, stored: u64) -> Result<(), Error> {
    if descriptor.size == stored {
        return Ok(());
    }
    Err(Error::DescriptorSize {
        digest: descriptor.digest,
        claimed: descriptor.size,
        stored,
    })
}

/// The digest of the content, which must be the one it is put under.
fn checked_digest(new: &NewManifest) -> Result<Digest, Error> {
    match &new.reference {
        ManifestReference::Tag(_) => Ok(Digest::of(Algorithm::Sha256, &new.content)),
        ManifestReference::Digest(expected) => {
            let actual = Digest::of(expected.algorithm(), &new.content);
            if actual == *expected {
                return Ok(actual);
            }
            Err(Error::digest_mismatch(*expected, actual))
        }
    }
}

/// That there is no such manifest.
pub(super) fn unknown(repository: &Repository, reference: &ManifestReference) -> Error {
    Error::ManifestUnknown {
        repository: repository.clone(),
        reference: reference.to_string(),
    }
}
