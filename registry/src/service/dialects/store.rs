//! Stores a derived manifest, as durably as one that was pushed.

use artifact::dialect::Derived;
use artifact::manifest::Manifest;
use artifact::media_type::hayloft;
use artifact::{Digest, Repository};
use bytes::Bytes;

use crate::error::Error;
use crate::service::Registry;
use crate::service::manifests::{ManifestReference, unknown};
use crate::store::Change;
use crate::store::records::{Derivation, Entry, ManifestRecord};

/// The record of a derived manifest. Its source is its subject, also where the manifest itself has
/// no place to say so: lists of referrers and the collection go by the record.
pub(super) fn record_of(
    derived: &Derived,
    derivation: Derivation,
) -> Result<ManifestRecord, Error> {
    let raw = derived.manifest.bytes.clone();
    let manifest =
        Manifest::parse(raw, Some(derived.manifest.media_type)).map_err(Error::ManifestInvalid)?;
    let mut record = ManifestRecord::of(&manifest);
    if record.subject.is_none() {
        let from = derivation.from.to_string();
        let annotations = &mut record.annotations;
        annotations.insert(hayloft::DERIVED_FROM.to_owned(), from);
    }
    record.subject = Some(derivation.from);
    record.derived = Some(Box::new(derivation));
    Ok(record)
}

impl Registry {
    /// Stores a document and links it into the repository.
    pub(super) async fn store_document(
        &self,
        repository: &Repository,
        digest: &Digest,
        content: Bytes,
    ) -> Result<(), Error> {
        let size = content.len() as u64;
        let mut lock = self.lock_content(digest).await?;
        self.blobs.put(digest, content).await?;
        self.link_blob(lock.as_mut(), repository, digest, size)
            .await
    }

    /// Stores documents, then the manifest, which makes them all needed.
    pub(super) async fn store_derived(
        &self,
        repository: &Repository,
        derivation: Derivation,
        derived: &Derived,
    ) -> Result<ManifestRecord, Error> {
        let mut record = record_of(derived, derivation)?;
        for document in &derived.documents {
            let content = document.bytes.clone().into();
            self.store_document(repository, &document.digest, content)
                .await?;
        }
        let digest = derived.manifest.digest;
        let mut lock = self.lock_repository(repository, Some(&digest)).await?;
        // While the source is there nothing that it names can be taken out of the repository, and
        // everything else that the new manifest names was linked just now.
        let Some(source) = self.index.manifest(repository, &derivation.from).await? else {
            let gone = ManifestReference::Digest(derivation.from);
            return Err(unknown(repository, &gone));
        };
        record.is_mirrored = source.is_mirrored;
        let content = derived.manifest.bytes.clone().into();
        self.blobs.put(&digest, content).await?;
        if let Some(stored) = self.index.manifest(repository, &digest).await? {
            record.pushed = stored.pushed;
        }
        let entry = Entry::Manifest(repository.clone(), digest, record.clone());
        let change = Change::Put(Box::new(entry));
        self.change(lock.as_mut(), vec![change]).await?;
        self.touch_manifest(repository, &digest, &record).await?;
        Ok(record)
    }
}
