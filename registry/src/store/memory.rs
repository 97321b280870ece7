//! The index in plain maps, for tests: the simplest thing that keeps the trait's promises.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use artifact::{Digest, Repository, Tag};
use futures::FutureExt;
use futures::future::BoxFuture;

use crate::error::Error;
use crate::store::key::RecordKey;
use crate::store::records::{BlobRecord, Entry, ManifestRecord, TagRecord};
use crate::store::{Change, MetadataIndex, Page, RepositoryLock};

/// [`MetadataIndex`] in memory.
#[derive(Debug, Default)]
pub struct MemoryIndex {
    maps: Mutex<Maps>,
    lock: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug, Default)]
struct Maps {
    repositories: BTreeMap<Repository, ()>,
    manifests: BTreeMap<(Repository, Digest), ManifestRecord>,
    tags: BTreeMap<(Repository, Tag), TagRecord>,
    blobs: BTreeMap<(Repository, Digest), BlobRecord>,
    generation: Option<u64>,
}

impl MemoryIndex {
    fn maps(&self) -> MutexGuard<'_, Maps> {
        self.maps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Maps {
    fn apply(&mut self, change: Change) {
        match change {
            Change::Put(entry) => match *entry {
                Entry::Repository(name, _) => drop(self.repositories.insert(name, ())),
                Entry::Manifest(name, digest, record) => {
                    self.manifests.insert((name, digest), record);
                }
                Entry::Tag(name, tag, record) => drop(self.tags.insert((name, tag), record)),
                Entry::Blob(name, digest, record) => {
                    self.blobs.insert((name, digest), record);
                }
            },
            Change::Remove(key) => match key {
                RecordKey::Repository(name) => drop(self.repositories.remove(&name)),
                RecordKey::Manifest(name, digest) => {
                    self.manifests.remove(&(name, digest));
                }
                RecordKey::Tag(name, tag) => drop(self.tags.remove(&(name, tag))),
                RecordKey::Blob(name, digest) => drop(self.blobs.remove(&(name, digest))),
            },
        }
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

fn ready<'a, T: Send + 'a>(value: T) -> BoxFuture<'a, Result<T, Error>> {
    futures::future::ready(Ok(value)).boxed()
}

impl MetadataIndex for MemoryIndex {
    fn apply(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<(), Error>> {
        let mut maps = self.maps();
        for change in changes {
            maps.apply(change);
        }
        ready(())
    }

    fn lock<'a>(
        &'a self,
        _repository: &'a Repository,
    ) -> BoxFuture<'a, Result<RepositoryLock, Error>> {
        async move {
            let held: RepositoryLock = Box::new(Arc::clone(&self.lock).lock_owned().await);
            Ok(held)
        }
        .boxed()
    }

    fn has_repository<'a>(
        &'a self,
        repository: &'a Repository,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        ready(self.maps().repositories.contains_key(repository))
    }

    fn manifest<'a>(
        &'a self,
        repository: &'a Repository,
        digest: &'a Digest,
    ) -> BoxFuture<'a, Result<Option<ManifestRecord>, Error>> {
        let key = (repository.clone(), *digest);
        ready(self.maps().manifests.get(&key).cloned())
    }

    fn tag<'a>(
        &'a self,
        repository: &'a Repository,
        tag: &'a Tag,
    ) -> BoxFuture<'a, Result<Option<TagRecord>, Error>> {
        let key = (repository.clone(), tag.clone());
        ready(self.maps().tags.get(&key).cloned())
    }

    fn blob<'a>(
        &'a self,
        repository: &'a Repository,
        digest: &'a Digest,
    ) -> BoxFuture<'a, Result<Option<BlobRecord>, Error>> {
        let key = (repository.clone(), *digest);
        ready(self.maps().blobs.get(&key).cloned())
    }

    fn repositories(&self, page: Page) -> BoxFuture<'_, Result<Vec<Repository>, Error>> {
        let maps = self.maps();
        let names = maps.repositories.keys().cloned();
        ready(paged(names, &page, |name| name.as_str().to_owned()))
    }

    fn tags<'a>(
        &'a self,
        repository: &'a Repository,
        page: Page,
    ) -> BoxFuture<'a, Result<Vec<Tag>, Error>> {
        let maps = self.maps();
        let tags = maps.tags.keys().filter(|(name, _)| name == repository);
        let tags = tags.map(|(_, tag)| tag.clone());
        ready(paged(tags, &page, |tag| tag.as_str().to_owned()))
    }

    fn tags_of<'a>(
        &'a self,
        repository: &'a Repository,
        digest: &'a Digest,
    ) -> BoxFuture<'a, Result<Vec<Tag>, Error>> {
        let maps = self.maps();
        let tags = maps
            .tags
            .iter()
            .filter(|((name, _), record)| name == repository && record.digest == *digest);
        ready(tags.map(|((_, tag), _)| tag.clone()).collect())
    }

    fn referrers<'a>(
        &'a self,
        repository: &'a Repository,
        subject: &'a Digest,
        page: Page,
    ) -> BoxFuture<'a, Result<Vec<(Digest, ManifestRecord)>, Error>> {
        let maps = self.maps();
        let found = maps
            .manifests
            .iter()
            .filter(|((name, _), record)| name == repository && record.subject == Some(*subject))
            .map(|((_, digest), record)| (*digest, record.clone()));
        ready(paged(found, &page, |(digest, _)| digest.to_string()))
    }

    fn holder_of<'a>(
        &'a self,
        digest: &'a Digest,
    ) -> BoxFuture<'a, Result<Option<Repository>, Error>> {
        let maps = self.maps();
        let holder = maps.blobs.keys().find(|(_, held)| held == digest);
        ready(holder.map(|(name, _)| name.clone()))
    }

    fn manifest_naming<'a>(
        &'a self,
        repository: &'a Repository,
        blob: &'a Digest,
    ) -> BoxFuture<'a, Result<Option<Digest>, Error>> {
        let maps = self.maps();
        let naming = maps.manifests.iter().find(|((name, _), record)| {
            name == repository
                && record
                    .blobs
                    .iter()
                    .chain(&record.manifests)
                    .any(|d| d == blob)
        });
        ready(naming.map(|((_, digest), _)| *digest))
    }

    fn generation(&self) -> BoxFuture<'_, Result<Option<u64>, Error>> {
        ready(self.maps().generation)
    }

    fn begin(&self, generation: u64) -> BoxFuture<'_, Result<(), Error>> {
        self.maps().generation = Some(generation);
        ready(())
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), Error>> {
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
