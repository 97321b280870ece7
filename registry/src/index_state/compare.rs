//! Records against the index, repository by repository, while both are in use: what differs, for
//! `fsck` to tell and for a reindex to put right.
//!
//! A change under way differs too. So what was found is looked at again under the lock of its
//! repository before anything is said or done about it.

use std::collections::{BTreeSet, HashSet};
use std::future::ready;

use artifact::Repository;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};

use crate::error::Error;
use crate::index_state::ReindexSummary;
use crate::store::key::RecordKey;
use crate::store::paging::each;
use crate::store::records::Records;
use crate::store::{MetadataIndex, Page};

/// Records that are read at once.
pub(super) const READ_AT_ONCE: usize = 16;
/// Records that are compared, and that follow, in one step: a transaction has its bounds.
pub(super) const STEP: usize = 512;

/// Records and the index that should follow them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Comparison<'a> {
    pub(crate) records: &'a Records,
    pub(crate) index: &'a dyn MetadataIndex,
}

/// What came of comparing some records of one repository with the index.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    /// Whose they are.
    pub(crate) repository: Repository,
    /// What kinds of records they are.
    pub(crate) counted: ReindexSummary,
    /// Those that the index does not hold as they are, and what it holds without a record.
    pub(crate) differing: Vec<RecordKey>,
    /// Those that cannot be read: key and reason.
    pub(crate) damaged: Vec<(String, String)>,
}

impl Batch {
    fn new(repository: Repository, differing: Vec<RecordKey>) -> Self {
        Self {
            repository,
            counted: ReindexSummary::default(),
            differing,
            damaged: Vec::new(),
        }
    }

    /// Logs which records cannot be read.
    pub(crate) fn log_damaged(&self) {
        for (key, reason) in &self.damaged {
            tracing::error!(key, reason, "passed over a damaged record");
        }
    }
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

impl<'a> Comparison<'a> {
    /// Everything that the records or the index hold, one repository after the other: while the
    /// caller is busy with a batch nothing is under way here that others might wait for.
    pub(crate) async fn batches(self) -> Result<BoxStream<'a, Result<Batch, Error>>, Error> {
        let repositories = stream::iter(self.repositories().await?);
        Ok(repositories
            .flat_map(move |name| self.repository(name))
            .boxed())
    }

    /// Those that have any record, or any place in the index.
    pub(super) async fn repositories(self) -> Result<BTreeSet<Repository>, Error> {
        let index = self.index;
        let mut names = self.records.repositories().await?;
        let mut indexed = each(Page::first(STEP), |page| index.repositories(page));
        while let Some(name) = indexed.try_next().await? {
            names.insert(name);
        }
        let mut leases = each(Page::first(STEP), |page| index.leases(page));
        while let Some((name, _, _)) = leases.try_next().await? {
            names.insert(name);
        }
        Ok(names)
    }

