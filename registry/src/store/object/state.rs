//! The saved state of an upload session in a bucket, changed by compare-and-swap only.
//!
//! Any replica may go on with a session. Who is writing says so with a claim in the state, renewed
//! while it writes; who finds a claim that is not renewed takes it over. Every change demands that
//! the state is still the version last seen, so whoever was taken over notices at its next save and
//! stops, however long it slept.

use std::time::{Duration, Instant};

use artifact::{Algorithm, Digest, Digester, Repository};
use bytes::Bytes;
use jiff::Timestamp;
use object_store::UpdateVersion;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::Error;
use crate::store::object::objects::{Objects, Put};
use crate::store::object::unknown;

/// A claim that was not renewed for this long is void.
pub(super) const LEASE: Duration = Duration::from_secs(15);
/// A claim is renewed this often.
pub(super) const RENEWAL: Duration = Duration::from_secs(5);

/// What lies under `uploads/<uuid>/state`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct State {
    /// Of this writing: tells one's own put from another's.
    pub(super) revision: Uuid,
    /// The repository that the session belongs to.
    pub(super) repository: Repository,
    pub(super) phase: Phase,
    pub(super) progress: Progress,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) claim: Option<Claim>,
}

/// What a session is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Phase {
    /// Taking bytes. No blob can have the session's data.
    Receiving,
    /// All bytes are stored; they are becoming this blob, or have become it.
    Completing(Digest),
}

/// How far a session has come.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Progress {
    /// Bytes that are stored.
    pub(super) offset: u64,
    /// The hash of them, half done.
    #[serde(with = "half_done")]
    pub(super) digester: Digester,
    /// The multipart upload on the session's data, once there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) multipart: Option<String>,
    /// What completing needs to know of each whole part.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) parts: Vec<String>,
    /// The bytes after the last whole part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tail: Option<Tail>,
}

/// An object with the bytes after the last whole part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Tail {
    pub(super) id: Uuid,
    pub(super) size: u64,
}

/// That somebody is writing to the session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Claim {
    /// The registry that does.
    pub(super) owner: Uuid,
    /// When the claim is void, by that registry's clock.
    pub(super) expires: Timestamp,
}

impl State {
    /// The state of a session that has just begun.
    pub(super) fn new(repository: Repository, algorithm: Algorithm) -> Self {
        Self {
            revision: Uuid::now_v7(),
            repository,
            phase: Phase::Receiving,
            progress: Progress {
                offset: 0,
                digester: Digester::new(algorithm),
                multipart: None,
                parts: Vec::new(),
                tail: None,
            },
            claim: None,
        }
    }

    pub(super) fn to_json(&self, id: Uuid) -> Result<Bytes, Error> {
        let json = serde_json::to_vec(self);
        let key = state_key(id);
        json.map(Bytes::from)
            .map_err(|source| Error::DamagedObject { key, source })
    }
}

/// The key of the state of session `id`.
pub(super) fn state_key(id: Uuid) -> String {
    format!("uploads/{id}/state")
}

/// The key of a tail of session `id`.
pub(super) fn tail_key(id: Uuid, tail: Uuid) -> String {
    format!("uploads/{id}/tail-{tail}")
}

/// The state of session `id`; a session without a readable state does not exist.
pub(super) async fn read(objects: &Objects, id: Uuid) -> Result<(State, UpdateVersion), Error> {
    let found = objects.get(&state_key(id)).await?;
    let (json, version) = found.ok_or_else(|| unknown(id))?;
    match serde_json::from_slice(&json) {
        Ok(state) => Ok((state, version)),
        Err(error) => {
            tracing::error!(%id, %error, "the state of an upload session is damaged");
            Err(unknown(id))
        }
    }
}

/// The state as this process saved or read it last.
#[derive(Debug)]
pub(super) struct StateFile {
    objects: Objects,
    instance: Uuid,
    id: Uuid,
    state: State,
    version: UpdateVersion,
    saved: Instant,
    /// The session has ended, and its state is being removed.
    has_ended: bool,
}

