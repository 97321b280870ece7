//! The GGUF gate of the mirror: what llama.cpp would choke on is not fetched to its end, and what a
//! good file says is known as after a push.

use artifact::Digest;
use artifact::gguf::Value as Kv;
use artifact::gguf::builder::GgufBuilder;
use reqwest::StatusCode;
use serde_json::Value;
use tests::upstream::{Fault, Upstream};
use tests::{eventually, hayloft};

use crate::mirror_support::{MODEL, is_right, mirror_of, start};
use crate::registry_support::Api;

/// A model of some 32 MiB, with a number that llama.cpp aborts over or without.
fn model(is_sound: bool) -> Vec<u8> {
    let builder = GgufBuilder::tiny_llama("Mirrored");
    let heads = if is_sound { 8 } else { 7 };
    builder
        .kv("llama.attention.head_count", Kv::U32(heads))
        .tensor("blk.0.ffn_up.weight", &[64, 1 << 17], "F32")
        .build()
}

async fn noted(api: &Api, digest: &Digest) -> Value {
    let path = format!("{MODEL}/_hayloft/annotations/{digest}");
    let answer = api.get(&path).await;
    let body: Value = answer.json().await.unwrap();
    body["annotations"].clone()
}

#[tokio::test]
async fn a_bad_file_is_not_fetched_to_its_end_and_the_reason_is_told() {
    let weights = model(false);
    let digest = Digest::sha256(&weights);
    let origin = Upstream::start().await;
    origin.add_model("1", weights.clone());
    origin.set_fault(Fault::Slow(8 << 20));
    let api = start(&origin);
    api.mirrored_manifest("1").await;
    // Whoever came first may have the head of the answer already, but never a whole body.
    let first = api.mirrored_blob(&digest).await;
    assert!(!first.status().is_success() || first.bytes().await.is_err());
    let told = eventually("the reason is told", 20, || async {
        let answer = api.mirrored_blob(&digest).await;
        let is_refused = answer.status() == StatusCode::FORBIDDEN;
        let body: Value = answer.json().await.unwrap_or_default();
        is_refused.then_some(body)
    })
    .await;
    let message = told["errors"][0]["message"].as_str().unwrap();
    assert!(message.contains("7 heads"), "{message}");
    let sent = origin.counts().bytes;
    assert!(sent < weights.len() as u64, "{sent} of {}", weights.len());
    let blob = api.server.data().join("registry/blobs/sha256");
    assert!(!blob.join(digest.hex()).exists());
}

#[tokio::test]
async fn a_policy_lets_a_bad_file_through_with_a_note() {
    let weights = model(false);
    let digest = Digest::sha256(&weights);
    let origin = Upstream::start().await;
    origin.add_model("1", weights);
    let rules = "refuse;hub/*=warn";
    let mirror = mirror_of(&[&origin]).environment("HAYLOFT_GGUF_POLICY", rules);
    let api = Api::on(mirror.start());
    api.mirrored_manifest("1").await;
    assert!(is_right(api.mirrored_blob(&digest).await, &digest).await);
    let fault = eventually("the fault is noted", 20, || async {
        let noted = noted(&api, &digest).await;
        noted["org.hayloft.gguf.fault"].as_str().map(str::to_owned)
    })
    .await;
    assert!(fault.contains("7 heads"), "{fault}");
}

#[tokio::test]
async fn what_a_mirrored_file_says_is_known_without_its_upstream() {
    let weights = model(true);
    let digest = Digest::sha256(&weights);
    let origin = Upstream::start().await;
    origin.add_model("1", weights);
    let api = start(&origin);
    api.mirrored_manifest("1").await;
    assert!(is_right(api.mirrored_blob(&digest).await, &digest).await);
    eventually("the facts are noted", 20, || async {
        let noted = noted(&api, &digest).await;
        (noted["org.hayloft.gguf.name"] == "Mirrored").then_some(())
    })
    .await;
    origin.stop().await;
    let reference = format!("{}/{MODEL}:1", api.server.address());
    let said = tokio::task::spawn_blocking(move || {
        hayloft(&["inspect", &reference, "-o", "json"]).succeeded()
    });
    let said: Value = serde_json::from_str(&said.await.unwrap()).unwrap();
    assert_eq!(said["gguf"]["architecture"], "llama");
    assert_eq!(said["gguf"]["context_length"], 512);
}
