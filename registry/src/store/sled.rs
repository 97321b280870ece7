//! The index in sled: one ordered tree, every entry under a key that sorts the way it is listed.
//!
//! ```text
//! r NAME                    repository           b NAME 0 DIGEST           blob
//! m NAME 0 DIGEST           manifest             h DIGEST 0 NAME           who holds a blob
//! d DIGEST 0 NAME           who holds a manifest n NAME 0 CONTENT 0 DIGEST which manifest names it
//! t NAME 0 TAG              tag                  x NAME 0 CHILD 0 DIGEST   which index names it
//! o NAME 0 DIGEST 0 TAG     tags of a manifest   f NAME 0 SUBJECT 0 DIGEST referrers
//! e PATH                    lease                l DIGEST 0 PATH           which lease wants it
//! i NAME 0 PATH             intended change      k MARK                    unreferenced since
//! c NAME                    a kept fact          g                         generation
//! ```
//!
//! sled's own durability is not relied on: after anything but a clean stop the index is rebuilt
//! from the records. So nothing is flushed per change, and changes cost memory speed.

mod keys;
mod lock;
mod remake;
mod stage;

use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use artifact::{Digest, Repository, Tag};
use futures::FutureExt;
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sled::Db;
use uuid::Uuid;

use crate::error::Error;
use crate::store::index::{Answer, Change, IndexLock, LockKey, MetadataIndex, Page};
use crate::store::key::RecordKey;
use crate::store::locks::KeyedLocks;
use crate::store::mark::Mark;
use crate::store::records::{BlobRecord, Entry, LeaseRecord, ManifestRecord, TagRecord};
use crate::store::sled::keys::parts;
use crate::store::sled::lock::SledLock;
use crate::store::sled::remake::{Current, failed};

/// Memory that sled may use for its cache, in bytes; its own default is a gigabyte.
const CACHE_BYTES: u64 = 8 * 1024 * 1024;

/// [`MetadataIndex`] in sled.
#[derive(Clone, Debug)]
pub(crate) struct SledIndex {
    current: Arc<Current>,
    locks: KeyedLocks,
}

impl SledIndex {
    /// Opens or creates the index in `folder`.
    pub(crate) fn open(folder: &Path) -> Result<Self, Error> {
        let db = sled::Config::new()
            .path(folder)
            .cache_capacity(CACHE_BYTES)
            .open()
            .map_err(failed)?;
        Ok(Self {
            current: Arc::new(Current::new(db)),
            locks: KeyedLocks::default(),
        })
    }

    fn db(&self) -> arc_swap::Guard<Arc<Db>> {
        self.current.db()
    }

    /// Whether the index still lies in the folder where it was opened.
    pub(crate) async fn is_in_place(&self) -> bool {
        self.current.is_first().await
    }

    fn get<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, Error> {
        self.db()
            .get(key)
            .map_err(failed)?
            .map(|json| serde_json::from_slice(&json).map_err(Error::index))
            .transpose()
    }

    fn set<T: Serialize + ?Sized>(&self, key: Vec<u8>, value: &T) -> Result<(), Error> {
        let json = serde_json::to_vec(value).map_err(Error::index)?;
        self.db().insert(key, json).map(drop).map_err(failed)
    }

    fn record<T: DeserializeOwned>(&self, key: &RecordKey) -> Result<Option<T>, Error> {
        self.get(&keys::record(key))
    }

    /// What follows `prefix` in the keys that start with it, with the values, after `after`, at
    /// most `limit`.
    fn scan(&self, prefix: &[u8], page: &Page) -> Result<Vec<(String, sled::IVec)>, Error> {
        let start = match &page.after {
            Some(after) => Bound::Excluded([prefix, after.as_bytes()].concat()),
            None => Bound::Included(prefix.to_vec()),
        };
        let mut found = Vec::new();
        for entry in self.db().range((start, Bound::Unbounded)) {
            let (key, value) = entry.map_err(failed)?;
            let Some(suffix) = key.strip_prefix(prefix) else {
                break;
            };
            if found.len() >= page.limit {
                break;
            }
            found.push((String::from_utf8_lossy(suffix).into_owned(), value));
        }
        Ok(found)
    }

