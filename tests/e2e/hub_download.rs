//! The Python package `huggingface_hub` downloads from `/hf`: models pushed by `hayloft push`, in
//! Ollama's and in Docker's dialect. hf_xet is installed with it, and not a hint may wake it.

use artifact::Digest;
use tests::upstream::noise;
use tests::{Fault, FaultProxy, fixture, run, scratch};

use crate::hub_support::{Hub, MODEL, python, story, told};

#[test]
fn every_reading_call_of_the_library_agrees_with_the_registry() {
    let hub = Hub::start();
    hub.push("team/tiny:q8_0");
    hub.push("team/tiny:latest");
    let home = scratch();
    // Hugging Face's names have upper case; here it means the same.
    let told = story(&hub.endpoint(), home.path(), &["look", "Team/Tiny", MODEL]);
    assert_eq!(told["files"], serde_json::json!([MODEL]));
    assert_eq!(told["gguf"]["architecture"], "llama");
    assert_eq!(
        told["branches"],
        serde_json::json!(["latest", "main", "q8_0"])
    );
}

#[test]
fn a_snapshot_is_there_offline_afterwards() {
    let hub = Hub::start();
    hub.push("team/tiny:latest");
    let (endpoint, home) = (hub.endpoint(), scratch());
    let file = ["download", "team/tiny", MODEL];
    let path = story(&endpoint, home.path(), &file);
    let path = path["path"].as_str().unwrap().to_owned();
    let wanted = std::fs::read(fixture(MODEL)).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), wanted);
    let whole = story(&endpoint, home.path(), &["snapshot", "team/tiny"]);
    assert_eq!(whole["files"][MODEL], wanted.len());
    drop(hub);
    let mut offline = python(&endpoint, home.path(), &["snapshot", "team/tiny"]);
    let again = told(run(offline.env("HF_HUB_OFFLINE", "1")));
    assert_eq!(again, whole);
    let mut offline = python(&endpoint, home.path(), &file);
    let again = told(run(offline.env("HF_HUB_OFFLINE", "1")));
    assert_eq!(again["path"], path.as_str());
}

#[tokio::test]
async fn a_download_that_is_cut_goes_on_where_it_broke() {
    let hub = Hub::start();
    let content = noise(24 << 20, 71);
    let raw = "application/vnd.cncf.model.weight.v1.raw";
    let config = "application/vnd.cncf.model.config.v1+json";
    let layers = [(raw, content.as_slice(), Some("big.bin"))];
    hub.push_layers("team/big", "main", config, &layers).await;
    let proxy = FaultProxy::start(hub.api.server.address());
    // The library keeps what it got in pieces of 10 MiB.
    let cut = Fault::CutAnswerAfter(15 << 20);
    proxy.inject("GET", "/resolve/", 1, cut);
    let endpoint = format!("http://{}/hf", proxy.address());
    let home = scratch();
    let told = story(&endpoint, home.path(), &["download", "team/big", "big.bin"]);
    let path = told["path"].as_str().unwrap();
    let found = Digest::sha256(&std::fs::read(path).unwrap());
    assert_eq!(found, Digest::sha256(&content));
    assert_eq!(proxy.met(), 1);
    let ranged = |head: &String| {
        let head = head.to_lowercase();
        head.contains("/resolve/") && head.contains("range: bytes=10485760-")
    };
    assert!(proxy.heads().iter().any(ranged), "{:?}", proxy.heads());
}

#[tokio::test]
async fn models_of_every_dialect_are_repositories_of_files() {
    let hub = Hub::start();
    let model = std::fs::read(fixture(MODEL)).unwrap();
    let ollama = "application/vnd.docker.container.image.v1+json";
    let layers: [(&str, &[u8], Option<&str>); 3] = [
        ("application/vnd.ollama.image.model", &model, None),
        (
            "application/vnd.ollama.image.template",
            b"{{ .Prompt }}",
            None,
        ),
        (
            "application/vnd.ollama.image.params",
            b"{\"top_k\":1}",
            None,
        ),
    ];
    hub.push_layers("library/tiny", "q8_0", ollama, &layers)
        .await;
    let docker = "application/vnd.docker.ai.model.config.v0.1+json";
    let layers: [(&str, &[u8], Option<&str>); 2] = [
        ("application/vnd.docker.ai.gguf.v3", &model, None),
        ("application/vnd.docker.ai.license", b"free", None),
    ];
    hub.push_layers("ai/tiny", "latest", docker, &layers).await;
    let home = scratch();
    for (name, files) in [
        (
            "library/tiny",
            ["params", "template", "tiny-q8_0.gguf"].as_slice(),
        ),
        ("ai/tiny", ["LICENSE", "tiny-latest.gguf"].as_slice()),
    ] {
        let told = story(&hub.endpoint(), home.path(), &["snapshot", name]);
        let found = told["files"].as_object().unwrap();
        let mut names: Vec<&str> = found.keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, files);
    }
}
