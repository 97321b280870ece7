//! Chunk maps over time: they go with their blobs, damage is found, and settings say whose are offered.

use std::path::{Path, PathBuf};

use artifact::Digest;
use reqwest::StatusCode;
use serde_json::Value;
use tests::s3::keys_below;
use tests::upstream::noise;
use tests::{S3Server, eventually, hayloft, scratch};

use crate::registry_chunk_maps::{
    assert_describes, digest_of, listed, maps, offered, offered_soon, on, put_model, weights,
};
use crate::registry_dialects::push;
use crate::registry_support::Api;

/// Where the map of a blob lies.
fn sidecar(data: &Path, blob: &Digest) -> PathBuf {
    data.join("registry/maps/sha256").join(blob.hex())
}

fn collect(api: &Api) {
    let registry = api.server.address();
    let gc = ["gc", "--registry", registry, "--grace", "0", "--force"];
    let _ = hayloft(&gc).succeeded();
}

#[tokio::test]
async fn maps_stay_with_their_model_and_go_with_it() {
    let api = Api::start();
    push(&api, "team/hay:1", None);
    let _ = api.push_image("other/image", "1", b"stays").await;
    let (subject, digest) = (
        digest_of(&api, "team/hay").await,
        offered(&api, "team/hay").await,
    );
    collect(&api);
    assert_describes(&maps(&api, "team/hay", &digest).await[0], &weights());
    let gone = api.delete(&format!("team/hay/manifests/{subject}")).await;
    assert_eq!(gone.status(), StatusCode::ACCEPTED);
    // What lost its blob in a power cut goes too.
    let orphan = Digest::sha256(b"no such blob");
    std::fs::write(sidecar(api.server.data(), &orphan), b"left").unwrap();
    collect(&api);
    let path = format!("team/hay/manifests/{digest}");
    assert_eq!(api.head(&path).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(
        listed(&api, "team/hay", &subject).await,
        Vec::<Value>::new()
    );
    let count = |folder: &str| {
        let folder = api.server.data().join("registry").join(folder);
        std::fs::read_dir(folder).unwrap().count()
    };
    assert_eq!(count("blobs/sha256"), 3, "only the other image is left");
    assert_eq!(count("maps/sha256"), 0);
}

#[tokio::test]
async fn whose_maps_are_offered_is_a_setting() {
    let layer = noise(2_000_000, 4);
    let folder = scratch();
    let api = on(folder.path(), &["--chunk-maps", "off"]);
    let _ = api.push_image("image", "1", &layer).await;
    push(&api, "model:1", None);
    let model = Digest::sha256(&weights());
    let none = Vec::<Value>::new();
    for repository in ["image", "model"] {
        let subject = digest_of(&api, repository).await;
        assert_eq!(listed(&api, repository, &subject).await, none);
    }
    assert!(!sidecar(folder.path(), &model).exists());
    drop(api);

    // What came in meanwhile is read when somebody asks.
    let api = on(folder.path(), &[]);
    let image = digest_of(&api, "image").await;
    assert_eq!(listed(&api, "image", &image).await, none);
    let digest = offered_soon(&api, "model").await;
    assert_describes(&maps(&api, "model", &digest).await[0], &weights());
    drop(api);

    let api = on(folder.path(), &["--chunk-maps=all"]);
    let digest = offered_soon(&api, "image").await;
    assert_describes(&maps(&api, "image", &digest).await[0], &layer);
    let small = api.push_image("small", "1", b"too small for a map").await;
    assert_eq!(listed(&api, "small", &small.to_string()).await, none);
}

#[tokio::test]
async fn a_read_only_registry_offers_maps_from_memory() {
    let folder = scratch();
    let api = on(folder.path(), &[]);
    push(&api, "team/hay:1", None);
    drop(api);
    let blobs = || {
        let blobs = folder.path().join("registry/blobs/sha256");
        std::fs::read_dir(blobs).unwrap().count()
    };
    let before = blobs();
    let api = on(folder.path(), &["--read-only"]);
    let digest = offered(&api, "team/hay").await;
    assert_eq!(offered(&api, "team/hay").await, digest);
    assert_describes(&maps(&api, "team/hay", &digest).await[0], &weights());
    assert_eq!(blobs(), before);
    drop(api);
    let api = on(folder.path(), &[]);
    assert_eq!(offered(&api, "team/hay").await, digest);
    assert!(blobs() > before);
}

#[tokio::test]
async fn a_damaged_map_is_found_removed_and_made_again() {
    let folder = scratch();
    let api = on(folder.path(), &[]);
    push(&api, "team/hay:1", None);
    let blob = Digest::sha256(&weights());
    let path = sidecar(folder.path(), &blob);
    let right = std::fs::read(&path).unwrap();
    let check = |flags: &[&str]| {
        let target = ["fsck", "--registry", api.server.address()];
        hayloft(&[&target[..], flags].concat())
    };
    let _ = check(&[]).succeeded();
    let mut flipped = right.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let mut foreign = right.clone();
    foreign[30] ^= 1;
    for (damage, wanted) in [
        (flipped, "does not have its hash"),
        (foreign, "it is of sha256:"),
        (right[..50].to_vec(), "has 50 bytes where 88 are due"),
    ] {
        std::fs::write(&path, damage).unwrap();
        let said = check(&[]);
        assert_eq!(said.code, 8, "{}", said.stdout);
        let fault = format!("fault: the chunk map of content {blob} is wrong: ");
        assert!(said.stdout.contains(&fault), "{}", said.stdout);
        assert!(said.stdout.contains(wanted), "{}", said.stdout);
        assert!(path.exists());
    }
    let said = check(&["--quarantine"]);
    let removed = format!("removed the chunk map of content {blob}");
    assert!(said.stdout.contains(&removed), "{}", said.stdout);
    assert!(!path.exists());
    let _ = check(&[]).succeeded();
    let digest = offered_soon(&api, "team/hay").await;
    assert_describes(&maps(&api, "team/hay", &digest).await[0], &weights());
    assert_eq!(std::fs::read(&path).unwrap(), right);
}

#[tokio::test]
async fn a_damaged_map_is_not_offered_and_corrupt_content_has_none() {
    let folder = scratch();
    let api = on(folder.path(), &[]);
    push(&api, "damaged:1", None);
    let blob = Digest::sha256(&weights());
    std::fs::write(sidecar(folder.path(), &blob), b"no map").unwrap();
    let digest = offered_soon(&api, "damaged").await;
    assert_describes(&maps(&api, "damaged", &digest).await[0], &weights());

    let content = noise(2_000_000, 5);
    let corrupt = api.push_blob("corrupt", &content).await;
    put_model(&api, "corrupt", &[&content]).await;
    std::fs::remove_file(sidecar(folder.path(), &corrupt)).unwrap();
    let file = folder
        .path()
        .join("registry/blobs/sha256")
        .join(corrupt.hex());
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, noise(2_000_000, 6)).unwrap();
    let subject = digest_of(&api, "corrupt").await;
    eventually("the corrupt blob was read", 20, async || {
        assert_eq!(listed(&api, "corrupt", &subject).await, Vec::<Value>::new());
        let log = api.server.log();
        (log.contains("has no chunk map") && log.contains("Corrupt")).then_some(())
    })
    .await;
    assert!(!sidecar(folder.path(), &corrupt).exists());
    // Pushed again it is right, and so is its map.
    api.push_blob("corrupt", &content).await;
    let digest = offered(&api, "corrupt").await;
    assert_describes(&maps(&api, "corrupt", &digest).await[0], &content);
}

#[tokio::test]
async fn in_a_bucket_maps_lie_beside_their_blobs_and_go_with_them() {
    let s3 = S3Server::start();
    let api = Api::on(s3.registry().start());
    let content = noise(9_000_000, 3);
    api.push_blob("a", &content).await;
    put_model(&api, "a", &[&content]).await;
    let sidecars = || {
        let keys = keys_below(&s3.files()).into_iter();
        keys.filter(|key| key.contains("/maps/sha256/")).count()
    };
    assert_eq!(sidecars(), 1);
    let digest = offered(&api, "a").await;
    assert_describes(&maps(&api, "a", &digest).await[0], &content);
    let subject = digest_of(&api, "a").await;
    let gone = api.delete(&format!("a/manifests/{subject}")).await;
    assert_eq!(gone.status(), StatusCode::ACCEPTED);
    collect(&api);
    assert_eq!(sidecars(), 0);
}
