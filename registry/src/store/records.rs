//! Records: the truth about repositories, manifests, tags and blob links, as small JSON objects.
//!
//! A record is written durably before the write is acknowledged; the index is only ever made from
//! them. A manifest's record carries all that the index needs (subject, artifact type,
//! annotations, the content it names), so that a manifest and its place in a referrers list are
//! one write and can never contradict each other.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use artifact::dialect::Dialect;
use artifact::{Digest, Manifest, Repository, Tag};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt, PutMode};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::Error;
use crate::store::health::Health;
use crate::store::key::RecordKey;

/// That a repository exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryRecord {
    /// When its first content came.
    pub created: Timestamp,
}

/// That a repository holds a manifest, and what the manifest says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestRecord {
    /// Its media type, as it is served.
    pub media_type: String,
    /// Its size in bytes.
    pub size: u64,
    /// When it was pushed first.
    pub pushed: Timestamp,
    /// The artifact type as a referrers list shows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The manifest it refers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Digest>,
    /// Its annotations, kept only for a referrer, whose list shows them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The blobs it names: config and layers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blobs: Vec<Digest>,
    /// The manifests it names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub manifests: Vec<Digest>,
    /// What it was made from, if this registry made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub derived: Option<Box<Derivation>>,
    /// Whether it came from an upstream: what it names is fetched from there when somebody asks
    /// for it, and need not be here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_mirrored: bool,
}

/// Where a manifest comes from that the registry made itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Derivation {
    /// The manifest that was pushed.
    pub from: Digest,
    /// The dialect it was turned into; [`Dialect::Other`] for the chunk maps of its blobs.
    pub dialect: Dialect,
}

impl ManifestRecord {
    /// What is kept of `manifest`, pushed now.
    #[must_use]
    pub fn of(manifest: &Manifest) -> Self {
        let subject = manifest.subject().map(|subject| subject.digest);
        Self {
            media_type: manifest.media_type().to_owned(),
            size: manifest.raw().len() as u64,
            pushed: Timestamp::now(),
            artifact_type: manifest.artifact_type().map(str::to_owned),
            annotations: if subject.is_some() {
                manifest.annotations().clone()
            } else {
                BTreeMap::new()
            },
            subject,
            blobs: manifest.blobs().map(|blob| blob.digest).collect(),
            manifests: manifest
                .manifests()
                .iter()
                .map(|entry| entry.digest)
                .collect(),
            derived: None,
            is_mirrored: false,
        }
    }

    /// The record of what is `stored` already and pushed once more: it was pushed then, and what
    /// this registry made stays that.
    pub(crate) fn succeed(&mut self, stored: &Self) {
        self.pushed = stored.pushed;
        if stored.derived.is_some() {
            self.derived.clone_from(&stored.derived);
            self.subject = stored.subject;
            self.annotations.clone_from(&stored.annotations);
        }
    }
}

/// What a tag points to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagRecord {
    /// The manifest, under the digest it was pushed with.
    pub digest: Digest,
    /// When the tag was set.
    pub updated: Timestamp,
}

/// That a repository holds a blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobRecord {
    /// Its size in bytes.
    pub size: u64,
    /// When it was pushed or mounted first.
    pub linked: Timestamp,
    /// What its content says of itself, by the keys of [`mod@artifact::gguf::annotations`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl BlobRecord {
    /// A blob of this size, linked now, of which nothing is known.
    #[must_use]
    pub fn new(size: u64) -> Self {
        Self {
            size,
            linked: Timestamp::now(),
            annotations: BTreeMap::new(),
        }
    }

    /// The same, with what is known of it.
    #[must_use]
    pub fn annotated(self, annotations: BTreeMap<String, String>) -> Self {
        Self {
            annotations,
            ..self
        }
    }
}

/// That somebody, such as the agent of a node that pulls, needs content of a repository for a
/// while, whatever becomes of its tags.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRecord {
    /// The content.
    pub digests: Vec<Digest>,
    /// When it ends, unless it is renewed.
    pub expires: Timestamp,
    /// Who asked for it, for people.
    pub holder: String,
}

/// A record with its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A repository.
    Repository(Repository, RepositoryRecord),
    /// A manifest of a repository.
    Manifest(Repository, Digest, ManifestRecord),
    /// A tag of a repository.
    Tag(Repository, Tag, TagRecord),
    /// A blob of a repository.
    Blob(Repository, Digest, BlobRecord),
    /// A lease on content of a repository.
    Lease(Repository, Uuid, LeaseRecord),
}

impl Entry {
    /// Where the record lies.
    #[must_use]
    pub fn key(&self) -> RecordKey {
        match self {
            Self::Repository(repository, _) => RecordKey::Repository(repository.clone()),
            Self::Manifest(repository, digest, _) => {
                RecordKey::Manifest(repository.clone(), *digest)
            }
            Self::Tag(repository, tag, _) => RecordKey::Tag(repository.clone(), tag.clone()),
            Self::Blob(repository, digest, _) => RecordKey::Blob(repository.clone(), *digest),
            Self::Lease(repository, id, _) => RecordKey::Lease(repository.clone(), *id),
        }
    }

