//! `huggingface_hub` uploads to `/hf`, and everybody else pulls what it made.

use std::process::Command;

use artifact::Digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde_json::{Value, json};
use tests::upstream::noise;
use tests::{S3Server, Server, fixture, hayloft, run, scratch};

use crate::hub_support::{Hub, MODEL, python, story, told};
use crate::registry_support::header;

/// A folder as somebody would upload it.
fn model_folder() -> tempfile::TempDir {
    let folder = scratch();
    let at = |name: &str| folder.path().join(name);
    std::fs::copy(fixture(MODEL), at("model.gguf")).unwrap();
    std::fs::write(at("README.md"), "---\nlicense: mit\n---\n# Tiny\n").unwrap();
    std::fs::create_dir(at("onnx")).unwrap();
    std::fs::write(at("onnx/config.json"), "{}").unwrap();
    folder
}

#[test]
fn a_folder_that_the_library_uploads_is_a_model_for_everybody() {
    let server = Server::all().start();
    let registry = server.address_of("registry").to_owned();
    let endpoint = format!("{}/hf", server.url_of("registry"));
    let (folder, home) = (model_folder(), scratch());
    let path = folder.path().to_str().unwrap();
    let mut upload = python(&endpoint, home.path(), &["upload", "Team/Tiny", path]);
    let told = told(run(upload.env("HF_HUB_DISABLE_XET", "1")));
    let files = ["README.md", "empty", "model.gguf", "onnx/config.json"];
    assert_eq!(told["files"], json!(files));
    assert_eq!(told["branches"], json!(["latest", "main", "v1"]));
    assert_eq!(told["url"], format!("{endpoint}/Team/Tiny"));
    let reference = format!("{registry}/team/tiny:main");
    let agent = server.url_of("agent");
    let _ = hayloft(&["pull", &reference, "--agent", &agent]).succeeded();
    let back = scratch();
    let to = format!("dir:{}", back.path().display());
    let from = format!("docker://{registry}/team/tiny");
    let mut skopeo = Command::new("skopeo");
    let copied = skopeo.args(["copy", "--src-tls-verify=false", &from, &to]);
    let _ = run(copied).succeeded();
    let model = std::fs::read(fixture(MODEL)).unwrap();
    let blob = back.path().join(Digest::sha256(&model).hex());
    assert_eq!(std::fs::read(blob).unwrap(), model);
}

/// Asks where to upload one object.
async fn asked(hub: &Hub, content: &[u8], transfers: &[&str]) -> Value {
    let batch = json!({
        "operation": "upload",
        "transfers": transfers,
        "hash_algo": "sha256",
        "objects": [{ "oid": Digest::sha256(content).hex(), "size": content.len() }],
    });
    let response = hub.post("a/b.git/info/lfs/objects/batch", batch.to_string());
    let response = response.await;
    assert_eq!(response.status(), 200);
    let kind = header(&response, "content-type");
    assert_eq!(kind, "application/vnd.git-lfs+json");
    response.json().await.unwrap()
}

async fn put(hub: &Hub, url: &Value, content: Vec<u8>) -> reqwest::Response {
    let url = url.as_str().unwrap();
    let request = hub.api.client.put(url).body(content);
    request.send().await.unwrap()
}

