//! The index in sled: one ordered tree, every entry under a key that sorts the way it is listed.
//!
//! ```text
//! r NAME                    repository           b NAME 0 DIGEST           blob
//! m NAME 0 DIGEST           manifest             h DIGEST 0 NAME           who holds a blob
//! t NAME 0 TAG              tag                  n NAME 0 BLOB 0 MANIFEST  who names a blob
//! o NAME 0 DIGEST 0 TAG     tags of a manifest   f NAME 0 SUBJECT 0 DIGEST referrers
//! g                         generation
//! ```
//!
//! sled's own durability is not relied on: after anything but a clean stop the index is rebuilt
//! from the records. So nothing is flushed per change, and changes cost memory speed.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use artifact::{Digest, Repository, Tag};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde::de::DeserializeOwned;
use sled::{Batch, Db};
use tokio::sync::Mutex;

use crate::error::Error;
use crate::store::key::RecordKey;
use crate::store::records::{BlobRecord, Entry, ManifestRecord, TagRecord};
use crate::store::{Change, MetadataIndex, Page, RepositoryLock};

/// Memory that sled may use for its cache, in bytes; its own default is a gigabyte.
const CACHE_BYTES: u64 = 8 * 1024 * 1024;
/// Repositories share this many locks.
const LOCKS: usize = 64;

/// [`MetadataIndex`] in sled.
#[derive(Debug)]
pub(crate) struct SledIndex {
    db: Db,
    locks: Vec<Arc<Mutex<()>>>,
}

impl SledIndex {
    /// Opens or creates the index in `folder`.
    pub(crate) fn open(folder: &Path) -> Result<Self, Error> {
        let db = sled::Config::new()
            .path(folder)
            .cache_capacity(CACHE_BYTES)
            .open()
            .map_err(Error::index)?;
        Ok(Self {
            db,
            locks: (0..LOCKS).map(|_| Arc::default()).collect(),
        })
    }

    fn get<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, Error> {
        self.db
            .get(key)
            .map_err(Error::index)?
            .map(|json| serde_json::from_slice(&json).map_err(Error::index))
            .transpose()
    }

    /// What follows `prefix` in the keys that start with it, after `after`, at most `limit`.
    fn suffixes(&self, prefix: &[u8], page: &Page) -> Result<Vec<String>, Error> {
        let start = match &page.after {
            Some(after) => Bound::Excluded([prefix, after.as_bytes()].concat()),
            None => Bound::Included(prefix.to_vec()),
        };
        let mut found = Vec::new();
        for entry in self.db.range((start, Bound::Unbounded)) {
            let (key, _) = entry.map_err(Error::index)?;
            let Some(suffix) = key.strip_prefix(prefix) else {
                break;
            };
            if found.len() >= page.limit {
                break;
            }
            found.push(String::from_utf8_lossy(suffix).into_owned());
        }
        Ok(found)
    }

    fn stage(&self, batch: &mut Batch, change: &Change) -> Result<(), Error> {
        match change {
            Change::Put(entry) => self.stage_put(batch, entry),
            Change::Remove(key) => self.stage_remove(batch, key),
        }
    }

    fn stage_put(&self, batch: &mut Batch, entry: &Entry) -> Result<(), Error> {
        let json = entry.to_json().map_err(Error::index)?;
        batch.insert(record_key(&entry.key()), json);
        match entry {
            Entry::Repository(..) => {}
            Entry::Manifest(repository, digest, record) => {
                for key in manifest_keys(repository, digest, record) {
                    batch.insert(key, vec![]);
                }
            }
            Entry::Tag(repository, tag, record) => {
                self.unpoint(batch, repository, tag)?;
                batch.insert(tag_of_key(repository, &record.digest, tag), vec![]);
            }
            Entry::Blob(repository, digest, _) => {
                batch.insert(holder_key(digest, repository), vec![]);
            }
        }
        Ok(())
    }

    fn stage_remove(&self, batch: &mut Batch, key: &RecordKey) -> Result<(), Error> {
        let stored = record_key(key);
        match key {
            RecordKey::Repository(_) => {}
            RecordKey::Manifest(repository, digest) => {
                if let Some(record) = self.get::<ManifestRecord>(&stored)? {
                    for key in manifest_keys(repository, digest, &record) {
                        batch.remove(key);
                    }
                }
            }
            RecordKey::Tag(repository, tag) => self.unpoint(batch, repository, tag)?,
            RecordKey::Blob(repository, digest) => batch.remove(holder_key(digest, repository)),
        }
        batch.remove(stored);
        Ok(())
    }

