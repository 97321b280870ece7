//! Where the registry keeps its data: the combinations of storage and index.

use tempfile::TempDir;
use tests::{Postgres, Server, scratch};

use crate::gateway::Gateway;

/// A combination of storage and index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Combination {
    /// A local folder, indexed by sled.
    FolderSled,
    /// A bucket of a real S3 server, indexed by sled.
    BucketSled,
    /// A local folder, indexed by PostgreSQL.
    FolderPostgres,
    /// A bucket indexed by PostgreSQL, as several replicas use it.
    BucketPostgres,
}

impl Combination {
    pub(crate) const ALL: [Self; 4] = [
        Self::FolderSled,
        Self::BucketSled,
        Self::FolderPostgres,
        Self::BucketPostgres,
    ];

    /// Its name, also on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::FolderSled => "folder+sled",
            Self::BucketSled => "bucket+sled",
            Self::FolderPostgres => "folder+postgres",
            Self::BucketPostgres => "bucket+postgres",
        }
    }

    fn has_bucket(self) -> bool {
        matches!(self, Self::BucketSled | Self::BucketPostgres)
    }

    fn has_postgres(self) -> bool {
        matches!(self, Self::FolderPostgres | Self::BucketPostgres)
    }
}

/// Data that outlives the registry.
#[derive(Debug)]
pub(crate) struct Site {
    gateway: Option<Gateway>,
    postgres: Option<Postgres>,
    folder: TempDir,
}

impl Site {
    pub(crate) fn new(combination: Combination) -> Self {
        let folder = scratch();
        let buckets = folder.path().join("buckets");
        Self {
            gateway: combination.has_bucket().then(|| Gateway::start(&buckets)),
            postgres: combination.has_postgres().then(Postgres::start),
            folder,
        }
    }

    /// Starts a registry on the data, which another one may have left in any state.
    pub(crate) fn start(&self) -> Server {
        let mut builder = match &self.gateway {
            Some(gateway) => gateway.registry(),
            None => Server::registry(),
        };
        if let Some(postgres) = &self.postgres {
            builder = builder.environment("HAYLOFT_INDEX", &postgres.url());
        }
        builder.data(&self.folder.path().join("data")).start()
    }

    /// Leaves the data on the disk for a person to look at; gives the folder.
    pub(crate) fn keep(self) -> std::path::PathBuf {
        self.folder.keep()
    }
}
