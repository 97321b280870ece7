//! Marks: what the collection found unreferenced. They live in the index alone, so a rebuilt index
//! has none and everything gets its whole grace time again.

use artifact::{Digest, Repository};

use crate::store::key::{RecordKey, parse_digest};

/// What can be marked as unreferenced.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Mark {
    /// A blob of a repository, which no manifest of the repository names.
    Link(Repository, Digest),
    /// A manifest of a repository, which has no tag and which nothing names.
    Manifest(Repository, Digest),
    /// Stored content that no repository holds.
    Content(Digest),
}

impl Mark {
    /// What it is on.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        match self {
            Self::Link(_, digest) | Self::Manifest(_, digest) | Self::Content(digest) => digest,
        }
    }

    /// The name under which it is kept and listed.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Link(repository, digest) => RecordKey::Blob(repository.clone(), *digest).path(),
            Self::Manifest(repository, digest) => {
                RecordKey::Manifest(repository.clone(), *digest).path()
            }
            // No repository begins with an underscore, so these cannot meet the others.
            Self::Content(digest) => format!("_content/{}/{}", digest.algorithm(), digest.hex()),
        }
    }

    /// Reads a name that [`Mark::name`] wrote; `None` for anything else.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        if let Some(content) = name.strip_prefix("_content/") {
            let (algorithm, hex) = content.split_once('/')?;
            return Some(Self::Content(parse_digest(algorithm, hex)?));
        }
        match RecordKey::parse(name)? {
            RecordKey::Blob(repository, digest) => Some(Self::Link(repository, digest)),
            RecordKey::Manifest(repository, digest) => Some(Self::Manifest(repository, digest)),
            RecordKey::Repository(_) | RecordKey::Tag(..) | RecordKey::Lease(..) => None,
        }
    }
}
