//! Thousands of random stories: pushes, mounts, manifests, deletions, HEADs, leases and collections
//! in random orders at every point where one waits, against a model of what must be there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use artifact::{Digest, Repository, Tag};
use bytes::Bytes;
use futures::executor::block_on;
use jiff::Timestamp;
use uuid::Uuid;

use super::schedule::{Task, run};
use super::world::{Pretends, World, manifest, push};
use crate::error::Error;
use crate::service::collect::CollectOptions;
use crate::service::events::Outlet;
use crate::service::leases::NewLease;
use crate::service::manifests::ManifestReference;
use crate::store::{MetadataIndex, Page};

/// Which deeds went through, by their place, and the manifest that each stored.
type Granted = Arc<Mutex<Vec<(usize, Option<Digest>)>>>;

const STORIES: u64 = 2000;
const CHAPTERS: usize = 10;
const CONTENTS: usize = 5;
const GRACE: Duration = Duration::from_secs(3600);
const LEASE: Duration = Duration::from_secs(3 * 3600);
const ALL: Page = Page {
    after: None,
    limit: 1000,
};

/// Random numbers that a seed repeats.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap() % bound
    }
}

#[derive(Clone, Debug)]
enum Deed {
    Push(Repository, usize),
    Mount(Repository, Option<Repository>, usize),
    Put(Repository, Tag, Vec<usize>, Option<Digest>),
    Untag(Repository, Tag),
    DeleteManifest(Repository, Digest),
    DeleteBlob(Repository, usize),
    Head(Repository, usize),
    Lease(Repository, usize, Uuid),
    Collect,
}

/// What must be there, from what was acknowledged.
#[derive(Default)]
struct Model {
    tags: BTreeMap<(Repository, Tag), Digest>,
    /// Manifests with their subjects.
    manifests: BTreeMap<(Repository, Digest), Option<Digest>>,
    /// Until when a blob must be in its repository.
    promised: BTreeMap<(Repository, Digest), Timestamp>,
}

impl Model {
    /// Whether a manifest may not go: it has a tag, refers to nothing, or to one that may not.
    fn needs(&self, repository: &Repository, digest: &Digest) -> bool {
        let key = (repository.clone(), *digest);
        let Some(subject) = self.manifests.get(&key) else {
            return false;
        };
        let is_tagged = self
            .tags
            .iter()
            .any(|((name, _), to)| name == repository && to == digest);
        is_tagged || subject.is_none_or(|subject| self.needs(repository, &subject))
    }

    fn needed(&self) -> BTreeSet<(Repository, Digest)> {
        let all = self.manifests.keys().cloned();
        all.filter(|(name, digest)| self.needs(name, digest))
            .collect()
    }

    fn promise(&mut self, repository: &Repository, content: usize, until: Timestamp) {
        let key = (repository.clone(), Digest::sha256(&bytes(content)));
        let promised = self.promised.entry(key).or_insert(until);
        *promised = until.max(*promised);
    }

    /// Takes in what was acknowledged.
    fn learn(&mut self, deed: &Deed, digest: Option<Digest>, now: Timestamp) {
        match deed {
            Deed::Push(repository, content)
            | Deed::Mount(repository, _, content)
            | Deed::Head(repository, content) => self.promise(repository, *content, now + GRACE),
            Deed::Lease(repository, content, _) => self.promise(repository, *content, now + LEASE),
            Deed::Put(repository, tag, _, subject) => {
                let digest = digest.unwrap();
                self.tags.insert((repository.clone(), tag.clone()), digest);
                self.manifests
                    .insert((repository.clone(), digest), *subject);
            }
            Deed::Untag(repository, tag) => {
                self.tags.remove(&(repository.clone(), tag.clone()));
            }
            Deed::DeleteManifest(repository, digest) => {
                self.manifests.remove(&(repository.clone(), *digest));
                self.tags
                    .retain(|(name, _), to| name != repository || to != digest);
            }
            Deed::DeleteBlob(..) | Deed::Collect => {}
        }
    }
}

fn bytes(content: usize) -> Bytes {
    Bytes::from(format!("content {content}"))
}

fn repositories() -> [Repository; 3] {
    ["a", "b", "c"].map(|name| Repository::parse(name).unwrap())
}

struct Story {
    world: World,
    model: Model,
    dice: Dice,
    tags: usize,
}

impl Story {
    fn new(seed: u64) -> Self {
        Self {
            world: World::new(Pretends::Nothing),
            model: Model::default(),
            dice: Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
            tags: 0,
        }
    }

    fn tell(&mut self) {
        for _ in 0..CHAPTERS {
            let minutes = [0, 0, 20, 50, 70, 200][self.dice.below(6)];
            self.world.clock.advance(Duration::from_secs(minutes * 60));
            let deeds = self.deeds();
            self.chapter(deeds);
        }
        self.end();
    }

