//! Collection through the program: what goes, what stays and why, retention, leases, crashes.

use std::path::Path;

use artifact::Digest;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tests::{HoldingProxy, Server, eventually, fixture, hayloft, hayloft_command, run, scratch};

use crate::registry_support::{Api, OCI_INDEX, OCI_MANIFEST, descriptor, image};

/// What `hayloft gc` says, without a grace time unless the flags give one.
fn gc(api: &Api, flags: &[&str]) -> tests::Finished {
    let grace = if flags.contains(&"--grace") {
        &[][..]
    } else {
        &["--grace", "0"][..]
    };
    let target = ["gc", "--registry", api.server.address()];
    hayloft(&[&target[..], grace, flags].concat())
}

async fn has(api: &Api, path: &str) -> bool {
    match api.head(path).await.status() {
        StatusCode::OK => true,
        StatusCode::NOT_FOUND => false,
        other => panic!("{path}: {other}"),
    }
}

async fn delete(api: &Api, path: &str) {
    assert_eq!(
        api.delete(path).await.status(),
        StatusCode::ACCEPTED,
        "{path}"
    );
}

/// Contents in the registry's folder.
fn contents(data: &Path) -> usize {
    std::fs::read_dir(data.join("registry/blobs/sha256"))
        .unwrap()
        .count()
}

#[tokio::test]
async fn a_dry_run_says_what_would_go_and_changes_nothing() {
    let api = Api::start();
    let layer = Digest::sha256(b"gone");
    let manifest = api.push_image("team/a", "1", b"gone").await;
    let _ = api.push_image("team/a", "2", b"kept").await;
    delete(&api, &format!("team/a/manifests/{manifest}")).await;
    let said = gc(&api, &["--dry-run"]).succeeded();
    let said: Vec<&str> = said
        .lines()
        .map(|line| line.split(" since ").next().unwrap())
        .collect();
    let expected = [
        format!("would remove blob team/a@{layer}: no manifest has named it"),
        format!("would remove content {manifest}: no repository has held it"),
    ];
    assert_eq!(said[..2], expected);
    assert!(
        said[2].starts_with("would remove 0 tags, 0 manifests, 1 blobs"),
        "{said:?}"
    );
    assert!(has(&api, &format!("team/a/blobs/{layer}")).await);
    assert_eq!(contents(api.server.data()), 5);
    let said = gc(&api, &[]).succeeded();
    assert!(
        said.contains("removed 0 tags, 0 manifests, 1 blobs, 0 leases; 2 contents"),
        "{said}"
    );
    assert!(!has(&api, &format!("team/a/blobs/{layer}")).await);
    assert!(has(&api, "team/a/manifests/2").await);
    assert_eq!(contents(api.server.data()), 3);
}

#[tokio::test]
async fn a_grace_time_keeps_what_nobody_refers_to_yet() {
    let api = Api::start();
    let digest = api.push_blob("a", b"on its way to a manifest").await;
    let said = gc(&api, &["--grace", "1h", "--force"]).succeeded();
    assert!(said.contains("1 in their grace time"), "{said}");
    assert!(has(&api, &format!("a/blobs/{digest}")).await);
    let said = gc(&api, &["--grace", "1h", "--dry-run"]).succeeded();
    assert!(
        said.contains(&format!("keeps blob a@{digest}: waits until")),
        "{said}"
    );
}

#[tokio::test]
async fn more_than_anybody_would_mean_goes_only_by_force() {
    let api = Api::start();
    let digest = api.push_blob("a", b"all there is").await;
    let refused = gc(&api, &[]).failed();
    assert!(
        refused.contains("1 of 1 blobs would go, more than 50 %"),
        "{refused}"
    );
    assert!(has(&api, &format!("a/blobs/{digest}")).await);
    let _ = gc(&api, &["--force"]).succeeded();
    assert!(!has(&api, &format!("a/blobs/{digest}")).await);
}

#[tokio::test]
async fn what_another_repository_holds_stays_there() {
    let api = Api::start();
    let digest = api.push_blob("a", b"shared").await;
    let _ = api.push_image("b", "1", b"shared").await;
    let _ = gc(&api, &["--force"]).succeeded();
    assert!(!has(&api, &format!("a/blobs/{digest}")).await);
    assert!(has(&api, &format!("b/blobs/{digest}")).await);
}

/// Puts a manifest by its digest.
async fn put(api: &Api, manifest: &Value) -> Digest {
    let digest = Digest::sha256(manifest.to_string().as_bytes());
    let stored = api.put_manifest("a", &digest.to_string(), manifest).await;
    assert_eq!(stored.status(), StatusCode::CREATED);
    digest
}

