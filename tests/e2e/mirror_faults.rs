//! Upstreams that lie, break, stall or refuse: no client gets a wrong blob for a right one, and the
//! mirror says what is wrong.

use artifact::Digest;
use reqwest::StatusCode;
use tests::upstream::{Fault, Upstream, noise};
use tests::{Server, eventually, scratch};

use crate::mirror_support::{is_right, mirror_of, start, start_in};
use crate::registry_support::Api;

const MIB: u64 = 1024 * 1024;

async fn origin(length: usize) -> (Upstream, Digest) {
    let weights = noise(length, 5);
    let digest = Digest::sha256(&weights);
    let origin = Upstream::start().await;
    origin.add_model("1", weights);
    (origin, digest)
}

/// Asks for the blob: `true` when it came whole and right. Anything else must show as an error.
async fn came(api: &Api, digest: &Digest) -> bool {
    let response = api.mirrored_blob(digest).await;
    if response.status() != StatusCode::OK {
        assert!(!response.status().is_success());
        return false;
    }
    let announced = response.content_length();
    match response.bytes().await {
        // A body that came to its end is right, or the mirror lied.
        Ok(bytes) => {
            assert_eq!(Digest::sha256(&bytes), *digest);
            assert_eq!(announced, Some(bytes.len() as u64));
            true
        }
        Err(_) => false,
    }
}

#[tokio::test]
async fn what_breaks_now_and_then_is_made_up_for() {
    for fault in [Fault::DropAtHalf, Fault::Status(503), Fault::Stall] {
        let (origin, digest) = origin(20 << 20).await;
        let builder = mirror_of(&[&origin])
            .argument("--mirror-stall")
            .argument("1s");
        let api = Api::on(builder.start());
        api.mirrored_manifest("1").await;
        origin.set_fault_times(fault.clone(), 3);
        assert!(came(&api, &digest).await, "{fault:?}");
    }
}

#[tokio::test]
async fn an_upstream_without_ranges_is_read_in_one_stream() {
    for fault in [Fault::IgnoreRange, Fault::Multipart, Fault::WrongOffset] {
        let (origin, digest) = origin(20 << 20).await;
        let api = start(&origin);
        api.mirrored_manifest("1").await;
        origin.set_fault(fault.clone());
        assert!(came(&api, &digest).await, "{fault:?}");
    }
}

#[tokio::test]
async fn lies_and_refusals_never_look_like_a_blob() {
    for fault in [
        Fault::AnnounceLess,
        Fault::AnnounceMore,
        Fault::WrongBytes,
        Fault::Endless,
        Fault::ContentEncoding,
        Fault::Status(403),
        Fault::Status(404),
        Fault::Page,
        Fault::RedirectLoop,
        Fault::Redirect("http://169.254.169.254/latest".to_owned()),
    ] {
        let (origin, digest) = origin(6 << 20).await;
        let api = start(&origin);
        api.mirrored_manifest("1").await;
        origin.set_fault(fault.clone());
        assert!(!came(&api, &digest).await, "{fault:?}");
        let blob = api
            .server
            .data()
            .join("registry/blobs/sha256")
            .join(digest.hex());
        assert!(!blob.exists(), "{fault:?}");
    }
}

#[tokio::test]
async fn wrong_bytes_are_quarantined_told_of_and_not_fetched_again_at_once() {
    let (origin, digest) = origin(6 << 20).await;
    let builder = mirror_of(&[&origin])
        .argument("--negative-ttl")
        .argument("2s");
    let api = Api::on(builder.start());
    api.mirrored_manifest("1").await;
    origin.set_fault(Fault::WrongBytes);
    assert!(!came(&api, &digest).await);
    let quarantined = api
        .server
        .data()
        .join("registry/quarantine/fills")
        .join(digest.hex());
    eventually("the bytes are aside", 10, || async {
        quarantined.exists().then_some(())
    })
    .await;
    let sent = origin.counts().bytes;
    let again = api.mirrored_blob(&digest).await;
    assert_eq!(again.status(), StatusCode::BAD_GATEWAY);
    let text = again.text().await.unwrap();
    assert!(text.contains("sent other bytes"), "{text}");
    assert_eq!(origin.counts().bytes, sent);
    origin.clear_fault();
    // Once the upstream is well and the time is over it is fetched anew.
    eventually("it comes", 20, || async {
        came(&api, &digest).await.then_some(())
    })
    .await;
}

