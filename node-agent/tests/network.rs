//! What a pull does about the network: slow requests, limits, a tag that moves under it.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::time::{Duration, Instant};

use artifact::agent_api::{EnsureRequest, ModelEntry};
use artifact::{CacheLayout, Digest, Reference};
use node_agent::{Config, Error, LocalNode};
use tests::SmallDisk;
use tests::upstream::{Fault, Upstream, chunk_map_of, noise};

const MIB: u64 = 1024 * 1024;

async fn pull(node: &LocalNode, reference: &Reference) -> Result<ModelEntry, Error> {
    let request = EnsureRequest {
        reference: reference.clone(),
        plain_http: false,
        name: None,
    };
    node.ensure(&request, &mut |_| {}).await
}

#[tokio::test]
async fn a_request_that_stands_still_gets_a_rival_long_before_it_counts_as_dead() {
    let origin = Upstream::start().await;
    let weights = noise(48 << 20, 21);
    let reference = origin.add_model("1", weights.clone());
    let folder = tests::scratch();
    let mut config = Config::new(folder.path());
    config.pull.transport.timeouts.stall = Duration::from_secs(600);
    let node = LocalNode::open(config).await.unwrap();
    origin.spare_small_blobs();
    origin.set_fault_times(Fault::Stall, 2);
    let pulled = tokio::time::timeout(Duration::from_secs(60), pull(&node, &reference)).await;
    pulled.unwrap().unwrap();
    let blob = CacheLayout::new(folder.path()).blob(&Digest::sha256(&weights));
    assert_eq!(std::fs::read(blob).unwrap(), weights);
    // Of both only what had not come was asked for again, but for what the origin counted twice.
    let sent = origin.counts().bytes;
    assert!(sent < (48 + 20) * MIB, "{sent} bytes were sent");
}

#[tokio::test]
async fn all_downloads_together_keep_to_the_bandwidth() {
    let origin = Upstream::start().await;
    let references = [
        origin.add_model("1", noise(4 << 20, 22)),
        origin.add_model("2", noise(4 << 20, 23)),
    ];
    let folder = tests::scratch();
    let mut config = Config::new(folder.path());
    config.pull.bandwidth.rate = Some(8 * MIB);
    let node = LocalNode::open(config).await.unwrap();
    let began = Instant::now();
    let pulls = references.iter().map(|reference| pull(&node, reference));
    for pulled in futures::future::join_all(pulls).await {
        pulled.unwrap();
    }
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(850), "8 MiB took {took:?}");
}

#[tokio::test]
async fn a_tag_that_moves_in_the_middle_of_a_pull_does_not_mix_two_models() {
    let origin = Upstream::start().await;
    let (old, new) = (noise(32 << 20, 24), noise(32 << 20, 25));
    let reference = origin.add_model("1", old.clone());
    let folder = tests::scratch();
    let node = LocalNode::open(Config::new(folder.path())).await.unwrap();
    origin.set_fault(Fault::Slow(24 * MIB));
    let moving = async {
        origin.wait_for_bytes(4 * MIB).await;
        origin.add_model("1", new.clone())
    };
    let (pulled, _) = tokio::join!(pull(&node, &reference), moving);
    pulled.unwrap();
    let model = CacheLayout::new(folder.path())
        .plain_view_of(&reference)
        .join("model.gguf");
    assert_eq!(std::fs::read(&model).unwrap(), old);
    pull(&node, &reference).await.unwrap();
    assert_eq!(std::fs::read(&model).unwrap(), new);
}

#[tokio::test]
async fn chunks_that_are_here_already_take_no_second_place_where_the_disk_can_share_them() {
    let origin = Upstream::start().await;
    let old = noise(64 << 20, 26);
    let mut new = old.clone();
    new[..100].fill(7);
    let first = origin.add_model("1", old);
    let second = origin.add_model("2", new.clone());
    let map = chunk_map_of(&new);
    origin.offer_maps(&origin.digest_of("2"), &[(map.blob(), map.encode().into())]);
    let disk = SmallDisk::xfs(512);
    let node = LocalNode::open(Config::new(disk.path().join("cache")))
        .await
        .unwrap();
    pull(&node, &first).await.unwrap();
    let before = disk.used_bytes();
    pull(&node, &second).await.unwrap();
    let taken = disk.used_bytes().saturating_sub(before);
    assert!(taken < 16 * MIB, "{taken} bytes for a version with 100 new");
    let layout = CacheLayout::new(disk.path().join("cache"));
    assert_eq!(std::fs::read(layout.blob(&map.blob())).unwrap(), new);
}
