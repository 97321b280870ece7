//! Every path of the data folder in one place: files of the local store and keys of the records.
//!
//! ```text
//! DATA/
//!   lock                                    held by the one process that uses the folder
//!   instance                                which registry this is, where several may meet in a bucket
//!   blobs/sha256/<hex>                      complete, verified content: layers, configs, manifests
//!   blobs/sha512/<hex>
//!   maps/<algorithm>/<hex>                  the chunk map of the blob with this digest, made again if lost
//!   uploads/<uuid>/data                     an upload session: the bytes that have arrived
//!   uploads/<uuid>/state                    ... and the last offset known to be on disk
//!   temporary/<uuid>                        small content on its way into blobs/
//!   quarantine/<algorithm>/<hex>            content that was found corrupt, for a person to look at
//!   fills/<algorithm>-<hex>.{part,map,json} a blob on its way from an upstream
//!   quarantine/fills/<hex>                  bytes of an upstream that were not what they should be
//!   records/<repository>/_repository        the truth about a repository: small JSON records
//!   records/<repository>/_manifests/<algorithm>/<hex>
//!   records/<repository>/_tags/<tag>
//!   records/<repository>/_blobs/<algorithm>/<hex>
//!   records/<repository>/_leases/<uuid>
//!   records/_index.state                    which generation of the index belongs to the records
//!   index/                                  sled, rebuilt from records/ at any doubt
//! ```
//!
//! Names cannot collide or escape: a segment of a repository name never starts with `_`, and every
//! part of a path comes from a type that only parsing can build.

use std::path::{Path, PathBuf};

use artifact::{Algorithm, Digest, Repository, Tag};
use uuid::Uuid;

/// The paths below one data folder.
#[derive(Clone, Debug)]
pub(crate) struct DataFolder {
    root: PathBuf,
}

impl DataFolder {
    /// The layout below `root`; nothing is created.
    pub(crate) fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder itself.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The file whose lock says that the folder is in use.
    pub(crate) fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// The folder of all blobs of one algorithm.
    pub(crate) fn blobs(&self, algorithm: Algorithm) -> PathBuf {
        self.root.join("blobs").join(algorithm.as_str())
    }

    /// One blob.
    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs(digest.algorithm()).join(digest.hex())
    }

    /// The folder of the chunk maps of all blobs of one algorithm.
    pub(crate) fn maps(&self, algorithm: Algorithm) -> PathBuf {
        self.root.join("maps").join(algorithm.as_str())
    }

    /// The chunk map of one blob.
    pub(crate) fn map(&self, blob: &Digest) -> PathBuf {
        self.maps(blob.algorithm()).join(blob.hex())
    }

    /// The folder of all upload sessions.
    pub(crate) fn uploads(&self) -> PathBuf {
        self.root.join("uploads")
    }

    /// The folder of content on its way into `blobs`.
    pub(crate) fn temporary(&self) -> PathBuf {
        self.root.join("temporary")
    }

    /// The folder of all quarantined blobs of one algorithm.
    pub(crate) fn quarantine(&self, algorithm: Algorithm) -> PathBuf {
        self.root.join("quarantine").join(algorithm.as_str())
    }

    /// The folder of blobs on their way from an upstream.
    pub(crate) fn fills(&self) -> PathBuf {
        self.root.join("fills")
    }

    /// The folder of what came from an upstream and was wrong.
    pub(crate) fn quarantined_fills(&self) -> PathBuf {
        self.root.join("quarantine").join("fills")
    }

    /// When mirrored blobs were used.
    pub(crate) fn mirror_usage(&self) -> PathBuf {
        self.root.join("mirror-usage.json")
    }

    /// The folder that the record keys are relative to.
    pub(crate) fn records(&self) -> PathBuf {
        self.root.join("records")
    }

    /// The file that says which registry this is, where several may meet in a bucket.
    pub(crate) fn instance(&self) -> PathBuf {
        self.root.join("instance")
    }

    /// The folder of the sled index.
    pub(crate) fn index(&self) -> PathBuf {
        self.root.join("index")
    }

    /// The folder for one that replaces it while the registry runs.
    pub(crate) fn other_index(&self) -> PathBuf {
        self.root.join("index-remade")
    }
}

