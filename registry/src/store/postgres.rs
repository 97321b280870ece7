//! The index in PostgreSQL, for registries of several replicas.
//!
//! The tables lie in the schema `hayloft`, which `migrations/` at the root of the repository
//! makes. Locks are session advisory locks on connections of a pool of their own, so that those
//! who wait for a lock can never starve a query; a change is made on the very connection that
//! holds its locks, so that whoever lost them cannot write.

mod address;
mod apply;
mod connect;
mod failure;
mod lock;
mod lookup;
mod stored;

pub(crate) mod state;

use std::sync::Arc;

use artifact::{Digest, Repository, Tag};
use futures::FutureExt;
use jiff::Timestamp;
use sqlx::PgPool;
use uuid::Uuid;

use crate::store::index::{Answer, Change, IndexLock, LockKey, MetadataIndex, Page};
use crate::store::key::RecordKey;
use crate::store::locks::KeyedLocks;
use crate::store::mark::Mark;
use crate::store::postgres::lock::Turns;
use crate::store::postgres::state::Continuity;
use crate::store::records::{BlobRecord, Entry, LeaseRecord, ManifestRecord, TagRecord};

/// [`MetadataIndex`] in PostgreSQL.
#[derive(Clone, Debug)]
pub(crate) struct PostgresIndex {
    queries: PgPool,
    lock_holders: PgPool,
    /// First among the own process: it queues for a lock with one connection, not with all.
    locks: KeyedLocks,
    turns: Turns,
    continuity: Arc<Continuity>,
}

impl MetadataIndex for PostgresIndex {
    fn apply(&self, changes: Vec<Change>) -> Answer<'_, ()> {
        self.apply_unlocked(changes).boxed()
    }

    fn lock(&self, keys: Vec<LockKey>) -> Answer<'_, Box<dyn IndexLock>> {
        self.lock_all(keys).boxed()
    }

    fn try_lock(&self, key: LockKey) -> Answer<'_, Option<Box<dyn IndexLock>>> {
        self.lock_if_free(key).boxed()
    }

    fn unsettled<'a>(&'a self, repository: Option<&'a Repository>) -> Answer<'a, Vec<RecordKey>> {
        self.find_unsettled(repository).boxed()
    }

    fn differing(&self, entries: Vec<Entry>) -> Answer<'_, Vec<RecordKey>> {
        self.find_differing(entries).boxed()
    }

    fn has_repository<'a>(&'a self, repository: &'a Repository) -> Answer<'a, bool> {
        self.find_repository(repository).boxed()
    }

    fn manifest<'a>(
        &'a self,
        repository: &'a Repository,
        digest: &'a Digest,
    ) -> Answer<'a, Option<ManifestRecord>> {
        self.find_manifest(repository, digest).boxed()
    }

    fn tag<'a>(
        &'a self,
        repository: &'a Repository,
        tag: &'a Tag,
    ) -> Answer<'a, Option<TagRecord>> {
        self.find_tag(repository, tag).boxed()
    }

    fn blob<'a>(
        &'a self,
        repository: &'a Repository,
        digest: &'a Digest,
    ) -> Answer<'a, Option<BlobRecord>> {
        self.find_blob(repository, digest).boxed()
    }

    fn repositories(&self, page: Page) -> Answer<'_, Vec<Repository>> {
        self.list_repositories(page).boxed()
    }

    fn tags<'a>(&'a self, repository: &'a Repository, page: Page) -> Answer<'a, Vec<Tag>> {
        self.list_tags(repository, page).boxed()
    }

    fn tag_records<'a>(
        &'a self,
        repository: &'a Repository,
        page: Page,
    ) -> Answer<'a, Vec<(Tag, TagRecord)>> {
        self.list_tag_records(repository, page).boxed()
    }

    fn tags_of<'a>(
        &'a self,
        repository: &'a Repository,
        digest: &'a Digest,
    ) -> Answer<'a, Vec<Tag>> {
        self.list_tags_of(repository, digest).boxed()
    }

    fn manifests<'a>(
        &'a self,
        repository: &'a Repository,
        page: Page,
    ) -> Answer<'a, Vec<(Digest, ManifestRecord)>> {
        self.list_manifests(repository, page).boxed()
    }

    fn blobs<'a>(
        &'a self,
        repository: &'a Repository,
        page: Page,
    ) -> Answer<'a, Vec<(Digest, BlobRecord)>> {
        self.list_blobs(repository, page).boxed()
    }

    fn referrers<'a>(
        &'a self,
        repository: &'a Repository,
        subject: &'a Digest,
        page: Page,
    ) -> Answer<'a, Vec<(Digest, ManifestRecord)>> {
        self.list_referrers(repository, subject, page).boxed()
    }

    fn holder_of<'a>(&'a self, digest: &'a Digest) -> Answer<'a, Option<Repository>> {
        self.find_holder(digest).boxed()
    }

    fn is_held<'a>(&'a self, digest: &'a Digest) -> Answer<'a, bool> {
        self.find_any_holder(digest).boxed()
    }

    fn manifest_naming<'a>(
        &'a self,
        repository: &'a Repository,
        content: &'a Digest,
    ) -> Answer<'a, Option<Digest>> {
        self.find_manifest_naming(repository, content).boxed()
    }

    fn index_naming<'a>(
        &'a self,
        repository: &'a Repository,
        manifest: &'a Digest,
    ) -> Answer<'a, Option<Digest>> {
        self.find_index_naming(repository, manifest).boxed()
    }

    fn leases(&self, page: Page) -> Answer<'_, Vec<(Repository, Uuid, LeaseRecord)>> {
        self.list_leases(page).boxed()
    }

    fn leased_until<'a>(&'a self, digest: &'a Digest) -> Answer<'a, Option<Timestamp>> {
        self.find_last_lease(digest).boxed()
    }

    fn mark<'a>(&'a self, mark: &'a Mark, since: Timestamp) -> Answer<'a, ()> {
        self.put_mark(mark, since).boxed()
    }

    fn unmark<'a>(&'a self, mark: &'a Mark) -> Answer<'a, ()> {
        self.remove_mark(mark).boxed()
    }

    fn marked<'a>(&'a self, mark: &'a Mark) -> Answer<'a, Option<Timestamp>> {
        self.find_mark(mark).boxed()
    }

    fn marks(&self, page: Page) -> Answer<'_, Vec<(Mark, Timestamp)>> {
        self.list_marks(page).boxed()
    }

    fn now(&self) -> Answer<'_, Timestamp> {
        self.clock().boxed()
    }

    fn note<'a>(&'a self, name: &'a str, value: &'a str) -> Answer<'a, ()> {
        self.put_note(name, value).boxed()
    }

    fn noted<'a>(&'a self, name: &'a str) -> Answer<'a, Option<String>> {
        self.find_note(name).boxed()
    }

    fn generation(&self) -> Answer<'_, Option<u64>> {
        self.find_generation().boxed()
    }

    fn begin(&self, generation: u64) -> Answer<'_, ()> {
        self.put_generation(generation).boxed()
    }

    /// Every change is durable when it is answered.
    fn flush(&self) -> Answer<'_, ()> {
        futures::future::ready(Ok(())).boxed()
    }
}

#[cfg(test)]
mod tests;
