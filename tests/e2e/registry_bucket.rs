//! A registry whose blobs and records lie in a bucket of an S3 server (in this process).

use std::path::{Path, PathBuf};
use std::process::Command;

use artifact::Digest;
use bytes::Bytes;
use reqwest::StatusCode;
use tests::s3::keys_below;
use tests::upstream::noise;
use tests::{S3Server, Server, eventually, fixture, hayloft, run, scratch};

use crate::registry_support::{Api, error_code, fed_body, header, image};

#[tokio::test]
async fn images_are_pushed_pulled_mounted_and_deleted_in_a_bucket() {
    let s3 = S3Server::start();
    let api = Api::on(s3.registry().start());
    let layer = noise(20_000_000, 1);
    let digest = api.push_image("a/model", "v1", &layer).await;
    let manifest = api.get("a/model/manifests/v1").await;
    assert_eq!(
        header(&manifest, "docker-content-digest"),
        digest.to_string()
    );
    assert_eq!(
        manifest.bytes().await.unwrap(),
        image(&[&layer]).to_string()
    );
    let blob = Digest::sha256(&layer);
    let pulled = api.get(&format!("a/model/blobs/{blob}")).await;
    assert!(pulled.bytes().await.unwrap() == layer);
    let mount = format!("b/copy/blobs/uploads/?mount={blob}&from=a/model");
    assert_eq!(api.post(&mount).await.status(), StatusCode::CREATED);
    let data = |keys: &[String]| keys.iter().filter(|key| key.contains("/data/")).count();
    assert_eq!(data(&keys_below(&s3.files())), 1, "content is stored once");
    let again = api.push_blob("c", &layer).await;
    assert_eq!(again, blob);
    assert_eq!(data(&keys_below(&s3.files())), 1, "content is stored once");
    let tag = api.delete("a/model/manifests/v1").await;
    assert_eq!(tag.status(), StatusCode::ACCEPTED);
    let gone = api.delete(&format!("a/model/manifests/{digest}")).await;
    assert_eq!(gone.status(), StatusCode::ACCEPTED);
    let gone = api.delete(&format!("a/model/blobs/{blob}")).await;
    assert_eq!(gone.status(), StatusCode::ACCEPTED);
    let gone = api.head(&format!("a/model/blobs/{blob}")).await;
    assert_eq!(gone.status(), StatusCode::NOT_FOUND);
    let kept = api.head(&format!("b/copy/blobs/{blob}")).await;
    assert_eq!(kept.status(), StatusCode::OK);
    let keys = keys_below(&s3.files());
    let sessions: Vec<_> = keys.iter().filter(|key| key.contains("uploads/")).collect();
    assert!(
        sessions.is_empty(),
        "finished sessions leave nothing: {sessions:?}"
    );
}

#[tokio::test]
async fn everything_is_there_after_a_kill_and_on_an_empty_data_folder() {
    let s3 = S3Server::start();
    let data = scratch();
    let mut api = Api::on(s3.registry().data(data.path()).start());
    let layer = noise(9_000_000, 2);
    let digest = api.push_image("a", "v1", &layer).await;
    api.server.kill();
    // The same data folder may start again at once.
    let mut api = Api::on(s3.registry().data(data.path()).start());
    assert_eq!(api.head("a/manifests/v1").await.status(), StatusCode::OK);
    assert_eq!(api.server.terminate(), Some(0));
    // Another one finds everything in the bucket.
    let api = Api::on(s3.registry().start());
    let manifest = api.get("a/manifests/v1").await;
    assert_eq!(
        header(&manifest, "docker-content-digest"),
        digest.to_string()
    );
    let blob = format!("a/blobs/{}", Digest::sha256(&layer));
    assert!(api.get(&blob).await.bytes().await.unwrap() == layer);
}

