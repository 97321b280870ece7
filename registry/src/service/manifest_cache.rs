//! Manifests that were read lately, in memory: small, immutable, and asked for again and again.
//!
//! Reading one from a folder costs a hop to another thread, and from a bucket a request, many
//! times what answering costs otherwise. Content under a digest never changes, so nothing here is
//! ever out of date; whether a repository still has the manifest is asked of the index before.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use artifact::Digest;
use bytes::Bytes;

/// Larger manifests are read each time: they are rare, and would push out many others.
const MAX_BYTES: usize = 64 * 1024;
/// Memory of each of the two generations.
const GENERATION_BYTES: usize = 4 * 1024 * 1024;

/// The contents of small manifests, by digest, in bounded memory.
#[derive(Debug, Default)]
pub(crate) struct ManifestCache(Mutex<Generations>);

/// When the young generation is full it becomes the old one, and what nobody asked for since the
/// last time goes. That keeps what is used without a list in the order of use.
#[derive(Debug, Default)]
struct Generations {
    young: HashMap<Digest, Bytes>,
    old: HashMap<Digest, Bytes>,
    /// Bytes of the young one.
    bytes: usize,
}

impl ManifestCache {
    /// The content, if it is here.
    pub(crate) fn get(&self, digest: &Digest) -> Option<Bytes> {
        let mut generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(content) = generations.young.get(digest) {
            return Some(content.clone());
        }
        let content = generations.old.remove(digest)?;
        generations.insert(*digest, content.clone());
        Some(content)
    }

    /// Keeps content, which must have this digest.
    pub(crate) fn insert(&self, digest: Digest, content: &Bytes) {
        if content.len() <= MAX_BYTES {
            let mut generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            generations.insert(digest, content.clone());
        }
    }
}

impl Generations {
    fn insert(&mut self, digest: Digest, content: Bytes) {
        if self.bytes + content.len() > GENERATION_BYTES {
            self.old = std::mem::take(&mut self.young);
            self.bytes = 0;
        }
        self.bytes += content.len();
        if let Some(replaced) = self.young.insert(digest, content) {
            self.bytes -= replaced.len();
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use artifact::Digest;
    use bytes::Bytes;

    use crate::service::manifest_cache::{GENERATION_BYTES, MAX_BYTES, ManifestCache};

    fn manifest(number: usize) -> (Digest, Bytes) {
        let mut content = vec![0; MAX_BYTES];
        content[..8].copy_from_slice(&number.to_le_bytes());
        (Digest::sha256(&content), content.into())
    }

    #[test]
    fn what_is_asked_for_stays_and_memory_is_bounded() {
        let cache = ManifestCache::default();
        let (wanted, content) = manifest(0);
        cache.insert(wanted, &content);
        let many = 10 * GENERATION_BYTES / MAX_BYTES;
        for number in 1..many {
            let (digest, other) = manifest(number);
            cache.insert(digest, &other);
            assert_eq!(cache.get(&wanted).unwrap(), content);
        }
        let kept = (1..many).filter(|number| cache.get(&manifest(*number).0).is_some());
        assert!(kept.count() <= 2 * GENERATION_BYTES / MAX_BYTES);
    }

    #[test]
    fn large_manifests_are_not_kept() {
        let cache = ManifestCache::default();
        let content = Bytes::from(vec![1; MAX_BYTES + 1]);
        let digest = Digest::sha256(&content);
        cache.insert(digest, &content);
        assert!(cache.get(&digest).is_none());
    }
}