/// The files of one upload session.
#[derive(Clone, Debug)]
pub(crate) struct UploadFolder {
    folder: PathBuf,
}

impl UploadFolder {
    /// The files of session `id` below `uploads`.
    pub(crate) fn new(uploads: &Path, id: Uuid) -> Self {
        Self {
            folder: uploads.join(id.as_hyphenated().to_string()),
        }
    }

    /// The folder of the session.
    pub(crate) fn path(&self) -> &Path {
        &self.folder
    }

    /// The bytes that have arrived.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// The saved offset and hash state.
    pub(crate) fn state(&self) -> PathBuf {
        self.folder.join("state")
    }
}

/// The key of one record, relative to `records/`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordKey {
    /// That a repository exists.
    Repository(Repository),
    /// That a repository holds a manifest.
    Manifest(Repository, Digest),
    /// What a tag points to.
    Tag(Repository, Tag),
    /// That a repository holds a blob.
    Blob(Repository, Digest),
    /// That somebody needs content of a repository for a while.
    Lease(Repository, Uuid),
}

impl RecordKey {
    /// The repository the record belongs to.
    #[must_use]
    pub fn repository(&self) -> &Repository {
        match self {
            Self::Repository(repository)
            | Self::Manifest(repository, _)
            | Self::Tag(repository, _)
            | Self::Blob(repository, _)
            | Self::Lease(repository, _) => repository,
        }
    }

    /// The path below `records/`, with `/` between its parts.
    #[must_use]
    pub fn path(&self) -> String {
        let name = self.repository().as_str();
        match self {
            Self::Repository(_) => format!("{name}/_repository"),
            Self::Manifest(_, digest) => {
                format!("{name}/_manifests/{}/{}", digest.algorithm(), digest.hex())
            }
            Self::Tag(_, tag) => format!("{name}/_tags/{}", tag.as_str()),
            Self::Blob(_, digest) => {
                format!("{name}/_blobs/{}/{}", digest.algorithm(), digest.hex())
            }
            Self::Lease(_, id) => format!("{name}/_leases/{}", id.as_hyphenated()),
        }
    }

    /// Reads a path that [`RecordKey::path`] wrote; `None` for anything else.
    #[must_use]
    pub fn parse(path: &str) -> Option<Self> {
        let (name, rest) = path.split_once("/_")?;
        let repository = Repository::parse(name).ok()?;
        let parts: Vec<&str> = rest.split('/').collect();
        match parts.as_slice() {
            ["repository"] => Some(Self::Repository(repository)),
            ["manifests", algorithm, hex] => {
                Some(Self::Manifest(repository, parse_digest(algorithm, hex)?))
            }
            ["tags", tag] => Some(Self::Tag(repository, Tag::parse(tag).ok()?)),
            ["blobs", algorithm, hex] => {
                Some(Self::Blob(repository, parse_digest(algorithm, hex)?))
            }
            ["leases", id] => Some(Self::Lease(repository, id.parse().ok()?)),
            _ => None,
        }
    }
}

/// Reads the two parts of a digest in a path.
pub(crate) fn parse_digest(algorithm: &str, hex: &str) -> Option<Digest> {
    Digest::from_hex(algorithm.parse().ok()?, hex).ok()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use artifact::{Digest, Repository, Tag};
    use uuid::Uuid;

    use crate::store::key::RecordKey;

    #[test]
    fn record_keys_are_read_back_from_their_paths() {
        let repository = Repository::parse("team/manifests/llama").unwrap();
        let tag = Tag::parse("_tags.8B").unwrap();
        let digest = Digest::sha256(b"x");
        for key in [
            RecordKey::Repository(repository.clone()),
            RecordKey::Manifest(repository.clone(), digest),
            RecordKey::Tag(repository.clone(), tag),
            RecordKey::Blob(repository.clone(), digest),
            RecordKey::Lease(repository, Uuid::nil()),
        ] {
            assert_eq!(RecordKey::parse(&key.path()), Some(key));
        }
    }

    #[test]
    fn foreign_paths_are_not_record_keys() {
        for path in [
            "",
            "a/_tags",
            "a/_tags/b/c",
            "A/_repository",
            "a/_blobs/sha256/xyz",
            "_tags/x",
        ] {
            assert_eq!(RecordKey::parse(path), None, "{path}");
        }
    }
}
