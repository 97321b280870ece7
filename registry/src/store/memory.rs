//! The index in plain maps, for tests: the simplest thing that keeps the trait's promises.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use artifact::{Digest, Repository, Tag};
use futures::FutureExt;
use jiff::Timestamp;
use uuid::Uuid;

use crate::store::index::{Answer, Change, IndexLock, LockKey, MetadataIndex, Page};
use crate::store::key::RecordKey;
use crate::store::locks::{HeldKeys, KeyedLocks};
use crate::store::mark::Mark;
use crate::store::records::{BlobRecord, Entry, LeaseRecord, ManifestRecord, TagRecord};

/// [`MetadataIndex`] in memory.
#[derive(Clone, Debug, Default)]
pub struct MemoryIndex {
    maps: Arc<Mutex<Maps>>,
    locks: KeyedLocks,
}

#[derive(Debug, Default)]
struct Maps {
    entries: BTreeMap<RecordKey, Entry>,
    intents: BTreeSet<RecordKey>,
    marks: BTreeMap<String, (Mark, Timestamp)>,
    notes: BTreeMap<String, String>,
    generation: Option<u64>,
}

impl MemoryIndex {
    fn maps(&self) -> MutexGuard<'_, Maps> {
        self.maps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Maps {
    fn apply(&mut self, changes: Vec<Change>) {
        for change in changes {
            let key = change.key();
            self.intents.remove(&key);
            match change {
                Change::Put(entry) => drop(self.entries.insert(key, *entry)),
                Change::Remove(key) => drop(self.entries.remove(&key)),
            }
        }
    }

    fn tags(&self, of: &Repository) -> impl Iterator<Item = (Tag, TagRecord)> {
        self.entries.values().filter_map(move |entry| match entry {
            Entry::Tag(name, tag, record) if name == of => Some((tag.clone(), record.clone())),
            _ => None,
        })
    }

    fn manifests(&self, of: &Repository) -> impl Iterator<Item = (Digest, ManifestRecord)> {
        self.entries.values().filter_map(move |entry| match entry {
            Entry::Manifest(name, digest, record) if name == of => Some((*digest, record.clone())),
            _ => None,
        })
    }

    fn blobs(&self, of: &Repository) -> impl Iterator<Item = (Digest, BlobRecord)> {
        self.entries.values().filter_map(move |entry| match entry {
            Entry::Blob(name, digest, record) if name == of => Some((*digest, record.clone())),
            _ => None,
        })
    }

    fn leases(&self) -> impl Iterator<Item = (Repository, Uuid, LeaseRecord)> {
        self.entries.values().filter_map(|entry| match entry {
            Entry::Lease(name, id, record) => Some((name.clone(), *id, record.clone())),
            _ => None,
        })
    }
}

/// The part of `all` that `page` asks for, in the order of the names.
fn paged<T>(all: impl Iterator<Item = T>, page: &Page, name: impl Fn(&T) -> String) -> Vec<T> {
    let mut wanted: Vec<(String, T)> = all
        .map(|item| (name(&item), item))
        .filter(|(name, _)| page.after.as_ref().is_none_or(|after| name > after))
        .collect();
    wanted.sort_by(|(left, _), (right, _)| left.cmp(right));
    wanted
        .into_iter()
        .map(|(_, item)| item)
        .take(page.limit)
        .collect()
}

fn ready<'a, T: Send + 'a>(value: T) -> Answer<'a, T> {
    futures::future::ready(Ok(value)).boxed()
}

/// [`IndexLock`] of the index in memory.
struct MemoryLock {
    index: MemoryIndex,
    held: HeldKeys,
}

impl IndexLock for MemoryLock {
    fn extend(&mut self, keys: Vec<LockKey>) -> Answer<'_, ()> {
        self.held.extend(&self.index.locks, keys).boxed()
    }

    fn intend(&mut self, keys: Vec<RecordKey>) -> Answer<'_, ()> {
        self.index.maps().intents.extend(keys);
        ready(())
    }

    fn apply(&mut self, changes: Vec<Change>) -> Answer<'_, ()> {
        self.index.maps().apply(changes);
        ready(())
    }

    fn check(&mut self) -> Answer<'_, ()> {
        ready(())
    }
}