#[tokio::test]
async fn an_upload_goes_on_after_the_registry_was_killed_between_and_in_requests() {
    let s3 = S3Server::start();
    let data = scratch();
    let content = noise(60_000_000, 3);
    let mut api = Api::on(s3.registry().data(data.path()).start());
    let location = api.begin("a").await;
    let path = location.split_once("/v2/").unwrap().1.to_owned();
    let sent = api.chunk(&location, 0, &content[..11_000_000]);
    let sent = sent.send().await.unwrap();
    assert_eq!(sent.status(), StatusCode::ACCEPTED);
    api.server.kill();

    let mut api = Api::on(s3.registry().data(data.path()).start());
    let location = api.url(&path);
    assert_eq!(api.offset(&location).await, 11_000_000);
    // Now in the middle of a request.
    let (sender, body) = fed_body();
    let request = api.client.patch(&location).body(body).send();
    let request = tokio::spawn(request);
    for piece in content[11_000_000..50_000_000].chunks(500_000) {
        sender.send(Bytes::copy_from_slice(piece)).await.unwrap();
    }
    let state = state_of(&s3, &path);
    eventually("a checkpoint in the bucket", 20, async || {
        let saved = std::fs::read(&state).ok()?;
        let saved: serde_json::Value = serde_json::from_slice(&saved).ok()?;
        (saved["progress"]["offset"].as_u64()? > 11_000_000).then_some(())
    })
    .await;
    api.server.kill();
    assert!(request.await.unwrap().is_err());

    let api = Api::on(s3.registry().data(data.path()).start());
    let location = api.url(&path);
    let offset = api.offset(&location).await;
    assert!((11_000_001..=50_000_000).contains(&offset), "{offset}");
    let digest = Digest::sha256(&content);
    let closed = api.close(&location, &digest, &content[offset..]).await;
    assert_eq!(closed.status(), StatusCode::CREATED);
    let pulled = api.get(&format!("a/blobs/{digest}")).await;
    assert!(pulled.bytes().await.unwrap() == content);
}

/// The file behind the state of the session that is reached at `path`.
fn state_of(s3: &S3Server, path: &str) -> PathBuf {
    let state = path.replace("a/blobs/uploads", "team/uploads");
    s3.files().join(state).join("state")
}

#[tokio::test]
async fn an_upload_that_is_cut_off_keeps_what_arrived_also_through_a_shutdown() {
    let s3 = S3Server::start();
    let data = scratch();
    let content = noise(12_000_000, 4);
    let mut api = Api::on(s3.registry().data(data.path()).start());
    let location = api.begin("a").await;
    let path = location.split_once("/v2/").unwrap().1.to_owned();
    let (sender, body) = fed_body();
    let request = tokio::spawn(api.client.patch(&location).body(body).send());
    for piece in content[..10_000_000].chunks(500_000) {
        sender.send(Bytes::copy_from_slice(piece)).await.unwrap();
    }
    let state = state_of(&s3, &path);
    eventually("the first part is on its way", 20, async || {
        let saved = std::fs::read_to_string(&state).ok()?;
        saved.contains("multipart").then_some(())
    })
    .await;
    request.abort();
    drop(sender);
    let _ = request.await;
    assert_eq!(api.server.terminate(), Some(0));
    let api = Api::on(s3.registry().data(data.path()).start());
    let location = api.url(&path);
    let offset = api.offset(&location).await;
    assert!(offset >= 8 * 1024 * 1024, "{offset}");
    let digest = Digest::sha256(&content);
    let closed = api.close(&location, &digest, &content[offset..]).await;
    assert_eq!(closed.status(), StatusCode::CREATED);
}