    /// What the records or the index hold of one repository, compared without a lock.
    pub(super) fn repository(self, name: Repository) -> BoxStream<'a, Result<Batch, Error>> {
        stream::once(self.keys(name.clone()))
            .map_ok(move |(extra, keys)| {
                let steps = |keys: Vec<RecordKey>| {
                    let steps: Vec<_> = keys.chunks(STEP).map(<[_]>::to_vec).collect();
                    let name = name.clone();
                    stream::iter(steps).map(move |keys| Batch::new(name.clone(), keys))
                };
                let compared = steps(keys).then(move |batch| self.compare(batch));
                steps(extra).map(Ok).chain(compared)
            })
            .try_flatten()
            .boxed()
    }

    /// What the index holds of a repository and no record tells, and the records.
    async fn keys(self, name: Repository) -> Result<(Vec<RecordKey>, Vec<RecordKey>), Error> {
        let mut keys: HashSet<RecordKey> = self.records.keys_of(&name).try_collect().await?;
        let mut indexed = self.indexed(&name);
        let mut extra = Vec::new();
        while let Some(key) = indexed.try_next().await? {
            if !keys.contains(&key) {
                extra.push(key);
            }
        }
        drop(indexed);
        let own = RecordKey::Repository(name);
        // Its own record is not listed. One that cannot be read is there.
        let is_recorded = !matches!(self.records.get(&own).await, Ok(None));
        if is_recorded {
            keys.insert(own);
        } else if self.is_indexed(&own).await? {
            extra.push(own);
        }
        Ok((extra, keys.into_iter().collect()))
    }

    /// All that the index holds of a repository, but that it exists.
    fn indexed<'n>(self, name: &'n Repository) -> BoxStream<'n, Result<RecordKey, Error>>
    where
        'a: 'n,
    {
        let index = self.index;
        let tags = each(Page::first(STEP), move |page| index.tags(name, page))
            .map_ok(|tag| RecordKey::Tag(name.clone(), tag));
        let blobs = each(Page::first(STEP), move |page| index.blobs(name, page))
            .map_ok(|(digest, _)| RecordKey::Blob(name.clone(), digest));
        let manifests = each(Page::first(STEP), move |page| index.manifests(name, page))
            .map_ok(|(digest, _)| RecordKey::Manifest(name.clone(), digest));
        let leases = self.leases(name);
        tags.chain(blobs).chain(manifests).chain(leases).boxed()
    }

    /// The leases that the index holds of a repository. They are listed over all repositories, and
    /// those of one lie together.
    fn leases<'n>(self, name: &'n Repository) -> BoxStream<'n, Result<RecordKey, Error>>
    where
        'a: 'n,
    {
        let index = self.index;
        let before = Page {
            after: Some(format!("{name}/_leases/")),
            limit: STEP,
        };
        each(before, move |page| index.leases(page))
            .try_take_while(move |(holder, _, _)| ready(Ok(holder == name)))
            .map_ok(|(holder, id, _)| RecordKey::Lease(holder, id))
            .boxed()
    }

    /// Leaves of a batch those that really differ.
    async fn compare(self, mut batch: Batch) -> Result<Batch, Error> {
        let keys = std::mem::take(&mut batch.differing);
        let mut found = Vec::with_capacity(keys.len());
        let mut reads = stream::iter(keys)
            .map(|key| async move { self.records.get(&key).await })
            .buffer_unordered(READ_AT_ONCE);
        while let Some(read) = reads.next().await {
            match read {
                Ok(Some(entry)) => {
                    batch.counted.count(&entry);
                    found.push(entry);
                }
                // Removed since it was listed: its place in the index went with it.
                Ok(None) => {}
                Err(Error::DamagedRecord { key, source }) => {
                    batch.counted.damaged += 1;
                    batch.damaged.push((key, source.to_string()));
                }
                Err(error) => return Err(error),
            }
        }
        batch.differing = self.index.differing(found).await?;
        Ok(batch)
    }

    /// How a record and the index differ now. The caller holds the repository.
    pub(crate) async fn difference(self, key: &RecordKey) -> Result<Option<Difference>, Error> {
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

    async fn is_indexed(self, key: &RecordKey) -> Result<bool, Error> {
        let index = self.index;
        Ok(match key {
            RecordKey::Repository(name) => index.has_repository(name).await?,
            RecordKey::Manifest(name, digest) => index.manifest(name, digest).await?.is_some(),
            RecordKey::Tag(name, tag) => index.tag(name, tag).await?.is_some(),
            RecordKey::Blob(name, digest) => index.blob(name, digest).await?.is_some(),
            // The index cannot be asked for a single one. They are few.
            RecordKey::Lease(name, _) => {
                let mut leases = self.leases(name);
                loop {
                    match leases.try_next().await? {
                        Some(lease) if lease == *key => break true,
                        Some(_) => {}
                        None => break false,
                    }
                }
            }
        })
    }
}