    /// One to four deeds at once. Manifests are put or deleted at one time, not both: which of two
    /// that meet wins is nobody's promise.
    fn deeds(&mut self) -> Vec<Deed> {
        let puts = self.dice.below(2) == 0;
        (0..=self.dice.below(4)).map(|_| self.deed(puts)).collect()
    }

    fn deed(&mut self, puts: bool) -> Deed {
        let repository = repositories()[self.dice.below(3)].clone();
        let content = self.dice.below(CONTENTS);
        match self.dice.below(12) {
            0 | 1 => Deed::Push(repository, content),
            2 => {
                let from = repositories().get(self.dice.below(4)).cloned();
                Deed::Mount(repository, from, content)
            }
            3..=5 if puts => {
                self.tags += 1;
                let tag = Tag::parse(&format!("t{}", self.tags)).unwrap();
                let mut named = vec![content];
                named.push(self.dice.below(CONTENTS));
                let subject = self.some_manifest(&repository);
                Deed::Put(repository, tag, named, subject)
            }
            3 => match self.some_tag() {
                Some((repository, tag)) => Deed::Untag(repository, tag),
                None => Deed::Collect,
            },
            4 | 5 => match self.some_manifest(&repository) {
                Some(digest) => Deed::DeleteManifest(repository, digest),
                None => Deed::Collect,
            },
            6 => Deed::DeleteBlob(repository, content),
            7 => Deed::Head(repository, content),
            8 => Deed::Lease(
                repository,
                content,
                Uuid::from_u128(self.dice.below(4) as u128),
            ),
            _ => Deed::Collect,
        }
    }

    fn some_manifest(&mut self, repository: &Repository) -> Option<Digest> {
        let here = self
            .model
            .manifests
            .keys()
            .filter(|(name, _)| name == repository);
        let here: Vec<Digest> = here.map(|(_, digest)| *digest).collect();
        here.get(self.dice.below(here.len() + 1)).copied()
    }

    fn some_tag(&mut self) -> Option<(Repository, Tag)> {
        let tags: Vec<_> = self.model.tags.keys().cloned().collect();
        tags.get(self.dice.below(tags.len() + 1)).cloned()
    }

    /// Does these deeds at once, in a random order of their steps, and looks at what is there.
    fn chapter(&mut self, deeds: Vec<Deed>) {
        let granted: Granted = Arc::default();
        let tasks = deeds
            .iter()
            .enumerate()
            .map(|(at, deed)| self.task(at, deed.clone(), Arc::clone(&granted)))
            .collect();
        let before = self.model.needed();
        let dice = &mut self.dice;
        run(tasks, |of| dice.below(of));
        let now = self.world.clock.now();
        for (at, digest) in granted.lock().unwrap().iter() {
            self.model.learn(&deeds[*at], *digest, now);
        }
        // Whoever deletes a blob breaks what was promised about it.
        for deed in &deeds {
            if let Deed::DeleteBlob(repository, content) = deed {
                let key = (repository.clone(), Digest::sha256(&bytes(*content)));
                self.model.promised.remove(&key);
            }
        }
        self.check(&before, &deeds);
    }

    fn task(&self, at: usize, deed: Deed, granted: Granted) -> Task {
        let registry = Arc::clone(&self.world.registry);
        Box::pin(async move {
            let digest_of = |content| Digest::sha256(&bytes(content));
            let outcome = match deed {
                Deed::Push(to, content) => {
                    push(&registry, &to, bytes(content)).await.unwrap();
                    Ok(None)
                }
                Deed::Mount(to, from, content) => {
                    let digest = digest_of(content);
                    match registry
                        .mount_if_held(&to, &digest, from.as_ref())
                        .await
                        .unwrap()
                    {
                        true => Ok(None),
                        false => return,
                    }
                }
                Deed::Put(to, tag, named, subject) => {
                    let named: Vec<Bytes> = named.into_iter().map(bytes).collect();
                    let new = manifest(&to, ManifestReference::Tag(tag), &named, subject);
                    let stored = registry.store_manifest(new).await;
                    stored.map(|stored| Some(stored.digest))
                }
                Deed::Untag(from, tag) => {
                    let tag = ManifestReference::Tag(tag);
                    registry.remove_manifest(&from, &tag).await.map(|()| None)
                }
                Deed::DeleteManifest(from, digest) => {
                    let digest = ManifestReference::Digest(digest);
                    registry
                        .remove_manifest(&from, &digest)
                        .await
                        .map(|()| None)
                }
                Deed::DeleteBlob(from, content) => {
                    let digest = digest_of(content);
                    registry.unlink_blob(&from, &digest).await.map(|()| None)
                }
                Deed::Head(from, content) => registry
                    .blob_size(&from, &digest_of(content))
                    .await
                    .map(|_| None),
                Deed::Lease(repository, content, id) => {
                    let lease = NewLease {
                        repository,
                        id,
                        digests: vec![digest_of(content)],
                        time: LEASE,
                        holder: "story".to_owned(),
                    };
                    registry.write_lease(lease).await.map(|_| None)
                }
                Deed::Collect => {
                    let options = CollectOptions {
                        force: true,
                        grace: Some(GRACE),
                        ..CollectOptions::default()
                    };
                    registry
                        .collect(options, &Outlet::silent())
                        .await
                        .map(|_| None)
                }
            };
            match outcome {
                Ok(digest) => granted.lock().unwrap().push((at, digest)),
                Err(
                    Error::BlobUnknown { .. }
                    | Error::BlobInUse { .. }
                    | Error::ManifestUnknown { .. }
                    | Error::ManifestBlobUnknown { .. }
                    | Error::CollectionRuns,
                ) => {}
                Err(error) => panic!("{error}"),
            }
        })
    }

