//! Kill -9 at random points of concurrent pulls: what is visible is right, pulls go on, and what was
//! verified before the kill is not fetched again, as counted at the origin.

use std::fs::OpenOptions;
use std::ops::Range;
use std::path::Path;

use artifact::agent_api::EnsureRequest;
use artifact::client::AgentClient;
use artifact::client::partial::{ChunkState, PartFile};
use artifact::{CacheLayout, Digest, Reference};
use tests::upstream::{Fault, Upstream, chunk_map_of, noise};
use tests::{Server, scratch};

const MIB: u64 = 1024 * 1024;
/// How often the agent is killed.
const KILLS: usize = 200;

/// A model that is pulled again and again.
struct Model {
    reference: Reference,
    weights: Vec<u8>,
    digest: Digest,
}

impl Model {
    fn add(origin: &Upstream, tag: &str, bytes: usize, seed: u64) -> Self {
        let weights = noise(bytes, seed);
        Self {
            reference: origin.add_model(tag, weights.clone()),
            digest: Digest::sha256(&weights),
            weights,
        }
    }

    /// One whose chunk map is offered.
    fn add_mapped(origin: &Upstream, tag: &str, bytes: usize, seed: u64) -> Self {
        let model = Self::add(origin, tag, bytes, seed);
        let map = chunk_map_of(&model.weights);
        origin.offer_maps(&origin.digest_of(tag), &[(map.blob(), map.encode().into())]);
        model
    }

    /// Whether the blob is visible; it must be right then.
    fn is_here(&self, layout: &CacheLayout) -> bool {
        match std::fs::read(layout.blob(&self.digest)) {
            Ok(bytes) => {
                assert_eq!(bytes, self.weights, "a visible blob is wrong");
                true
            }
            Err(_) => false,
        }
    }

    /// The bytes of the chunks that count as here.
    fn verified(&self, layout: &CacheLayout) -> Vec<Range<u64>> {
        let open = |path: &Path| OpenOptions::new().read(true).write(true).open(path);
        let part = open(&layout.ingest_part(&self.digest));
        let map = open(&layout.ingest_map(&self.digest));
        let (Ok(part), Ok(map)) = (part, map) else {
            return Vec::new();
        };
        let size = self.weights.len() as u64;
        let Some((part, states)) = PartFile::resume(self.digest, size, part, map).unwrap() else {
            return Vec::new();
        };
        let chunks = states.iter().enumerate();
        let here = chunks.filter(|(_, state)| **state != ChunkState::Absent);
        here.map(|(chunk, _)| part.division().range(chunk))
            .collect()
    }
}

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_two_hundred_points_nothing_wrong_is_seen_and_nothing_verified_fetched_again() {
    let origin = Upstream::start().await;
    let models = [
        Model::add_mapped(&origin, "a", 48 << 20, 71),
        Model::add_mapped(&origin, "b", 24 << 20, 72),
        Model::add(&origin, "c", 40 << 20, 73),
    ];
    origin.set_fault(Fault::Slow(24 * MIB));
    let mut dice = Dice(0x5eed);
    let mut folder = scratch();
    let (mut finished, mut resumed) = (0, 0);
    for _ in 0..KILLS {
        let layout = CacheLayout::new(folder.path().join("cache"));
        let verified: Vec<_> = models.iter().map(|model| model.verified(&layout)).collect();
        resumed += verified.iter().filter(|ranges| !ranges.is_empty()).count();
        for model in &models {
            let _ = origin.take_asked(&model.digest);
        }
        let mut agent = Server::agent().data(folder.path()).start();
        let pulls = models.iter().map(|model| {
            let client = AgentClient::open(&agent.url()).unwrap();
            let request = EnsureRequest {
                reference: model.reference.clone(),
                plain_http: false,
                name: None,
            };
            tokio::spawn(async move { client.pull(&request, |_| {}).await.map(drop) })
        });
        let pulls: Vec<_> = pulls.collect();
        let all_done = futures::future::join_all(pulls);
        let killed_at = origin.counts().bytes + dice.below(12 * MIB);
        tokio::select! {
            outcomes = all_done => {
                for outcome in outcomes {
                    outcome.unwrap().unwrap();
                }
                finished += 1;
            }
            () = origin.wait_for_bytes(killed_at) => {}
        }
        agent.kill();
        for (model, verified) in models.iter().zip(&verified) {
            for asked in origin.take_asked(&model.digest) {
                let asked = asked.expect("the origin is asked for ranges");
                let again = verified
                    .iter()
                    .find(|chunk| chunk.start < asked.end && asked.start < chunk.end);
                assert_eq!(again, None, "{asked:?} was asked for again");
            }
        }
        if models.iter().filter(|model| model.is_here(&layout)).count() == models.len() {
            folder = scratch();
        }
    }
    assert!(resumed > KILLS / 2, "{resumed} of the pulls were resumed");
    assert!(finished > 0 || resumed > 0);
    origin.clear_fault();
    let agent = Server::agent().data(folder.path()).start();
    let client = AgentClient::open(&agent.url()).unwrap();
    for model in &models {
        let request = EnsureRequest {
            reference: model.reference.clone(),
            plain_http: false,
            name: None,
        };
        client.pull(&request, |_| {}).await.unwrap();
        assert!(model.is_here(&CacheLayout::new(folder.path().join("cache"))));
    }
}
