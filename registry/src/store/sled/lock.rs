//! Locks of the sled index. One process has it, so they are the process's own and never lost.

use futures::FutureExt;

use crate::store::index::{Answer, Change, IndexLock, LockKey, MetadataIndex};
use crate::store::key::RecordKey;
use crate::store::locks::HeldKeys;
use crate::store::sled::remake::failed;
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
        let intents: Vec<_> = keys.iter().map(keys::intent).collect();
        self.index.change(move |index| {
            let mut batch = sled::Batch::default();
            for intent in &intents {
                batch.insert(intent.clone(), vec![]);
            }
            index.db().apply_batch(batch).map_err(failed)
        })
    }

    fn apply(&mut self, changes: Vec<Change>) -> Answer<'_, ()> {
        self.index.apply(changes)
    }

    fn check(&mut self) -> Answer<'_, ()> {
        ready(Ok(()))
    }
}
