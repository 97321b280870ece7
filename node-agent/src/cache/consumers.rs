//! Consumers: leases of whoever uses a model of this node, for a time that they renew.
//!
//! Each is a file below `leases/`, so that it outlives the agent; what cannot be written, on a full
//! or read-only disk, holds until the agent ends. A running agent counts the time that passes, so a
//! clock that is set matters only to leases that are read at the start, and these last no longer
//! than a lease can.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use artifact::agent_api::{LeaseEntry, LeaseGiven, LeaseRequest};
use artifact::catalog::timestamp;
use artifact::{Digest, Reference};
use serde::{Deserialize, Serialize};

use crate::cache::folder::Folder;
use crate::cache::leases::{Lease, Leases};
use crate::cache::{NodeCache, temporary_name};
use crate::error::Error;

/// The folder of the files, below the root.
const FOLDER: &str = "leases";
const SUFFIX: &str = ".json";
/// Longest time of a lease, in seconds.
const MAX_SECONDS: u32 = 24 * 3600;
/// Leases at a time: more are a consumer gone wild.
const MAX_LEASES: usize = 4096;
const MAX_ID_BYTES: usize = 128;
const MAX_HOLDER_BYTES: usize = 256;
/// Largest file that is read: the digests of a model of some thousand files.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// What a file says.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Record {
    reference: Reference,
    digest: Digest,
    blobs: Vec<Digest>,
    holder: String,
    /// Seconds since 1970.
    expires: u64,
}

#[derive(Debug)]
struct Held {
    record: Record,
    until: Instant,
    _blobs: Lease,
}

/// The leases by identifier.
#[derive(Debug, Default)]
pub(crate) struct Consumers(Mutex<BTreeMap<String, Held>>);

impl Consumers {
    /// Reads what an earlier run left below `root`; what is over or damaged is removed.
    pub(crate) fn read(root: &Folder, leases: &Leases) -> Result<Self, Error> {
        let mut all = BTreeMap::new();
        if let Some(folder) = root.existing(FOLDER)? {
            for (name, _) in folder.entries()? {
                let read = read_record(&folder, &name)?;
                match read.and_then(|(id, record)| Some((id, remaining(&record)?, record))) {
                    Some((id, left, record)) if all.len() < MAX_LEASES => {
                        all.insert(id, Held::new(record, left, leases));
                    }
                    _ => {
                        tracing::info!(name, "a lease that is over or damaged is dropped");
                        // A folder that somebody put there stays, and says nothing.
                        let _ = folder.remove(&name);
                    }
                }
            }
        }
        Ok(Self(Mutex::new(all)))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn new(record: Record, left: Duration, leases: &Leases) -> Self {
        let digests = record.blobs.iter().copied().chain([record.digest]);
        Self {
            _blobs: leases.hold(digests),
            until: Instant::now() + left,
            record,
        }
    }
}

impl NodeCache {
    /// Gives or renews a lease.
    ///
    /// # Errors
    /// [`Error::BadRequest`] when it breaks the rules or there are too many;
    /// [`Error::NotCached`].
    pub(crate) fn put_lease(&self, id: &str, request: LeaseRequest) -> Result<LeaseGiven, Error> {
        check(id, &request)?;
        // So that the model does not go between the look at it and the lease.
        let _changing = self.change_views();
        let model = self
            .find(&request.reference)?
            .ok_or_else(|| Error::NotCached {
                reference: Box::new(request.reference.clone()),
            })?;
        self.end_expired_leases();
        let left = Duration::from_secs(request.seconds.into());
        let expires = SystemTime::now() + left;
        let record = Record {
            reference: model.reference.clone(),
            digest: model.digest,
            blobs: model.blobs.iter().map(|blob| blob.digest).collect(),
            holder: request.holder,
            expires: seconds_since_1970(expires),
        };
        {
            let mut all = self.consumers().lock();
            if all.len() >= MAX_LEASES && !all.contains_key(id) {
                let reason = format!("{MAX_LEASES} leases are held already");
                return Err(Error::BadRequest { reason });
            }
            let held = Held::new(record.clone(), left, self.leases());
            all.insert(id.to_owned(), held);
            self.metrics().leases(all.len() as u64);
        }
        if let Err(error) = self.write_lease(id, &record) {
            tracing::warn!(id, error = %error.to_agent_error(), "a lease will not outlive the agent");
        }
        self.touch(&model.reference);
        Ok(LeaseGiven {
            model,
            expires: timestamp(expires),
        })
    }

    /// Ends a lease.
    ///
    /// # Errors
    /// [`Error::NoLease`].
    pub(crate) fn end_lease(&self, id: &str) -> Result<(), Error> {
        self.end_expired_leases();
        let ended = self.consumers().lock().remove(id);
        self.forget_lease(id);
        ended.map(drop).ok_or_else(|| Error::NoLease {
            id: id.chars().take(MAX_ID_BYTES).collect(),
        })
    }

    /// The leases that are held, by identifier.
    pub(crate) fn list_leases(&self) -> Vec<LeaseEntry> {
        self.end_expired_leases();
        let now = Instant::now();
        let all = self.consumers().lock();
        all.iter()
            .map(|(id, held)| LeaseEntry {
                id: id.clone(),
                reference: held.record.reference.clone(),
                digest: held.record.digest,
                holder: held.record.holder.clone(),
                // By the time that is left: the clock may have been set since.
                expires: timestamp(SystemTime::now() + held.until.saturating_duration_since(now)),
            })
            .collect()
    }

