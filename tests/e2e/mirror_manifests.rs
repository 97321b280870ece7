//! Manifests of a mirror: when its upstreams are asked, and what is served when they do not answer.

use artifact::Digest;
use artifact::media_type::OCI_MANIFEST;
use reqwest::{Response, StatusCode};
use serde_json::json;
use tests::upstream::{Upstream, noise};
use tests::{Server, hayloft, scratch};

use crate::mirror_support::{MODEL, is_right, mirror_of, start};
use crate::registry_support::{Api, header};

/// What a request for the manifest of the model is answered with.
async fn asked(api: &Api, tag: &str) -> Response {
    api.get(&format!("{MODEL}/manifests/{tag}")).await
}

async fn digest_of(api: &Api, tag: &str) -> String {
    let response = asked(api, tag).await;
    assert_eq!(response.status(), StatusCode::OK);
    header(&response, "docker-content-digest")
}

/// A registry that asks for a tag again each time.
fn impatient(origins: &[&Upstream]) -> Api {
    let builder = mirror_of(origins);
    Api::on(builder.argument("--tag-ttl").argument("0s").start())
}

#[tokio::test]
async fn a_tag_is_not_asked_for_again_before_its_time_is_over() {
    let origin = Upstream::start().await;
    origin.add_model("1", noise(100, 1));
    let api = start(&origin);
    let first = digest_of(&api, "1").await;
    origin.add_model("1", noise(100, 2));
    assert_eq!(digest_of(&api, "1").await, first);
    assert_eq!(origin.counts().manifests, 1);
}