impl StateFile {
    pub(super) fn new(
        objects: Objects,
        instance: Uuid,
        id: Uuid,
        (state, version): (State, UpdateVersion),
    ) -> Self {
        Self {
            objects,
            instance,
            id,
            state,
            version,
            saved: Instant::now(),
            has_ended: false,
        }
    }

    /// What was saved.
    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// Whether this process says in the bucket that it is writing.
    pub(super) fn is_claimed(&self) -> bool {
        !self.has_ended && self.state.claim.is_some()
    }

    /// Saves how far the session has come, and whether this process goes on writing.
    pub(super) async fn save(
        &mut self,
        phase: Phase,
        progress: Progress,
        goes_on: bool,
    ) -> Result<(), Error> {
        let claim = goes_on.then(|| Claim {
            owner: self.instance,
            expires: Timestamp::now() + LEASE,
        });
        let next = State {
            revision: Uuid::now_v7(),
            repository: self.state.repository.clone(),
            phase,
            progress,
            claim,
        };
        let json = next.to_json(self.id)?;
        let key = state_key(self.id);
        match self.objects.swap(&key, self.version.clone(), json).await? {
            Put::Done(version) => {
                self.version = version;
                self.state = next;
                self.saved = Instant::now();
                Ok(())
            }
            // Somebody else has gone on with the session since, or ended it.
            Put::Refused => Err(Error::OutOfOrder {
                id: self.id,
                offset: self.state.progress.offset,
            }),
        }
    }

    /// Says again what was saved last, with a claim that is good for another while.
    async fn renew(&mut self) -> Result<(), Error> {
        let State {
            phase, progress, ..
        } = self.state.clone();
        self.save(phase, progress, true).await
    }

    /// Takes the claim if this process does not have it, or has had it for longer than it is good.
    pub(super) async fn claim(&mut self) -> Result<(), Error> {
        if self.is_claimed() && self.saved.elapsed() < LEASE {
            return Ok(());
        }
        self.renew().await
    }

    /// Gives the claim back, with nothing else changed.
    pub(super) async fn release(&mut self) -> Result<(), Error> {
        if !self.is_claimed() {
            return Ok(());
        }
        let State {
            phase, progress, ..
        } = self.state.clone();
        self.save(phase, progress, false).await
    }

    /// Nothing may be saved any more.
    pub(super) fn end(&mut self) {
        self.has_ended = true;
    }
}

/// Renews the claim of a session for as long as it has one.
pub(super) fn keep_claimed(file: &std::sync::Arc<tokio::sync::Mutex<StateFile>>) {
    let file = std::sync::Arc::downgrade(file);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(RENEWAL).await;
            let Some(file) = file.upgrade() else { return };
            let mut file = file.lock().await;
            if !file.is_claimed() {
                return;
            }
            if file.saved.elapsed() < RENEWAL {
                continue;
            }
            match file.renew().await {
                Ok(()) => {}
                // The next save says so to whoever writes.
                Err(Error::OutOfOrder { .. }) => return,
                Err(error) => tracing::warn!(%error, "cannot renew the claim of an upload session"),
            }
        }
    });
}

/// A half-done hash as JSON: its algorithm and its state.
mod half_done {
    use artifact::{Algorithm, Digester};
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Saved {
        algorithm: String,
        state: Vec<u8>,
    }

    pub(super) fn serialize<S: Serializer>(digester: &Digester, to: S) -> Result<S::Ok, S::Error> {
        let saved = Saved {
            algorithm: digester.algorithm().as_str().to_owned(),
            state: digester.save(),
        };
        saved.serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Digester, D::Error> {
        let saved = Saved::deserialize(from)?;
        let algorithm: Algorithm = saved.algorithm.parse().map_err(D::Error::custom)?;
        Digester::restore(algorithm, &saved.state).map_err(D::Error::custom)
    }
}