#[tokio::test]
async fn referrers_go_with_their_subject_and_children_and_pinned_manifests_stay() {
    let api = Api::start();
    for content in [&b"{}"[..], b"one", b"two", b"pinned", b"signature"] {
        api.push_blob("a", content).await;
    }
    let refers_to = |subject: &Value| {
        let mut manifest = image(&[b"signature"]);
        manifest["subject"] = descriptor(OCI_MANIFEST, subject.to_string().as_bytes());
        manifest
    };
    let child = put(&api, &image(&[b"one"])).await;
    let children = json!({
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [descriptor(OCI_MANIFEST, image(&[b"one"]).to_string().as_bytes())],
    });
    let _ = api.put_manifest("a", "index", &children).await;
    let pinned = put(&api, &image(&[b"pinned"])).await;
    let subject = image(&[b"two"]);
    let _ = api.put_manifest("a", "subject", &subject).await;
    let first = refers_to(&subject);
    let (signature, second) = (put(&api, &first).await, put(&api, &refers_to(&first)).await);
    let said = gc(&api, &["--force"]).succeeded();
    assert!(
        said.contains("removed 0 tags, 0 manifests, 0 blobs"),
        "{said}"
    );
    let said = gc(&api, &["--dry-run"]).succeeded();
    assert!(
        said.contains(&format!("keeps manifest a@{pinned}: untagged")),
        "{said}"
    );
    let gone = Digest::sha256(subject.to_string().as_bytes());
    delete(&api, &format!("a/manifests/{gone}")).await;
    let said = gc(&api, &["--force"]).succeeded();
    assert!(said.contains("removed 0 tags, 2 manifests"), "{said}");
    for (digest, stays) in [
        (child, true),
        (pinned, true),
        (signature, false),
        (second, false),
    ] {
        assert_eq!(
            has(&api, &format!("a/manifests/{digest}")).await,
            stays,
            "{said}"
        );
    }
}

#[tokio::test]
async fn retention_drops_tags_by_rule_and_then_what_they_leave() {
    let rule = "team/*=last:1,match:v*,untagged:0";
    let api = Api::on(
        Server::registry()
            .argument("--retain")
            .argument(rule)
            .start(),
    );
    for repository in ["team/a", "other"] {
        for tag in ["v1", "old", "new"] {
            let _ = api.push_image(repository, tag, tag.as_bytes()).await;
        }
    }
    let said = gc(&api, &["--dry-run"]).succeeded();
    assert!(
        said.contains("would remove tag team/a:old: dropped by team/*=last:1,match:v*,untagged:0s"),
        "{said}"
    );
    let said = gc(&api, &["--force"]).succeeded();
    assert!(
        said.contains("removed 1 tags, 1 manifests, 1 blobs"),
        "{said}"
    );
    for (tag, stays) in [("v1", true), ("old", false), ("new", true)] {
        assert_eq!(has(&api, &format!("team/a/manifests/{tag}")).await, stays);
        assert!(has(&api, &format!("other/manifests/{tag}")).await);
    }
    let blob = Digest::sha256(b"old");
    assert!(!has(&api, &format!("team/a/blobs/{blob}")).await);
    assert!(has(&api, &format!("other/blobs/{blob}")).await);
}

#[tokio::test]
async fn a_pull_completes_although_its_model_is_deleted_and_collected_meanwhile() {
    let api = Api::start();
    let pushed = format!("{}/team/model:1", api.server.address());
    let model = fixture("hay-tiny-q8_0.gguf");
    let _ = hayloft(&["push", model.to_str().unwrap(), &pushed]).succeeded();
    let weights = Digest::sha256(&std::fs::read(&model).unwrap());
    let size = std::fs::metadata(&model).unwrap().len();
    let proxy = HoldingProxy::start(api.server.address(), size / 2).await;
    let pulled = format!("{}/team/model:1", proxy.address());
    let folder = scratch();
    let data = folder.path().to_str().unwrap().to_owned();
    let pull = tokio::task::spawn_blocking(move || {
        hayloft(&["pull", &pulled, "--data", &data, "-o", "json"])
    });
    proxy.holds().await;
    let manifest = api.get("team/model/manifests/1").await;
    let manifest = manifest.headers()["docker-content-digest"]
        .to_str()
        .unwrap()
        .to_owned();
    delete(&api, &format!("team/model/manifests/{manifest}")).await;
    let said = gc(&api, &["--force"]).succeeded();
    assert!(
        said.contains(" leased,") && !said.contains(" 0 leased,"),
        "{said}"
    );
    let blob = format!("team/model/blobs/{weights}");
    assert!(has(&api, &blob).await);
    proxy.release();
    let _ = pull.await.unwrap().succeeded();
    let _ = gc(&api, &["--force"]).succeeded();
    assert!(!has(&api, &blob).await, "the lease ended with the pull");
    assert_eq!(contents(api.server.data()), 0);
}