#[tokio::test]
async fn a_tag_that_moved_is_followed_when_its_time_is_over() {
    let origin = Upstream::start().await;
    origin.add_model("1", noise(100, 1));
    let api = impatient(&[&origin]);
    let first = digest_of(&api, "1").await;
    origin.add_model("1", noise(100, 2));
    let second = digest_of(&api, "1").await;
    assert_ne!(second, first);
    // What was pulled by digest before can still be had.
    let before = api.get(&format!("{MODEL}/manifests/{first}")).await;
    assert_eq!(before.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_tag_that_did_not_move_is_only_asked_for_by_head() {
    let origin = Upstream::start().await;
    origin.add_model("1", noise(100, 1));
    let api = impatient(&[&origin]);
    digest_of(&api, "1").await;
    let got = origin.counts().manifest_bodies;
    digest_of(&api, "1").await;
    assert_eq!(origin.counts().manifests, 2);
    assert_eq!(origin.counts().manifest_bodies, got);
}

#[tokio::test]
async fn without_its_upstream_a_tag_is_served_as_it_was_with_a_warning() {
    let origin = Upstream::start().await;
    origin.add_model("1", noise(100, 1));
    let api = impatient(&[&origin]);
    let first = asked(&api, "1").await;
    assert!(first.headers().get("warning").is_none());
    let first = header(&first, "docker-content-digest");
    origin.stop().await;
    let stale = asked(&api, "1").await;
    assert_eq!(stale.status(), StatusCode::OK);
    assert_eq!(header(&stale, "docker-content-digest"), first);
    let warning = header(&stale, "warning");
    assert!(
        warning.starts_with("299 - \"served from the mirror as it was:"),
        "{warning}"
    );
}

#[tokio::test]
async fn upstream_errors_serve_what_is_here_and_are_passed_on_for_what_is_not() {
    for (status, expected) in [(500, 502), (429, 429), (403, 403)] {
        let origin = Upstream::start().await;
        origin.add_model("1", noise(100, 1));
        origin.add_model("2", noise(100, 2));
        let api = impatient(&[&origin]);
        digest_of(&api, "1").await;
        origin.set_retry_after(7);
        origin.refuse_manifests(status, 100);
        let stale = asked(&api, "1").await;
        assert_eq!(stale.status(), StatusCode::OK, "{status}");
        assert!(stale.headers().contains_key("warning"));
        let other = asked(&api, "2").await;
        assert_eq!(other.status().as_u16(), expected);
        if status == 429 {
            assert_eq!(header(&other, "retry-after"), "7");
        }
        let text = other.text().await.unwrap();
        assert!(text.contains(&origin.address().to_string()), "{text}");
    }
}

#[tokio::test]
async fn what_an_upstream_does_not_have_is_not_asked_for_at_once_again() {
    let origin = Upstream::start().await;
    let api = start(&origin);
    for _ in 0..5 {
        assert_eq!(asked(&api, "none").await.status(), StatusCode::NOT_FOUND);
    }
    assert_eq!(origin.counts().manifests, 1);
}

#[tokio::test]
async fn what_its_upstream_deleted_stays_with_a_warning() {
    let origin = Upstream::start().await;
    origin.add_model("1", noise(100, 1));
    let api = impatient(&[&origin]);
    digest_of(&api, "1").await;
    origin.refuse_manifests(404, 100);
    let kept = asked(&api, "1").await;
    assert_eq!(kept.status(), StatusCode::OK);
    assert!(header(&kept, "warning").contains("has it no more"));
}

#[tokio::test(flavor = "multi_thread")]
async fn offline_nothing_is_asked_and_what_is_here_is_served() {
    let origin = Upstream::start().await;
    let weights = noise(100_000, 1);
    let digest = Digest::sha256(&weights);
    origin.add_model("1", weights);
    origin.add_model("2", noise(100, 2));
    let folder = scratch();
    let mut api = Api::on(mirror_of(&[&origin]).data(folder.path()).start());
    let warm = format!("{}/{MODEL}:1", api.server.address());
    let said = hayloft(&["mirror", "warm", &warm]).succeeded();
    assert!(said.contains("fetched, 0 B already there"), "{said}");
    api.server.terminate();
    let asked_before = origin.counts();
    let builder = mirror_of(&[&origin]).data(folder.path());
    let api = Api::on(builder.argument("--offline").start());
    digest_of(&api, "1").await;
    assert!(is_right(api.mirrored_blob(&digest).await, &digest).await);
    let other = asked(&api, "2").await;
    assert_eq!(other.status(), StatusCode::NOT_FOUND);
    assert!(other.text().await.unwrap().contains("offline"));
    assert_eq!(origin.counts(), asked_before);
}

#[tokio::test]
async fn several_upstreams_are_tried_in_order() {
    let (first, second) = (Upstream::start().await, Upstream::start().await);
    second.add_model("2", noise(100, 2));
    first.add_model("1", noise(100, 1));
    second.add_model("1", noise(100, 3));
    let api = impatient(&[&first, &second]);
    let of_first = digest_of(&api, "1").await;
    digest_of(&api, "2").await;
    first.stop().await;
    assert_ne!(digest_of(&api, "1").await, of_first);
}

#[tokio::test]
async fn a_fill_goes_on_at_the_next_upstream_where_the_first_one_stopped() {
    let (first, second) = (Upstream::start().await, Upstream::start().await);
    let weights = noise(64 << 20, 3);
    let digest = Digest::sha256(&weights);
    first.add_model("1", weights.clone());
    second.add_model("1", weights.clone());
    first.set_fault(tests::upstream::Fault::Slow(8 << 20));
    let api = Api::on(mirror_of(&[&first, &second]).start());
    api.mirrored_manifest("1").await;
    let response = api.mirrored_blob(&digest).await;
    first.wait_for_bytes(20 << 20).await;
    let from_first = first.counts().bytes;
    first.stop().await;
    assert!(is_right(response, &digest).await);
    // What was on its way when the connections broke came twice.
    let spare = 8 << 20;
    let from_second = second.counts().bytes;
    assert!(from_second <= weights.len() as u64 - from_first + spare);
}

#[tokio::test]
async fn an_index_brings_its_manifests_one_by_one() {
    let origin = Upstream::start().await;
    let layer = origin.add_blob(noise(1000, 1));
    let config = origin.add_blob(b"{}".to_vec());
    let image = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 2 },
        "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer, "size": 1000 }],
    })
    .to_string();
    origin.add_manifest("amd64", OCI_MANIFEST, image.clone());
    let digest = Digest::sha256(image.as_bytes());
    let media_type = "application/vnd.oci.image.index.v1+json";
    let index = json!({
        "schemaVersion": 2,
        "mediaType": media_type,
        "manifests": [{ "mediaType": OCI_MANIFEST, "digest": digest, "size": image.len() }],
    });
    origin.add_manifest("all", media_type, index.to_string());
    let api = start(&origin);
    let found = asked(&api, "all").await;
    assert_eq!(header(&found, "content-type"), media_type);
    let child = api.get(&format!("{MODEL}/manifests/{digest}")).await;
    assert_eq!(child.text().await.unwrap(), image);
    assert!(is_right(api.mirrored_blob(&layer).await, &layer).await);
}

