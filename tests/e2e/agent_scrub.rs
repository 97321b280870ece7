//! What the disk has lost is found, put out of the way, and fetched again.

use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use artifact::agent_api::{EnsureRequest, ModelEntry};
use artifact::client::AgentClient;
use artifact::dialect::Role;
use artifact::{CacheLayout, Digest, Reference};
use tests::upstream::{Upstream, noise};
use tests::{Server, eventually, scratch};

const MIB: usize = 1024 * 1024;

async fn pull(agent: &Server, reference: &Reference) -> ModelEntry {
    let client = AgentClient::open(&agent.url()).unwrap();
    let request = EnsureRequest {
        reference: reference.clone(),
        plain_http: false,
        name: None,
    };
    client.pull(&request, |_| {}).await.unwrap()
}

fn agent(data: &Path, scrub_rate: &str) -> Server {
    Server::agent()
        .data(data)
        .argument(&format!("--scrub-rate={scrub_rate}"))
        .start()
}

/// A cache with one model and no agent: its layout, the model, the origin.
async fn cached(data: &Path, weights: &[u8]) -> (CacheLayout, ModelEntry, Upstream) {
    let origin = Upstream::start().await;
    let reference = origin.add_model("1", weights.to_vec());
    // Without a scrub, so that the next run has not seen the blobs yet.
    let mut first = agent(data, "0");
    let model = pull(&first, &reference).await;
    assert_eq!(first.terminate(), Some(0));
    (CacheLayout::new(data.join("cache")), model, origin)
}

async fn agent_status(agent: &Server) -> serde_json::Value {
    let asked = reqwest::get(format!("{}/agent/v1/status", agent.url())).await;
    asked.unwrap().json().await.unwrap()
}

fn writable(path: &Path) -> std::fs::File {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::File::options().write(true).open(path).unwrap()
}

async fn until_right(path: &Path, content: &[u8]) {
    let digest = Digest::sha256(content);
    eventually("the blob's return", 20, async || {
        let found = std::fs::read(path).unwrap_or_default();
        (Digest::sha256(&found) == digest).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_rotted_is_found_put_away_and_fetched_again() {
    let folder = scratch();
    let weights = noise(9 * MIB + 123, 61);
    let (layout, model, origin) = cached(folder.path(), &weights).await;
    let blob = layout.blob(&model.blob(Role::Model).unwrap().digest);
    let sent = origin.counts().bytes;
    writable(&blob).write_at(b"rot", 5 * MIB as u64).unwrap();
    let agent = agent(folder.path(), "500MB/s");
    until_right(&blob, &weights).await;
    assert_eq!(origin.counts().bytes - sent, weights.len() as u64);
    let put_away = folder.path().join("cache/quarantine");
    let put_away = put_away.join(blob.file_name().unwrap());
    assert!(put_away.is_file());
    assert!(agent.log().contains("put into quarantine"));
    let client = AgentClient::open(&agent.url()).unwrap();
    eventually("the model", 10, async || {
        client.get(&model.reference).await.unwrap()
    })
    .await;
    let status = agent_status(&agent).await;
    assert_eq!(status["scrub"]["damaged"], 1, "{status}");
    let metrics = reqwest::get(format!("{}/metrics", agent.url()))
        .await
        .unwrap();
    let metrics = metrics.text().await.unwrap();
    assert!(
        metrics.contains("hayloft_agent_scrub_failures_total 1"),
        "{metrics}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_of_another_size_or_kind_are_mended_at_the_start_without_reading_them() {
    let folder = scratch();
    let weights = noise(3 * MIB, 62);
    let (layout, model, _origin) = cached(folder.path(), &weights).await;
    let weights_blob = layout.blob(&model.blob(Role::Model).unwrap().digest);
    let config_blob = layout.blob(&model.blob(Role::Config).unwrap().digest);
    let config = std::fs::read(&config_blob).unwrap();
    let outside: PathBuf = folder.path().join("outside");
    std::fs::write(&outside, "outside").unwrap();
    writable(&weights_blob).set_len(MIB as u64).unwrap();
    std::fs::remove_file(&config_blob).unwrap();
    std::os::unix::fs::symlink(&outside, &config_blob).unwrap();
    let _agent = agent(folder.path(), "0");
    until_right(&weights_blob, &weights).await;
    until_right(&config_blob, &config).await;
    assert!(config_blob.symlink_metadata().unwrap().is_file());
    assert_eq!(std::fs::read_to_string(&outside).unwrap(), "outside");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_is_none_and_a_folder_in_a_blobs_place_are_mended_too() {
    let folder = scratch();
    let weights = noise(MIB, 63);
    let (layout, model, _origin) = cached(folder.path(), &weights).await;
    let blob = layout.blob(&model.blob(Role::Model).unwrap().digest);
    std::fs::remove_file(&blob).unwrap();
    std::fs::create_dir(&blob).unwrap();
    writable(&layout.blob(&model.digest)).set_len(10).unwrap();
    let agent = agent(folder.path(), "0");
    until_right(&blob, &weights).await;
    let client = AgentClient::open(&agent.url()).unwrap();
    eventually("the model", 10, async || {
        client.get(&model.reference).await.unwrap()
    })
    .await;
}