    /// The record alone, as JSON.
    ///
    /// # Errors
    /// Only when the writer of JSON fails, which these types give no cause for.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        match self {
            Self::Repository(_, record) => serde_json::to_vec(record),
            Self::Manifest(_, _, record) => serde_json::to_vec(record),
            Self::Tag(_, _, record) => serde_json::to_vec(record),
            Self::Blob(_, _, record) => serde_json::to_vec(record),
            Self::Lease(_, _, record) => serde_json::to_vec(record),
        }
    }

    /// Reads the record that lies under `key`.
    ///
    /// # Errors
    /// When `json` is not such a record.
    pub fn from_json(key: RecordKey, json: &[u8]) -> Result<Self, serde_json::Error> {
        Ok(match key {
            RecordKey::Repository(repository) => {
                Self::Repository(repository, serde_json::from_slice(json)?)
            }
            RecordKey::Manifest(repository, digest) => {
                Self::Manifest(repository, digest, serde_json::from_slice(json)?)
            }
            RecordKey::Tag(repository, tag) => {
                Self::Tag(repository, tag, serde_json::from_slice(json)?)
            }
            RecordKey::Blob(repository, digest) => {
                Self::Blob(repository, digest, serde_json::from_slice(json)?)
            }
            RecordKey::Lease(repository, id) => {
                Self::Lease(repository, id, serde_json::from_slice(json)?)
            }
        })
    }
}

/// The store of the records.
#[derive(Clone, Debug)]
pub(crate) struct Records {
    store: Arc<dyn ObjectStore>,
    /// What is behind a local store.
    local: Option<Local>,
}

/// A folder with records, on a disk that may fail to keep them.
#[derive(Clone, Debug)]
struct Local {
    /// Deletes must be made durable here.
    folder: PathBuf,
    /// Shared with the blobs of the same disk.
    health: Arc<Health>,
}

impl Records {
    /// Opens the records in a local folder, which must exist. Every put syncs file and folder; one
    /// that the disk did not keep turns `health` bad.
    pub(crate) fn open_local(folder: &Path, health: Arc<Health>) -> Result<Self, Error> {
        let store = LocalFileSystem::new_with_prefix(folder)
            .map_err(|source| Error::record("open", String::new(), source))?
            .with_fsync(true);
        Ok(Self {
            store: Arc::new(store),
            local: Some(Local {
                folder: folder.to_owned(),
                health,
            }),
        })
    }

    /// The records in a bucket: `store` is what lies below `records/` there. A put that was answered
    /// is durable, and so is a delete.
    pub(crate) fn open_bucket(store: Arc<dyn ObjectStore>) -> Self {
        Self { store, local: None }
    }

    /// Writes a record over whatever was there; it is durable when this returns.
    pub(crate) async fn put(&self, entry: &Entry) -> Result<(), Error> {
        self.require_health()?;
        let path = entry.key().path();
        let json = entry.to_json().map_err(|source| Error::DamagedRecord {
            key: path.clone(),
            source,
        })?;
        let location = ObjectPath::from(path.as_str());
        match self.store.put(&location, json.into()).await {
            Ok(_) => Ok(()),
            Err(source) => Err(self.failed("write", path, source)),
        }
    }

    /// Removes a record; its absence is durable when this returns. An absent record is fine.
    pub(crate) async fn remove(&self, key: &RecordKey) -> Result<(), Error> {
        self.require_health()?;
        let path = key.path();
        let location = ObjectPath::from(path.as_str());
        match self.store.delete(&location).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(source) => return Err(self.failed("remove", path, source)),
        }
        // The local store syncs what it writes but not what it removes.
        let Some(local) = self.local.clone() else {
            return Ok(());
        };
        let work = move || {
            let path = local.folder.join(path);
            let parent = path.parent().unwrap_or(&local.folder);
            local.health.watch(sync_folder_if_present(parent))
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(Error::Task)?
    }

    fn require_health(&self) -> Result<(), Error> {
        self.local
            .as_ref()
            .map_or(Ok(()), |local| local.health.require())
    }

    /// A change that failed. After one that a disk did not keep, no later success proves anything.
    fn failed(&self, action: &'static str, key: String, source: object_store::Error) -> Error {
        let Some(local) = self.local.as_ref().filter(|_| is_lost(&source)) else {
            return Error::record(action, key, source);
        };
        let error = Error::sync(local.folder.join(key))(io::Error::other(source));
        local.health.note(&error);
        error
    }

    /// The record that lies under `key`, `None` when there is none.
    pub(crate) async fn get(&self, key: &RecordKey) -> Result<Option<Entry>, Error> {
        let path = key.path();
        let location = ObjectPath::from(path.as_str());
        match read(self.store.as_ref(), key.clone(), path, &location).await {
            Err(Error::Record {
                source: object_store::Error::NotFound { .. },
                ..
            }) => Ok(None),
            found => found.map(Some),
        }
    }

