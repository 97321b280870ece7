//! Records against the index, while both are in use: what differs, for `fsck` to tell and for
//! `reindex` to put right.
//!
//! A change under way differs too. So what was found is looked at again under the lock of its
//! repository before anything is said or done about it.

use artifact::Repository;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::index_state::ReindexSummary;
use crate::service::Registry;
use crate::service::events::{Outlet, Told};
use crate::store::index::DAMAGED_RECORDS;
use crate::store::key::RecordKey;
use crate::store::records::Entry;
use crate::store::{Change, IndexLock, Page};

/// Records that are compared at once.
const BATCH: usize = 500;
/// Records that are read at once.
const READ_AT_ONCE: usize = 16;

/// What came of comparing some records with the index.
#[derive(Clone, Debug, Default)]
pub(crate) struct Batch {
    /// What kinds of records they are.
    pub(crate) counted: ReindexSummary,
    /// Those that the index does not hold as they are.
    pub(crate) differing: Vec<RecordKey>,
    /// Those that cannot be read: key and reason.
    pub(crate) damaged: Vec<(String, String)>,
}

/// How a record and the index differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Difference {
    /// The index does not know the record.
    Missing,
    /// The index holds something else.
    Stale,
    /// The index holds what has no record.
    Extra,
}

/// What happens while a running registry's index is put right, one by one. As NDJSON these are the
/// answer of `POST /v2/_hayloft/reindex`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ReindexEvent {
    /// How far it has come.
    Read {
        /// Records read so far.
        records: u64,
    },
    /// It is done.
    Done {
        /// The records.
        summary: ReindexSummary,
        /// Those that the index did not follow, and does now.
        settled: u64,
    },
    /// It was given up.
    Failed {
        /// Why.
        message: String,
    },
}

impl Told for ReindexEvent {
    fn is_failure(&self) -> bool {
        matches!(self, Self::Failed { .. })
    }
}

