//! Locks by key inside one process.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{Mutex as KeyMutex, OwnedMutexGuard};

use crate::error::Error;
use crate::store::LockKey;

/// Keys that are not in use are forgotten when there are this many.
const FORGET_ABOVE: usize = 1024;

/// One mutex for each key in use.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeyedLocks {
    keys: Arc<Mutex<HashMap<LockKey, Weak<KeyMutex<()>>>>>,
}

impl KeyedLocks {
    /// Waits for all of `keys`, in their order.
    pub(crate) async fn lock(&self, keys: Vec<LockKey>) -> HeldKeys {
        let mut held = HeldKeys::default();
        for key in keys.into_iter().collect::<BTreeSet<_>>() {
            let guard = self.mutex(&key).lock_owned().await;
            held.keys.push((key, guard));
        }
        held
    }

    /// Takes `key` if nobody has it.
    pub(crate) fn try_lock(&self, key: LockKey) -> Option<HeldKeys> {
        let guard = self.mutex(&key).try_lock_owned().ok()?;
        Some(HeldKeys {
            keys: vec![(key, guard)],
        })
    }

    fn mutex(&self, key: &LockKey) -> Arc<KeyMutex<()>> {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mutex) = keys.get(key).and_then(Weak::upgrade) {
            return mutex;
        }
        // Only when the map would grow, so that looking through it costs little per lock taken.
        if keys.len() >= FORGET_ABOVE && keys.len() == keys.capacity() {
            keys.retain(|_, mutex| mutex.strong_count() > 0);
        }
        let mutex = Arc::default();
        keys.insert(key.clone(), Arc::downgrade(&mutex));
        mutex
    }
}

/// Keys that are held, in their order.
#[derive(Debug, Default)]
pub(crate) struct HeldKeys {
    keys: Vec<(LockKey, OwnedMutexGuard<()>)>,
}

impl HeldKeys {
    /// Waits for further keys, which must come after those that are held.
    pub(crate) async fn extend(
        &mut self,
        locks: &KeyedLocks,
        keys: Vec<LockKey>,
    ) -> Result<(), Error> {
        let is_later = match (self.keys.last(), keys.iter().min()) {
            (Some((last, _)), Some(first)) => last < first,
            _ => true,
        };
        if !is_later {
            return Err(Error::index(io::Error::other(
                "locks were asked for out of their order",
            )));
        }
        self.keys.extend(locks.lock(keys).await.keys);
        Ok(())
    }
}
