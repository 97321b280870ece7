//! Freshness: when a tag was last asked for at its upstream, and what came of it.
//!
//! This is memory and nothing else: after a restart every tag is asked for once more, which costs
//! one conditional request.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use artifact::Repository;
use tokio::time::Instant;

use crate::service::manifests::ManifestReference;

/// Entries of each of the two generations; an entry takes about 300 bytes.
const GENERATION: usize = 100_000;

/// What is asked for.
pub(crate) type Name = (Repository, ManifestReference);

/// What came of the last question.
#[derive(Clone, Debug)]
pub(crate) enum Seen {
    /// It was there, in the state that the origin calls so.
    Here { etag: Option<String> },
    /// There was no such thing.
    Absent,
    /// The question failed.
    Failed { reason: String },
}

/// The memory of questions.
#[derive(Debug, Default)]
pub(crate) struct Freshness(Mutex<Generations<Name, (Instant, Seen)>>);

impl Freshness {
    /// What came of the last question, and how long ago that was.
    pub(crate) fn get(&self, name: &Name) -> Option<(Duration, Seen)> {
        let (at, seen) = self.lock().get(name)?;
        Some((at.elapsed(), seen))
    }

    /// Notes what came of a question that was asked now.
    pub(crate) fn note(&self, name: Name, seen: Seen) {
        self.lock().insert(name, (Instant::now(), seen));
    }

    fn lock(&self) -> MutexGuard<'_, Generations<Name, (Instant, Seen)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A bounded map: when the young generation is full it becomes the old one, and what nobody asked
/// for since the last time goes.
#[derive(Debug)]
pub(crate) struct Generations<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    most: usize,
}

impl<K, V> Default for Generations<K, V> {
    fn default() -> Self {
        Self::of(GENERATION)
    }
}

impl<K, V> Generations<K, V> {
    /// With at most so many entries in each of the two.
    pub(crate) fn of(most: usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            most,
        }
    }
}

impl<K: Eq + Hash + Clone, V: Clone> Generations<K, V> {
    /// The value, if it is still known.
    pub(crate) fn get(&mut self, key: &K) -> Option<V> {
        if let Some(value) = self.young.get(key) {
            return Some(value.clone());
        }
        let (key, value) = self.old.remove_entry(key)?;
        self.insert(key, value.clone());
        Some(value)
    }

    /// Keeps a value, over what was kept before.
    pub(crate) fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.most && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }
}
