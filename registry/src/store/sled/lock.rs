//! Locks of the sled index. One process has it, so they are the process's own and never lost.

use futures::FutureExt;

use crate::error::Error;
use crate::store::index::{Answer, Change, IndexLock, LockKey};
use crate::store::key::RecordKey;
use crate::store::locks::HeldKeys;
use crate::store::sled::{SledIndex, keys, ready};

/// [`IndexLock`] of the sled index.
pub(super) struct SledLock {
    pub(super) index: SledIndex,
    pub(super) held: HeldKeys,
}

impl IndexLock for SledLock {
    fn extend(&mut self, keys: Vec<LockKey>) -> Answer<'_, ()> {
        self.held.extend(&self.index.locks, keys).boxed()
    }

    fn intend(&mut self, keys: Vec<RecordKey>) -> Answer<'_, ()> {
        let mut batch = sled::Batch::default();
        for key in &keys {
            batch.insert(keys::intent(key), vec![]);
        }
        ready(self.index.db.apply_batch(batch).map_err(Error::index))
    }

    fn apply(&mut self, changes: Vec<Change>) -> Answer<'_, ()> {
        ready(self.index.apply_now(&changes))
    }

    fn check(&mut self) -> Answer<'_, ()> {
        ready(Ok(()))
    }
}