    /// Nothing that must be there is missing, and nothing that is there is broken.
    fn check(&mut self, before: &BTreeSet<(Repository, Digest)>, deeds: &[Deed]) {
        let now = self.world.clock.now();
        let index = &self.world.index;
        let stored = self.world.blobs.all();
        for repository in repositories() {
            for (digest, record) in block_on(index.manifests(&repository, ALL)).unwrap() {
                assert!(
                    stored.contains_key(&digest),
                    "manifest {digest} lost: {deeds:?}"
                );
                for blob in &record.blobs {
                    let link = block_on(index.blob(&repository, blob)).unwrap();
                    assert!(link.is_some(), "{digest} misses {blob}: {deeds:?}");
                }
            }
            for (digest, _) in block_on(index.blobs(&repository, ALL)).unwrap() {
                assert!(
                    stored.contains_key(&digest),
                    "content {digest} lost: {deeds:?}"
                );
            }
            for (tag, record) in block_on(index.tag_records(&repository, ALL)).unwrap() {
                let key = (repository.clone(), tag);
                assert_eq!(self.model.tags.get(&key), Some(&record.digest), "{deeds:?}");
            }
        }
        for ((repository, tag), digest) in &self.model.tags {
            let found = block_on(index.tag(repository, tag)).unwrap();
            assert_eq!(
                found.map(|record| record.digest),
                Some(*digest),
                "{deeds:?}"
            );
        }
        for ((repository, digest), until) in &self.model.promised {
            let found = block_on(index.blob(repository, digest)).unwrap();
            assert!(
                *until <= now || found.is_some(),
                "{digest} was promised: {deeds:?}"
            );
        }
        let after = self.model.needed();
        let gone: Vec<_> = self.model.manifests.keys().cloned().collect();
        for (repository, digest) in gone {
            if block_on(index.manifest(&repository, &digest))
                .unwrap()
                .is_none()
            {
                let key = (repository, digest);
                let was_needed = before.contains(&key) && after.contains(&key);
                assert!(!was_needed, "manifest {digest} lost: {deeds:?}");
                self.model.manifests.remove(&key);
            }
        }
    }

    /// Once every grace time and every lease is over, exactly what is needed is left.
    fn end(&mut self) {
        for _ in 0..4 {
            self.world.clock.advance(LEASE + GRACE);
            self.chapter(vec![Deed::Collect]);
        }
        let index = &self.world.index;
        let mut held = BTreeSet::new();
        for repository in repositories() {
            let mut named = BTreeSet::new();
            for (digest, record) in block_on(index.manifests(&repository, ALL)).unwrap() {
                assert!(
                    self.model.needs(&repository, &digest),
                    "manifest {digest} leaked"
                );
                held.insert(digest);
                named.extend(record.blobs);
            }
            let links = block_on(index.blobs(&repository, ALL)).unwrap();
            let links: BTreeSet<Digest> = links.into_iter().map(|(digest, _)| digest).collect();
            assert_eq!(links, named, "blobs leaked in {repository}");
            held.extend(links);
        }
        let stored: BTreeSet<Digest> = self.world.blobs.all().into_keys().collect();
        assert_eq!(stored, held, "content leaked");
        assert!(
            block_on(index.leases(ALL)).unwrap().is_empty(),
            "leases leaked"
        );
        assert!(
            block_on(index.marks(ALL)).unwrap().is_empty(),
            "marks leaked"
        );
    }
}

#[test]
fn no_live_blob_is_lost_and_nothing_leaks_in_thousands_of_interleavings() {
    for seed in 1..=STORIES {
        let told = std::panic::catch_unwind(|| Story::new(seed).tell());
        if let Err(panic) = told {
            println!("story {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}
