//! What was used lately, in bounded memory.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

/// Values that were inserted or asked for lately. When the young generation has reached the budget
/// it becomes the old one, and what nobody asked for since the last time goes.
#[derive(Debug)]
pub(in crate::service) struct Recent<K, V> {
    budget: usize,
    generations: Mutex<Generations<K, V>>,
}

#[derive(Debug)]
struct Generations<K, V> {
    young: HashMap<K, (V, usize)>,
    old: HashMap<K, (V, usize)>,
    cost: usize,
}

impl<K: Hash + Eq + Clone, V: Clone> Recent<K, V> {
    /// For values that cost at most `budget` together, twice.
    pub(in crate::service) fn new(budget: usize) -> Self {
        Self {
            budget,
            generations: Mutex::new(Generations {
                young: HashMap::new(),
                old: HashMap::new(),
                cost: 0,
            }),
        }
    }

    /// The value, if it is still here.
    pub(in crate::service) fn get(&self, key: &K) -> Option<V> {
        let mut generations = self.lock();
        if let Some((value, _)) = generations.young.get(key) {
            return Some(value.clone());
        }
        let (value, cost) = generations.old.remove(key)?;
        generations.insert(key.clone(), value.clone(), cost, self.budget);
        Some(value)
    }

    /// Keeps a value; one that costs more than all may is not kept.
    pub(in crate::service) fn insert(&self, key: K, value: V, cost: usize) {
        if cost <= self.budget {
            self.lock().insert(key, value, cost, self.budget);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Generations<K, V>> {
        self.generations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Hash + Eq, V> Generations<K, V> {
    fn insert(&mut self, key: K, value: V, cost: usize, budget: usize) {
        if self.cost + cost > budget {
            self.old = std::mem::take(&mut self.young);
            self.cost = 0;
        }
        self.cost += cost;
        if let Some((_, replaced)) = self.young.insert(key, (value, cost)) {
            self.cost -= replaced;
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::service::dialects::memory::Recent;

    #[test]
    fn what_is_asked_for_stays_and_the_rest_goes() {
        let recent = Recent::new(10);
        recent.insert("wanted", 0, 1);
        recent.insert("too large", 0, 11);
        for number in 0..100 {
            recent.insert("other", number, 3);
            assert_eq!(recent.get(&"wanted"), Some(0));
        }
        assert_eq!(recent.get(&"too large"), None);
        assert_eq!(recent.get(&"other"), Some(99));
        for name in ["a", "b", "c", "d", "e", "f", "g", "h", "i"] {
            recent.insert(name, 1, 3);
        }
        assert_eq!(recent.get(&"wanted"), None);
    }
}