    /// The names that follow `prefix`.
    fn names<T, E>(
        &self,
        prefix: &[u8],
        page: &Page,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Result<Vec<T>, Error>
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        self.scan(prefix, page)?
            .iter()
            .map(|(name, _)| parse(name).map_err(Error::index))
            .collect()
    }

    /// The names that follow `prefix`, with the records under them.
    fn listed<T, E, R: DeserializeOwned>(
        &self,
        prefix: &[u8],
        page: &Page,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Result<Vec<(T, R)>, Error>
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        self.scan(prefix, page)?
            .iter()
            .map(|(name, json)| {
                let record = serde_json::from_slice(json).map_err(Error::index)?;
                Ok((parse(name).map_err(Error::index)?, record))
            })
            .collect()
    }

    fn any(&self, prefix: &[u8]) -> Result<bool, Error> {
        Ok(!self.scan(prefix, &Page::first(1))?.is_empty())
    }

    fn holds(&self, entry: &Entry) -> Result<bool, Error> {
        let stored = self.db().get(keys::record(&entry.key()));
        let Some(json) = stored.map_err(failed)? else {
            return Ok(false);
        };
        Ok(Entry::from_json(entry.key(), &json).is_ok_and(|stored| stored == *entry))
    }

    fn referrers_now(
        &self,
        repository: &Repository,
        subject: &Digest,
        page: &Page,
    ) -> Result<Vec<(Digest, ManifestRecord)>, Error> {
        let prefix = parts(b'f', &[repository.as_str(), &subject.to_string(), ""]);
        let mut found = Vec::new();
        for digest in self.names(&prefix, page, Digest::parse)? {
            let key = RecordKey::Manifest(repository.clone(), digest);
            if let Some(record) = self.record(&key)? {
                found.push((digest, record));
            }
        }
        Ok(found)
    }

    fn leases_now(&self, page: &Page) -> Result<Vec<(Repository, Uuid, LeaseRecord)>, Error> {
        let found = self.listed(b"e", page, |path| parse_or(path, RecordKey::parse))?;
        Ok(found
            .into_iter()
            .filter_map(|(key, record)| match key {
                RecordKey::Lease(repository, id) => Some((repository, id, record)),
                _ => None,
            })
            .collect())
    }

    fn leased_now(&self, digest: &Digest) -> Result<Option<Timestamp>, Error> {
        let prefix = parts(b'l', &[&digest.to_string(), ""]);
        let mut latest = None;
        for (_, expires) in self.scan(&prefix, &everything())? {
            latest = latest.max(Some(
                serde_json::from_slice(&expires).map_err(Error::index)?,
            ));
        }
        Ok(latest)
    }
}

/// A name that only this code can have written.
fn parse_or<T>(name: &str, parse: impl Fn(&str) -> Option<T>) -> Result<T, std::io::Error> {
    parse(name).ok_or_else(|| std::io::Error::other(format!("unreadable name {name:?}")))
}

/// Answers from memory or with few disk reads, so it is done in place, without a thread hop.
fn ready<'a, T: Send + 'a>(result: Result<T, Error>) -> Answer<'a, T> {
    futures::future::ready(result).boxed()
}

fn of(repository: &Repository, kind: u8) -> Vec<u8> {
    parts(kind, &[repository.as_str(), ""])
}

