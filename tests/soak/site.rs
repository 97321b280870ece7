//! Where the registry keeps its data: the combinations of storage and index.

use tempfile::TempDir;
use tests::{Server, scratch};

/// A combination of storage and index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Combination {
    /// A local folder, indexed by sled.
    LocalSled,
}

impl Combination {
    pub(crate) const ALL: [Self; 1] = [Self::LocalSled];

    /// Its name, also on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::LocalSled => "local+sled",
        }
    }
}

/// Data that outlives the registry.
#[derive(Debug)]
pub(crate) struct Site {
    folder: TempDir,
}

impl Site {
    pub(crate) fn new(_combination: Combination) -> Self {
        Self { folder: scratch() }
    }

    /// Starts a registry on the data, which another one may have left in any state.
    pub(crate) fn start(&self) -> Server {
        Server::registry().data(self.folder.path()).start()
    }

    /// Leaves the data on the disk for a person to look at; gives the folder.
    pub(crate) fn keep(self) -> std::path::PathBuf {
        self.folder.keep()
    }
}
