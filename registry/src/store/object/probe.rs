//! Whether a bucket honours conditional puts. Stores exist that accept the condition and ignore it;
//! relying on them would lose data without an error.

use bytes::Bytes;
use object_store::Error as StoreError;
use uuid::Uuid;

use crate::error::Error;
use crate::store::object::objects::{Objects, Put};

/// Tries all conditions that are relied on, on an object of its own.
pub(crate) async fn honours_conditions(objects: &Objects) -> Result<bool, Error> {
    let key = format!("probe/{}", Uuid::now_v7());
    let outcome = try_conditions(objects, &key).await;
    let removed = objects.delete(&key).await;
    let outcome = outcome?;
    removed?;
    Ok(outcome)
}

async fn try_conditions(objects: &Objects, key: &str) -> Result<bool, Error> {
    let Some(first) = done(objects.create(key, Bytes::from_static(b"one")).await)? else {
        return Ok(false);
    };
    if done(objects.create(key, Bytes::from_static(b"two")).await)?.is_some() {
        return Ok(false);
    }
    let swapped = objects.swap(key, first.clone(), Bytes::from_static(b"three"));
    if done(swapped.await)?.is_none() {
        return Ok(false);
    }
    // The version of before must not do any more.
    let stale = objects.swap(key, first, Bytes::from_static(b"four"));
    Ok(done(stale.await)?.is_none())
}

/// A store without conditional puts may also say so.
fn done(put: Result<Put, Error>) -> Result<Option<object_store::UpdateVersion>, Error> {
    match put {
        Ok(Put::Done(version)) => Ok(Some(version)),
        Ok(Put::Refused) => Ok(None),
        Err(Error::Object {
            source: StoreError::NotImplemented { .. } | StoreError::NotSupported { .. },
            ..
        }) => Ok(None),
        Err(error) => Err(error),
    }
}
