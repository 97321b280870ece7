//! Where the registry keeps its data: the combinations of storage and index.

use tempfile::TempDir;
use tests::{Server, scratch};

use crate::gateway::Gateway;

/// A combination of storage and index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Combination {
    /// A local folder, indexed by sled.
    FolderSled,
    /// A bucket of a real S3 server, indexed by sled.
    BucketSled,
}

impl Combination {
    pub(crate) const ALL: [Self; 2] = [Self::FolderSled, Self::BucketSled];

    /// Its name, also on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::FolderSled => "folder+sled",
            Self::BucketSled => "bucket+sled",
        }
    }

    fn has_bucket(self) -> bool {
        matches!(self, Self::BucketSled)
    }
}

/// Data that outlives the registry.
#[derive(Debug)]
pub(crate) struct Site {
    gateway: Option<Gateway>,
    folder: TempDir,
}

impl Site {
    pub(crate) fn new(combination: Combination) -> Self {
        let folder = scratch();
        let buckets = folder.path().join("buckets");
        Self {
            gateway: combination.has_bucket().then(|| Gateway::start(&buckets)),
            folder,
        }
    }

    /// Starts a registry on the data, which another one may have left in any state.
    pub(crate) fn start(&self) -> Server {
        let builder = match &self.gateway {
            Some(gateway) => gateway.registry(),
            None => Server::registry(),
        };
        builder.data(&self.folder.path().join("data")).start()
    }

    /// Leaves the data on the disk for a person to look at; gives the folder.
    pub(crate) fn keep(self) -> std::path::PathBuf {
        self.folder.keep()
    }
}
