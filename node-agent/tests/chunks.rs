//! Pulls by chunk maps: right ones, wrong ones, and what this node has already.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use artifact::agent_api::{EnsureRequest, PullEvent};
use artifact::chunk_map::ChunkHash;
use artifact::client::{RetryPolicy, Upstream as Mirror};
use artifact::{CacheLayout, ChunkMap, Digest, Reference};
use node_agent::{Config, Error, LocalNode};
use tests::upstream::{Fault, Upstream, chunk_map_of, noise};

const MIB: u64 = 1024 * 1024;

/// What a pull came to.
struct Pulled {
    fetched: u64,
    note: Option<String>,
}

fn config(root: &Path) -> Config {
    let mut config = Config::new(root);
    config.pull.retry = RetryPolicy {
        attempts: 4,
        first_delay: Duration::from_millis(5),
        max_delay: Duration::from_millis(20),
    };
    config.pull.transport.timeouts.stall = Duration::from_millis(400);
    config
}

async fn pull(node: &LocalNode, reference: &Reference) -> Result<Pulled, Error> {
    let request = EnsureRequest {
        reference: reference.clone(),
        plain_http: false,
        name: None,
    };
    let mut pulled = None;
    node.ensure(&request, &mut |event| {
        if let PullEvent::Ready { fetched, note, .. } = event {
            pulled = Some(Pulled {
                fetched: *fetched,
                note: note.clone(),
            });
        }
    })
    .await?;
    Ok(pulled.unwrap())
}

/// A model whose map the origin offers.
fn add_mapped(origin: &Upstream, tag: &str, weights: &[u8], map: &ChunkMap) -> Reference {
    let reference = origin.add_model(tag, weights.to_vec());
    let manifest = origin.digest_of(tag);
    origin.offer_maps(&manifest, &[(map.blob(), map.encode().into())]);
    reference
}

fn assert_right(root: &Path, weights: &[u8]) {
    let blob = CacheLayout::new(root).blob(&Digest::sha256(weights));
    assert_eq!(std::fs::read(blob).unwrap(), weights);
}

/// Bytes of the weights, and a config of less than a kibibyte.
fn assert_fetched(fetched: u64, weights: RangeInclusive<u64>) {
    let (least, most) = (*weights.start(), weights.end() + 1024);
    assert!(
        (least..=most).contains(&fetched),
        "{fetched}, not {weights:?}"
    );
}

/// The map of the same lengths in which one chunk has another hash.
fn with_wrong_hash(map: &ChunkMap, wrong: usize) -> ChunkMap {
    let chunks = map.chunks().enumerate().map(|(chunk, (range, hash))| {
        let hash = match chunk == wrong {
            true => ChunkHash::of(b"something else"),
            false => hash,
        };
        (range.end - range.start, hash)
    });
    ChunkMap::new(map.blob(), chunks).unwrap()
}

#[tokio::test]
async fn one_wrong_bit_costs_one_request_and_not_the_blob() {
    let origin = Upstream::start().await;
    let weights = noise(40 << 20, 1);
    let map = chunk_map_of(&weights);
    let reference = add_mapped(&origin, "1", &weights, &map);
    let folder = tests::scratch();
    let node = LocalNode::open(config(folder.path())).await.unwrap();
    origin.spare_small_blobs();
    origin.set_fault_times(Fault::WrongBytes, 1);
    let pulled = pull(&node, &reference).await.unwrap();
    assert_right(folder.path(), &weights);
    let again = pulled.fetched - weights.len() as u64;
    assert!(again > 0 && again <= 17 * MIB, "{again} bytes more");
    assert_eq!(pulled.note, None);
}

#[tokio::test]
async fn a_wrong_map_is_given_up_and_reported_and_the_blob_verified_as_a_whole() {
    let origin = Upstream::start().await;
    let weights = noise(24 << 20, 2);
    let right = chunk_map_of(&weights);
    for wrong in [0, right.len() / 2, right.len() - 1] {
        let tag = format!("wrong-{wrong}");
        let map = with_wrong_hash(&right, wrong);
        let reference = add_mapped(&origin, &tag, &weights, &map);
        let folder = tests::scratch();
        let node = LocalNode::open(config(folder.path())).await.unwrap();
        let pulled = pull(&node, &reference).await.unwrap();
        assert_right(folder.path(), &weights);
        let note = pulled.note.unwrap();
        assert!(note.contains("chunk map"), "{note}");
        // What had its hash is not fetched again, but for the chunks of another division.
        assert!(pulled.fetched < 48 * MIB, "{} bytes", pulled.fetched);
        // The map that is kept for the next version is the right one.
        let kept = std::fs::read(CacheLayout::new(folder.path()).chunk_map(&right.blob()));
        assert_eq!(ChunkMap::parse(&kept.unwrap()).unwrap(), right);
    }
}

#[tokio::test]
async fn a_map_and_bytes_that_agree_with_each_other_do_not_pass_for_the_blob() {
    let origin = Upstream::start().await;
    let weights = noise(8 << 20, 3);
    let others = noise(8 << 20, 4);
    let digest = Digest::sha256(&weights);
    let of_others = chunk_map_of(&others);
    let chunks = of_others.chunks();
    let lie = ChunkMap::new(
        digest,
        chunks.map(|(range, hash)| (range.end - range.start, hash)),
    );
    let reference = add_mapped(&origin, "1", &weights, &lie.unwrap());
    origin.add_wrong_blob(&digest, others);
    let folder = tests::scratch();
    let node = LocalNode::open(config(folder.path())).await.unwrap();
    let error = pull(&node, &reference).await.err().unwrap();
    assert!(error.to_string().contains("sends other bytes"), "{error}");
    assert!(!CacheLayout::new(folder.path()).blob(&digest).exists());
    // The origin comes to its senses; its map is still that of other bytes.
    origin.add_blob(weights.clone());
    let pulled = pull(&node, &reference).await.unwrap();
    assert_right(folder.path(), &weights);
    assert!(pulled.note.is_some());
}

