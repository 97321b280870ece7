//! Data that belongs to no blob any more: noted, then removed.
//!
//! A removal is: note, remove the pointer, remove the data, remove the note. A crash in between
//! leaves the note, from which the sweeper finishes. It never removes a pointer: who held the blob's
//! lock is gone, and the blob may have been linked again since.

use artifact::Digest;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::Error;
use crate::store::object::data_key;
use crate::store::object::objects::Objects;
use crate::store::object::pointer::{self, Place};

#[derive(Debug, Serialize, Deserialize)]
struct Note {
    /// The blob whose content it was.
    digest: Digest,
}

/// The key of the note about `data/<id>`.
pub(super) fn key(id: Uuid) -> String {
    format!("uploads/{id}/discard")
}

/// Notes that `data/<id>`, the content of `digest`, is about to go.
pub(super) async fn note(objects: &Objects, id: Uuid, digest: &Digest) -> Result<(), Error> {
    let key = key(id);
    let json = serde_json::to_vec(&Note { digest: *digest });
    let json = json.map_err(|source| Error::DamagedObject {
        key: key.clone(),
        source,
    })?;
    objects.put(&key, Bytes::from(json)).await.map(drop)
}

/// Removes the data and the note.
pub(super) async fn carry_out(objects: &Objects, id: Uuid) -> Result<(), Error> {
    objects.delete(&data_key(id)).await?;
    objects.delete(&key(id)).await
}

/// Finishes what a note says, if its pointer went; else there is nothing to discard.
pub(super) async fn finish(objects: &Objects, id: Uuid) -> Result<(), Error> {
    let key = key(id);
    let Some((json, _)) = objects.get(&key).await? else {
        return Ok(());
    };
    let note: Note = serde_json::from_slice(&json).map_err(|source| Error::DamagedObject {
        key: key.clone(),
        source,
    })?;
    if is_named(objects, id, &note.digest).await? {
        return objects.delete(&key).await;
    }
    carry_out(objects, id).await
}

/// Whether the blob `digest` is, or was before its quarantine, the data `id`.
pub(super) async fn is_named(objects: &Objects, id: Uuid, digest: &Digest) -> Result<bool, Error> {
    let found = pointer::read(objects, digest).await?;
    Ok(found.is_some_and(|(pointer, _)| pointer.place == Place::Data(id)))
}