impl Registry {
    /// All records, compared batch by batch.
    pub(crate) fn compared_records(&self) -> BoxStream<'_, Result<Batch, Error>> {
        let batches = self.records.entries().chunks(BATCH);
        batches.then(|batch| self.compare(batch)).boxed()
    }

    async fn compare(&self, found: Vec<Result<Entry, Error>>) -> Result<Batch, Error> {
        let mut batch = Batch::default();
        let mut entries = Vec::with_capacity(found.len());
        for entry in found {
            match entry {
                Ok(entry) => {
                    batch.counted.count(&entry);
                    entries.push(entry);
                }
                Err(Error::DamagedRecord { key, source }) => {
                    batch.counted.damaged += 1;
                    batch.damaged.push((key, source.to_string()));
                }
                Err(error) => return Err(error),
            }
        }
        batch.differing = self.index.differing(entries).await?;
        Ok(batch)
    }

    /// What the index holds of a repository without a record.
    pub(crate) async fn without_record(
        &self,
        repository: &Repository,
    ) -> Result<Vec<RecordKey>, Error> {
        let mut extra = Vec::new();
        let mut page = Page::first(BATCH);
        loop {
            let tags = self.index.tags(repository, page.clone()).await?;
            let Some(last) = tags.last() else { break };
            page.after = Some(last.as_str().to_owned());
            let keys = tags
                .into_iter()
                .map(|tag| RecordKey::Tag(repository.clone(), tag));
            extra.extend(self.absent(keys.collect()).await?);
        }
        page = Page::first(BATCH);
        loop {
            let manifests = self.index.manifests(repository, page.clone()).await?;
            let Some((last, _)) = manifests.last() else {
                break;
            };
            page.after = Some(last.to_string());
            let keys = manifests
                .into_iter()
                .map(|(digest, _)| RecordKey::Manifest(repository.clone(), digest));
            extra.extend(self.absent(keys.collect()).await?);
        }
        page = Page::first(BATCH);
        loop {
            let blobs = self.index.blobs(repository, page.clone()).await?;
            let Some((last, _)) = blobs.last() else { break };
            page.after = Some(last.to_string());
            let keys = blobs
                .into_iter()
                .map(|(digest, _)| RecordKey::Blob(repository.clone(), digest));
            extra.extend(self.absent(keys.collect()).await?);
        }
        extra.extend(
            self.absent(vec![RecordKey::Repository(repository.clone())])
                .await?,
        );
        Ok(extra)
    }

    /// Those of the records that are not there.
    async fn absent(&self, keys: Vec<RecordKey>) -> Result<Vec<RecordKey>, Error> {
        stream::iter(keys)
            .map(|key| async move {
                match self.records.get(&key).await {
                    Ok(None) => Ok(Some(key)),
                    // One that cannot be read is there; it is told of where records are read.
                    Ok(Some(_)) | Err(Error::DamagedRecord { .. }) => Ok(None),
                    Err(error) => Err(error),
                }
            })
            .buffered(READ_AT_ONCE)
            .try_filter_map(|absent| async move { Ok(absent) })
            .try_collect()
            .await
    }

    /// How a record and the index differ now. The caller holds the repository.
    pub(crate) async fn difference(&self, key: &RecordKey) -> Result<Option<Difference>, Error> {
        let entry = match self.records.get(key).await {
            Ok(entry) => entry,
            Err(Error::DamagedRecord { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let is_indexed = self.is_indexed(key).await?;
        let Some(entry) = entry else {
            return Ok(is_indexed.then_some(Difference::Extra));
        };
        if self.index.differing(vec![entry]).await?.is_empty() {
            return Ok(None);
        }
        Ok(Some(if is_indexed {
            Difference::Stale
        } else {
            Difference::Missing
        }))
    }

    async fn is_indexed(&self, key: &RecordKey) -> Result<bool, Error> {
        let index = &self.index;
        Ok(match key {
            RecordKey::Repository(repository) => index.has_repository(repository).await?,
            RecordKey::Manifest(repository, digest) => {
                index.manifest(repository, digest).await?.is_some()
            }
            RecordKey::Tag(repository, tag) => index.tag(repository, tag).await?.is_some(),
            RecordKey::Blob(repository, digest) => index.blob(repository, digest).await?.is_some(),
            // The index cannot be asked for a single lease; one without a record ends by itself.
            RecordKey::Lease(..) => false,
        })
    }

    /// Makes the index follow the records again, while reads and writes go on: one repository at a
    /// time is held, and only while what differs in it is put right. Tells how it goes, its end
    /// or failure last.
    ///
    /// # Errors
    /// When records or index fail, or nothing may be changed; what was put right until then is.
    pub(crate) async fn reindex(&self, outlet: &Outlet<ReindexEvent>) -> Result<(), Error> {
        let outcome = self.reconcile(outlet).await;
        outlet
            .tell(match &outcome {
                Ok((summary, settled)) => ReindexEvent::Done {
                    summary: *summary,
                    settled: *settled,
                },
                Err(error) => ReindexEvent::Failed {
                    message: error.chain(),
                },
            })
            .await;
        outcome.map(drop)
    }

    async fn reconcile(
        &self,
        outlet: &Outlet<ReindexEvent>,
    ) -> Result<(ReindexSummary, u64), Error> {
        if self.is_read_only() {
            return Err(Error::ReadOnly);
        }
        let mut summary = ReindexSummary::default();
        let mut settled = 0;
        let mut batches = self.compared_records();
        while let Some(batch) = batches.next().await {
            let batch = batch?;
            summary.add(&batch.counted);
            for (key, reason) in &batch.damaged {
                tracing::error!(key, reason, "passed over a damaged record");
            }
            settled += self.put_right(batch.differing).await?;
            let records = summary.records();
            outlet.tell(ReindexEvent::Read { records }).await;
        }
        let mut page = Page::first(BATCH);
        loop {
            let names = self.index.repositories(page.clone()).await?;
            let Some(last) = names.last() else { break };
            page.after = Some(last.as_str().to_owned());
            for repository in &names {
                let extra = self.without_record(repository).await?;
                settled += self.put_right(extra).await?;
            }
        }
        let damaged = summary.damaged.to_string();
        self.index.note(DAMAGED_RECORDS, &damaged).await?;
        Ok((summary, settled))
    }

    /// Makes the index follow these records; gives how many really differed.
    async fn put_right(&self, keys: Vec<RecordKey>) -> Result<u64, Error> {
        let mut settled = 0;
        for key in keys {
            let mut lock = self.lock_repository(key.repository(), None).await?;
            if self.difference(&key).await?.is_some() {
                self.follow(lock.as_mut(), key).await?;
                settled += 1;
            }
        }
        Ok(settled)
    }

    async fn follow(&self, lock: &mut dyn IndexLock, key: RecordKey) -> Result<(), Error> {
        let change = match self.records.get(&key).await? {
            Some(entry) => Change::Put(Box::new(entry)),
            None => Change::Remove(key),
        };
        lock.apply(vec![change]).await
    }
}