#[tokio::test]
async fn another_version_costs_what_its_map_says_and_rot_is_not_copied() {
    let origin = Upstream::start().await;
    let old = noise(32 << 20, 5);
    let mut new = old.clone();
    // Bytes in front shift everything; others change in the middle.
    new.splice(0..0, noise(777, 6));
    new[20 << 20..(20 << 20) + 100].fill(7);
    let (old_map, new_map) = (chunk_map_of(&old), chunk_map_of(&new));
    let has_old: std::collections::HashSet<_> = old_map.chunks().map(|(_, hash)| hash).collect();
    let missing: u64 = new_map
        .chunks()
        .filter(|(_, hash)| !has_old.contains(hash))
        .map(|(range, _)| range.end - range.start)
        .sum();
    assert!(missing > 0 && missing < 16 * MIB, "{missing}");
    // The old one comes without a map, and gets one on the way.
    let first = origin.add_model("old", old.clone());
    let second = add_mapped(&origin, "new", &new, &new_map);

    let folder = tests::scratch();
    let node = LocalNode::open(config(folder.path())).await.unwrap();
    pull(&node, &first).await.unwrap();
    let pulled = pull(&node, &second).await.unwrap();
    assert_right(folder.path(), &new);
    assert_fetched(pulled.fetched, missing..=missing);

    // The same with a copy of the old version in which a bit has turned.
    let folder = tests::scratch();
    let node = LocalNode::open(config(folder.path())).await.unwrap();
    pull(&node, &first).await.unwrap();
    let blob = CacheLayout::new(folder.path()).blob(&Digest::sha256(&old));
    let mut rotten = old.clone();
    rotten[10 << 20] ^= 1;
    std::fs::remove_file(&blob).unwrap();
    std::fs::write(&blob, rotten).unwrap();
    let pulled = pull(&node, &second).await.unwrap();
    assert_right(folder.path(), &new);
    assert_fetched(pulled.fetched, missing + 1..=missing + 4 * MIB);
}

#[tokio::test]
async fn what_came_before_the_map_was_offered_is_kept() {
    let origin = Upstream::start().await;
    let weights = noise(48 << 20, 8);
    let map = chunk_map_of(&weights);
    let reference = origin.add_model("1", weights.clone());
    let folder = tests::scratch();
    let root = folder.path().to_owned();
    let mut config = config(&root);
    config.pull.connections = 1;
    let node = LocalNode::open(config).await.unwrap();
    origin.set_fault(Fault::Slow(64 * MIB));
    let breaking = async {
        origin.wait_for_bytes(20 * MIB).await;
        origin.set_fault(Fault::Status(404));
    };
    let (pulled, ()) = tokio::join!(pull(&node, &reference), breaking);
    assert!(pulled.is_err());
    let before = origin.counts().bytes;
    assert!(before > 16 * MIB && before < 48 * MIB, "{before} bytes");
    origin.clear_fault();
    let manifest = origin.digest_of("1");
    origin.offer_maps(&manifest, &[(map.blob(), map.encode().into())]);
    let pulled = pull(&node, &reference).await.unwrap();
    assert_right(&root, &weights);
    // The chunks at the seams are cut elsewhere.
    assert!(before + pulled.fetched < weights.len() as u64 + 24 * MIB);
}

#[tokio::test]
async fn several_mirrors_send_together_and_one_that_fails_or_lies_is_left() {
    let weights = noise(96 << 20, 9);
    let map = chunk_map_of(&weights);
    for fault in [None, Some(Fault::WrongBytes), Some(Fault::Stall)] {
        let (first, second) = (Upstream::start().await, Upstream::start().await);
        for origin in [&first, &second] {
            add_mapped(origin, "1", &weights, &map);
            origin.spare_small_blobs();
            origin.set_fault(Fault::Slow(32 * MIB));
        }
        let spoiled = fault.is_some();
        if let Some(fault) = fault {
            second.set_fault(fault);
        }
        let folder = tests::scratch();
        let mut config = config(folder.path());
        config.pull.connections = 2;
        let mirror = |origin: &Upstream| -> Mirror {
            format!("models.example=oci+http://{}", origin.address())
                .parse()
                .unwrap()
        };
        config.pull.sources.upstreams = vec![mirror(&first), mirror(&second)];
        let node = LocalNode::open(config).await.unwrap();
        let reference = Reference::parse("models.example/test/model:1").unwrap();
        let pulled = pull(&node, &reference).await.unwrap();
        assert_right(folder.path(), &weights);
        let shares = (first.counts().bytes, second.counts().bytes);
        assert!(shares.0 > 16 * MIB, "{shares:?}");
        if !spoiled {
            assert!(shares.1 > 16 * MIB, "{shares:?}");
            // A slow request may have got a rival.
            let most = weights.len() as u64 + 17 * MIB;
            assert!(pulled.fetched < most, "{}", pulled.fetched);
        }
    }
}