    /// Forgets what a tag points to now.
    fn unpoint(&self, batch: &mut Batch, repository: &Repository, tag: &Tag) -> Result<(), Error> {
        let key = record_key(&RecordKey::Tag(repository.clone(), tag.clone()));
        if let Some(record) = self.get::<TagRecord>(&key)? {
            batch.remove(tag_of_key(repository, &record.digest, tag));
        }
        Ok(())
    }

    fn apply_now(&self, changes: &[Change]) -> Result<(), Error> {
        let mut batch = Batch::default();
        for change in changes {
            self.stage(&mut batch, change)?;
        }
        self.db.apply_batch(batch).map_err(Error::index)
    }

    fn referrers_now(
        &self,
        repository: &Repository,
        subject: &Digest,
        page: &Page,
    ) -> Result<Vec<(Digest, ManifestRecord)>, Error> {
        let prefix = parts(b'f', &[repository.as_str(), &subject.to_string(), ""]);
        let mut found = Vec::new();
        for digest in self.suffixes(&prefix, page)? {
            let digest = Digest::parse(&digest).map_err(Error::index)?;
            let key = record_key(&RecordKey::Manifest(repository.clone(), digest));
            if let Some(record) = self.get(&key)? {
                found.push((digest, record));
            }
        }
        Ok(found)
    }
}

/// `kind`, then the parts with a zero byte between them; no part contains one.
fn parts(kind: u8, parts: &[&str]) -> Vec<u8> {
    let mut key = vec![kind];
    key.extend_from_slice(parts.join("\0").as_bytes());
    key
}

fn record_key(key: &RecordKey) -> Vec<u8> {
    match key {
        RecordKey::Repository(repository) => parts(b'r', &[repository.as_str()]),
        RecordKey::Manifest(repository, digest) => {
            parts(b'm', &[repository.as_str(), &digest.to_string()])
        }
        RecordKey::Tag(repository, tag) => parts(b't', &[repository.as_str(), tag.as_str()]),
        RecordKey::Blob(repository, digest) => {
            parts(b'b', &[repository.as_str(), &digest.to_string()])
        }
    }
}

fn tag_of_key(repository: &Repository, digest: &Digest, tag: &Tag) -> Vec<u8> {
    parts(
        b'o',
        &[repository.as_str(), &digest.to_string(), tag.as_str()],
    )
}

fn holder_key(digest: &Digest, repository: &Repository) -> Vec<u8> {
    parts(b'h', &[&digest.to_string(), repository.as_str()])
}

/// The keys that follow from a manifest: its place among referrers, and what it names.
fn manifest_keys<'a>(
    repository: &'a Repository,
    digest: &'a Digest,
    record: &'a ManifestRecord,
) -> impl Iterator<Item = Vec<u8>> + 'a {
    let digest = digest.to_string();
    let referrer = record.subject.iter().map(|subject| (b'f', subject));
    let named = record
        .blobs
        .iter()
        .chain(&record.manifests)
        .map(|named| (b'n', named));
    referrer
        .chain(named)
        .map(move |(kind, other)| parts(kind, &[repository.as_str(), &other.to_string(), &digest]))
}

fn parse_all<T, E>(
    names: Vec<String>,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Result<Vec<T>, Error>
where
    E: std::error::Error + Send + Sync + 'static,
{
    names
        .iter()
        .map(|name| parse(name).map_err(Error::index))
        .collect()
}

/// Answers from memory or with few disk reads, so it is done in place, without a thread hop.
fn ready<'a, T: Send + 'a>(result: Result<T, Error>) -> BoxFuture<'a, Result<T, Error>> {
    futures::future::ready(result).boxed()
}

