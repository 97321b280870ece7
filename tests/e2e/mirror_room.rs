//! A mirror with a bound: what was not used for longest goes, and comes back when somebody asks.

use artifact::Digest;
use reqwest::StatusCode;
use tests::upstream::{Upstream, noise};

use crate::mirror_support::{MODEL, is_right, mirror_of};
use crate::registry_support::Api;

const MIB: usize = 1 << 20;

/// Models `1` to `count` of two MiB each.
async fn origin(count: u64) -> (Upstream, Vec<Digest>) {
    let origin = Upstream::start().await;
    let digests = (1..=count).map(|seed| {
        let weights = noise(2 * MIB, seed);
        let digest = Digest::sha256(&weights);
        origin.add_model(&seed.to_string(), weights);
        digest
    });
    let digests = digests.collect();
    (origin, digests)
}

fn bounded(origin: &Upstream, arguments: &[&str]) -> Api {
    let builder = mirror_of(&[origin]);
    let builder = arguments
        .iter()
        .fold(builder, |builder, argument| builder.argument(argument));
    Api::on(builder.start())
}

async fn read(api: &Api, tag: usize, digest: &Digest) -> StatusCode {
    api.mirrored_manifest(&tag.to_string()).await;
    let response = api.mirrored_blob(digest).await;
    let status = response.status();
    if status.is_success() {
        assert!(is_right(response, digest).await);
    }
    status
}

/// Blobs of the models that lie in the storage.
fn held(api: &Api, digests: &[Digest]) -> Vec<bool> {
    let folder = api.server.data().join("registry/blobs/sha256");
    let is_there = |digest: &Digest| folder.join(digest.hex()).exists();
    digests.iter().map(is_there).collect()
}

#[tokio::test]
async fn what_was_not_used_for_longest_makes_room_and_comes_back() {
    let (origin, digests) = origin(4).await;
    // What was used a moment ago does not go, so these tests shorten the moment.
    let api = bounded(&origin, &["--mirror-size", "7MiB", "--mirror-keep", "0s"]);
    for (at, digest) in digests.iter().enumerate() {
        assert_eq!(read(&api, at + 1, digest).await, StatusCode::OK);
    }
    let here = held(&api, &digests);
    assert_eq!(here, [false, true, true, true]);
    let sent = origin.counts().bytes;
    assert_eq!(read(&api, 1, &digests[0]).await, StatusCode::OK);
    assert!(origin.counts().bytes - sent >= 2 * MIB as u64);
}

#[tokio::test]
async fn what_is_pinned_or_leased_or_in_use_stays_and_then_there_is_no_room() {
    let (origin, digests) = origin(3).await;
    let pinned = ["--mirror-size", "5MiB", "--mirror-pin", "hub/*"];
    let api = bounded(&origin, &pinned);
    assert_eq!(read(&api, 1, &digests[0]).await, StatusCode::OK);
    assert_eq!(read(&api, 2, &digests[1]).await, StatusCode::OK);
    let full = read(&api, 3, &digests[2]).await;
    assert_eq!(full, StatusCode::INSUFFICIENT_STORAGE);
    assert_eq!(held(&api, &digests), [true, true, false]);

    let api = bounded(&origin, &["--mirror-size", "5MiB", "--mirror-keep", "0s"]);
    for (at, digest) in digests.iter().take(2).enumerate() {
        assert_eq!(read(&api, at + 1, digest).await, StatusCode::OK);
        let path = format!(
            "{MODEL}/_hayloft/leases/{}{at}",
            "018f2c5e-0000-7000-8000-00000000000"
        );
        let body = serde_json::json!({ "digests": [digest], "seconds": 60, "holder": "a test" });
        let lease = api.client.put(api.url(&path)).json(&body);
        let lease = lease.send().await.unwrap();
        assert!(
            lease.status().is_success(),
            "{}",
            lease.text().await.unwrap()
        );
    }
    let full = read(&api, 3, &digests[2]).await;
    assert_eq!(full, StatusCode::INSUFFICIENT_STORAGE);
    assert_eq!(held(&api, &digests), [true, true, false]);
}

#[tokio::test]
async fn a_blob_that_goes_while_it_is_read_is_read_to_its_end() {
    let (origin, digests) = origin(3).await;
    let large = noise(40 * MIB, 99);
    let large_digest = Digest::sha256(&large);
    origin.add_model("large", large);
    let api = bounded(&origin, &["--mirror-size", "44MiB", "--mirror-keep", "0s"]);
    api.mirrored_manifest("large").await;
    assert!(is_right(api.mirrored_blob(&large_digest).await, &large_digest).await);
    let reading = api.mirrored_blob(&large_digest).await;
    for (at, digest) in digests.iter().enumerate() {
        assert_eq!(read(&api, at + 1, digest).await, StatusCode::OK);
    }
    assert_eq!(held(&api, &[large_digest]), [false]);
    assert!(is_right(reading, &large_digest).await);
}
