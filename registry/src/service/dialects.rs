//! Dialects: a model that was pushed once, served as each client reads it.
//!
//! What a client needs in its own dialect is derived from the manifest it asked for, by
//! [`artifact::dialect::derive()`], and stored like anything that was pushed: documents as blobs of
//! the same repository, the manifest under its digest, with a record that names its source as its
//! subject. So it is listed among the source's referrers, stays as long as the source is needed and
//! is collected with it. The same source always gives the same bytes: whoever derives it again, on
//! another replica or after a rebuild, finds it there.
//!
//! A registry that may not write, or cannot, keeps what it derives in memory.

mod memory;
mod read;
mod store;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use artifact::dialect::{self, Derived, Dialect, Inexpressible, Source};
use artifact::manifest::Manifest;
use artifact::media_type::{DOCKER_MANIFEST, OCI_MANIFEST};
use artifact::{Digest, Repository};
use bytes::Bytes;
use futures::TryStreamExt;
use tokio::sync::Semaphore;

use crate::error::Error;
use crate::service::manifests::FoundManifest;
use crate::service::{Registry, detached};
use crate::store::Page;
use crate::store::paging::each;
use crate::store::records::{Derivation, ManifestRecord};
pub(super) use memory::Recent;

/// Derivations at once: each may hold the header of a GGUF file in memory.
const AT_ONCE: usize = 4;
/// Derived manifests whose digests are remembered, in each of two generations.
const REMEMBERED: usize = 10_000;
/// Bytes of derived content that are kept in memory, in each of two generations.
const SHELF_BYTES: usize = 16 * 1024 * 1024;
/// Referrers that are looked through for a derived manifest. With more of them it is derived again,
/// which comes to the same bytes.
const REFERRERS: usize = 10_000;

/// Which manifest of which repository, and in what dialect; [`Dialect::Other`] is for its chunk maps.
pub(super) type Wish = (Repository, Digest, Dialect);

/// What is in memory of derived manifests.
#[derive(Debug)]
pub(crate) struct Dialects {
    turns: Semaphore,
    /// Where derived manifests are, to spare a look through referrers. Asked again of the index.
    known: Recent<Wish, Digest>,
    /// What was derived and could not be stored, by the repository that it belongs to.
    shelf: Recent<(Repository, Digest), Bytes>,
    /// Whether there ever was anything: a registry that may write need not look.
    has_shelf: AtomicBool,
}

impl Dialects {
    fn put_on_shelf(&self, repository: &Repository, derived: &Derived) {
        for document in derived.documents.iter().chain([&derived.manifest]) {
            let key = (repository.clone(), document.digest);
            let content = Bytes::from(document.bytes.clone());
            let cost = content.len();
            self.shelf.insert(key, content, cost);
        }
        self.has_shelf.store(true, Ordering::Relaxed);
    }
}

impl Default for Dialects {
    fn default() -> Self {
        Self {
            turns: Semaphore::new(AT_ONCE),
            known: Recent::new(REMEMBERED),
            shelf: Recent::new(SHELF_BYTES),
            has_shelf: AtomicBool::new(false),
        }
    }
}

impl Registry {
    /// The manifest as a client of `dialect` reads it: as it was found if it is in that dialect
    /// already or no model at all, else derived.
    ///
    /// # Errors
    /// [`Error::Dialect`] when the dialect cannot express the model; those of reading its parts.
    pub(crate) async fn in_dialect(
        self: &Arc<Self>,
        repository: &Repository,
        found: FoundManifest,
        dialect: Dialect,
    ) -> Result<FoundManifest, Error> {
        let media_type = found.record.media_type.as_str();
        if ![OCI_MANIFEST, DOCKER_MANIFEST].contains(&media_type) {
            return Ok(found);
        }
        let content = self.manifest_content(repository, &found.digest).await?;
        let manifest =
            Manifest::parse(content.to_vec(), Some(media_type)).map_err(Error::ManifestInvalid)?;
        if [dialect, Dialect::Other].contains(&Dialect::of(&manifest)) {
            return Ok(found);
        }
        let wish = (repository.clone(), found.digest, dialect);
        let derived = match self.derived_before(&wish).await? {
            Some(derived) => derived,
            None => {
                // To its end even when the client goes away: the next one has it then.
                let registry = Arc::clone(self);
                detached(async move { registry.derive(wish, &manifest).await }).await?
            }
        };
        Ok(FoundManifest {
            warning: found.warning,
            ..derived
        })
    }

    /// Content that was derived and lies nowhere but in memory.
    pub(crate) fn shelved(&self, repository: &Repository, digest: &Digest) -> Option<Bytes> {
        if !self.dialects.has_shelf.load(Ordering::Relaxed) {
            return None;
        }
        self.dialects.shelf.get(&(repository.clone(), *digest))
    }

