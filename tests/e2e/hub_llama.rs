//! llama.cpp's `-hf`, its requests replayed one by one: no llama-server runs here. The sequence since
//! March 2026 is refs, tree, HEAD, GET; before that one manifest names the files.

use reqwest::{Method, RequestBuilder};
use serde_json::Value;
use tests::fixture;

use crate::hub_support::{Hub, MODEL, projector, small_model};
use crate::registry_support::header;

/// What llama.cpp calls itself.
const AGENT: &str = "llama-cpp/b8200";

fn as_llama(hub: &Hub, method: Method, path: &str) -> RequestBuilder {
    hub.request(method, path).header("user-agent", AGENT)
}

async fn json(hub: &Hub, path: &str) -> Value {
    let response = as_llama(hub, Method::GET, path).send().await.unwrap();
    assert_eq!(response.status(), 200, "{path}");
    response.json().await.unwrap()
}

/// Two quantisations of a model under tags of Ollama's dialect, a projector with the first, and
/// `latest` beside them.
async fn models() -> (Hub, Vec<u8>) {
    let hub = Hub::start();
    let model = std::fs::read(fixture(MODEL)).unwrap();
    let config = "application/vnd.docker.container.image.v1+json";
    let weights = "application/vnd.ollama.image.model";
    let kind = "application/vnd.ollama.image.projector";
    let projector = projector();
    let layers: [(&str, &[u8], Option<&str>); 2] =
        [(weights, &model, None), (kind, &projector, None)];
    for tag in ["latest", "q8_0"] {
        hub.push_layers("team/tiny", tag, config, &layers).await;
    }
    let small = small_model("Small");
    let small = [(weights, small.as_slice(), None)];
    hub.push_layers("team/tiny", "q4_k_m", config, &small).await;
    (hub, model)
}

#[tokio::test]
async fn the_sequence_since_march_2026_finds_every_quantisation() {
    let (hub, model) = models().await;
    let refs = json(&hub, "api/models/Team/Tiny/refs").await;
    let main = &refs["branches"][0];
    assert_eq!(main["name"], "main");
    let commit = main["targetCommit"].as_str().unwrap();
    assert_eq!(commit.len(), 40);
    let tree = format!("api/models/Team/Tiny/tree/{commit}?recursive=true");
    let tree = json(&hub, &tree).await;
    let files: Vec<&Value> = tree.as_array().unwrap().iter().collect();
    let named = |part: &str| {
        let holds = |file: &&&Value| {
            let path = file["path"].as_str().unwrap().to_lowercase();
            file["type"] == "file" && path.contains(part)
        };
        *files.iter().find(holds).unwrap()
    };
    assert!(named("mmproj")["size"].as_u64().is_some());
    assert_eq!(named("q4_k_m")["size"], small_model("Small").len());
    let wanted = named("q8_0");
    let oid = wanted["lfs"]["oid"].as_str().unwrap();
    assert_eq!(wanted["size"], model.len());
    let path = wanted["path"].as_str().unwrap();
    let file = format!("Team/Tiny/resolve/{commit}/{path}");
    let head = as_llama(&hub, Method::HEAD, &file).send().await.unwrap();
    assert_eq!(head.status(), 200);
    assert_eq!(header(&head, "etag"), format!("\"{oid}\""));
    assert_eq!(header(&head, "accept-ranges"), "bytes");
    assert_eq!(header(&head, "content-length"), model.len().to_string());
    let rest = as_llama(&hub, Method::GET, &file).header("range", "bytes=1000000-");
    let rest = rest.send().await.unwrap();
    assert_eq!(rest.status(), 206);
    let size = model.len();
    let range = format!("bytes 1000000-{}/{size}", size - 1);
    assert_eq!(header(&rest, "content-range"), range);
    assert_eq!(rest.bytes().await.unwrap(), &model[1_000_000..]);
}

#[tokio::test]
async fn the_commit_of_all_tags_outlives_a_push() {
    let (hub, _) = models().await;
    let refs = json(&hub, "api/models/team/tiny/refs").await;
    let commit = refs["branches"][0]["targetCommit"].as_str().unwrap();
    hub.push("team/tiny:another");
    let tree = json(&hub, &format!("api/models/team/tiny/tree/{commit}")).await;
    let paths: Vec<&str> = tree
        .as_array()
        .unwrap()
        .iter()
        .map(|file| file["path"].as_str().unwrap())
        .collect();
    assert!(!paths.contains(&MODEL), "{paths:?}");
    let refs = json(&hub, "api/models/team/tiny/refs").await;
    assert_ne!(refs["branches"][0]["targetCommit"], *commit);
}

#[tokio::test]
async fn older_versions_get_a_manifest_that_names_the_files() {
    let (hub, model) = models().await;
    for (tag, size) in [
        ("Q8_0", model.len()),
        ("q4_k_m", small_model("Small").len()),
        ("latest", model.len()),
    ] {
        let path = format!("v2/team/tiny/manifests/{tag}");
        let request = as_llama(&hub, Method::GET, &path).header("accept", "application/json");
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200, "{tag}");
        let answer: Value = answer.json().await.unwrap();
        let path = answer["ggufFile"]["rfilename"].as_str().unwrap();
        let mmproj = answer["mmprojFile"]["rfilename"].as_str().unwrap();
        assert_eq!(mmproj, "mmproj-tiny.gguf");
        for (path, size) in [(path, size), (mmproj, projector().len())] {
            let file = format!("team/tiny/resolve/main/{path}");
            let file = as_llama(&hub, Method::GET, &file).send().await.unwrap();
            assert_eq!(file.status(), 200, "{path}");
            assert_eq!(file.bytes().await.unwrap().len(), size);
        }
    }
    let unknown = as_llama(&hub, Method::GET, "v2/team/tiny/manifests/IQ1_S");
    let unknown = unknown.send().await.unwrap();
    assert_eq!(unknown.status(), 404);
    assert_eq!(header(&unknown, "x-error-code"), "RevisionNotFound");
}

#[tokio::test]
async fn the_same_path_gives_a_manifest_to_everybody_else() {
    let (hub, model) = models().await;
    let url = hub.api.url("team/tiny/manifests/latest");
    let llama = hub.api.client.get(&url).header("user-agent", AGENT);
    let llama: Value = llama.send().await.unwrap().json().await.unwrap();
    assert_eq!(llama["ggufFile"]["size"], model.len());
    let other: Value = hub
        .api
        .get("team/tiny/manifests/latest")
        .await
        .json()
        .await
        .unwrap();
    assert!(other["layers"].is_array() && other["ggufFile"].is_null());
}