#[tokio::test]
async fn a_large_file_comes_in_parts_that_may_be_sent_again() {
    let hub = Hub::start();
    let content = noise(65 << 20, 72);
    let answer = asked(&hub, &content, &["basic", "multipart"]).await;
    assert_eq!(answer["transfer"], "multipart");
    let upload = &answer["objects"][0]["actions"]["upload"];
    let size: usize = upload["header"]["chunk_size"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let (first, second) = content.split_at(size);
    let late = put(&hub, &upload["header"]["2"], second.to_vec()).await;
    assert_eq!(late.status(), 400, "the second part before the first");
    for _ in 0..2 {
        let taken = put(&hub, &upload["header"]["1"], first.to_vec()).await;
        assert_eq!(taken.status(), 200);
        assert!(!header(&taken, "etag").is_empty());
    }
    let taken = put(&hub, &upload["header"]["2"], second.to_vec()).await;
    assert_eq!(taken.status(), 200);
    let end = upload["href"].as_str().unwrap();
    let end = hub.api.client.post(end).body("{}").send().await.unwrap();
    assert_eq!(end.status(), 200);
    let again = asked(&hub, &content, &["basic"]).await;
    assert!(again["objects"][0]["actions"].is_null(), "{again}");
}

#[tokio::test]
async fn content_that_another_repository_holds_is_not_sent_again() {
    let hub = Hub::start();
    let content = noise(100_000, 73);
    let _ = hub.api.push_blob("other", &content).await;
    let answer = asked(&hub, &content, &["basic"]).await;
    assert!(answer["objects"][0]["actions"].is_null(), "{answer}");
    let digest = Digest::sha256(&content);
    let held = hub.api.head(&format!("a/b/blobs/{digest}")).await;
    assert_eq!(held.status(), 200);
}

#[tokio::test]
async fn content_of_another_digest_never_becomes_visible() {
    let hub = Hub::start();
    let answer = asked(&hub, b"promised", &["basic"]).await;
    let place = &answer["objects"][0]["actions"]["upload"]["href"];
    let wrong = put(&hub, place, b"another!".to_vec()).await;
    assert_eq!(wrong.status(), 400);
    let answer = asked(&hub, b"promised", &["basic"]).await;
    let place = &answer["objects"][0]["actions"]["upload"]["href"];
    assert_eq!(put(&hub, place, b"promised".to_vec()).await.status(), 200);
    let gone = put(&hub, place, b"promised".to_vec()).await;
    assert_eq!(gone.status(), 404, "an address is good once");
}

async fn commit(hub: &Hub, lines: &[String]) -> reqwest::Response {
    hub.post("api/models/a/b/commit/main", lines.join("\n"))
        .await
}

fn file(path: &str, content: &str) -> String {
    json!({ "key": "file", "value": { "path": path, "content": content } }).to_string()
}

#[tokio::test]
async fn a_commit_that_cannot_be_made_changes_nothing_and_says_why() {
    let hub = Hub::start();
    let header_line = json!({ "key": "header", "value": { "summary": "x" } }).to_string();
    let good = file("good", &STANDARD.encode("good"));
    let made = commit(&hub, &[header_line.clone(), good.clone()]).await;
    assert_eq!(made.status(), 200);
    let before = hub.json("api/models/a/b").await["sha"].clone();
    let lfs = |oid: &str| {
        let value = json!({ "path": "x", "algo": "sha256", "oid": oid, "size": 1 });
        json!({ "key": "lfsFile", "value": value }).to_string()
    };
    let deleted = json!({ "key": "deletedFile", "value": { "path": "no-such" } }).to_string();
    for (line, status, why) in [
        (file("x", "%%%"), 400, "not Base64"),
        (file("../x", ""), 400, "cannot be the path"),
        (file(".git/config", ""), 400, "cannot be the path"),
        (file("good/below", ""), 400, "cannot be the path"),
        (lfs(&"0".repeat(64)), 400, "upload it first"),
        (lfs("zz"), 400, ""),
        (lfs(&Digest::sha256(b"good").hex()), 400, "not 1"),
        (deleted, 404, "no file"),
        ("no JSON".to_owned(), 400, "line 2"),
        (
            json!({ "key": "strange", "value": {} }).to_string(),
            400,
            "line 2",
        ),
        ("x".repeat(17 << 20), 413, "bytes"),
    ] {
        let response = commit(&hub, &[header_line.clone(), line.clone()]).await;
        let shown: String = line.chars().take(60).collect();
        assert_eq!(response.status(), status, "{shown}");
        let message = header(&response, "x-error-message");
        assert!(message.contains(why), "{shown}: {message}");
    }
    let response = hub
        .post("api/models/a/b/commit/main?create_pr=1", good)
        .await;
    assert_eq!(response.status(), 400);
    let after = hub.json("api/models/a/b").await["sha"].clone();
    assert_eq!(after, before);
}

#[tokio::test]
async fn commits_at_once_undo_nothing_and_latest_goes_along_with_main() {
    let hub = Hub::start();
    hub.push("a/b:latest");
    let commits = (0..8).map(|number| {
        let lines = [file(&format!("{number}.txt"), &STANDARD.encode("x"))];
        let hub = &hub;
        async move { commit(hub, &lines).await.status() }
    });
    let statuses = futures::future::join_all(commits).await;
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    let info = hub.json("api/models/a/b").await;
    let files = info["siblings"].as_array().unwrap();
    assert_eq!(files.len(), 9, "what was pushed before is there, too");
    let main = hub.api.head("a/b/manifests/main").await;
    let main = header(&main, "docker-content-digest");
    let latest = hub.api.head("a/b/manifests/latest").await;
    assert_eq!(header(&latest, "docker-content-digest"), main);
    hub.push("a/b:latest");
    let lines = [file("last.txt", &STANDARD.encode("x"))];
    assert_eq!(commit(&hub, &lines).await.status(), 200);
    let info = hub.json("api/models/a/b/revision/latest").await;
    let files = info["siblings"].as_array().unwrap();
    assert_eq!(files.len(), 1, "a latest that was set otherwise stays");
}

#[test]
fn a_bucket_takes_uploads_and_gives_large_files_itself() {
    let s3 = S3Server::start();
    let hub = Hub::on(s3.registry().start());
    let (folder, home) = (model_folder(), scratch());
    let endpoint = hub.endpoint();
    let path = folder.path().to_str().unwrap();
    let mut upload = python(&endpoint, home.path(), &["upload", "team/tiny", path]);
    let _ = told(run(upload.env("HF_HUB_DISABLE_XET", "1")));
    let snapshot = story(&endpoint, home.path(), &["snapshot", "team/tiny"]);
    let size = std::fs::metadata(fixture(MODEL)).unwrap().len();
    assert_eq!(snapshot["files"]["model.gguf"], size);
    let log = hub.api.server.log();
    assert!(log.contains("\"status\":307"), "nobody was redirected");
}

#[tokio::test]
async fn what_is_not_spoken_is_refused_in_words() {
    let hub = Hub::start();
    hub.push("a/b:latest");
    let post = |path: &'static str, body: Value| hub.post(path, body.to_string());
    for (response, status, why) in [
        (
            hub.get("a/b.git/info/refs?service=git-upload-pack").await,
            404,
            "not part",
        ),
        (hub.get("api/datasets/a/b").await, 404, "no datasets"),
        (
            hub.get("datasets/a/b/resolve/main/x").await,
            404,
            "no datasets",
        ),
        (hub.get("spaces/a/b").await, 404, "no spaces"),
        (
            hub.get("api/models/a/b/xet-read-token/main").await,
            404,
            "HF_HUB_DISABLE_XET",
        ),
        (
            hub.get("api/models/a/b/xet-write-token/main").await,
            404,
            "HF_HUB_DISABLE_XET",
        ),
        (
            post(
                "api/repos/create",
                json!({ "name": "x", "type": "dataset" }),
            )
            .await,
            400,
            "dataset",
        ),
        (
            post("api/repos/create", json!({ "name": "x", "private": true })).await,
            400,
            "private",
        ),
        (
            post(
                "a/b.git/info/lfs/objects/batch",
                json!({ "operation": "download", "objects": [] }),
            )
            .await,
            400,
            "/resolve/",
        ),
        (
            hub.request(Method::DELETE, "a/b/resolve/main/x")
                .send()
                .await
                .unwrap(),
            405,
            "GET, HEAD",
        ),
    ] {
        assert_eq!(response.status(), status, "{}", response.url());
        let message = header(&response, "x-error-message");
        assert!(message.contains(why), "{}: {message}", response.url());
    }
    let many: Vec<Value> = (0..1_001)
        .map(|_| json!({ "oid": "x", "size": 1 }))
        .collect();
    let many = json!({ "operation": "upload", "objects": many });
    let many = post("a/b.git/info/lfs/objects/batch", many).await;
    assert_eq!(many.status(), 413);
    let paths: Vec<&str> = (0..1_001).map(|_| "x").collect();
    let paths = post("api/models/a/b/paths-info/main", json!({ "paths": paths })).await;
    assert_eq!(paths.status(), 413);
}
