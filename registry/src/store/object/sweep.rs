//! What nobody will go on with: sessions without progress, half-done removals, multipart uploads
//! that no session knows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::TryStreamExt;
use jiff::Timestamp;
use uuid::Uuid;

use crate::error::Error;
use crate::store::object::blobs::modified;
use crate::store::object::objects::Objects;
use crate::store::object::state::{self, LEASE, Phase, State, StateFile, state_key};
use crate::store::object::{Inner, data_key, discard, unfinished};

/// A removal takes seconds; a note of one that is older than this was left by a crash.
const REMOVAL_TIME: Duration = Duration::from_secs(300);

/// What a listing shows of one session: the last change of each of its objects.
#[derive(Debug, Default)]
struct Seen {
    state: Option<Timestamp>,
    discard: Option<Timestamp>,
    any: Option<Timestamp>,
}

/// Removes sessions untouched for longer than `age`; gives how many.
pub(super) async fn sweep(inner: Arc<Inner>, age: Duration) -> Result<usize, Error> {
    inner.forget_idle();
    let sessions = list_sessions(&inner.objects).await?;
    let open = sessions.values().filter(|seen| seen.state.is_some());
    inner.open_uploads.store(open.count(), Ordering::Release);
    let now = Timestamp::now();
    let is_older = |time: Timestamp, age: Duration| {
        Duration::try_from(now.duration_since(time)).is_ok_and(|elapsed| elapsed > age)
    };
    let mut removed = 0;
    for (id, seen) in sessions {
        if seen
            .discard
            .is_some_and(|noted| is_older(noted, REMOVAL_TIME))
        {
            discard::finish(&inner.objects, id).await?;
        }
        match (seen.state, seen.any) {
            (Some(state), _) if is_older(state, age) => {
                removed += usize::from(expire(&inner, id).await?);
            }
            // A session's state goes last; what is left without one was left by a crash.
            (None, Some(last)) if seen.discard.is_none() && is_older(last, age) => {
                remove_session(&inner.objects, id).await?;
            }
            _ => {}
        }
    }
    for (path, upload) in unfinished::list(&inner.objects, age).await? {
        tracing::info!(
            path = path.as_ref(),
            "gives up an abandoned multipart upload"
        );
        inner.objects.abort_at(&path, &upload).await?;
    }
    Ok(removed)
}

async fn list_sessions(objects: &Objects) -> Result<BTreeMap<Uuid, Seen>, Error> {
    let mut sessions: BTreeMap<Uuid, Seen> = BTreeMap::new();
    let mut listing = objects.list("uploads");
    while let Some((key, found)) = listing.try_next().await? {
        let parts: Vec<&str> = key.split('/').collect();
        let ["uploads", id, name] = parts.as_slice() else {
            continue;
        };
        let Ok(id) = Uuid::parse_str(id) else {
            continue;
        };
        let time = modified(&found);
        let seen = sessions.entry(id).or_default();
        seen.any = seen.any.max(Some(time));
        match *name {
            "state" => seen.state = Some(time),
            "discard" => seen.discard = Some(time),
            _ => {}
        }
    }
    Ok(sessions)
}

/// Ends one session, unless somebody is writing to it.
async fn expire(inner: &Inner, id: Uuid) -> Result<bool, Error> {
    let claim = inner.known(id).map(|shared| Arc::clone(&shared.claim));
    let held = claim.map(|claim| claim.try_lock_owned().ok());
    if matches!(held, Some(None)) {
        return Ok(false);
    }
    let found = match state::read(&inner.objects, id).await {
        Ok(found) => found,
        // Ended since it was listed, or unreadable: nobody can go on with it.
        Err(Error::UploadUnknown { .. }) => {
            remove_session(&inner.objects, id).await?;
            return Ok(true);
        }
        Err(error) => return Err(error),
    };
    let is_claimed = found.0.claim.as_ref().is_some_and(|claim| {
        claim.owner != inner.instance && Timestamp::now() < claim.expires + 4 * LEASE
    });
    if is_claimed {
        return Ok(false);
    }
    // Whoever goes on with it at this moment, on whatever replica, either has changed the state
    // first or finds that it cannot.
    let mut file = StateFile::new(inner.objects.clone(), inner.instance, id, found);
    match file.claim().await {
        Ok(()) => {}
        Err(Error::OutOfOrder { .. }) => return Ok(false),
        Err(error) => return Err(error),
    }
    remove_upload(&inner.objects, id, file.state(), true).await?;
    Ok(true)
}

/// Removes a session with its bytes, unless they have become a blob.
pub(super) async fn remove_upload(
    objects: &Objects,
    id: Uuid,
    state: &State,
    may_have_data: bool,
) -> Result<(), Error> {
    let is_blob = match &state.phase {
        Phase::Receiving => false,
        Phase::Completing(digest) => discard::is_named(objects, id, digest).await?,
    };
    let key = data_key(id);
    if !is_blob {
        let is_completing = matches!(state.phase, Phase::Completing(_));
        if (may_have_data || is_completing) && objects.size(&key).await?.is_some() {
            objects.delete(&key).await?;
        } else if let Some(multipart) = &state.progress.multipart {
            objects.abort_parts(&key, multipart).await?;
        }
    }
    remove_session(objects, id).await
}

/// Removes the objects of a session itself, its state last.
pub(super) async fn remove_session(objects: &Objects, id: Uuid) -> Result<(), Error> {
    let state = state_key(id);
    let discard = discard::key(id);
    let found: Vec<_> = objects.list(&format!("uploads/{id}")).try_collect().await?;
    for (key, _) in found {
        if key != state && key != discard {
            objects.delete(&key).await?;
        }
    }
    objects.delete(&state).await
}