    /// Who holds a lease of the model, if somebody does.
    pub(crate) fn lease_holder(&self, reference: &Reference) -> Option<String> {
        self.end_expired_leases();
        let all = self.consumers().lock();
        all.values()
            .find(|held| {
                held.record.reference.view_name() == reference.view_name()
                    && held.record.reference.registry() == reference.registry()
                    && held.record.reference.repository() == reference.repository()
            })
            .map(|held| held.record.holder.clone())
    }

    /// Lets go of what leases held whose time is over.
    pub(crate) fn end_expired_leases(&self) {
        let now = Instant::now();
        let mut over = Vec::new();
        {
            let mut all = self.consumers().lock();
            all.retain(|id, held| {
                let is_held = held.until > now;
                if !is_held {
                    over.push(id.clone());
                }
                is_held
            });
            self.metrics().leases(all.len() as u64);
        }
        for id in over {
            self.forget_lease(&id);
        }
    }

    fn write_lease(&self, id: &str, record: &Record) -> Result<(), Error> {
        let folder = self.root().child(FOLDER)?;
        let temporary = temporary_name();
        let path = folder.path().join(id);
        let text = serde_json::to_vec(record).unwrap_or_default();
        let mut file = self.ingest().open_file(&temporary)?;
        file.write_all(&text)
            .and_then(|()| file.sync_all())
            .map_err(|e| Error::storage("write", &path, e))
            .and_then(|()| {
                self.ingest()
                    .rename(&temporary, &folder, &format!("{id}{SUFFIX}"))
            })
            .inspect_err(|_| drop(self.ingest().remove(&temporary)))?;
        folder.sync()
    }

    fn forget_lease(&self, id: &str) {
        if !is_id(id) {
            return;
        }
        let removed = self.root().existing(FOLDER).and_then(|folder| {
            folder.map_or(Ok(false), |folder| folder.remove(&format!("{id}{SUFFIX}")))
        });
        if let Err(error) = removed {
            tracing::warn!(id, error = %error.to_agent_error(), "the file of a lease stays until it is over");
        }
    }
}

fn check(id: &str, request: &LeaseRequest) -> Result<(), Error> {
    let refuse = |reason: String| Err(Error::BadRequest { reason });
    if !is_id(id) {
        return refuse(format!(
            "the identifier of a lease is 1 to {MAX_ID_BYTES} letters, digits, dots, dashes and \
             underscores, and does not begin with a dot"
        ));
    }
    if request.holder.len() > MAX_HOLDER_BYTES || request.holder.chars().any(char::is_control) {
        return refuse(format!(
            "the holder is a line of at most {MAX_HOLDER_BYTES} bytes"
        ));
    }
    if !(1..=MAX_SECONDS).contains(&request.seconds) {
        return refuse(format!("a lease lasts 1 to {MAX_SECONDS} seconds"));
    }
    Ok(())
}

fn is_id(id: &str) -> bool {
    (1..=MAX_ID_BYTES).contains(&id.len())
        && !id.starts_with('.')
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
}

/// The lease in a file; nothing when it is none.
fn read_record(folder: &Folder, name: &str) -> Result<Option<(String, Record)>, Error> {
    let id = name.strip_suffix(SUFFIX).filter(|id| is_id(id));
    let (Some(id), Some(size)) = (id, folder.file_size(name)?) else {
        return Ok(None);
    };
    let Some(file) = folder.read_file(name)?.filter(|_| size <= MAX_FILE_BYTES) else {
        return Ok(None);
    };
    let mut text = Vec::new();
    if let Err(error) = file.take(MAX_FILE_BYTES).read_to_end(&mut text) {
        tracing::warn!(id, %error, "a lease cannot be read");
        return Ok(None);
    }
    Ok(serde_json::from_slice(&text)
        .ok()
        .map(|record| (id.to_owned(), record)))
}

/// How long a lease that was read still lasts; nothing when it is over. A clock that was set back
/// must not make it eternal.
fn remaining(record: &Record) -> Option<Duration> {
    let left = record
        .expires
        .checked_sub(seconds_since_1970(SystemTime::now()))
        .filter(|left| *left > 0)?;
    Some(Duration::from_secs(left.min(MAX_SECONDS.into())))
}

fn seconds_since_1970(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use std::time::{Duration, SystemTime};

    use artifact::{Digest, Reference};

    use super::{Record, is_id, remaining, seconds_since_1970};

    #[test]
    fn a_clock_that_was_set_back_makes_no_lease_eternal() {
        let now = seconds_since_1970(SystemTime::now());
        let record = |expires| Record {
            reference: Reference::parse("h:1/a/b:c").unwrap(),
            digest: Digest::sha256(b"m"),
            blobs: Vec::new(),
            holder: "h".to_owned(),
            expires,
        };
        let day = Duration::from_secs(24 * 3600);
        assert_eq!(remaining(&record(now + 1_000_000)), Some(day));
        assert_eq!(remaining(&record(u64::MAX)), Some(day));
        assert_eq!(remaining(&record(now - 1)), None);
    }

    #[test]
    fn an_identifier_is_a_file_name_and_never_a_path() {
        for good in ["runtime-1", "pod_a.b", "A"] {
            assert!(is_id(good), "{good}");
        }
        for bad in ["", ".", "..", ".x", "a/b", "a b", "ä", &"x".repeat(129)] {
            assert!(!is_id(bad), "{bad}");
        }
    }
}
