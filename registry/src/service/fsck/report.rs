//! What a check of the storage reports. As NDJSON these are the answer of
//! `POST /v2/_hayloft/fsck`.

use std::fmt;

use artifact::{Digest, Repository, Tag};
use serde::{Deserialize, Serialize};

use crate::service::events::Told;

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Finding {
    /// Content does not have its digest.
    Corrupt {
        /// Under which digest it lies.
        digest: Digest,
        /// What it hashes to.
        actual: Digest,
        /// Its size in bytes.
        size: u64,
    },
    /// Content does not have its size.
    WrongSize {
        /// Its digest.
        digest: Digest,
        /// Bytes that are there.
        size: u64,
        /// Bytes that should be there.
        expected: u64,
    },
    /// Content cannot be read.
    Unreadable {
        /// Its digest.
        digest: Digest,
        /// Why.
        reason: String,
    },
    /// A blob of a repository has no content.
    MissingBlob {
        /// The repository.
        repository: Repository,
        /// The blob.
        digest: Digest,
    },
    /// A manifest of a repository has no content.
    MissingManifest {
        /// The repository.
        repository: Repository,
        /// The manifest.
        digest: Digest,
    },
    /// A manifest names content that its repository does not hold.
    MissingPart {
        /// The repository.
        repository: Repository,
        /// The manifest.
        manifest: Digest,
        /// What it names.
        digest: Digest,
    },
    /// A tag points to a manifest that is not there.
    DanglingTag {
        /// The repository.
        repository: Repository,
        /// The tag.
        tag: Tag,
        /// What it points to.
        digest: Digest,
    },
    /// A record cannot be read.
    DamagedRecord {
        /// Its key.
        key: String,
        /// Why.
        reason: String,
    },
    /// The index does not know a record.
    NotIndexed {
        /// Its key.
        key: String,
    },
    /// The index holds something else than a record says.
    StaleIndex {
        /// Its key.
        key: String,
    },
    /// The index holds something without a record.
    NoRecord {
        /// Its key.
        key: String,
    },
    /// The chunk map beside content is damaged, or of other content. It is made again when it is gone.
    DamagedMap {
        /// The digest of the content.
        digest: Digest,
        /// What is wrong with its map.
        reason: String,
    },
    /// Content that no repository holds. The collection takes it; nothing is wrong.
    Orphaned {
        /// Its digest.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
    },
}

impl Finding {
    /// Whether something is wrong, or this is just worth knowing.
    #[must_use]
    pub fn is_fault(&self) -> bool {
        !matches!(self, Self::Orphaned { .. })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Corrupt { digest, actual, .. } => {
                write!(f, "content {digest} is corrupt: it hashes to {actual}")
            }
            Self::WrongSize {
                digest,
                size,
                expected,
            } => {
                write!(f, "content {digest} has {size} bytes instead of {expected}")
            }
            Self::Unreadable { digest, reason } => {
                write!(f, "content {digest} cannot be read: {reason}")
            }
            Self::MissingBlob { repository, digest } => {
                write!(f, "blob {repository}@{digest} has no content")
            }
            Self::MissingManifest { repository, digest } => {
                write!(f, "manifest {repository}@{digest} has no content")
            }
            Self::MissingPart {
                repository,
                manifest,
                digest,
            } => write!(
                f,
                "manifest {repository}@{manifest} names {digest}, which {repository} does not hold"
            ),
            Self::DanglingTag {
                repository,
                tag,
                digest,
            } => write!(
                f,
                "tag {repository}:{tag} points to manifest {digest}, which is not there"
            ),
            Self::DamagedRecord { key, reason } => write!(f, "record {key} is damaged: {reason}"),
            Self::NotIndexed { key } => write!(f, "record {key} is not in the index"),
            Self::StaleIndex { key } => write!(f, "the index differs from record {key}"),
            Self::NoRecord { key } => write!(f, "the index holds {key}, which has no record"),
            Self::DamagedMap { digest, reason } => {
                write!(f, "the chunk map of content {digest} is wrong: {reason}")
            }
            Self::Orphaned { digest, size } => {
                write!(f, "content {digest} of {size} bytes is in no repository")
            }
        }
    }
}

/// What happens in a check, one by one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum FsckEvent {
    /// It has begun.
    Began {
        /// Contents to read.
        contents: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// How far it has come.
    Checked {
        /// Records compared with the index.
        records: u64,
        /// Contents read.
        contents: u64,
        /// Bytes read.
        bytes: u64,
    },
    /// Something was found.
    Found {
        /// What.
        finding: Finding,
    },
    /// Corrupt content was moved aside.
    Quarantined {
        /// Its digest.
        digest: Digest,
    },
    /// A damaged chunk map was removed.
    MapRemoved {
        /// The digest of its content.
        digest: Digest,
    },
    /// It is done.
    Done {
        /// The sum.
        summary: FsckSummary,
    },
    /// It was given up.
    Failed {
        /// Why.
        message: String,
    },
}

impl Told for FsckEvent {
    fn is_failure(&self) -> bool {
        matches!(self, Self::Failed { .. })
    }
}

/// The sum of a check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FsckSummary {
    /// Records compared with the index.
    pub records: u64,
    /// Contents read.
    pub contents: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Things that are wrong.
    pub faults: u64,
    /// Contents that no repository holds, which is not wrong.
    pub orphaned: u64,
    /// Contents that were moved aside; not the chunk maps that were removed.
    pub quarantined: u64,
}