#[tokio::test]
async fn abandoned_uploads_and_their_parts_are_removed() {
    let s3 = S3Server::start();
    let registry = s3.registry().argument("--upload-expiry").argument("1s");
    let api = Api::on(registry.start());
    let location = api.begin("a").await;
    let sent = api.chunk(&location, 0, &noise(9_000_000, 5));
    let _ = sent.send().await.unwrap();
    eventually("the session and its parts are gone", 20, async || {
        let keys = keys_below(s3.files().parent().unwrap());
        let left = keys
            .iter()
            .any(|key| key.contains("uploads/") || key.contains("upload"));
        (!left).then_some(())
    })
    .await;
    let gone = api.client.get(&location).send().await.unwrap();
    assert_eq!(gone.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn two_registries_with_an_index_of_their_own_refuse_to_share_a_bucket() {
    let s3 = S3Server::start();
    let first = Api::on(s3.registry().start());
    // It listens before it has the bucket, and answers once it has.
    assert_eq!(first.get("_catalog").await.status(), StatusCode::OK);
    let folder = scratch();
    let address = format!("http://{}", s3.address());
    let mut second = tests::hayloft_command(["registry", "--listen", "127.0.0.1:0", "--data"]);
    second
        .arg(folder.path())
        .args(["--storage", "s3://models/team"])
        .env("AWS_ACCESS_KEY_ID", "test-key")
        .env("AWS_SECRET_ACCESS_KEY", "test-secret")
        .env("AWS_ENDPOINT_URL", &address);
    let said = run(&mut second).failed();
    assert!(said.contains("in use by another registry"), "{said}");
    assert_eq!(first.get("_catalog").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn content_that_a_lifecycle_rule_took_is_missed_and_healed_by_a_push() {
    let s3 = S3Server::start();
    let api = Api::on(s3.registry().start());
    let content = noise(2_000_000, 6);
    let digest = api.push_blob("a", &content).await;
    std::fs::remove_dir_all(s3.files().join("team/data")).unwrap();
    let path = format!("a/blobs/{digest}");
    assert_eq!(api.head(&path).await.status(), StatusCode::NOT_FOUND);
    let missed = api.get(&path).await;
    assert_eq!(missed.status(), StatusCode::NOT_FOUND);
    assert_eq!(error_code(missed).await, "BLOB_UNKNOWN");
    assert_eq!(api.push_blob("a", &content).await, digest);
    assert!(api.get(&path).await.bytes().await.unwrap() == content);
}

#[tokio::test]
async fn the_store_over_s3_keeps_every_promise() {
    let s3 = S3Server::start();
    registry::blob_conformance::verify_bucket(&s3.bucket()).await;
}

fn curl(arguments: &[&str]) -> String {
    let silent = ["-sS", "-o", "/dev/null", "-w", "%{http_code}"];
    run(Command::new("curl").args(silent).args(arguments)).succeeded()
}

#[tokio::test]
async fn large_downloads_are_redirected_and_those_who_cannot_follow_get_the_bytes() {
    let s3 = S3Server::start();
    let api = Api::on(s3.registry().start());
    let content = noise(3_000_000, 7);
    let digest = api.push_blob("a", &content).await;
    let small = api.push_blob("a", b"small").await;
    let large = api.url(&format!("a/blobs/{digest}"));
    let small = api.url(&format!("a/blobs/{small}"));
    assert_eq!(curl(&[&large]), "307");
    let range = ["-r", "5-9"];
    assert_eq!(curl(&[range[0], range[1], &large]), "307");
    for direct in [
        vec!["-0"],
        vec!["-H", "hayloft-redirect: no"],
        vec!["-H", "x-forwarded-proto: https"],
        vec!["-u", "user:password"],
        vec!["-A", "ollama/0.9.6 (amd64 linux)"],
        vec!["-A", "BusyBox/1.36"],
        vec!["--head"],
    ] {
        let arguments = [&direct[..], &[large.as_str()]].concat();
        assert_eq!(curl(&arguments), "200", "{direct:?}");
    }
    assert_eq!(curl(&[&small]), "200");
    let unsatisfiable = ["-r", "9000000-", &large];
    assert_eq!(curl(&unsatisfiable), "416");
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
    let client = client.build().unwrap();
    let sent_away = client.get(&large).send().await.unwrap();
    assert_eq!(header(&sent_away, "cache-control"), "no-store");
    assert!(header(&sent_away, "location").contains("X-Amz-Signature="));
    let whole = api.client.get(&large).header("hayloft-redirect", "no");
    assert!(whole.send().await.unwrap().bytes().await.unwrap() == content);
    let part = api.client.get(&large).header("hayloft-redirect", "no");
    let part = part.header("range", "bytes=1000000-2000000");
    let part = part.send().await.unwrap();
    assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
    assert!(part.bytes().await.unwrap() == content[1_000_000..=2_000_000]);
    let api = {
        drop(api);
        Api::on(s3.registry().argument("--redirect").argument("off").start())
    };
    assert_eq!(curl(&[&api.url(&format!("a/blobs/{digest}"))]), "200");
}

#[tokio::test]
async fn real_clients_follow_the_redirect() {
    let s3 = S3Server::start();
    let api = Api::on(s3.registry().start());
    let content = noise(5_000_000, 8);
    api.push_image("a", "v1", &content).await;
    let blob = Digest::sha256(&content);
    let url = api.url(&format!("a/blobs/{blob}"));
    let folder = scratch();
    let file = folder.path().join("blob");
    let path = file.to_str().unwrap();
    let _ = run(Command::new("curl").args(["-sSfL", "-o", path, &url])).succeeded();
    assert!(std::fs::read(&file).unwrap() == content);
    std::fs::write(&file, &content[..2_000_000]).unwrap();
    let resumed = ["-sSfL", "-C", "-", "-o", path, &url];
    let _ = run(Command::new("curl").args(resumed)).succeeded();
    assert!(std::fs::read(&file).unwrap() == content);
    let script = "import sys, urllib.request, hashlib\n\
        asked = urllib.request.Request(sys.argv[1], headers={'Range': 'bytes=7-4000006'})\n\
        print(hashlib.sha256(urllib.request.urlopen(asked).read()).hexdigest())";
    let python = run(Command::new("python3").args(["-c", script, &url])).succeeded();
    let expected = Digest::sha256(&content[7..=4_000_006]).hex();
    assert_eq!(python.trim(), expected);
    let source = format!("docker://{}/a:v1", api.server.address());
    skopeo_copies(&source, &content, &[]);
    // With credentials for a host that the bucket has in common: sent anyway, so no redirect.
    skopeo_copies(&source, &content, &["--src-creds", "user:password"]);

    agent_pulls(&api);
}

fn skopeo_copies(source: &str, content: &[u8], extra: &[&str]) {
    let folder = scratch();
    let target = format!("dir:{}", folder.path().display());
    // `dir:` takes any manifest; what matters is that the blob came whole.
    let mut command = Command::new("skopeo");
    command.args(["copy", "--src-tls-verify=false"]).args(extra);
    let _ = run(command.args([source, &target])).succeeded();
    let blob = folder.path().join(Digest::sha256(content).hex());
    assert!(std::fs::read(blob).unwrap() == content);
}

/// Our own agent, which fetches in parallel ranges.
fn agent_pulls(api: &Api) {
    let model = fixture("hay-tiny-q8_0.gguf");
    let reference = format!("{}/team/hay-tiny:q8_0", api.server.address());
    let _ = hayloft(&["push", model.to_str().unwrap(), &reference]).succeeded();
    let agent = Server::agent().start();
    let _ = hayloft(&["pull", &reference, "--agent", &agent.url()]).succeeded();
    let digest = Digest::sha256(&std::fs::read(&model).unwrap());
    let cached = keys_below(agent.data());
    let found = cached.iter().find(|key| key.ends_with(&digest.hex()));
    let found = found.unwrap_or_else(|| panic!("{cached:?}"));
    assert_eq!(
        std::fs::read(Path::new(agent.data()).join(found)).unwrap(),
        std::fs::read(model).unwrap()
    );
    let log = api.server.log();
    assert!(
        log.contains("\"status\":307"),
        "nobody was redirected:\n{log}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_uploads_at_once_take_the_memory_of_two_parts_each() {
    let s3 = S3Server::start();
    let api = Api::on(s3.registry().start());
    let content = Bytes::from(noise(30_000_000, 9));
    let begun = (0..20_u8).map(|number| {
        let content = [&[number][..], &content].concat();
        let api = &api;
        async move { api.push_blob("a", &content).await }
    });
    let digests = futures::future::join_all(begun).await;
    let status = std::fs::read_to_string(format!("/proc/{}/status", api.server.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak: u64 = peak
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    // Two parts of 8 MiB for each, and as much again for connections and what the allocator keeps.
    assert!(peak < 2 * 20 * 16 * 1024, "{peak} kB");
    for digest in digests {
        let found = api.head(&format!("a/blobs/{digest}")).await;
        assert_eq!(found.status(), StatusCode::OK);
    }
}
