//! Who uses the bucket. An embedded index belongs to one registry, so two registries with one each
//! must not share a bucket; registries with one PostgreSQL may.
//!
//! The object `owner` says who, and a registry that runs renews it. One that finds another's name
//! watches whether it is renewed: clocks of different machines are not compared. The same data
//! folder may start again at once, because only one process can have it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::UpdateVersion;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::error::Error;
use crate::store::health::Health;
use crate::store::object::objects::{Objects, Put};

/// How often the object is renewed.
const RENEWAL: Duration = Duration::from_secs(5);
/// One that was not renewed for this long is void.
const PATIENCE: Duration = Duration::from_secs(16);
/// How often another's is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// The key of the object.
const KEY: &str = "owner";

/// With whom a registry can share its bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Sharing {
    /// With nobody: its index is its own.
    Alone,
    /// With others that have the same PostgreSQL.
    Replicas,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    revision: Uuid,
    instance: Uuid,
    sharing: Sharing,
    /// Whether it has stopped since.
    #[serde(default)]
    is_released: bool,
}

/// That this registry may use the bucket, for as long as the value lives.
#[derive(Debug)]
pub(crate) struct Owner {
    objects: Objects,
    instance: Uuid,
    sharing: Sharing,
    renewing: JoinHandle<()>,
}

impl Owner {
    /// Takes the bucket, if nobody has it who excludes `sharing`.
    pub(crate) async fn take(
        objects: &Objects,
        instance: Uuid,
        sharing: Sharing,
        health: Arc<Health>,
    ) -> Result<Self, Error> {
        let mut watched: Option<(Record, tokio::time::Instant)> = None;
        let version = loop {
            let found = read(objects).await?;
            let Some((record, version)) = found else {
                match write(objects, None, instance, sharing, false).await? {
                    Put::Done(version) => break version,
                    Put::Refused => continue,
                }
            };
            let began = match &watched {
                Some((first, began)) if *first == record => *began,
                Some((first, _)) if first.instance == record.instance => {
                    let holder = format!("instance {}", record.instance);
                    return Err(Error::BucketInUse { holder });
                }
                _ => tokio::time::Instant::now(),
            };
            let is_free = record.instance == instance
                || record.is_released
                || record.sharing == Sharing::Replicas && sharing == Sharing::Replicas
                || began.elapsed() > PATIENCE;
            if !is_free {
                if watched.is_none() {
                    let holder = record.instance;
                    tracing::warn!(%holder, "another registry used this bucket last: waiting to see whether it still does");
                }
                watched = Some((record, began));
                tokio::time::sleep(LOOK).await;
                continue;
            }
            if let Put::Done(version) =
                write(objects, Some(version), instance, sharing, false).await?
            {
                break version;
            }
        };
        let renewing = tokio::spawn(renew(objects.clone(), instance, sharing, version, health));
        Ok(Self {
            objects: objects.clone(),
            instance,
            sharing,
            renewing,
        })
    }

    /// Gives the bucket back, so that the next registry need not wait.
    pub(crate) async fn release(self) {
        self.renewing.abort();
        if self.sharing == Sharing::Replicas {
            // Others may still run; the last one's word goes void by itself.
            return;
        }
        let released = async {
            match read(&self.objects).await? {
                Some((record, version)) if record.instance == self.instance => {
                    let version = Some(version);
                    write(&self.objects, version, self.instance, self.sharing, true).await
                }
                _ => Ok(Put::Refused),
            }
        };
        if let Err(error) = released.await {
            tracing::warn!(%error, "the bucket could not be given back: the next registry waits a moment");
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.renewing.abort();
    }
}

async fn read(objects: &Objects) -> Result<Option<(Record, UpdateVersion)>, Error> {
    let Some((json, version)) = objects.get(KEY).await? else {
        return Ok(None);
    };
    let record = serde_json::from_slice(&json).map_err(|source| Error::DamagedObject {
        key: KEY.to_owned(),
        source,
    })?;
    Ok(Some((record, version)))
}

async fn write(
    objects: &Objects,
    version: Option<UpdateVersion>,
    instance: Uuid,
    sharing: Sharing,
    is_released: bool,
) -> Result<Put, Error> {
    let record = Record {
        revision: Uuid::now_v7(),
        instance,
        sharing,
        is_released,
    };
    let json = serde_json::to_vec(&record).map_err(|source| Error::DamagedObject {
        key: KEY.to_owned(),
        source,
    })?;
    match version {
        Some(version) => objects.swap(KEY, version, Bytes::from(json)).await,
        None => objects.create(KEY, Bytes::from(json)).await,
    }
}

/// Renews for ever; ends when another registry has taken the bucket, which degrades the store.
async fn renew(
    objects: Objects,
    instance: Uuid,
    sharing: Sharing,
    mut version: UpdateVersion,
    health: Arc<Health>,
) {
    loop {
        tokio::time::sleep(RENEWAL).await;
        match write(&objects, Some(version.clone()), instance, sharing, false).await {
            Ok(Put::Done(renewed)) => version = renewed,
            Ok(Put::Refused) => match read(&objects).await {
                Ok(Some((record, newer)))
                    if record.instance == instance
                        || record.sharing == Sharing::Replicas && sharing == Sharing::Replicas =>
                {
                    version = newer;
                }
                Ok(found) => {
                    let holder = found.map_or_else(
                        || "its owner object has gone".to_owned(),
                        |(record, _)| format!("registry {} has taken it", record.instance),
                    );
                    return health.degrade(format!("the bucket is no longer its own: {holder}"));
                }
                Err(error) => tracing::warn!(%error, "cannot renew the hold on the bucket"),
            },
            Err(error) => tracing::warn!(%error, "cannot renew the hold on the bucket"),
        }
    }
}
