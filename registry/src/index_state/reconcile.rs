//! Bringing an index in use into line with the records, repository by repository.
//!
//! Records and index are compared without a lock, so that reads and pushes go on; only what
//! differs is read again under the lock of its repository, and the index follows. So it is safe
//! at any time, beside any number of replicas, and may be stopped at any point.

use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use artifact::Repository;
use futures::{StreamExt, TryStreamExt};

use crate::error::Error;
use crate::index_state::{ReindexProgress, ReindexSummary};
use crate::store::index::DAMAGED_RECORDS;
use crate::store::key::RecordKey;
use crate::store::records::{Entry, Records};
use crate::store::{Change, IndexLock, LockKey, MetadataIndex, Page};

/// Repositories that are compared at once.
const REPOSITORIES_AT_ONCE: usize = 4;
/// Records that are read at once.
const READ_AT_ONCE: usize = 16;
/// Records that are compared, and that follow, in one step: a transaction has its bounds.
const STEP: usize = 512;

/// Compares all records with the index, and lets the index follow where they differ.
///
/// # Errors
/// When records or index fail as a whole; a damaged record is counted and passed over.
pub(crate) async fn reconcile(
    records: &Records,
    index: &dyn MetadataIndex,
    progress: &mut (dyn FnMut(ReindexProgress) + Send),
) -> Result<ReindexSummary, Error> {
    let repositories = all_repositories(records, index).await?;
    let seen = AtomicU64::new(0);
    let compared = Comparison {
        records,
        index,
        seen: &seen,
    };
    let mut summary = ReindexSummary::default();
    let mut work = futures::stream::iter(repositories)
        .map(|repository| async move { compared.repository(&repository).await })
        .buffer_unordered(REPOSITORIES_AT_ONCE);
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            done = work.next() => match done {
                Some(found) => summary.add(&found?),
                None => break,
            },
            _ = tick.tick() => progress(ReindexProgress { records: seen.load(Ordering::Relaxed) }),
        }
    }
    progress(ReindexProgress {
        records: seen.load(Ordering::Relaxed),
    });
    let damaged = summary.damaged.to_string();
    index.note(DAMAGED_RECORDS, &damaged).await?;
    Ok(summary)
}

async fn all_repositories(
    records: &Records,
    index: &dyn MetadataIndex,
) -> Result<BTreeSet<Repository>, Error> {
    let mut names = records.repositories().await?;
    let mut page = Page::first(STEP);
    loop {
        let listed = index.repositories(page.clone()).await?;
        let Some(last) = listed.last() else { break };
        page.after = Some(last.as_str().to_owned());
        names.extend(listed);
    }
    page.after = None;
    loop {
        let listed = index.leases(page.clone()).await?;
        let Some((name, id, _)) = listed.last() else {
            break;
        };
        page.after = Some(RecordKey::Lease(name.clone(), *id).path());
        names.extend(listed.into_iter().map(|(name, _, _)| name));
    }
    Ok(names)
}

#[derive(Clone, Copy)]
struct Comparison<'a> {
    records: &'a Records,
    index: &'a dyn MetadataIndex,
    seen: &'a AtomicU64,
}

