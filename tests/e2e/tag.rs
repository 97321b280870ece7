//! `hayloft tag`: other names in the same registry, and other dialects under a tag.

use reqwest::{RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tests::{Server, hayloft};

use crate::registry_dialects::{MODELFILE, as_docker, as_ollama, push};
use crate::registry_support::{Api, OCI_INDEX, descriptor, header, image};

/// How a client puts its requests.
type Speak = fn(RequestBuilder) -> RequestBuilder;

async fn digest_of(api: &Api, path: &str) -> String {
    let head = api.head(path).await;
    assert_eq!(head.status(), StatusCode::OK, "{path}");
    header(&head, "docker-content-digest")
}

#[tokio::test]
async fn a_tag_beside_its_source_and_one_in_another_repository_are_the_same_manifest() {
    let api = Api::start();
    let source = push(&api, "team/hay:1", None);
    let digest = digest_of(&api, "team/hay/manifests/1").await;
    let said = hayloft(&["tag", &source, "stable"]).succeeded();
    assert!(said.contains("/team/hay:stable sha256:"), "{said}");
    assert_eq!(digest_of(&api, "team/hay/manifests/stable").await, digest);

    let other = format!("{}/other/place/hay:2", api.server.address());
    let said = hayloft(&["tag", &source, &other, "-o", "json"]).succeeded();
    let said: Value = serde_json::from_str(&said).unwrap();
    let wanted = json!({
        "source": source, "reference": other, "digest": digest, "dialect": "modelpack",
    });
    assert_eq!(said, wanted);
    assert_eq!(digest_of(&api, "other/place/hay/manifests/2").await, digest);
    let node = Server::agent().start();
    let _ = hayloft(&["pull", &other, "--agent", &node.url()]).succeeded();
}

#[tokio::test]
async fn a_dialect_is_written_as_the_registry_would_derive_it() {
    let api = Api::start();
    let source = push(&api, "team/hay:1", Some(MODELFILE));
    let clients: [(&str, Speak); 2] = [("ollama", as_ollama), ("docker", as_docker)];
    for (form, speak) in clients {
        let said = hayloft(&["tag", &source, form, "--as", form, "-o", "json"]).succeeded();
        let said: Value = serde_json::from_str(&said).unwrap();
        assert_eq!(said["dialect"], form);
        // Whoever asks for it by that tag, in whatever words.
        let tagged = digest_of(&api, &format!("team/hay/manifests/{form}")).await;
        assert_eq!(said["digest"], tagged);
        let url = api.url("team/hay/manifests/1");
        let derived = speak(api.client.head(url)).send().await.unwrap();
        assert_eq!(header(&derived, "docker-content-digest"), tagged);
    }
    // What an explicit tag points to stays when its source goes.
    let digest = digest_of(&api, "team/hay/manifests/1").await;
    let _ = api.delete(&format!("team/hay/manifests/{digest}")).await;
    let gc = [
        "gc",
        "--registry",
        api.server.address(),
        "--grace",
        "0",
        "--force",
    ];
    let _ = hayloft(&gc).succeeded();
    let ollama = api.get("team/hay/manifests/ollama").await;
    let ollama: Value = ollama.json().await.unwrap();
    for layer in ollama["layers"].as_array().unwrap() {
        let digest = layer["digest"].as_str().unwrap();
        let head = api.head(&format!("team/hay/blobs/{digest}")).await;
        assert_eq!(head.status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn there_and_back_the_prompt_and_the_parameters_are_the_same() {
    let api = Api::start();
    let source = push(&api, "team/hay:1", Some(MODELFILE));
    let ollama = format!("{}/by/ollama:1", api.server.address());
    let _ = hayloft(&["tag", &source, &ollama, "--as", "ollama"]).succeeded();
    // In place: the tag itself changes its dialect.
    let _ = hayloft(&["tag", &ollama, "--as", "modelpack"]).succeeded();
    let back: Value = api.get("by/ollama/manifests/1").await.json().await.unwrap();
    let layers = back["layers"].as_array().unwrap();
    let modelfile = layers
        .iter()
        .find(|layer| layer["annotations"]["org.cncf.model.filepath"] == "Modelfile")
        .unwrap_or_else(|| panic!("{back}"));
    let digest = modelfile["digest"].as_str().unwrap();
    let modelfile = api.get(&format!("by/ollama/blobs/{digest}")).await;
    let modelfile = modelfile.text().await.unwrap();
    for line in [
        "TEMPLATE {{ .Prompt }}",
        "SYSTEM Be brief.",
        "PARAMETER num_ctx 2048",
        "MESSAGE user Hello",
    ] {
        assert!(modelfile.contains(line), "{line}: {modelfile}");
    }
}

#[tokio::test]
async fn images_and_indexes_are_tagged_too_but_have_no_other_dialect() {
    let api = Api::start();
    let image_digest = api.push_image("team/image", "1", b"layer").await;
    let index = json!({
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [descriptor(
            crate::registry_support::OCI_MANIFEST,
            image(&[b"layer"]).to_string().as_bytes(),
        )],
    });
    let put = api.put_manifest("team/image", "all", &index).await;
    assert_eq!(put.status(), StatusCode::CREATED);
    let address = api.server.address();
    let source = format!("{address}/team/image:all");
    let target = format!("{address}/other/image:all");
    let _ = hayloft(&["tag", &source, &target]).succeeded();
    let digest = digest_of(&api, "team/image/manifests/all").await;
    assert_eq!(digest_of(&api, "other/image/manifests/all").await, digest);
    let child = format!("other/image/manifests/{image_digest}");
    assert_eq!(api.head(&child).await.status(), StatusCode::OK);
    for tag in ["1", "all"] {
        let source = format!("{address}/team/image:{tag}");
        let refused = hayloft(&["tag", &source, "x", "--as", "ollama"]).failed();
        assert!(refused.contains("is not a model"), "{refused}");
    }
}

#[tokio::test]
async fn what_cannot_be_tagged_says_why_and_what_to_do_instead() {
    let api = Api::start();
    let source = push(&api, "team/hay:1", None);
    let absent = format!("{}/team/absent:1", api.server.address());
    assert_eq!(hayloft(&["tag", &absent, "2"]).code, 3);
    let refused = hayloft(&["tag", &source, "registry.example/team/hay:1"]).failed();
    assert!(refused.contains("hayloft push"), "{refused}");
    let refused = hayloft(&["tag", &source]).failed();
    assert!(refused.contains("--as"), "{refused}");
    let refused = hayloft(&["tag", &source, "no/such tag"]).failed();
    assert!(refused.contains("not valid"), "{refused}");
    let digest = digest_of(&api, "team/hay/manifests/1").await;
    let pinned = format!("{}/team/hay@{digest}", api.server.address());
    let refused = hayloft(&["tag", &source, &pinned]).failed();
    assert!(refused.contains("a tag is wanted"), "{refused}");
    let refused = hayloft(&["tag", &pinned, "--as", "docker"]).failed();
    assert!(refused.contains("second name"), "{refused}");
    assert_eq!(
        hayloft(&["tag", &source, "x", "--as", "safetensors"]).code,
        2
    );
}
