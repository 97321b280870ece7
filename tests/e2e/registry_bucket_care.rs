//! Looking after a registry over a bucket and a database: collection, checks, reindex, through the
//! running registry and on the bucket itself.

use std::path::{Path, PathBuf};

use artifact::Digest;
use reqwest::StatusCode;
use tests::s3::{STORAGE, keys_below};
use tests::upstream::noise;
use tests::{Postgres, S3Server, hayloft, scratch};

use crate::registry_faults::{fill, holds_everything};
use crate::registry_replicas::Shared;
use crate::registry_support::Api;

/// Exit code of a check that found something wrong.
const FAULTY: i32 = 8;

/// A verb on the running registry.
fn on(api: &Api, verb: &[&str]) -> tests::Finished {
    hayloft(&[verb, &["--registry", api.server.address()]].concat())
}

/// The only file below a folder of the bucket.
fn only_file(files: &Path, folder: &str) -> PathBuf {
    let folder = files.join("team").join(folder);
    let keys = keys_below(&folder);
    assert_eq!(keys.len(), 1, "{keys:?}");
    folder.join(&keys[0])
}

#[tokio::test]
async fn what_nobody_refers_to_is_collected_from_the_bucket_through_either_replica() {
    let shared = Shared::start();
    let (one, other) = shared.two_at_once();
    let _ = one.push_image("a", "1", b"kept").await;
    let loose = noise(200_000, 41);
    let digest = one.push_blob("a", &loose).await;
    let path = format!("a/blobs/{digest}");
    let told = on(&other, &["gc", "--dry-run", "--grace", "0"]).succeeded();
    let named = format!("would remove blob a@{digest}: no manifest has named it");
    assert!(told.contains(&named), "{told}");
    assert_eq!(one.head(&path).await.status(), StatusCode::OK);

    let told = on(&other, &["gc", "--grace", "0"]).succeeded();
    let removed = "removed 0 tags, 0 manifests, 1 blobs, 0 leases; 1 contents";
    assert!(told.contains(removed), "{told}");
    assert_eq!(one.head(&path).await.status(), StatusCode::NOT_FOUND);
    let files = shared.bucket.files().join("team");
    assert!(keys_below(&files.join("data")).is_empty(), "its bytes went");
    assert_eq!(keys_below(&files.join("blobs")).len(), 3);
    assert_eq!(one.head("a/manifests/1").await.status(), StatusCode::OK);
    let told = on(&one, &["fsck"]).succeeded();
    assert!(told.contains("0 faults, 0 orphaned"), "{told}");
}

#[tokio::test]
async fn damage_in_the_bucket_is_found_moved_aside_and_healed_by_a_push() {
    let shared = Shared::start();
    let api = shared.replica();
    let large = noise(200_000, 42);
    let _ = api.push_image("a", "large", &large).await;
    let _ = api.push_image("a", "small", b"small").await;
    let [corrupt, missing] = [&large[..], b"small"].map(Digest::sha256);
    let files = shared.bucket.files();
    let mut flipped = large.clone();
    flipped[100_000] ^= 1;
    std::fs::write(only_file(&files, "data"), &flipped).unwrap();
    let pointer = format!("team/blobs/sha256/{}", missing.hex());
    std::fs::remove_file(files.join(pointer)).unwrap();

    let told = on(&api, &["fsck", "--quarantine"]);
    assert_eq!(told.code, FAULTY);
    let actual = Digest::sha256(&flipped);
    for fault in [
        format!("fault: content {corrupt} is corrupt: it hashes to {actual}"),
        format!("fault: blob a@{missing} has no content"),
        "2 faults, 0 orphaned, 1 quarantined".to_owned(),
    ] {
        assert!(told.stdout.contains(&fault), "{}", told.stdout);
    }
    let aside = only_file(&files, "quarantine");
    assert!(aside.ends_with(corrupt.hex()), "{}", aside.display());
    for content in [&large[..], b"small"] {
        let path = format!("a/blobs/{}", Digest::sha256(content));
        assert_eq!(api.head(&path).await.status(), StatusCode::NOT_FOUND);
        let _ = api.push_blob("a", content).await;
        assert!(api.get(&path).await.bytes().await.unwrap() == content);
    }
    let told = on(&api, &["fsck"]).succeeded();
    assert!(told.contains("0 faults"), "{told}");
}

#[tokio::test]
async fn a_database_at_odds_with_the_bucket_is_put_right_while_the_registry_serves() {
    let shared = Shared::start();
    let api = shared.replica();
    fill(&api).await;
    let _ = shared
        .postgres
        .sql("DELETE FROM hayloft.tags WHERE tag = 'two'");
    let told = on(&api, &["fsck"]);
    assert_eq!(told.code, FAULTY);
    let fault = "fault: record a/b/_tags/two is not in the index";
    assert!(told.stdout.contains(fault), "{}", told.stdout);
    let told = on(&api, &["registry", "reindex"]).succeeded();
    assert!(
        told.contains("2 tags") && told.contains("1 put right"),
        "{told}"
    );
    holds_everything(&api).await;
}

#[tokio::test]
async fn a_bucket_without_a_registry_is_reindexed_collected_and_checked_where_it_lies() {
    let (s3, postgres, folder) = (S3Server::start(), Postgres::start(), scratch());
    let mut api = Api::on(s3.registry().start());
    fill(&api).await;
    // Each has a data folder of its own, as on another machine.
    let on = |data: &str, index: &str, verb: &[&str]| {
        let data = folder.path().join(data);
        let data = ["--data", data.to_str().unwrap()];
        s3.hayloft(&[verb, &data, &["--storage", STORAGE, "--index", index]].concat())
    };
    let reindex = ["registry", "reindex"];
    let refused = on("other", "sled", &reindex).failed();
    assert!(refused.contains("in use by another registry"), "{refused}");
    for index in ["sled", &postgres.url()] {
        let data = index.split(':').next().unwrap();
        assert_eq!(api.server.terminate(), Some(0));
        let told = on(data, index, &reindex).succeeded();
        let all = "1 repositories, 4 manifests, 2 tags";
        assert!(told.starts_with(all), "{told}");
        let told = on(data, index, &["fsck"]).succeeded();
        assert!(told.contains("0 faults"), "{told}");
        let told = on(data, index, &["gc", "--dry-run", "--grace", "0"]).succeeded();
        let nothing = "would remove 0 tags, 0 manifests, 0 blobs";
        assert!(told.contains(nothing), "{told}");

        let builder = s3.registry().data(&folder.path().join(data));
        api = Api::on(builder.argument("--index").argument(index).start());
        holds_everything(&api).await;
        let log = api.server.log();
        let is_believed = !log.contains("rebuilt the metadata") && !log.contains("compared the");
        assert!(is_believed, "{data} was filled before the start: {log}");
    }
    // PostgreSQL is also compared from beside a registry that runs on it.
    let _ = postgres.sql("DELETE FROM hayloft.tags");
    let _ = on("other", &postgres.url(), &reindex).succeeded();
    holds_everything(&api).await;
}