impl MetadataIndex for SledIndex {
    fn apply(&self, changes: Vec<Change>) -> Answer<'_, ()> {
        self.change(move |index| index.apply_now(&changes))
    }

    fn lock(&self, keys: Vec<LockKey>) -> Answer<'_, Box<dyn IndexLock>> {
        async move {
            let held = self.locks.lock(keys).await;
            let index = self.clone();
            Ok(Box::new(SledLock { index, held }) as Box<dyn IndexLock>)
        }
        .boxed()
    }

    fn try_lock(&self, key: LockKey) -> Answer<'_, Option<Box<dyn IndexLock>>> {
        let held = self.locks.try_lock(key);
        let index = self.clone();
        ready(Ok(held.map(|held| {
            Box::new(SledLock { index, held }) as Box<dyn IndexLock>
        })))
    }

    fn unsettled<'a>(&'a self, repository: Option<&'a Repository>) -> Answer<'a, Vec<RecordKey>> {
        let names = match repository {
            Some(repository) => self.names(&of(repository, b'i'), &everything(), |path| {
                parse_or(path, RecordKey::parse)
            }),
            None => self.names(b"i", &everything(), |name| {
                parse_or(name, |name| RecordKey::parse(name.split_once('\0')?.1))
            }),
        };
        ready(names)
    }

    fn differing(&self, entries: Vec<Entry>) -> Answer<'_, Vec<RecordKey>> {
        let mut differing = Vec::new();
        for entry in entries {
            match self.holds(&entry) {
                Ok(true) => {}
                Ok(false) => differing.push(entry.key()),
                Err(error) => return ready(Err(error)),
            }
        }
        ready(Ok(differing))
    }

    fn has_repository<'a>(&'a self, repository: &'a Repository) -> Answer<'a, bool> {
        let key = keys::record(&RecordKey::Repository(repository.clone()));
        ready(self.db().contains_key(key).map_err(failed))
    }

    fn manifest<'a>(
        &'a self,
        repository: &'a Repository,
        digest: &'a Digest,
    ) -> Answer<'a, Option<ManifestRecord>> {
        ready(self.record(&RecordKey::Manifest(repository.clone(), *digest)))
    }

    fn tag<'a>(
        &'a self,
        repository: &'a Repository,
        tag: &'a Tag,
    ) -> Answer<'a, Option<TagRecord>> {
        ready(self.record(&RecordKey::Tag(repository.clone(), tag.clone())))
    }

    fn blob<'a>(
        &'a self,
        repository: &'a Repository,
        digest: &'a Digest,
    ) -> Answer<'a, Option<BlobRecord>> {
        ready(self.record(&RecordKey::Blob(repository.clone(), *digest)))
    }

    fn repositories(&self, page: Page) -> Answer<'_, Vec<Repository>> {
        ready(self.names(b"r", &page, Repository::parse))
    }

    fn tags<'a>(&'a self, repository: &'a Repository, page: Page) -> Answer<'a, Vec<Tag>> {
        ready(self.names(&of(repository, b't'), &page, Tag::parse))
    }

    fn tag_records<'a>(
        &'a self,
        repository: &'a Repository,
        page: Page,
    ) -> Answer<'a, Vec<(Tag, TagRecord)>> {
        ready(self.listed(&of(repository, b't'), &page, Tag::parse))
    }

    fn tags_of<'a>(
        &'a self,
        repository: &'a Repository,
        digest: &'a Digest,
    ) -> Answer<'a, Vec<Tag>> {
        let prefix = parts(b'o', &[repository.as_str(), &digest.to_string(), ""]);
        ready(self.names(&prefix, &everything(), Tag::parse))
    }

    fn manifests<'a>(
        &'a self,
        repository: &'a Repository,
        page: Page,
    ) -> Answer<'a, Vec<(Digest, ManifestRecord)>> {
        ready(self.listed(&of(repository, b'm'), &page, Digest::parse))
    }

    fn blobs<'a>(
        &'a self,
        repository: &'a Repository,
        page: Page,
    ) -> Answer<'a, Vec<(Digest, BlobRecord)>> {
        ready(self.listed(&of(repository, b'b'), &page, Digest::parse))
    }

    fn referrers<'a>(
        &'a self,
        repository: &'a Repository,
        subject: &'a Digest,
        page: Page,
    ) -> Answer<'a, Vec<(Digest, ManifestRecord)>> {
        ready(self.referrers_now(repository, subject, &page))
    }

    fn holder_of<'a>(&'a self, digest: &'a Digest) -> Answer<'a, Option<Repository>> {
        let prefix = parts(b'h', &[&digest.to_string(), ""]);
        let names = self.names(&prefix, &Page::first(1), Repository::parse);
        ready(names.map(|mut names| names.pop()))
    }

    fn is_held<'a>(&'a self, digest: &'a Digest) -> Answer<'a, bool> {
        let digest = digest.to_string();
        let as_blob = self.any(&parts(b'h', &[&digest, ""]));
        ready(match as_blob {
            Ok(false) => self.any(&parts(b'd', &[&digest, ""])),
            known => known,
        })
    }

    fn manifest_naming<'a>(
        &'a self,
        repository: &'a Repository,
        content: &'a Digest,
    ) -> Answer<'a, Option<Digest>> {
        let prefix = parts(b'n', &[repository.as_str(), &content.to_string(), ""]);
        let names = self.names(&prefix, &Page::first(1), Digest::parse);
        ready(names.map(|mut names| names.pop()))
    }

    fn index_naming<'a>(
        &'a self,
        repository: &'a Repository,
        manifest: &'a Digest,
    ) -> Answer<'a, Option<Digest>> {
        let prefix = parts(b'x', &[repository.as_str(), &manifest.to_string(), ""]);
        let names = self.names(&prefix, &Page::first(1), Digest::parse);
        ready(names.map(|mut names| names.pop()))
    }

    fn leases(&self, page: Page) -> Answer<'_, Vec<(Repository, Uuid, LeaseRecord)>> {
        ready(self.leases_now(&page))
    }

    fn leased_until<'a>(&'a self, digest: &'a Digest) -> Answer<'a, Option<Timestamp>> {
        ready(self.leased_now(digest))
    }

    fn mark<'a>(&'a self, mark: &'a Mark, since: Timestamp) -> Answer<'a, ()> {
        self.change(move |index| index.set(parts(b'k', &[&mark.name()]), &since))
    }

    fn unmark<'a>(&'a self, mark: &'a Mark) -> Answer<'a, ()> {
        self.change(move |index| {
            let removed = index.db().remove(parts(b'k', &[&mark.name()]));
            removed.map(drop).map_err(failed)
        })
    }

    fn marked<'a>(&'a self, mark: &'a Mark) -> Answer<'a, Option<Timestamp>> {
        ready(self.get(&parts(b'k', &[&mark.name()])))
    }

    fn marks(&self, page: Page) -> Answer<'_, Vec<(Mark, Timestamp)>> {
        ready(self.listed(b"k", &page, |name| parse_or(name, Mark::parse)))
    }

    fn now(&self) -> Answer<'_, Timestamp> {
        ready(Ok(Timestamp::now()))
    }

    fn note<'a>(&'a self, name: &'a str, value: &'a str) -> Answer<'a, ()> {
        self.change(move |index| index.set(parts(b'c', &[name]), value))
    }

    fn noted<'a>(&'a self, name: &'a str) -> Answer<'a, Option<String>> {
        ready(self.get(&parts(b'c', &[name])))
    }

    fn generation(&self) -> Answer<'_, Option<u64>> {
        ready(self.get(b"g"))
    }

    fn begin(&self, generation: u64) -> Answer<'_, ()> {
        self.change(move |index| index.set(b"g".to_vec(), &generation))
    }

    fn flush(&self) -> Answer<'_, ()> {
        let db = Arc::clone(&self.db());
        async move { db.flush_async().await.map(drop).map_err(failed) }.boxed()
    }
}

fn everything() -> Page {
    Page::first(usize::MAX)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use crate::store::MetadataIndex;
    use crate::store::conformance;
    use crate::store::sled::SledIndex;

    #[tokio::test]
    async fn the_sled_index_keeps_every_promise() {
        let folder = tempfile::tempdir().unwrap();
        conformance::verify(&SledIndex::open(folder.path()).unwrap()).await;
    }

    #[tokio::test]
    async fn a_flushed_index_is_there_again_after_reopening() {
        let folder = tempfile::tempdir().unwrap();
        let index = SledIndex::open(folder.path()).unwrap();
        index.begin(3).await.unwrap();
        index.flush().await.unwrap();
        drop(index);
        let again = SledIndex::open(folder.path()).unwrap();
        assert_eq!(again.generation().await.unwrap(), Some(3));
    }
}
