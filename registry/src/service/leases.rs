//! Leases: content of a repository stays while somebody pulls it, whatever becomes of its tags.
//!
//! A lease is a record like the others, so it survives a restart and a rebuilt index. It protects
//! against collection and retention; whoever deletes a blob on purpose still may.

use std::sync::Arc;
use std::time::Duration;

use artifact::{Digest, Repository};
use jiff::Timestamp;
use uuid::Uuid;

use crate::error::Error;
use crate::service::{Registry, detached};
use crate::store::Change;
use crate::store::key::RecordKey;
use crate::store::records::{Entry, LeaseRecord};

/// Longest lease; whoever needs it longer renews it.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);
/// Digests in one lease.
const MOST_DIGESTS: usize = 1000;
/// Longest name of a holder, in bytes.
const LONGEST_HOLDER: usize = 200;

/// A lease as it is asked for.
#[derive(Clone, Debug)]
pub(crate) struct NewLease {
    /// Where the content is.
    pub(crate) repository: Repository,
    /// Its name, chosen by the holder.
    pub(crate) id: Uuid,
    /// What it is on.
    pub(crate) digests: Vec<Digest>,
    /// For how long from now.
    pub(crate) time: Duration,
    /// Who asks, for people.
    pub(crate) holder: String,
}

impl Registry {
    /// Takes a lease, or renews the one of the same name; gives when it ends.
    pub(crate) async fn put_lease(self: &Arc<Self>, new: NewLease) -> Result<Timestamp, Error> {
        check(&new)?;
        let registry = Arc::clone(self);
        detached(async move { registry.write_lease(new).await }).await
    }

    /// Ends a lease; one that has ended already is fine.
    pub(crate) async fn delete_lease(
        self: &Arc<Self>,
        repository: Repository,
        id: Uuid,
    ) -> Result<(), Error> {
        let registry = Arc::clone(self);
        detached(async move {
            let mut lock = registry.lock_repository(&repository, None).await?;
            let key = RecordKey::Lease(repository.clone(), id);
            if registry.records.get(&key).await?.is_none() {
                return Ok(());
            }
            registry
                .change(lock.as_mut(), vec![Change::Remove(key)])
                .await
        })
        .await
    }

    pub(super) async fn write_lease(&self, new: NewLease) -> Result<Timestamp, Error> {
        let NewLease {
            repository,
            id,
            digests,
            time,
            holder,
        } = new;
        let mut lock = self.lock_repository(&repository, None).await?;
        for digest in &digests {
            self.require_held(&repository, digest).await?;
        }
        let expires = self
            .index
            .now()
            .await?
            .checked_add(time)
            .unwrap_or(Timestamp::MAX);
        let record = LeaseRecord {
            digests,
            expires,
            holder,
        };
        let entry = Entry::Lease(repository.clone(), id, record.clone());
        let change = Change::Put(Box::new(entry));
        self.change(lock.as_mut(), vec![change]).await?;
        // Else what is marked now could go in the moment in which the lease ends.
        for digest in &record.digests {
            self.touch_leased(&repository, digest).await?;
        }
        Ok(expires)
    }

    /// The digest must be a blob or a manifest of the repository.
    async fn require_held(&self, repository: &Repository, digest: &Digest) -> Result<(), Error> {
        if self.index.blob(repository, digest).await?.is_some()
            || self.index.manifest(repository, digest).await?.is_some()
        {
            return Ok(());
        }
        Err(Error::BlobUnknown {
            repository: repository.clone(),
            digest: *digest,
        })
    }

    /// Removes a lease that had ended at `now`, unless it was renewed; gives when it ended.
    pub(crate) async fn expire_lease(
        &self,
        repository: &Repository,
        id: Uuid,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, Error> {
        let mut lock = self.lock_repository(repository, None).await?;
        let key = RecordKey::Lease(repository.clone(), id);
        let Some(Entry::Lease(_, _, lease)) = self.records.get(&key).await? else {
            return Ok(None);
        };
        if lease.expires > now {
            return Ok(None);
        }
        self.change(lock.as_mut(), vec![Change::Remove(key)])
            .await?;
        Ok(Some(lease.expires))
    }
}

/// Refuses what no node would ask for.
fn check(new: &NewLease) -> Result<(), Error> {
    let reason = if new.digests.is_empty() {
        "it names no digest".to_owned()
    } else if new.digests.len() > MOST_DIGESTS {
        format!("it names more than {MOST_DIGESTS} digests")
    } else if new.time.is_zero() || new.time > LONGEST {
        format!("seconds must be 1 to {}", LONGEST.as_secs())
    } else if new.holder.len() > LONGEST_HOLDER || new.holder.chars().any(char::is_control) {
        format!("holder must be plain text of at most {LONGEST_HOLDER} bytes")
    } else {
        return Ok(());
    };
    Err(Error::LeaseInvalid { reason })
}