impl MetadataIndex for MemoryIndex {
    fn apply(&self, changes: Vec<Change>) -> Answer<'_, ()> {
        self.maps().apply(changes);
        ready(())
    }

    fn lock(&self, keys: Vec<LockKey>) -> Answer<'_, Box<dyn IndexLock>> {
        async move {
            let held = self.locks.lock(keys).await;
            let index = self.clone();
            Ok(Box::new(MemoryLock { index, held }) as Box<dyn IndexLock>)
        }
        .boxed()
    }

    fn try_lock(&self, key: LockKey) -> Answer<'_, Option<Box<dyn IndexLock>>> {
        let index = self.clone();
        ready(
            self.locks
                .try_lock(key)
                .map(|held| Box::new(MemoryLock { index, held }) as Box<dyn IndexLock>),
        )
    }

    fn unsettled<'a>(&'a self, repository: Option<&'a Repository>) -> Answer<'a, Vec<RecordKey>> {
        let maps = self.maps();
        let wanted = maps
            .intents
            .iter()
            .filter(|key| repository.is_none_or(|repository| key.repository() == repository));
        ready(wanted.cloned().collect())
    }

    fn differing(&self, entries: Vec<Entry>) -> Answer<'_, Vec<RecordKey>> {
        let maps = self.maps();
        let keys = entries.iter().map(|entry| (entry.key(), entry));
        let differing = keys.filter(|(key, entry)| maps.entries.get(key) != Some(*entry));
        ready(differing.map(|(key, _)| key).collect())
    }

    fn has_repository<'a>(&'a self, repository: &'a Repository) -> Answer<'a, bool> {
        let key = RecordKey::Repository(repository.clone());
        ready(self.maps().entries.contains_key(&key))
    }

    fn manifest<'a>(
        &'a self,
        repository: &'a Repository,
        digest: &'a Digest,
    ) -> Answer<'a, Option<ManifestRecord>> {
        let key = RecordKey::Manifest(repository.clone(), *digest);
        ready(match self.maps().entries.get(&key) {
            Some(Entry::Manifest(_, _, record)) => Some(record.clone()),
            _ => None,
        })
    }

    fn tag<'a>(
        &'a self,
        repository: &'a Repository,
        tag: &'a Tag,
    ) -> Answer<'a, Option<TagRecord>> {
        let key = RecordKey::Tag(repository.clone(), tag.clone());
        ready(match self.maps().entries.get(&key) {
            Some(Entry::Tag(_, _, record)) => Some(record.clone()),
            _ => None,
        })
    }

    fn blob<'a>(
        &'a self,
        repository: &'a Repository,
        digest: &'a Digest,
    ) -> Answer<'a, Option<BlobRecord>> {
        let key = RecordKey::Blob(repository.clone(), *digest);
        ready(match self.maps().entries.get(&key) {
            Some(Entry::Blob(_, _, record)) => Some(record.clone()),
            _ => None,
        })
    }

    fn repositories(&self, page: Page) -> Answer<'_, Vec<Repository>> {
        let maps = self.maps();
        let names = maps.entries.keys().filter_map(|key| match key {
            RecordKey::Repository(name) => Some(name.clone()),
            _ => None,
        });
        ready(paged(names, &page, |name| name.as_str().to_owned()))
    }

    fn tags<'a>(&'a self, repository: &'a Repository, page: Page) -> Answer<'a, Vec<Tag>> {
        let maps = self.maps();
        let tags = maps.tags(repository).map(|(tag, _)| tag);
        ready(paged(tags, &page, |tag| tag.as_str().to_owned()))
    }

    fn tag_records<'a>(
        &'a self,
        repository: &'a Repository,
        page: Page,
    ) -> Answer<'a, Vec<(Tag, TagRecord)>> {
        let maps = self.maps();
        let tags = maps.tags(repository);
        ready(paged(tags, &page, |(tag, _)| tag.as_str().to_owned()))
    }

    fn tags_of<'a>(
        &'a self,
        repository: &'a Repository,
        digest: &'a Digest,
    ) -> Answer<'a, Vec<Tag>> {
        let maps = self.maps();
        let tags = maps.tags(repository);
        let tags = tags.filter(|(_, record)| record.digest == *digest);
        ready(tags.map(|(tag, _)| tag).collect())
    }

    fn manifests<'a>(
        &'a self,
        repository: &'a Repository,
        page: Page,
    ) -> Answer<'a, Vec<(Digest, ManifestRecord)>> {
        let maps = self.maps();
        let found = maps.manifests(repository);
        ready(paged(found, &page, |(digest, _)| digest.to_string()))
    }

    fn blobs<'a>(
        &'a self,
        repository: &'a Repository,
        page: Page,
    ) -> Answer<'a, Vec<(Digest, BlobRecord)>> {
        let maps = self.maps();
        let found = maps.blobs(repository);
        ready(paged(found, &page, |(digest, _)| digest.to_string()))
    }

    fn referrers<'a>(
        &'a self,
        repository: &'a Repository,
        subject: &'a Digest,
        page: Page,
    ) -> Answer<'a, Vec<(Digest, ManifestRecord)>> {
        let maps = self.maps();
        let found = maps.manifests(repository);
        let found = found.filter(|(_, record)| record.subject == Some(*subject));
        ready(paged(found, &page, |(digest, _)| digest.to_string()))
    }

    fn holder_of<'a>(&'a self, digest: &'a Digest) -> Answer<'a, Option<Repository>> {
        let maps = self.maps();
        ready(maps.entries.keys().find_map(|key| match key {
            RecordKey::Blob(name, held) if held == digest => Some(name.clone()),
            _ => None,
        }))
    }

    fn is_held<'a>(&'a self, digest: &'a Digest) -> Answer<'a, bool> {
        let maps = self.maps();
        ready(maps.entries.keys().any(|key| match key {
            RecordKey::Blob(_, held) | RecordKey::Manifest(_, held) => held == digest,
            _ => false,
        }))
    }

    fn manifest_naming<'a>(
        &'a self,
        repository: &'a Repository,
        content: &'a Digest,
    ) -> Answer<'a, Option<Digest>> {
        let maps = self.maps();
        let naming = maps.manifests(repository).find(|(_, record)| {
            record.blobs.contains(content) || record.manifests.contains(content)
        });
        ready(naming.map(|(digest, _)| digest))
    }

    fn index_naming<'a>(
        &'a self,
        repository: &'a Repository,
        manifest: &'a Digest,
    ) -> Answer<'a, Option<Digest>> {
        let maps = self.maps();
        let naming = maps
            .manifests(repository)
            .find(|(_, record)| record.manifests.contains(manifest));
        ready(naming.map(|(digest, _)| digest))
    }

    fn leases(&self, page: Page) -> Answer<'_, Vec<(Repository, Uuid, LeaseRecord)>> {
        let maps = self.maps();
        ready(paged(maps.leases(), &page, |(name, id, _)| {
            RecordKey::Lease(name.clone(), *id).path()
        }))
    }

    fn leased_until<'a>(&'a self, digest: &'a Digest) -> Answer<'a, Option<Timestamp>> {
        let maps = self.maps();
        let wanting = maps
            .leases()
            .filter(|(_, _, record)| record.digests.contains(digest));
        ready(wanting.map(|(_, _, record)| record.expires).max())
    }

    fn mark<'a>(&'a self, mark: &'a Mark, since: Timestamp) -> Answer<'a, ()> {
        let mut maps = self.maps();
        maps.marks.insert(mark.name(), (mark.clone(), since));
        ready(())
    }

    fn unmark<'a>(&'a self, mark: &'a Mark) -> Answer<'a, ()> {
        self.maps().marks.remove(&mark.name());
        ready(())
    }

    fn marked<'a>(&'a self, mark: &'a Mark) -> Answer<'a, Option<Timestamp>> {
        ready(self.maps().marks.get(&mark.name()).map(|(_, since)| *since))
    }

    fn marks(&self, page: Page) -> Answer<'_, Vec<(Mark, Timestamp)>> {
        let maps = self.maps();
        let marks = maps.marks.values().cloned();
        ready(paged(marks, &page, |(mark, _)| mark.name()))
    }

    fn now(&self) -> Answer<'_, Timestamp> {
        ready(Timestamp::now())
    }

    fn note<'a>(&'a self, name: &'a str, value: &'a str) -> Answer<'a, ()> {
        let mut maps = self.maps();
        maps.notes.insert(name.to_owned(), value.to_owned());
        ready(())
    }

    fn noted<'a>(&'a self, name: &'a str) -> Answer<'a, Option<String>> {
        ready(self.maps().notes.get(name).cloned())
    }

    fn generation(&self) -> Answer<'_, Option<u64>> {
        ready(self.maps().generation)
    }

    fn begin(&self, generation: u64) -> Answer<'_, ()> {
        self.maps().generation = Some(generation);
        ready(())
    }

    fn flush(&self) -> Answer<'_, ()> {
        ready(())
    }
}

#[cfg(test)]
mod tests {
    use crate::store::conformance;
    use crate::store::memory::MemoryIndex;

    #[tokio::test]
    async fn the_index_in_memory_keeps_every_promise() {
        conformance::verify(&MemoryIndex::default()).await;
    }
}
