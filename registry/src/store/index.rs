//! The seam of the metadata index: lookups, listings, locks, intents and marks over the records.
//!
//! An index is never the truth. It can be emptied and refilled from the records at any time, with
//! two exceptions that only ever err to the safe side: marks of the collection start again, and
//! intents are only needed by an index that outlives its process.
//!
//! A change goes like this: take the [locks](MetadataIndex::lock), note what is
//! [intended](IndexLock::intend), write the records, [apply](IndexLock::apply) the change, which
//! forgets the intents in the same step. When anything fails between, the intents stay, and whoever
//! takes the repository's lock next reads those records again and settles them first.

use std::fmt::Debug;

use artifact::{Digest, Repository, Tag};
use futures::future::BoxFuture;
use jiff::Timestamp;
use uuid::Uuid;

use crate::error::Error;
use crate::store::key::RecordKey;
use crate::store::mark::Mark;
use crate::store::records::{BlobRecord, Entry, LeaseRecord, ManifestRecord, TagRecord};

/// Note: how many records could not be read when the index was built. What they name looks
/// unreferenced, so nothing is collected until they are put right.
pub(crate) const DAMAGED_RECORDS: &str = "records.damaged";

/// What a method of the index gives, in time.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, Error>>;

/// One change of the index, made after its record was written or removed.
#[derive(Clone, Debug)]
pub enum Change {
    /// A record was written.
    Put(Box<Entry>),
    /// A record was removed.
    Remove(RecordKey),
}

impl Change {
    /// The record that changes.
    #[must_use]
    pub fn key(&self) -> RecordKey {
        match self {
            Self::Put(entry) => entry.key(),
            Self::Remove(key) => key.clone(),
        }
    }
}

/// Part of a listing: what follows `after`, at most `limit` of it.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The last name already seen.
    pub after: Option<String>,
    /// How many at most.
    pub limit: usize,
}

impl Page {
    /// The start of a listing.
    #[must_use]
    pub fn first(limit: usize) -> Self {
        Self { after: None, limit }
    }
}

/// What one may have to oneself.
///
/// The order of the variants is the order in which locks are taken. Content comes first because a
/// commit may take long: it happens under the lock of its blob alone, and the repository is added
/// when its record is written ([`IndexLock::extend`]).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LockKey {
    /// Whether content is there: to commit, link or remove it.
    Blob(Digest),
    /// The records of a repository.
    Repository(Repository),
    /// The work of the one collector among all replicas; only tried for, never waited for.
    Collection,
}

/// Locks that are held; dropping it lets the next one in.
pub trait IndexLock: Send {
    /// Takes further locks, which must come after all that are held in the order of [`LockKey`]:
    /// where everybody takes them in one order, nobody can wait for each other.
    ///
    /// # Errors
    /// When an earlier one is asked for, or the index fails; what was held stays held.
    fn extend(&mut self, keys: Vec<LockKey>) -> Answer<'_, ()>;

    /// Notes which records are about to change, as durably as the index is.
    fn intend(&mut self, keys: Vec<RecordKey>) -> Answer<'_, ()>;

    /// Makes all changes or none, and forgets that they were intended. Fails without any effect
    /// when a lock was lost, unless the answer itself is lost: then the change may have been made.
    fn apply(&mut self, changes: Vec<Change>) -> Answer<'_, ()>;

    /// Whether everything is still held; an error if not.
    fn check(&mut self) -> Answer<'_, ()>;
}

/// Lookups and listings over the records.
///
/// All listings are in byte order of the names they are paged by, and cost as much at the end as
/// at the start.
pub trait MetadataIndex: Debug + Send + Sync {
    /// Makes all changes or none, without a lock: for a rebuild, while nobody else writes.
    fn apply(&self, changes: Vec<Change>) -> Answer<'_, ()>;

    /// Waits until all of `keys` are one's own. Whoever writes records holds their repository, so
    /// that records and index change in the same order; whoever commits, links or removes content
    /// holds its blob.
    fn lock(&self, keys: Vec<LockKey>) -> Answer<'_, Box<dyn IndexLock>>;

    /// Takes `key` if nobody has it.
    fn try_lock(&self, key: LockKey) -> Answer<'_, Option<Box<dyn IndexLock>>>;

    /// Records that were intended to change, of one repository or of all, and whose change was
    /// not applied. While a repository's lock is held its holder's own are among them.
    fn unsettled<'a>(&'a self, repository: Option<&'a Repository>) -> Answer<'a, Vec<RecordKey>>;

    /// The keys of those `entries` that the index does not hold as they are.
    fn differing(&self, entries: Vec<Entry>) -> Answer<'_, Vec<RecordKey>>;