#[tokio::test]
async fn no_beginning_of_a_wrong_blob_has_its_announced_length() {
    let (origin, digest) = origin(30 << 20).await;
    let api = start(&origin);
    api.mirrored_manifest("1").await;
    origin.set_fault(Fault::WrongBytes);
    let mut response = api.mirrored_blob(&digest).await;
    let announced = response.content_length().unwrap();
    let mut received = 0;
    while let Ok(Some(piece)) = response.chunk().await {
        received += piece.len() as u64;
    }
    assert!(received < announced);
}

#[tokio::test]
async fn an_expired_token_is_renewed_in_the_middle_of_a_fill() {
    let (origin, digest) = origin(112 << 20).await;
    origin.require_token("first");
    origin.set_fault(Fault::Slow(16 * MIB));
    let api = start(&origin);
    api.mirrored_manifest("1").await;
    let response = api.mirrored_blob(&digest).await;
    origin.wait_for_bytes(8 * MIB).await;
    origin.require_token("second");
    origin.clear_fault();
    assert!(is_right(response, &digest).await);
    assert!(origin.counts().tokens >= 2);
}

#[tokio::test]
async fn a_fill_that_failed_goes_on_where_it_stood_with_the_next_request() {
    let (origin, digest) = origin(112 << 20).await;
    origin.set_fault(Fault::Slow(16 * MIB));
    let api = start(&origin);
    api.mirrored_manifest("1").await;
    let response = api.mirrored_blob(&digest).await;
    origin.wait_for_bytes(24 * MIB).await;
    origin.set_fault(Fault::Status(403));
    assert!(!is_right(response, &digest).await);
    let sent = origin.counts().bytes;
    origin.clear_fault();
    eventually("it comes", 20, || async {
        came(&api, &digest).await.then_some(())
    })
    .await;
    let again = origin.counts().bytes - sent;
    assert!(again <= 112 * MIB - sent + 16 * MIB, "{again} after {sent}");
}

/// Kills the mirror again and again in the middle of one fill. `HAYLOFT_KILLS` sets how often.
#[tokio::test]
async fn kill_9_again_and_again_costs_only_what_was_in_hand() {
    let rounds: u64 = match std::env::var("HAYLOFT_KILLS") {
        Ok(text) => text.parse().unwrap(),
        Err(_) => 6,
    };
    let step = 6 * MIB;
    let length = (rounds + 2) * step;
    let (origin, digest) = origin(usize::try_from(length).unwrap()).await;
    origin.set_fault(Fault::Slow(32 * MIB));
    let folder = scratch();
    let mut api = start_in(&origin, folder.path());
    api.mirrored_manifest("1").await;
    drop(api.mirrored_blob(&digest).await);
    for round in 1..=rounds {
        origin.wait_for_bytes(round * step).await;
        api.server.kill();
        api = start_in(&origin, folder.path());
    }
    origin.clear_fault();
    eventually("it comes", 60, || async {
        came(&api, &digest).await.then_some(())
    })
    .await;
    // Each kill may cost what four connections had in hand of a chunk, and what was on its way.
    let in_hand = 4 * (4 * MIB + MIB);
    let sent = origin.counts().bytes;
    assert!(sent <= length + rounds * in_hand, "{sent} of {length}");
}

#[tokio::test]
async fn errors_name_what_cannot_be_reached() {
    let upstreams = [
        (
            "hub=oci+http://no-such-host.invalid",
            "no-such-host.invalid",
        ),
        ("hub=oci+http://127.0.0.1:1", "127.0.0.1:1"),
    ];
    for (upstream, named) in upstreams {
        let builder = Server::registry().argument("--upstream").argument(upstream);
        let api = Api::on(builder.start());
        let answer = api.get("hub/a/b/manifests/1").await;
        assert_eq!(answer.status(), StatusCode::BAD_GATEWAY);
        let text = answer.text().await.unwrap();
        assert!(text.contains(named), "{text}");
    }
}
