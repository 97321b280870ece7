//! Logins that were right a moment ago, so that not every request costs a bcrypt.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use artifact::Digest;
use uuid::Uuid;

/// For so long a login counts as proven: with it goes what a guess at the right password would
/// otherwise cost, so it is short.
const VALID: Duration = Duration::from_secs(60);
/// Most logins that are remembered.
const MOST: usize = 10_000;

/// Remembers logins by a digest with a key that only this process knows: what is found in a memory
/// dump is neither a password nor anything to guess one with.
pub(super) struct Proven {
    key: [Uuid; 4],
    until: Mutex<HashMap<Digest, Instant>>,
}

impl std::fmt::Debug for Proven {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Proven(…)")
    }
}

impl Proven {
    /// Remembers nothing yet.
    pub(super) fn new() -> Self {
        Self {
            key: std::array::from_fn(|_| Uuid::new_v4()),
            until: Mutex::default(),
        }
    }

    /// What a login is remembered under. The password's hash is part of it: a password that was
    /// changed is never proven by the old one.
    pub(super) fn mark(&self, name: &str, password: &str, hash: &str) -> Digest {
        let [a, b, c, d] = &self.key;
        let mut text = [a.as_bytes().as_slice(), b.as_bytes()].concat();
        for part in [name, password, hash] {
            text.extend_from_slice(&(part.len() as u64).to_le_bytes());
            text.extend_from_slice(part.as_bytes());
        }
        // Keyed inside and outside (NMAC), so that nothing can be appended to what was hashed.
        let inner = Digest::sha256(&text).to_string();
        let outer = [c.as_bytes().as_slice(), d.as_bytes(), inner.as_bytes()].concat();
        Digest::sha256(&outer)
    }

    /// Whether the login was proven lately.
    pub(super) fn has(&self, mark: &Digest) -> bool {
        let until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        until.get(mark).is_some_and(|until| *until > Instant::now())
    }

    /// Notes that the login is right.
    pub(super) fn note(&self, mark: Digest) {
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if until.len() >= MOST {
            until.retain(|_, until| *until > now);
        }
        if until.len() >= MOST {
            until.clear();
        }
        until.insert(mark, now + VALID);
    }
}