#[tokio::test]
async fn a_lease_is_bounded_and_given_only_for_what_is_there() {
    let api = Api::start();
    let digest = api.push_blob("a", b"leased").await;
    let id = "0b7a1cf4-9d1c-4a5b-8f0e-2d6c1f3a9e57";
    let put = async |repository: &str, body: Value| {
        let url = api.url(&format!("{repository}/_hayloft/leases/{id}"));
        let asked = api.client.put(url).body(body.to_string());
        asked.send().await.unwrap().status()
    };
    let lease = |digests: Value, seconds: u64| json!({ "digests": digests, "seconds": seconds });
    assert_eq!(put("a", lease(json!([digest]), 60)).await, StatusCode::OK);
    assert_eq!(
        put("a", lease(json!([digest]), 120)).await,
        StatusCode::OK,
        "renewed"
    );
    let absent = lease(json!([digest]), 60);
    assert_eq!(put("b", absent).await, StatusCode::NOT_FOUND);
    let many = vec![digest; 1001];
    for wrong in [
        lease(json!([]), 60),
        lease(json!(many), 60),
        lease(json!([digest]), 0),
        lease(json!([digest]), 8 * 86_400),
        json!("text"),
    ] {
        assert_eq!(
            put("a", wrong.clone()).await,
            StatusCode::BAD_REQUEST,
            "{wrong}"
        );
    }
    let _ = gc(&api, &["--force"]).succeeded();
    assert!(has(&api, &format!("a/blobs/{digest}")).await);
    let ended = api.delete(&format!("a/_hayloft/leases/{id}")).await;
    assert_eq!(ended.status(), StatusCode::NO_CONTENT);
    let _ = gc(&api, &["--force"]).succeeded();
    assert!(!has(&api, &format!("a/blobs/{digest}")).await);
}

#[tokio::test]
async fn a_read_only_registry_collects_nothing() {
    let folder = scratch();
    let mut api = Api::on(Server::registry().data(folder.path()).start());
    let digest = api.push_blob("a", b"kept").await;
    assert_eq!(api.server.terminate(), Some(0));
    let server = Server::registry()
        .data(folder.path())
        .argument("--read-only");
    let api = Api::on(server.start());
    let refused = gc(&api, &["--force"]).failed();
    assert!(refused.contains("read-only"), "{refused}");
    assert!(has(&api, &format!("a/blobs/{digest}")).await);
}

#[tokio::test]
async fn a_storage_that_a_registry_runs_on_is_collected_through_it_alone() {
    let folder = scratch();
    let data = folder.path().to_str().unwrap();
    let mut api = Api::on(Server::registry().data(folder.path()).start());
    api.push_blob("a", b"loose").await;
    let refused = hayloft(&["gc", "--data", data]).failed();
    assert!(refused.contains("--registry"), "{refused}");
    assert_eq!(api.server.terminate(), Some(0));
    let said = hayloft(&["gc", "--data", data, "--grace", "0", "--force"]).succeeded();
    assert!(said.contains("1 blobs, 0 leases; 1 contents"), "{said}");
    assert_eq!(contents(folder.path()), 0);
}

#[tokio::test]
async fn a_collection_that_is_killed_is_finished_by_the_next_one() {
    let folder = scratch();
    let mut api = Api::on(Server::registry().data(folder.path()).start());
    let kept = api.push_image("a", "kept", b"kept").await;
    for number in 0..150 {
        api.push_blob("a", format!("loose {number}").as_bytes())
            .await;
    }
    let target = [
        "gc",
        "--grace",
        "0",
        "--force",
        "--registry",
        api.server.address(),
    ];
    let mut command = hayloft_command(target);
    let collecting = tokio::task::spawn_blocking(move || run(&mut command));
    let blobs = folder.path();
    eventually("some blobs are gone", 20, async || {
        (contents(blobs) < 140).then_some(())
    })
    .await;
    api.server.kill();
    let _ = collecting.await.unwrap();
    let api = Api::on(Server::registry().data(folder.path()).start());
    let _ = gc(&api, &["--force"]).succeeded();
    assert_eq!(contents(folder.path()), 3);
    assert!(has(&api, &format!("a/manifests/{kept}")).await);
    let said = hayloft(&["fsck", "--registry", api.server.address()]).succeeded();
    assert!(
        said.contains("3 contents") && said.contains("0 faults, 0 orphaned"),
        "{said}"
    );
}

#[tokio::test]
async fn a_registry_collects_by_itself_from_time_to_time() {
    let builder = Server::registry().argument("--gc-interval").argument("1s");
    let api = Api::on(builder.argument("--gc-grace").argument("1s").start());
    let _ = api.push_image("a", "1", b"kept").await;
    for loose in [&b"first"[..], b"second"] {
        let digest = api.push_blob("a", loose).await;
        // Asking for it would keep it: the folder is looked at instead.
        let data = api.server.data();
        eventually("the loose blob is gone", 30, async || {
            (contents(data) == 3).then_some(())
        })
        .await;
        assert!(!has(&api, &format!("a/blobs/{digest}")).await);
    }
    assert!(has(&api, "a/manifests/1").await);
    let metrics = api.client.get(format!("{}/metrics", api.server.url()));
    let metrics = metrics.send().await.unwrap().text().await.unwrap();
    let counted = "hayloft_registry_collected_blobs_total 2";
    assert!(metrics.contains(counted), "{metrics}");
}