impl MetadataIndex for SledIndex {
    fn apply(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<(), Error>> {
        ready(self.apply_now(&changes))
    }

    fn lock<'a>(
        &'a self,
        repository: &'a Repository,
    ) -> BoxFuture<'a, Result<RepositoryLock, Error>> {
        let mut hasher = DefaultHasher::new();
        repository.hash(&mut hasher);
        let index = usize::try_from(hasher.finish() % LOCKS as u64).unwrap_or_default();
        let lock = Arc::clone(&self.locks[index]);
        async move {
            let held: RepositoryLock = Box::new(lock.lock_owned().await);
            Ok(held)
        }
        .boxed()
    }

    fn has_repository<'a>(
        &'a self,
        repository: &'a Repository,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        let key = record_key(&RecordKey::Repository(repository.clone()));
        ready(self.db.contains_key(key).map_err(Error::index))
    }

    fn manifest<'a>(
        &'a self,
        repository: &'a Repository,
        digest: &'a Digest,
    ) -> BoxFuture<'a, Result<Option<ManifestRecord>, Error>> {
        ready(self.get(&record_key(&RecordKey::Manifest(
            repository.clone(),
            *digest,
        ))))
    }

    fn tag<'a>(
        &'a self,
        repository: &'a Repository,
        tag: &'a Tag,
    ) -> BoxFuture<'a, Result<Option<TagRecord>, Error>> {
        ready(self.get(&record_key(&RecordKey::Tag(
            repository.clone(),
            tag.clone(),
        ))))
    }

    fn blob<'a>(
        &'a self,
        repository: &'a Repository,
        digest: &'a Digest,
    ) -> BoxFuture<'a, Result<Option<BlobRecord>, Error>> {
        ready(self.get(&record_key(&RecordKey::Blob(repository.clone(), *digest))))
    }

    fn repositories(&self, page: Page) -> BoxFuture<'_, Result<Vec<Repository>, Error>> {
        let names = self.suffixes(b"r", &page);
        ready(names.and_then(|names| parse_all(names, Repository::parse)))
    }

    fn tags<'a>(
        &'a self,
        repository: &'a Repository,
        page: Page,
    ) -> BoxFuture<'a, Result<Vec<Tag>, Error>> {
        let names = self.suffixes(&parts(b't', &[repository.as_str(), ""]), &page);
        ready(names.and_then(|names| parse_all(names, Tag::parse)))
    }

    fn tags_of<'a>(
        &'a self,
        repository: &'a Repository,
        digest: &'a Digest,
    ) -> BoxFuture<'a, Result<Vec<Tag>, Error>> {
        let prefix = parts(b'o', &[repository.as_str(), &digest.to_string(), ""]);
        let names = self.suffixes(&prefix, &everything());
        ready(names.and_then(|names| parse_all(names, Tag::parse)))
    }

    fn referrers<'a>(
        &'a self,
        repository: &'a Repository,
        subject: &'a Digest,
        page: Page,
    ) -> BoxFuture<'a, Result<Vec<(Digest, ManifestRecord)>, Error>> {
        ready(self.referrers_now(repository, subject, &page))
    }

    fn holder_of<'a>(
        &'a self,
        digest: &'a Digest,
    ) -> BoxFuture<'a, Result<Option<Repository>, Error>> {
        let names = self.suffixes(&parts(b'h', &[&digest.to_string(), ""]), &first());
        ready(names.and_then(|names| Ok(parse_all(names, Repository::parse)?.pop())))
    }

    fn manifest_naming<'a>(
        &'a self,
        repository: &'a Repository,
        blob: &'a Digest,
    ) -> BoxFuture<'a, Result<Option<Digest>, Error>> {
        let prefix = parts(b'n', &[repository.as_str(), &blob.to_string(), ""]);
        let names = self.suffixes(&prefix, &first());
        ready(names.and_then(|names| Ok(parse_all(names, Digest::parse)?.pop())))
    }

    fn generation(&self) -> BoxFuture<'_, Result<Option<u64>, Error>> {
        ready(self.get(b"g"))
    }

    fn begin(&self, generation: u64) -> BoxFuture<'_, Result<(), Error>> {
        let written = self.db.insert(b"g", generation.to_string().as_bytes());
        ready(written.map(drop).map_err(Error::index))
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), Error>> {
        async { self.db.flush_async().await.map(drop).map_err(Error::index) }.boxed()
    }
}

fn everything() -> Page {
    Page {
        after: None,
        limit: usize::MAX,
    }
}

fn first() -> Page {
    Page {
        after: None,
        limit: 1,
    }
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
