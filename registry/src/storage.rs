//! Opens the stores that a configuration names, and closes them in order.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::config::{Bucket, Config, Index, Storage};
use crate::error::Error;
use crate::store::health::Health;
use crate::store::key::DataFolder;
use crate::store::local::{LocalStore, write_durably};
use crate::store::object::{self, ObjectStore, Objects, Owner, Sharing};
use crate::store::records::Records;
use crate::store::{BlobStore, MapStore, UploadStore};

/// How long sessions of clients that were cut off may take to settle at the end.
const SETTLE_TIME: Duration = Duration::from_secs(20);

/// The stores of one registry.
#[derive(Debug)]
pub(crate) struct Stores {
    /// Committed content.
    pub(crate) blobs: Arc<dyn BlobStore>,
    /// The chunk maps of committed content.
    pub(crate) maps: Arc<dyn MapStore>,
    /// Content on its way in.
    pub(crate) uploads: Arc<dyn UploadStore>,
    /// The records.
    pub(crate) records: Records,
    /// That a bucket is this registry's.
    owner: Option<Owner>,
}

/// Opens what `config` names. The caller holds the lock of the data folder.
pub(crate) async fn open(config: &Config, folder: &DataFolder) -> Result<Stores, Error> {
    match &config.storage {
        Storage::Folder => open_folder(config, folder),
        Storage::Bucket(bucket) => open_bucket(config, folder, bucket).await,
    }
}

fn open_folder(config: &Config, folder: &DataFolder) -> Result<Stores, Error> {
    fs::create_dir_all(folder.records()).map_err(Error::storage("create", folder.records()))?;
    let store = Arc::new(LocalStore::open(folder.clone(), config.max_uploads)?);
    let records = Records::open_local(&folder.records(), store.health())?;
    Ok(Stores {
        blobs: Arc::<LocalStore>::clone(&store),
        maps: Arc::<LocalStore>::clone(&store),
        uploads: store,
        records,
        owner: None,
    })
}

async fn open_bucket(
    config: &Config,
    folder: &DataFolder,
    bucket: &Bucket,
) -> Result<Stores, Error> {
    let objects = object::connect(bucket)?;
    let instance = instance(folder)?;
    let health = Arc::<Health>::default();
    let owner = if config.read_only {
        // It changes nothing, so it excludes nobody.
        None
    } else {
        Some(claim(config, &objects, instance, &health).await?)
    };
    let records = Records::open_bucket(objects.below("records"));
    let store = Arc::new(ObjectStore::new(
        objects,
        instance,
        health,
        config.max_uploads,
    ));
    Ok(Stores {
        blobs: Arc::<ObjectStore>::clone(&store),
        maps: Arc::<ObjectStore>::clone(&store),
        uploads: store,
        records,
        owner,
    })
}

/// Finds out what the bucket can do, and takes it.
async fn claim(
    config: &Config,
    objects: &Objects,
    instance: Uuid,
    health: &Arc<Health>,
) -> Result<Owner, Error> {
    let sharing = match config.index {
        Index::Sled => Sharing::Alone,
        Index::Postgres(_) => Sharing::Replicas,
    };
    if !object::honours_conditions(objects).await? {
        if sharing == Sharing::Replicas {
            return Err(Error::Unconditional);
        }
        tracing::warn!(
            "the bucket ignores conditional puts: nothing keeps a second registry from using it too"
        );
        objects.forgo_conditions();
    }
    Owner::take(objects, instance, sharing, Arc::clone(health)).await
}

/// Who this registry is, kept in its data folder.
fn instance(folder: &DataFolder) -> Result<Uuid, Error> {
    let path = folder.instance();
    let known = fs::read_to_string(&path).ok();
    if let Some(id) = known.and_then(|text| Uuid::parse_str(text.trim()).ok()) {
        return Ok(id);
    }
    let id = Uuid::new_v4();
    let text = format!("{id}\n");
    write_durably(&path.with_extension("new"), &path, text.as_bytes())?;
    Ok(id)
}

/// What must be done after the last request, in this order.
#[derive(Debug)]
pub(crate) struct Closing {
    uploads: Arc<dyn UploadStore>,
    owner: Option<Owner>,
}

impl Stores {
    /// Stores that no bucket stands behind.
    #[cfg(test)]
    pub(crate) fn of(
        blobs: Arc<dyn BlobStore>,
        maps: Arc<dyn MapStore>,
        uploads: Arc<dyn UploadStore>,
        records: Records,
    ) -> Self {
        Self {
            blobs,
            maps,
            uploads,
            records,
            owner: None,
        }
    }

    /// What is left to do when the stores themselves have been handed on.
    pub(crate) fn closing(&mut self) -> Closing {
        Closing {
            uploads: Arc::clone(&self.uploads),
            owner: self.owner.take(),
        }
    }
}

impl Closing {
    /// Lets interrupted uploads settle, so that their clients can go on, and gives the bucket back.
    pub(crate) async fn close(self) {
        if tokio::time::timeout(SETTLE_TIME, self.uploads.settled())
            .await
            .is_err()
        {
            tracing::warn!("interrupted uploads go on from where they were saved last");
        }
        if let Some(owner) = self.owner {
            owner.release().await;
        }
    }
}