#[tokio::test]
async fn a_mirrored_repository_takes_no_pushes_and_others_do() {
    let origin = Upstream::start().await;
    origin.add_model("1", noise(100, 1));
    let api = start(&origin);
    let refused = api.post(&format!("{MODEL}/blobs/uploads/")).await;
    assert_eq!(refused.status(), StatusCode::METHOD_NOT_ALLOWED);
    let text = refused.text().await.unwrap();
    assert!(text.contains("is a mirror of oci+http://"), "{text}");
    api.push_image("hubble/test", "1", b"layer").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_is_missing_by_right_is_a_finding_or_is_collected() {
    let origin = Upstream::start().await;
    let weights = noise(200_000, 1);
    let digest = Digest::sha256(&weights);
    origin.add_model("1", weights);
    let api = start(&origin);
    digest_of(&api, "1").await;
    let registry = api.server.address().to_owned();
    let said = hayloft(&["fsck", "--registry", &registry]).succeeded();
    assert!(said.contains("0 faults"), "{said}");
    assert!(is_right(api.mirrored_blob(&digest).await, &digest).await);
    let said = hayloft(&["gc", "--registry", &registry, "--grace", "0s"]).succeeded();
    assert!(said.contains("0 blobs, 0 leases; 0 contents"), "{said}");
    origin.stop().await;
    assert!(is_right(api.mirrored_blob(&digest).await, &digest).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_names_upstreams_that_fail_and_fills_on_their_way() {
    let (origin, gone) = (Upstream::start().await, Upstream::start().await);
    let weights = noise(16 << 20, 1);
    let digest = Digest::sha256(&weights);
    origin.add_model("1", weights);
    let lost = gone.address();
    gone.stop().await;
    let upstreams = [
        format!("hub=oci+http://{lost}"),
        format!("hub=oci+http://{}", origin.address()),
    ];
    let builder = upstreams.iter().fold(Server::registry(), |builder, text| {
        builder.argument("--upstream").argument(text)
    });
    let api = Api::on(builder.start());
    api.mirrored_manifest("1").await;
    origin.set_fault(tests::upstream::Fault::Stall);
    let _reading = api.mirrored_blob(&digest).await;
    let registry = api.server.address().to_owned();
    let asking = ["mirror", "status", "--registry", &registry];
    let told = hayloft(&asking).succeeded();
    assert!(told.contains("1 failures: "), "{told}");
    assert!(told.contains("hub/test/model"), "{told}");
    let told = hayloft(&[&asking[..], &["--output", "json"]].concat()).succeeded();
    let status: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(status["upstreams"][0]["healthy"], false);
    assert_eq!(status["upstreams"][1]["healthy"], true);
    assert_eq!(status["fills"][0]["total"], 16 << 20);
}

#[tokio::test]
async fn tags_of_the_upstream_are_listed_and_referrers_are_brought_in() {
    let upstream = Api::start();
    let image = upstream.push_image("team/app", "1", b"layer").await;
    upstream.push_image("team/app", "2", b"other").await;
    let signature = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": "application/vnd.example.signature",
        "config": { "mediaType": "application/vnd.oci.empty.v1+json", "digest": Digest::sha256(b"{}"), "size": 2 },
        "layers": [],
        "subject": { "mediaType": OCI_MANIFEST, "digest": image, "size": 1 },
    });
    let put = upstream
        .put_manifest("team/app", "signature", &signature)
        .await;
    assert_eq!(put.status(), StatusCode::CREATED);
    let address = format!("hub=oci+{}", upstream.server.url());
    let builder = Server::registry().argument("--upstream").argument(&address);
    let api = Api::on(builder.start());
    let tags: serde_json::Value = api
        .get("hub/team/app/tags/list")
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(tags["tags"], json!(["1", "2", "signature"]));
    let page = api.get("hub/team/app/tags/list?n=1&last=1").await;
    let page: serde_json::Value = page.json().await.unwrap();
    assert_eq!(page["tags"], json!(["2"]));
    let referrers = api.get(&format!("hub/team/app/referrers/{image}")).await;
    let referrers: serde_json::Value = referrers.json().await.unwrap();
    let found = &referrers["manifests"][0];
    assert_eq!(found["artifactType"], "application/vnd.example.signature");
    let none = api.get("hub/team/none/tags/list").await;
    assert_eq!(none.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn upstreams_of_the_file_are_those_of_the_command_line() {
    let (first, second) = (Upstream::start().await, Upstream::start().await);
    first.add_model("1", noise(100, 1));
    second.add_model("2", noise(100, 2));
    let folder = scratch();
    let file = folder.path().join("hayloft.toml");
    let tables = [&first, &second].map(|origin| {
        let url = format!("http://{}", origin.address());
        format!("[[registry.upstream]]\nprefix = \"hub\"\nkind = \"oci\"\nurl = \"{url}\"\n")
    });
    std::fs::write(&file, tables.concat()).unwrap();
    let builder = Server::registry().argument("--config");
    let api = Api::on(builder.argument(file.to_str().unwrap()).start());
    digest_of(&api, "1").await;
    digest_of(&api, "2").await;
    std::fs::write(
        &file,
        "[[registry.upstream]]\nprefix = \"hub\"\nkind = \"ftp\"\nurl = \"x\"\n",
    )
    .unwrap();
    let said = hayloft(&["config", "check", file.to_str().unwrap()]).failed();
    assert!(said.contains(":1: registry.upstream:"), "{said}");
}