impl Comparison<'_> {
    async fn repository(self, repository: &Repository) -> Result<ReindexSummary, Error> {
        let mut keys: HashSet<RecordKey> = self.records.keys_of(repository).try_collect().await?;
        keys.insert(RecordKey::Repository(repository.clone()));
        let stale = self.without_record(repository, &keys).await?;
        self.follow(repository, stale).await?;
        let mut summary = ReindexSummary::default();
        let keys: Vec<RecordKey> = keys.into_iter().collect();
        for keys in keys.chunks(STEP) {
            let entries = self.read(keys, &mut summary).await?;
            let differing = self.index.differing(entries).await?;
            self.follow(repository, differing).await?;
            let count = u64::try_from(keys.len()).unwrap_or(u64::MAX);
            self.seen.fetch_add(count, Ordering::Relaxed);
        }
        Ok(summary)
    }

    async fn read(
        self,
        keys: &[RecordKey],
        summary: &mut ReindexSummary,
    ) -> Result<Vec<Entry>, Error> {
        let mut found = Vec::with_capacity(keys.len());
        let mut reads = futures::stream::iter(keys.to_vec())
            .map(|key| async move { self.records.get(&key).await })
            .buffer_unordered(READ_AT_ONCE);
        while let Some(read) = reads.next().await {
            match read {
                Ok(Some(entry)) => {
                    summary.count(&entry);
                    found.push(entry);
                }
                // Removed since it was listed: its place in the index went with it.
                Ok(None) => {}
                Err(error @ Error::DamagedRecord { .. }) => {
                    summary.damaged += 1;
                    tracing::error!(%error, "passed over a record");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// What the index holds of the repository and no record tells.
    async fn without_record(
        self,
        repository: &Repository,
        keys: &HashSet<RecordKey>,
    ) -> Result<Vec<RecordKey>, Error> {
        let mut stale = Vec::new();
        let mut keep = |key: RecordKey| {
            if !keys.contains(&key) {
                stale.push(key);
            }
        };
        let mut page = Page::first(STEP);
        loop {
            let tags = self.index.tags(repository, page.clone()).await?;
            let Some(last) = tags.last() else { break };
            page.after = Some(last.as_str().to_owned());
            for tag in tags {
                keep(RecordKey::Tag(repository.clone(), tag));
            }
        }
        page.after = None;
        loop {
            let blobs = self.index.blobs(repository, page.clone()).await?;
            let Some((last, _)) = blobs.last() else { break };
            page.after = Some(last.to_string());
            for (digest, _) in blobs {
                keep(RecordKey::Blob(repository.clone(), digest));
            }
        }
        page.after = None;
        loop {
            let manifests = self.index.manifests(repository, page.clone()).await?;
            let Some((last, _)) = manifests.last() else {
                break;
            };
            page.after = Some(last.to_string());
            for (digest, _) in manifests {
                keep(RecordKey::Manifest(repository.clone(), digest));
            }
        }
        // Leases are few, and listed over all repositories.
        page.after = Some(format!("{}/_leases/", repository.as_str()));
        loop {
            let leases = self.index.leases(page.clone()).await?;
            let Some((name, id, _)) = leases.last() else {
                break;
            };
            page.after = Some(RecordKey::Lease(name.clone(), *id).path());
            let is_past = name != repository;
            for (_, id, _) in leases.into_iter().filter(|(name, _, _)| name == repository) {
                keep(RecordKey::Lease(repository.clone(), id));
            }
            if is_past {
                break;
            }
        }
        let own = RecordKey::Repository(repository.clone());
        let exists = self.index.has_repository(repository).await?;
        if exists && matches!(self.records.get(&own).await, Ok(None)) {
            stale.push(own);
        }
        Ok(stale)
    }

    async fn follow(self, repository: &Repository, keys: Vec<RecordKey>) -> Result<(), Error> {
        for keys in keys.chunks(STEP) {
            let key = LockKey::Repository(repository.clone());
            let mut lock = self.index.lock(vec![key]).await?;
            follow_records(self.records, self.index, lock.as_mut(), keys.to_vec()).await?;
        }
        Ok(())
    }
}

/// Makes the index follow these records, whatever they say. The caller holds their repository with
/// `lock`.
pub(crate) async fn follow_records(
    records: &Records,
    index: &dyn MetadataIndex,
    lock: &mut dyn IndexLock,
    keys: Vec<RecordKey>,
) -> Result<(), Error> {
    for keys in keys.chunks(STEP) {
        let mut changes = Vec::with_capacity(keys.len());
        let mut reads = futures::stream::iter(keys.to_vec())
            .map(|key| async move {
                let read = records.get(&key).await;
                (key, read)
            })
            .buffer_unordered(READ_AT_ONCE);
        while let Some((key, read)) = reads.next().await {
            changes.push(match read {
                Ok(Some(entry)) => Change::Put(Box::new(entry)),
                Ok(None) => Change::Remove(key),
                // As in a rebuilt index: what cannot be read is not there, and nothing is
                // collected until it is put right.
                Err(error @ Error::DamagedRecord { .. }) => {
                    tracing::error!(%error, "passed over a record");
                    index.note(DAMAGED_RECORDS, "some").await?;
                    Change::Remove(key)
                }
                Err(error) => return Err(error),
            });
        }
        lock.apply(changes).await?;
    }
    Ok(())
}
