//! Operating an agent: what it counts, whether it is well, and how it ends and goes on.

use artifact::agent_api::EnsureRequest;
use artifact::client::AgentClient;
use artifact::{ModelName, Reference};
use futures::StreamExt;
use serde_json::{Value, json};
use tests::upstream::{Fault, Upstream, noise};
use tests::{Server, scratch};

const MIB: u64 = 1024 * 1024;
/// What each of four connections may have of a chunk when it is cut off.
const IN_HAND: u64 = 4 * 4 * MIB;

fn request(reference: &Reference) -> EnsureRequest {
    EnsureRequest::from(&ModelName::from(reference.clone()))
}

async fn metrics(agent: &Server) -> String {
    let answer = reqwest::get(format!("{}/metrics", agent.url())).await;
    let answer = answer.unwrap();
    let kind = answer.headers()["content-type"]
        .to_str()
        .unwrap()
        .to_owned();
    assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
    answer.text().await.unwrap()
}

/// The value of one line of the metrics.
fn value(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let line = line.unwrap_or_else(|| panic!("{name} is not in {text}"));
    line.trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_agent_did_can_be_read_from_its_metrics() {
    let origin = Upstream::start().await;
    let reference = origin.add_model("1", noise(5 << 20, 61));
    let agent = Server::agent().start();
    let client = AgentClient::open(&agent.url()).unwrap();
    let model = client.pull(&request(&reference), |_| {}).await.unwrap();
    for _ in 0..2 {
        client.pull(&request(&reference), |_| {}).await.unwrap();
    }
    let missing = Reference::parse(&format!("{}/test/model:no", origin.address())).unwrap();
    client.pull(&request(&missing), |_| {}).await.unwrap_err();
    client.get(&missing).await.unwrap();
    let text = metrics(&agent).await;
    for (name, expected) in [
        ("models_ensured_total{outcome=\"miss\"}", 1),
        ("models_ensured_total{outcome=\"hit\"}", 2),
        ("models_ensured_total{outcome=\"failed\"}", 1),
        ("ensure_seconds_count{outcome=\"hit\"}", 2),
        ("requests_total{operation=\"ensure\",outcome=\"ok\"}", 4),
        (
            "requests_total{operation=\"show_model\",outcome=\"not_found\"}",
            1,
        ),
        ("downloads_in_progress", 0),
    ] {
        let found = value(&text, &format!("hayloft_agent_{name}"));
        assert_eq!(found, f64::from(expected), "{name}: {text}");
    }
    assert!(
        value(&text, "hayloft_agent_cache_bytes") >= model.size as f64,
        "{text}"
    );
    assert!(value(&text, "hayloft_agent_disk_free_bytes") > 0.0);
    let total = value(&text, "hayloft_agent_disk_total_bytes");
    assert!(total > value(&text, "hayloft_agent_disk_free_bytes"));
    let origin = "hayloft_agent_fetched_bytes_total{source=\"origin\"}";
    assert!(value(&text, origin) >= (5 * MIB) as f64, "{text}");
}

#[tokio::test]
async fn an_agent_that_cannot_write_lives_and_is_not_ready_and_says_why() {
    let agent = Server::agent().start();
    let url = |path: &str| format!("{}{path}", agent.url());
    assert_eq!(reqwest::get(url("/readyz")).await.unwrap().status(), 200);
    let ingest = agent.data().join("cache/ingest");
    std::fs::remove_dir_all(&ingest).unwrap();
    std::fs::write(&ingest, "in the way").unwrap();
    assert_eq!(reqwest::get(url("/healthz")).await.unwrap().status(), 200);
    let answer = reqwest::get(url("/readyz")).await.unwrap();
    assert_eq!(answer.status(), 503);
    let said: Value = answer.json().await.unwrap();
    assert_eq!(said["code"], "internal");
    assert!(!said["message"].as_str().unwrap().is_empty(), "{said}");
}

#[tokio::test]
async fn an_agent_that_ends_ends_its_streams_cleanly_and_keeps_what_downloads_have() {
    let weights = noise(64 << 20, 62);
    let origin = Upstream::start().await;
    let reference = origin.add_model("1", weights.clone());
    origin.set_fault(Fault::Slow(16 * MIB));
    let folder = scratch();
    let mut agent = Server::agent().data(folder.path()).start();
    let url = format!("{}/agent/v1/models/ensure", agent.url());
    let answer = reqwest::Client::new()
        .post(url)
        .json(&json!({ "reference": reference }))
        .send();
    let mut events = answer.await.unwrap().bytes_stream();
    let follow = tokio::spawn(async move {
        let mut last = Vec::new();
        while let Some(piece) = events.next().await {
            last = piece.expect("the stream ends by itself").to_vec();
        }
        String::from_utf8(last).unwrap()
    });
    origin.wait_for_bytes(30 * MIB).await;
    assert_eq!(agent.terminate(), Some(0));
    let last = follow.await.unwrap();
    assert!(
        last.ends_with('\n') && !last.contains("\"ready\""),
        "{last}"
    );
    let sent = origin.counts().bytes;
    origin.clear_fault();
    let agent = Server::agent().data(folder.path()).start();
    let client = AgentClient::open(&agent.url()).unwrap();
    client.pull(&request(&reference), |_| {}).await.unwrap();
    let again = origin.counts().bytes - sent;
    let missing = weights.len() as u64 - sent.min(weights.len() as u64);
    // What each connection had of a chunk that was not whole comes again, and nothing else.
    assert!(
        again <= missing + IN_HAND + MIB,
        "{again} bytes again, {missing} missing"
    );
}