    /// Whether the repository exists.
    fn has_repository<'a>(&'a self, repository: &'a Repository) -> Answer<'a, bool>;

    /// The manifest of a repository, by digest.
    fn manifest<'a>(
        &'a self,
        repository: &'a Repository,
        digest: &'a Digest,
    ) -> Answer<'a, Option<ManifestRecord>>;

    /// The tag of a repository.
    fn tag<'a>(&'a self, repository: &'a Repository, tag: &'a Tag)
    -> Answer<'a, Option<TagRecord>>;

    /// The blob of a repository.
    fn blob<'a>(
        &'a self,
        repository: &'a Repository,
        digest: &'a Digest,
    ) -> Answer<'a, Option<BlobRecord>>;

    /// Repository names.
    fn repositories(&self, page: Page) -> Answer<'_, Vec<Repository>>;

    /// Tags of a repository.
    fn tags<'a>(&'a self, repository: &'a Repository, page: Page) -> Answer<'a, Vec<Tag>>;

    /// Tags of a repository with what they point to.
    fn tag_records<'a>(
        &'a self,
        repository: &'a Repository,
        page: Page,
    ) -> Answer<'a, Vec<(Tag, TagRecord)>>;

    /// Tags of a repository that point to `digest`.
    fn tags_of<'a>(
        &'a self,
        repository: &'a Repository,
        digest: &'a Digest,
    ) -> Answer<'a, Vec<Tag>>;

    /// Manifests of a repository, by digest.
    fn manifests<'a>(
        &'a self,
        repository: &'a Repository,
        page: Page,
    ) -> Answer<'a, Vec<(Digest, ManifestRecord)>>;

    /// Blobs of a repository, by digest.
    fn blobs<'a>(
        &'a self,
        repository: &'a Repository,
        page: Page,
    ) -> Answer<'a, Vec<(Digest, BlobRecord)>>;

    /// Manifests whose subject is `subject`, by digest.
    fn referrers<'a>(
        &'a self,
        repository: &'a Repository,
        subject: &'a Digest,
        page: Page,
    ) -> Answer<'a, Vec<(Digest, ManifestRecord)>>;

    /// Some repository that holds the blob.
    fn holder_of<'a>(&'a self, digest: &'a Digest) -> Answer<'a, Option<Repository>>;

    /// Whether any repository holds this content, as a blob or as a manifest.
    fn is_held<'a>(&'a self, digest: &'a Digest) -> Answer<'a, bool>;

    /// Some manifest of the repository that names the content, as a blob or as a manifest.
    fn manifest_naming<'a>(
        &'a self,
        repository: &'a Repository,
        content: &'a Digest,
    ) -> Answer<'a, Option<Digest>>;

    /// Some image index of the repository that names the manifest.
    fn index_naming<'a>(
        &'a self,
        repository: &'a Repository,
        manifest: &'a Digest,
    ) -> Answer<'a, Option<Digest>>;

    /// Leases of all repositories, paged by the path of their record key.
    fn leases(&self, page: Page) -> Answer<'_, Vec<(Repository, Uuid, LeaseRecord)>>;

    /// When the last lease on the content ends, over all repositories.
    fn leased_until<'a>(&'a self, digest: &'a Digest) -> Answer<'a, Option<Timestamp>>;

    /// Notes since when something is unreferenced, over what was noted before.
    fn mark<'a>(&'a self, mark: &'a Mark, since: Timestamp) -> Answer<'a, ()>;

    /// Forgets a mark; an absent one is fine.
    fn unmark<'a>(&'a self, mark: &'a Mark) -> Answer<'a, ()>;

    /// Since when something is marked.
    fn marked<'a>(&'a self, mark: &'a Mark) -> Answer<'a, Option<Timestamp>>;

    /// All marks, paged by [`Mark::name`].
    fn marks(&self, page: Page) -> Answer<'_, Vec<(Mark, Timestamp)>>;

    /// The time by the clock that all replicas share.
    fn now(&self) -> Answer<'_, Timestamp>;

    /// Keeps a small fact, over what was kept under this name before.
    fn note<'a>(&'a self, name: &'a str, value: &'a str) -> Answer<'a, ()>;

    /// The fact kept under this name.
    fn noted<'a>(&'a self, name: &'a str) -> Answer<'a, Option<String>>;

    /// The generation that [`MetadataIndex::begin`] wrote last, `None` when there is none.
    fn generation(&self) -> Answer<'_, Option<u64>>;

    /// Notes which generation of the index this is.
    fn begin(&self, generation: u64) -> Answer<'_, ()>;

    /// Writes everything out.
    fn flush(&self) -> Answer<'_, ()>;
}
