//! Error: what can go wrong on the node, in the agent's own terms, and its code in the agent's API.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use artifact::agent_api::{AgentError, AgentErrorCode};
use artifact::catalog::CatalogFault;
use artifact::{Digest, Reference, client};

use crate::cache::Shortage;

/// Why the agent could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another agent uses the same folder.
    #[error("{} is in use by another node agent: stop that one, or name another folder", root.display())]
    Locked {
        /// The cache folder.
        root: PathBuf,
    },
    /// The cache folder can be changed by others than the agent.
    #[error("the cache at {} is not safe: {reason}", path.display())]
    Unsafe {
        /// The folder.
        path: PathBuf,
        /// Who may change it, and what to do.
        reason: String,
    },
    /// A file or folder of the cache could not be used.
    #[error("cannot {action} {}", path.display())]
    Storage {
        /// What was attempted.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The disk became full in the middle.
    #[error("no space left on the disk of {}: free some, then ask again; what is here is kept", path.display())]
    DiskFull {
        /// The file that could not grow.
        path: PathBuf,
        /// The system's own word.
        #[source]
        source: io::Error,
    },
    /// The disk cannot hold what was asked for; nothing was fetched.
    #[error(
        "{reference} does not fit on the disk of {}: {shortage}; remove models or name a larger disk",
        root.display()
    )]
    NoSpace {
        /// What was asked for.
        reference: Box<Reference>,
        /// How much is missing, and what holds the rest.
        shortage: Box<Shortage>,
        /// The cache folder.
        root: PathBuf,
    },
    /// The cache's own files cannot be read.
    #[error(transparent)]
    Catalog(#[from] CatalogFault),
    /// The registry did not give what was asked for.
    #[error(transparent)]
    Registry(#[from] client::Error),
    /// The manifest is valid, but the agent cannot make a model of it.
    #[error("{reference} cannot be kept as a model: {reason}")]
    Unsupported {
        /// What was asked for.
        reference: Box<Reference>,
        /// Why not.
        reason: String,
    },
    /// The bytes that came do not have the digest they were asked for by, twice.
    #[error(
        "the registry sends other bytes for blob {expected}: they have digest {actual}; nothing of them is kept"
    )]
    Corrupt {
        /// The digest asked for.
        expected: Box<Digest>,
        /// The digest of what came.
        actual: Box<Digest>,
    },
    /// The cache does not have the model.
    #[error("{reference} is not in the cache of this node")]
    NotCached {
        /// What was asked for.
        reference: Box<Reference>,
    },
    /// The model is pinned.
    #[error("{reference} is pinned: unpin it before it can be removed")]
    Pinned {
        /// The model.
        reference: Box<Reference>,
    },
    /// The model is used.
    #[error("{reference} is in use by {by}: end that first, or remove it by force")]
    InUse {
        /// The model.
        reference: Box<Reference>,
        /// Who uses it.
        by: String,
    },
    /// There is no lease of that name.
    #[error("there is no lease {id}")]
    NoLease {
        /// Its identifier.
        id: String,
    },
    /// The name's place in the views is taken by another model's file or folder.
    #[error("{reference} cannot be shown beside another model: {} is taken; give it another tag", path.display())]
    NameCollision {
        /// The model.
        reference: Box<Reference>,
        /// The place.
        path: PathBuf,
    },
    /// A request that cannot be read.
    #[error("{reason}")]
    BadRequest {
        /// What is wrong with it.
        reason: String,
    },
    /// A socket could not be opened.
    #[error("cannot listen at {address}")]
    Listen {
        /// Where.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A background task ended without a result.
    #[error("{what} ended before its time; ask again")]
    Interrupted {
        /// Which one.
        what: String,
    },
    /// The failure of a download that others waited for too.
    #[error(transparent)]
    Shared(Arc<Error>),
}

impl Error {
    /// The failure of an action on a file of the cache.
    pub(crate) fn storage(action: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        let (path, source) = (path.to_owned(), source.into());
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::DiskFull { path, source }
            }
            _ => Self::Storage {
                action,
                path,
                source,
            },
        }
    }

    /// Whether nothing can be written for now, by a disk that is full or read-only.
    pub(crate) fn is_temporary_for_writing(&self) -> bool {
        match self {
            Self::DiskFull { .. } => true,
            Self::Storage { source, .. } => source.kind() == io::ErrorKind::ReadOnlyFilesystem,
            _ => false,
        }
    }

    /// The kind of the error in the agent's API.
    #[must_use]
    pub fn code(&self) -> AgentErrorCode {
        match self {
            Self::Registry(source) => source.code(),
            Self::DiskFull { .. } | Self::NoSpace { .. } => AgentErrorCode::NoSpace,
            Self::Unsupported { .. } => AgentErrorCode::Unsupported,
            Self::Corrupt { .. } => AgentErrorCode::Corrupt,
            Self::NotCached { .. } | Self::NoLease { .. } => AgentErrorCode::NotFound,
            Self::Pinned { .. } | Self::InUse { .. } | Self::NameCollision { .. } => {
                AgentErrorCode::Conflict
            }
            Self::BadRequest { .. } => AgentErrorCode::BadRequest,
            Self::Locked { .. }
            | Self::Unsafe { .. }
            | Self::Storage { .. }
            | Self::Catalog(_)
            | Self::Listen { .. }
            | Self::Interrupted { .. } => AgentErrorCode::Internal,
            Self::Shared(error) => error.code(),
        }
    }

    /// The error as the agent answers it: the whole chain in one line.
    #[must_use]
    pub fn to_agent_error(&self) -> AgentError {
        AgentError {
            code: self.code(),
            message: client::chain(self),
        }
    }
}
