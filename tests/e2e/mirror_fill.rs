//! The fill of a blob that is not here: one download however many ask, any range while it lasts,
//! on to its end whoever leaves.

use artifact::Digest;
use reqwest::StatusCode;
use tests::upstream::{Fault, Upstream, noise};
use tests::{eventually, scratch};

use crate::mirror_support::{MODEL, is_right, start, start_in};
use crate::registry_support::{Api, header};

const MIB: u64 = 1024 * 1024;

/// An origin with one model of `length` bytes of weights.
async fn origin(length: usize) -> (Upstream, Vec<u8>, Digest) {
    let weights = noise(length, 5);
    let digest = Digest::sha256(&weights);
    let origin = Upstream::start().await;
    origin.add_model("1", weights.clone());
    (origin, weights, digest)
}

/// Waits until the blob is in the storage: then the origin is not needed any more.
async fn wait_until_filled(api: &Api, digest: &Digest) {
    let blob = api
        .server
        .data()
        .join("registry/blobs/sha256")
        .join(digest.hex());
    eventually("the fill ends", 30, || async {
        blob.exists().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_model_is_pulled_through_the_mirror_and_then_without_its_origin() {
    let (origin, weights, digest) = origin(9 << 20).await;
    let api = start(&origin);
    let manifest = api.mirrored_manifest("1").await;
    assert_eq!(manifest["layers"][0]["digest"], digest.to_string());
    let blob = api.mirrored_blob(&digest).await;
    assert_eq!(blob.status(), StatusCode::OK);
    assert_eq!(blob.content_length(), Some(weights.len() as u64));
    assert_eq!(header(&blob, "docker-content-digest"), digest.to_string());
    assert!(is_right(blob, &digest).await);
    wait_until_filled(&api, &digest).await;
    origin.stop().await;
    assert!(is_right(api.mirrored_blob(&digest).await, &digest).await);
}

#[tokio::test]
async fn thirty_two_clients_share_one_download() {
    let (origin, weights, digest) = origin(40 << 20).await;
    origin.set_fault(Fault::Slow(20 * MIB));
    let api = start(&origin);
    api.mirrored_manifest("1").await;
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let url = api.url(&format!("{MODEL}/blobs/{digest}"));
        let client = api.client.clone();
        clients.spawn(async move {
            let response = client.get(url).send().await.unwrap();
            assert!(is_right(response, &digest).await);
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
    assert_eq!(origin.counts().bytes, weights.len() as u64);
}

#[tokio::test]
async fn a_range_far_ahead_is_served_before_the_rest_has_come() {
    let (origin, weights, digest) = origin(96 << 20).await;
    origin.set_fault(Fault::Slow(4 * MIB));
    let api = start(&origin);
    api.mirrored_manifest("1").await;
    let (from, to) = (88 << 20, (88 << 20) + 1000);
    let url = api.url(&format!("{MODEL}/blobs/{digest}"));
    let range = format!("bytes={from}-{}", to - 1);
    let response = api
        .client
        .get(url)
        .header("range", range)
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::PARTIAL_CONTENT);
    let place = format!("bytes {from}-{}/{}", to - 1, weights.len());
    assert_eq!(header(&response, "content-range"), place);
    assert_eq!(response.bytes().await.unwrap(), weights[from..to]);
    assert!(origin.counts().bytes < 90 * MIB);
}

#[tokio::test]
async fn the_head_of_an_answer_comes_at_once_from_a_slow_origin() {
    let (origin, _, digest) = origin(8 << 20).await;
    let api = start(&origin);
    api.mirrored_manifest("1").await;
    origin.set_fault(Fault::Stall);
    let asked = api.mirrored_blob(&digest);
    let response = tokio::time::timeout(std::time::Duration::from_secs(5), asked)
        .await
        .expect("the head comes though the body does not");
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_fill_goes_on_when_its_client_leaves() {
    let (origin, weights, digest) = origin(24 << 20).await;
    origin.set_fault(Fault::Slow(12 * MIB));
    let api = start(&origin);
    api.mirrored_manifest("1").await;
    let mut response = api.mirrored_blob(&digest).await;
    response.chunk().await.unwrap().unwrap();
    drop(response);
    wait_until_filled(&api, &digest).await;
    assert_eq!(origin.counts().bytes, weights.len() as u64);
}

#[tokio::test]
async fn a_fill_goes_on_after_kill_9_by_itself_and_fetches_only_what_is_missing() {
    let (origin, weights, digest) = origin(96 << 20).await;
    origin.set_fault(Fault::Slow(24 * MIB));
    let folder = scratch();
    let mut api = start_in(&origin, folder.path());
    api.mirrored_manifest("1").await;
    let response = api.mirrored_blob(&digest).await;
    origin.wait_for_bytes(60 * MIB).await;
    api.server.kill();
    drop(response);
    let sent = origin.counts().bytes;
    origin.clear_fault();
    let api = start_in(&origin, folder.path());
    wait_until_filled(&api, &digest).await;
    let again = origin.counts().bytes - sent;
    // Four connections had a chunk in hand, and what was on its way was lost.
    let in_hand = 4 * 4 * MIB + 4 * MIB;
    let missing = weights.len() as u64 - sent;
    assert!(again <= missing + in_hand, "{again} of {missing}");
    assert!(is_right(api.mirrored_blob(&digest).await, &digest).await);
}
