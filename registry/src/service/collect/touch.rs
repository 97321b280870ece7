//! What keeps things from being collected: whoever touches something that is marked takes its mark
//! away, and the grace time begins anew when it is next found unreferenced.
//!
//! Looking for a mark is one lookup, made only where a client may rely on the answer: after a HEAD
//! it skips an upload. The lock is taken only when there is a mark.

use artifact::{Digest, Repository};

use crate::error::Error;
use crate::service::Registry;
use crate::store::records::ManifestRecord;
use crate::store::{Mark, Page};

/// Referrers of a pushed manifest whose marks are taken away at once; those beyond lose theirs in
/// the next run, which finds their subject there.
const REFERRERS: usize = 1000;

impl Registry {
    /// Renews a blob that a client may be told to be there. The caller looks for it only after
    /// that: a collection takes the mark away last, so whoever finds no mark and then the blob has
    /// found one that stays for its whole grace time.
    pub(crate) async fn renew_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<(), Error> {
        self.renew(repository, Mark::Link(repository.clone(), *digest))
            .await
    }

    /// Renews a manifest, as [`Registry::renew_blob`] does a blob.
    pub(crate) async fn renew_manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<(), Error> {
        self.renew(repository, Mark::Manifest(repository.clone(), *digest))
            .await
    }

    async fn renew(&self, repository: &Repository, mark: Mark) -> Result<(), Error> {
        if self.is_read_only() || self.index.marked(&mark).await?.is_none() {
            return Ok(());
        }
        // A collection that has decided to remove it holds this lock until it is gone.
        let _lock = self.lock_repository(repository, None).await?;
        self.index.unmark(&mark).await
    }

    /// Content was linked into a repository. The caller holds both.
    pub(crate) async fn touch_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<(), Error> {
        self.unmark_if_marked(Mark::Content(*digest)).await?;
        self.unmark_if_marked(Mark::Link(repository.clone(), *digest))
            .await
    }

    /// A manifest was put. It, what it names, what it refers to and what refers to it are needed
    /// again. The caller holds the repository.
    pub(crate) async fn touch_manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
        record: &ManifestRecord,
    ) -> Result<(), Error> {
        self.unmark_if_marked(Mark::Content(*digest)).await?;
        let manifests = [digest]
            .into_iter()
            .chain(&record.subject)
            .chain(&record.manifests);
        for manifest in manifests {
            let mark = Mark::Manifest(repository.clone(), *manifest);
            self.unmark_if_marked(mark).await?;
        }
        for blob in &record.blobs {
            self.unmark_if_marked(Mark::Link(repository.clone(), *blob))
                .await?;
        }
        let page = Page {
            after: None,
            limit: REFERRERS,
        };
        for (referrer, _) in self.index.referrers(repository, digest, page).await? {
            let mark = Mark::Manifest(repository.clone(), referrer);
            self.unmark_if_marked(mark).await?;
        }
        Ok(())
    }

    /// Content of a repository was leased. The caller holds the repository.
    pub(crate) async fn touch_leased(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<(), Error> {
        self.unmark_if_marked(Mark::Link(repository.clone(), *digest))
            .await?;
        self.unmark_if_marked(Mark::Manifest(repository.clone(), *digest))
            .await
    }

    /// Looks before it writes: nearly nothing is ever marked, and a lookup syncs nothing.
    async fn unmark_if_marked(&self, mark: Mark) -> Result<(), Error> {
        match self.index.marked(&mark).await? {
            Some(_) => self.index.unmark(&mark).await,
            None => Ok(()),
        }
    }
}