    /// The keys of all records of one repository but that of its existence, in no particular order.
    pub(crate) fn keys_of(
        &self,
        repository: &Repository,
    ) -> BoxStream<'static, Result<RecordKey, Error>> {
        // Kind by kind: below the name alone there are also the repositories whose names go on.
        let store = Arc::clone(&self.store);
        let name = repository.as_str().to_owned();
        let folders = ["_manifests", "_tags", "_blobs", "_leases"];
        futures::stream::iter(folders)
            .flat_map(move |folder| {
                let prefix = ObjectPath::from(format!("{name}/{folder}"));
                store
                    .list(Some(&prefix))
                    .map_err(move |source| Error::record("list", prefix.to_string(), source))
            })
            .try_filter_map(|object| async move { Ok(RecordKey::parse(object.location.as_ref())) })
            .boxed()
    }

    /// The repositories that have any record.
    pub(crate) async fn repositories(&self) -> Result<BTreeSet<Repository>, Error> {
        self.store
            .list(None)
            .map_err(|source| Error::record("list", String::new(), source))
            .try_fold(BTreeSet::new(), |mut names, object| async move {
                if let Some(key) = RecordKey::parse(object.location.as_ref())
                    && !names.contains(key.repository())
                {
                    names.insert(key.repository().clone());
                }
                Ok(names)
            })
            .await
    }

    /// What lies beside the records under a name of its own, `None` when there is nothing.
    pub(crate) async fn aside(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let unreadable = |source| Error::record("read", name.to_owned(), source);
        let found = match self.store.get(&ObjectPath::from(name)).await {
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            found => found.map_err(unreadable)?,
        };
        Ok(Some(found.bytes().await.map_err(unreadable)?.to_vec()))
    }

    /// Writes something that is no record beside the records; it is durable when this returns.
    pub(crate) async fn put_aside(&self, name: &str, content: Vec<u8>) -> Result<(), Error> {
        let location = ObjectPath::from(name);
        match self.store.put(&location, content.into()).await {
            Ok(_) => Ok(()),
            Err(source) => Err(self.failed("write", name.to_owned(), source)),
        }
    }

    /// Writes something beside the records unless there is something under this name; `false` if
    /// there is.
    pub(crate) async fn create_aside(&self, name: &str, content: Vec<u8>) -> Result<bool, Error> {
        let location = ObjectPath::from(name);
        let options = PutMode::Create.into();
        match self
            .store
            .put_opts(&location, content.clone().into(), options)
            .await
        {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
            // A bucket without conditional puts has one registry alone.
            Err(
                object_store::Error::NotImplemented { .. }
                | object_store::Error::NotSupported { .. },
            ) => self.put_aside(name, content).await.map(|()| true),
            Err(source) => Err(self.failed("write", name.to_owned(), source)),
        }
    }

    /// Every record, in no particular order; a damaged one is an error of its own.
    pub(crate) fn entries(&self) -> BoxStream<'static, Result<Entry, Error>> {
        let store = Arc::clone(&self.store);
        self.store
            .list(None)
            .map_err(|source| Error::record("list", String::new(), source))
            .try_filter_map(|object| async move {
                let path = object.location.to_string();
                Ok(RecordKey::parse(&path).map(|key| (key, path, object.location)))
            })
            .map(move |found| {
                let store = Arc::clone(&store);
                async move {
                    let (key, path, location) = found?;
                    match read(store.as_ref(), key, path, &location).await {
                        // Removed since it was listed.
                        Err(Error::Record {
                            source: object_store::Error::NotFound { .. },
                            ..
                        }) => Ok(None),
                        read => read.map(Some),
                    }
                }
            })
            .buffer_unordered(16)
            .try_filter_map(|entry| async { Ok(entry) })
            .boxed()
    }
}

async fn read(
    store: &dyn ObjectStore,
    key: RecordKey,
    path: String,
    location: &ObjectPath,
) -> Result<Entry, Error> {
    let unreadable = |source| Error::record("read", path.clone(), source);
    let found = store.get(location).await.map_err(unreadable)?;
    let json = found.bytes().await.map_err(unreadable)?;
    Entry::from_json(key, &json).map_err(|source| Error::DamagedRecord { key: path, source })
}

/// Whether the disk itself failed: the local store does not tell a sync from other calls.
fn is_lost(error: &object_store::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        let code = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::raw_os_error);
        if code == Some(rustix::io::Errno::IO.raw_os_error()) {
            return true;
        }
        cause = error.source();
    }
    false
}

fn sync_folder_if_present(folder: &Path) -> Result<(), Error> {
    match std::fs::File::open(folder) {
        Ok(folder_file) => folder_file.sync_all().map_err(Error::sync(folder)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::storage("open", folder)(error)),
    }
}
