//! fsck and the online reindex through the program: damage planted in the files is found and named.

use std::path::{Path, PathBuf};

use artifact::Digest;
use reqwest::StatusCode;
use serde_json::json;
use tests::{Server, hayloft, scratch};

use crate::registry_support::Api;

/// Exit code of a check that found something wrong.
const FAULTY: i32 = 8;

fn blob(data: &Path, digest: &Digest) -> PathBuf {
    data.join("registry/blobs/sha256").join(digest.hex())
}

/// Writes over a file of the storage, which may be read-only.
fn overwrite(path: &Path, content: &[u8]) {
    let _ = std::fs::remove_file(path);
    std::fs::write(path, content).unwrap();
}

/// The faults and notes that a check of the running registry tells.
fn findings(api: &Api, flags: &[&str]) -> (i32, Vec<String>) {
    let target = ["fsck", "--registry", api.server.address()];
    let finished = hayloft(&[&target[..], flags].concat());
    let told = finished.stdout.lines();
    let mut told: Vec<String> = told
        .filter(|line| line.starts_with("fault: ") || line.starts_with("note: "))
        .map(str::to_owned)
        .collect();
    told.sort();
    (finished.code, told)
}

#[tokio::test]
async fn each_kind_of_damage_is_found_and_named() {
    let folder = scratch();
    let api = Api::on(Server::registry().data(folder.path()).start());
    for layer in [&b"flipped"[..], b"truncated", b"deleted", b"whole"] {
        let name = std::str::from_utf8(layer).unwrap();
        let _ = api.push_image("a", name, layer).await;
    }
    let id = "0b7a1cf4-9d1c-4a5b-8f0e-2d6c1f3a9e57";
    let lease = json!({ "digests": [Digest::sha256(b"whole")], "seconds": 600 });
    let url = api.url(&format!("a/_hayloft/leases/{id}"));
    let leased = api.client.put(url).body(lease.to_string()).send().await;
    assert_eq!(leased.unwrap().status(), StatusCode::OK);
    assert_eq!(findings(&api, &[]), (0, Vec::new()));
    let data = folder.path();
    let [flipped, truncated, deleted, orphan] =
        [&b"flipped"[..], b"truncated", b"deleted", b"orphan"].map(Digest::sha256);
    overwrite(&blob(data, &flipped), b"flippeD");
    overwrite(&blob(data, &truncated), b"trunc");
    std::fs::remove_file(blob(data, &deleted)).unwrap();
    overwrite(&blob(data, &orphan), b"orphan");
    let records = data.join("registry/records/a");
    let dangling = Digest::sha256(b"no manifest");
    let tag = format!(r#"{{"digest":"{dangling}","updated":"2026-01-01T00:00:00Z"}}"#);
    overwrite(&records.join("_tags/dangling"), tag.as_bytes());
    overwrite(&records.join("_tags/damaged"), b"{");
    std::fs::remove_file(records.join("_tags/whole")).unwrap();
    std::fs::remove_file(records.join("_leases").join(id)).unwrap();
    let actual = Digest::sha256(b"flippeD");
    let mut expected = [
        format!("fault: content {flipped} is corrupt: it hashes to {actual}"),
        format!("fault: content {truncated} has 5 bytes instead of 9"),
        format!("fault: blob a@{deleted} has no content"),
        "fault: record a/_tags/dangling is not in the index".to_owned(),
        "fault: the index holds a/_tags/whole, which has no record".to_owned(),
        format!("fault: the index holds a/_leases/{id}, which has no record"),
        format!("note: content {orphan} of 6 bytes is in no repository"),
    ]
    .to_vec();
    expected.sort();
    let (code, told) = findings(&api, &[]);
    assert_eq!(code, FAULTY);
    let (damaged, others): (Vec<_>, Vec<_>) = told
        .into_iter()
        .partition(|line| line.contains("is damaged"));
    assert_eq!(others, expected);
    assert_eq!(damaged.len(), 1, "{damaged:?}");
    assert!(
        damaged[0].starts_with("fault: record a/_tags/damaged is damaged: "),
        "{damaged:?}"
    );
    let said = hayloft(&["registry", "reindex", "--registry", api.server.address()]).succeeded();
    assert!(
        said.contains("3 put right") && said.contains("1 records are damaged"),
        "{said}"
    );
    let (_, told) = findings(&api, &[]);
    let points = format!("fault: tag a:dangling points to manifest {dangling}, which is not there");
    assert!(told.contains(&points), "{told:?}");
    let is_followed = !told.iter().any(|line| line.contains("no record"));
    assert!(is_followed, "{told:?}");
    let said = hayloft(&["gc", "--force", "--registry", api.server.address()]).failed();
    assert!(said.contains("1 records could not be read"), "{said}");
}

#[tokio::test]
async fn corrupt_content_is_moved_aside_and_a_push_heals_it() {
    let folder = scratch();
    let api = Api::on(Server::registry().data(folder.path()).start());
    let _ = api.push_image("a", "1", b"right").await;
    let digest = Digest::sha256(b"right");
    overwrite(&blob(folder.path(), &digest), b"wrong");
    let said = hayloft(&["fsck", "--quarantine", "--registry", api.server.address()]);
    assert_eq!(said.code, FAULTY);
    assert!(
        said.stdout.contains("1 faults, 0 orphaned, 1 quarantined"),
        "{}",
        said.stdout
    );
    let path = format!("a/blobs/{digest}");
    assert_eq!(api.head(&path).await.status(), StatusCode::NOT_FOUND);
    api.push_blob("a", b"right").await;
    assert_eq!(api.get(&path).await.bytes().await.unwrap(), "right");
    assert_eq!(findings(&api, &["--rate", "1MiB"]), (0, Vec::new()));
}

#[tokio::test]
async fn a_damaged_manifest_is_never_served_and_a_push_heals_it() {
    let folder = scratch();
    let mut api = Api::on(Server::registry().data(folder.path()).start());
    let digest = api.push_image("a", "1", b"layer").await;
    let right = api.get("a/manifests/1").await.bytes().await.unwrap();
    // The registry that has served it may still know it; one that starts afterwards does not.
    assert_eq!(api.server.terminate(), Some(0));
    let path = blob(folder.path(), &digest);
    let mut wrong = right.to_vec();
    wrong[10] ^= 1;
    overwrite(&path, &wrong);
    let api = Api::on(Server::registry().data(folder.path()).start());
    let answer = api.get("a/manifests/1").await;
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    assert!(
        api.server.log().contains("content is damaged"),
        "{}",
        api.server.log()
    );
    let _ = api.push_image("a", "1", b"layer").await;
    assert_eq!(api.get("a/manifests/1").await.bytes().await.unwrap(), right);
    assert_eq!(std::fs::read(path).unwrap(), right);
}

#[tokio::test]
async fn a_storage_without_a_registry_is_checked_where_it_lies() {
    let folder = scratch();
    let data = folder.path().to_str().unwrap();
    let mut api = Api::on(Server::registry().data(folder.path()).start());
    let _ = api.push_image("a", "1", b"right").await;
    let refused = hayloft(&["fsck", "--data", data]).failed();
    assert!(refused.contains("--registry"), "{refused}");
    assert_eq!(api.server.terminate(), Some(0));
    let said = hayloft(&["fsck", "--data", data]).succeeded();
    assert!(
        said.contains("3 contents") && said.contains("0 faults"),
        "{said}"
    );
    let said = hayloft(&["fsck", "--data", data, "-o", "json"]).succeeded();
    let last: serde_json::Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    assert_eq!(last["event"], "done");
    assert_eq!(last["summary"]["faults"], 0);
}
