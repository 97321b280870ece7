//! Leases: blobs that a pull is about to use, so that removing another model does not take them away.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use artifact::Digest;

use crate::error::Error;

/// How many leases each blob has.
#[derive(Clone, Debug, Default)]
pub(crate) struct Leases(Arc<Mutex<HashMap<Digest, usize>>>);

/// Holds some blobs until it is dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    leases: Leases,
    digests: Vec<Digest>,
}

impl Leases {
    /// Holds the given blobs, whether they are here yet or not.
    pub(crate) fn hold(&self, digests: impl IntoIterator<Item = Digest>) -> Lease {
        let digests: Vec<_> = digests.into_iter().collect();
        let mut counts = self.lock();
        for digest in &digests {
            *counts.entry(*digest).or_default() += 1;
        }
        Lease {
            leases: self.clone(),
            digests,
        }
    }

    /// Runs `delete` unless somebody holds the blob. Nobody can take a lease meanwhile, so a blob
    /// that a pull finds after taking its lease stays.
    pub(crate) fn unless_held(
        &self,
        digest: &Digest,
        delete: impl FnOnce() -> Result<(), Error>,
    ) -> Result<(), Error> {
        let counts = self.lock();
        if counts.contains_key(digest) {
            return Ok(());
        }
        delete()
    }

    /// Whether somebody holds the blob.
    pub(crate) fn include(&self, digest: &Digest) -> bool {
        self.lock().contains_key(digest)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut counts = self.leases.lock();
        for digest in &self.digests {
            if let Some(count) = counts.get_mut(digest) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(digest);
                }
            }
        }
    }
}