    /// The size of content that lies in memory. Who is told that it is here may skip to push it,
    /// so it is stored now, if that can be done at all.
    pub(crate) async fn shelved_size(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Option<u64> {
        let content = self.shelved(repository, digest)?;
        let size = content.len() as u64;
        if !self.is_read_only()
            && let Err(error) = self.store_document(repository, digest, content).await
        {
            tracing::debug!(%repository, %digest, %error, "still in memory alone");
        }
        Some(size)
    }

    /// As [`Registry::shelved`], for a manifest.
    pub(crate) fn shelved_manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Option<FoundManifest> {
        let content = self.shelved(repository, digest)?;
        let manifest = Manifest::parse(content.to_vec(), None).ok()?;
        Some(FoundManifest::new(*digest, ManifestRecord::of(&manifest)))
    }

    /// The manifest that this one was made from, if it was made here: what an upstream can be asked
    /// for, and knows the names of.
    pub(crate) async fn origin_of(
        &self,
        repository: &Repository,
        manifest: &Digest,
    ) -> Result<Digest, Error> {
        let record = self.index.manifest(repository, manifest).await?;
        let derivation = record.and_then(|record| record.derived);
        Ok(derivation.map_or(*manifest, |derivation| derivation.from))
    }

    /// Whether a blob of the repository is a document that was made here, so that nobody else has
    /// it.
    pub(crate) async fn is_made_here(
        &self,
        repository: &Repository,
        blob: &Digest,
    ) -> Result<bool, Error> {
        let Some(by) = self.index.manifest_naming(repository, blob).await? else {
            return Ok(false);
        };
        let origin = self.origin_of(repository, &by).await?;
        let source = self.index.manifest(repository, &origin).await?;
        Ok(origin != by && source.is_none_or(|source| !source.blobs.contains(blob)))
    }

    async fn derive(&self, wish: Wish, manifest: &Manifest) -> Result<FoundManifest, Error> {
        let turn = self.dialects.turns.acquire().await;
        // Never closed; who would have to wait for nothing need not.
        let _turn = turn.ok();
        if let Some(derived) = self.derived_before(&wish).await? {
            return Ok(derived);
        }
        let (repository, digest, dialect) = &wish;
        let parts = self.read_parts(repository, manifest).await?;
        let source = Source {
            manifest,
            digest: *digest,
            parts: &parts,
        };
        let derived = dialect::derive(source, *dialect)
            .map_err(|reason| inexpressible(repository, &wish, reason))?;
        let found = self.keep(&wish, derived).await?;
        tracing::info!(%repository, source = %digest, digest = %found.digest, %dialect, "derived");
        Ok(found)
    }

    /// Stores what was derived, or keeps it in memory where nothing may be written, or can be: a
    /// pull must not fail for want of room.
    pub(super) async fn keep(&self, wish: &Wish, derived: Derived) -> Result<FoundManifest, Error> {
        let (repository, source, dialect) = wish;
        let digest = derived.manifest.digest;
        let derivation = Derivation {
            from: *source,
            dialect: *dialect,
        };
        let stored = if self.is_read_only() {
            Err(Error::ReadOnly)
        } else {
            self.store_derived(repository, derivation, &derived).await
        };
        let record = match stored {
            Err(error) if takes_nothing_in(&error) => {
                tracing::debug!(%repository, %digest, %error, "derived in memory");
                self.dialects.put_on_shelf(repository, &derived);
                store::record_of(&derived, derivation)?
            }
            stored => stored?,
        };
        self.dialects.known.insert(wish.clone(), digest, 1);
        Ok(FoundManifest::new(digest, record))
    }

    /// What was derived for this wish, if it is still there.
    pub(super) async fn derived_before(&self, wish: &Wish) -> Result<Option<FoundManifest>, Error> {
        let (repository, source, dialect) = wish;
        if let Some(digest) = self.dialects.known.get(wish) {
            if let Some(record) = self.index.manifest(repository, &digest).await? {
                return Ok(Some(FoundManifest::new(digest, record)));
            }
            // Where it can be stored, it is, as soon as there is room again.
            let shelved = self.shelved_manifest(repository, &digest);
            if let Some(found) = shelved.filter(|_| self.is_read_only()) {
                return Ok(Some(found));
            }
        }
        let derivation = Derivation {
            from: *source,
            dialect: *dialect,
        };
        let mut looked = 0;
        let mut referrers = each(Page::first(256), |page| {
            self.index.referrers(repository, source, page)
        });
        while let Some((digest, record)) = referrers.try_next().await? {
            if record.derived.as_deref() == Some(&derivation) {
                self.dialects.known.insert(wish.clone(), digest, 1);
                return Ok(Some(FoundManifest::new(digest, record)));
            }
            looked += 1;
            if looked == REFERRERS {
                break;
            }
        }
        Ok(None)
    }
}

fn inexpressible(repository: &Repository, wish: &Wish, source: Inexpressible) -> Error {
    Error::Dialect {
        repository: repository.clone(),
        digest: Box::new(wish.1),
        dialect: wish.2,
        source,
    }
}

/// Whether this failure says that the storage takes nothing in, and nothing of what it has.
fn takes_nothing_in(error: &Error) -> bool {
    matches!(
        error,
        Error::ReadOnly
            | Error::StorageFull { .. }
            | Error::Degraded { .. }
            | Error::ObjectDenied { .. }
    )
}
