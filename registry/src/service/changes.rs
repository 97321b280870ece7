//! How records change: locks first, then intent, records and index; and how what was left between
//! them is settled.
//!
//! The one rule: a record is only written by somebody who holds its repository and has noted what
//! they intend. Should the process, the storage or the database fail at any point, the intent
//! stays, and whoever holds the repository next makes the index follow the record, whatever the
//! record says by then.

use std::collections::BTreeSet;
use std::sync::{MutexGuard, PoisonError};

use artifact::{Digest, Repository};
use jiff::Timestamp;

use crate::error::Error;
use crate::index_state::reconcile::follow_records;
use crate::service::Registry;
use crate::store::key::RecordKey;
use crate::store::records::{Entry, RepositoryRecord};
use crate::store::{Change, IndexLock, LockKey};

impl Registry {
    /// Takes content to oneself, to commit, link or remove it. Before a record about it is
    /// written the repository is taken too, by [`Registry::lock_more`].
    pub(crate) async fn lock_content(&self, digest: &Digest) -> Result<Box<dyn IndexLock>, Error> {
        self.index.lock(vec![LockKey::Blob(*digest)]).await
    }

    /// Takes a repository, and the content that is about to be linked into it or taken out of it.
    /// What was left unsettled in the repository is settled first.
    pub(crate) async fn lock_repository(
        &self,
        repository: &Repository,
        content: Option<&Digest>,
    ) -> Result<Box<dyn IndexLock>, Error> {
        let content = content.map(|digest| LockKey::Blob(*digest));
        let keys = content
            .into_iter()
            .chain([LockKey::Repository(repository.clone())]);
        let mut lock = self.index.lock(keys.collect()).await?;
        self.settle(lock.as_mut(), repository).await?;
        Ok(lock)
    }

    /// Adds a repository to a lock of content.
    pub(crate) async fn lock_more(
        &self,
        lock: &mut dyn IndexLock,
        repository: &Repository,
    ) -> Result<(), Error> {
        let key = LockKey::Repository(repository.clone());
        lock.extend(vec![key]).await?;
        self.settle(lock, repository).await
    }

    /// Writes and removes records of one repository in this order, and follows with the index in
    /// one step. The caller holds the repository with `lock`.
    pub(crate) async fn change(
        &self,
        lock: &mut dyn IndexLock,
        changes: Vec<Change>,
    ) -> Result<(), Error> {
        if changes.is_empty() {
            return Ok(());
        }
        let _open = self.require_open().await?;
        let keys: Vec<RecordKey> = changes.iter().map(Change::key).collect();
        lock.intend(keys.clone()).await?;
        let outcome = match self.write_records(&changes).await {
            Ok(()) => lock.apply(changes).await,
            // Some records may have changed, and even a write that failed may have been made.
            Err(error) => Err(error),
        };
        if outcome.is_err() {
            // The intents stay. They are also remembered here, for an index that lost the lock in
            // between: then somebody else may have settled them before the record was written.
            self.leftover().extend(keys);
            self.settling.notify_one();
        }
        outcome
    }

    async fn write_records(&self, changes: &[Change]) -> Result<(), Error> {
        for change in changes {
            match change {
                Change::Put(entry) => self.records.put(entry).await?,
                Change::Remove(key) => self.records.remove(key).await?,
            }
        }
        Ok(())
    }

    /// The change that makes a repository exist, if it does not yet.
    pub(crate) async fn missing_repository(
        &self,
        repository: &Repository,
    ) -> Result<Option<Change>, Error> {
        if self.index.has_repository(repository).await? {
            return Ok(None);
        }
        let record = RepositoryRecord {
            created: Timestamp::now(),
        };
        let entry = Entry::Repository(repository.clone(), record);
        Ok(Some(Change::Put(Box::new(entry))))
    }

    /// Settles everything that was left unsettled in any repository, and waits for repositories
    /// that are in use. Fails when some of it cannot be settled.
    pub(crate) async fn settle_all(&self) -> Result<(), Error> {
        for repository in self.unsettled_repositories().await? {
            drop(self.lock_repository(&repository, None).await?);
        }
        Ok(())
    }

    /// Settles what was left unsettled in repositories that nobody is changing: what is on its way
    /// there is unsettled by right.
    pub(crate) async fn settle_idle(&self) -> Result<(), Error> {
        for repository in self.unsettled_repositories().await? {
            let key = LockKey::Repository(repository.clone());
            if let Some(mut lock) = self.index.try_lock(key).await? {
                self.settle(lock.as_mut(), &repository).await?;
            }
        }
        Ok(())
    }

    /// Completes when a change was left half-way in this process.
    pub(crate) async fn left_half_way(&self) {
        self.settling.notified().await;
    }

    /// Whether a change of some repository's hold on this content was left half-way: then nobody
    /// knows whether it is held.
    pub(crate) async fn is_hold_unsettled(&self, content: &Digest) -> Result<bool, Error> {
        let mut keys = self.index.unsettled(None).await?;
        keys.extend(self.leftover().iter().cloned());
        Ok(keys.iter().any(|key| match key {
            RecordKey::Blob(_, digest) | RecordKey::Manifest(_, digest) => digest == content,
            RecordKey::Repository(_) | RecordKey::Tag(..) | RecordKey::Lease(..) => false,
        }))
    }

    async fn unsettled_repositories(&self) -> Result<BTreeSet<Repository>, Error> {
        let mut keys = self.index.unsettled(None).await?;
        keys.extend(self.leftover().iter().cloned());
        Ok(keys.iter().map(|key| key.repository().clone()).collect())
    }

    /// Settles what was left unsettled in the repository. The caller holds it with `lock`.
    async fn settle(&self, lock: &mut dyn IndexLock, repository: &Repository) -> Result<(), Error> {
        let mut keys: BTreeSet<RecordKey> = {
            let leftover = self.leftover();
            let here = leftover.iter().filter(|key| key.repository() == repository);
            here.cloned().collect()
        };
        keys.extend(self.index.unsettled(Some(repository)).await?);
        if keys.is_empty() {
            return Ok(());
        }
        tracing::info!(%repository, records = keys.len(), "settling changes that were left half-way");
        self.settle_records(lock, keys.iter().cloned().collect())
            .await?;
        self.leftover().retain(|key| !keys.contains(key));
        Ok(())
    }

    /// Makes the index follow these records, whatever they say. The caller holds their repository
    /// with `lock`.
    pub(crate) async fn settle_records(
        &self,
        lock: &mut dyn IndexLock,
        keys: Vec<RecordKey>,
    ) -> Result<(), Error> {
        let _open = self.require_open().await?;
        follow_records(&self.records, self.index.as_ref(), lock, keys).await
    }

    /// Records whose change failed in this process, and which are not settled yet.
    pub(super) fn leftover(&self) -> MutexGuard<'_, BTreeSet<RecordKey>> {
        self.leftover.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
