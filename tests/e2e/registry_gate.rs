//! The GGUF gate from outside: what llama.cpp would choke on is refused while it comes in, and
//! when a manifest calls it weights; everything else passes untouched.

use std::process::Command;

use artifact::Digest;
use artifact::gguf::Value as Kv;
use artifact::gguf::builder::GgufBuilder;
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use tests::upstream::noise;
use tests::{Server, hayloft, run, scratch};

use crate::registry_clients::image_folder;
use crate::registry_support::{Api, OCI_MANIFEST, descriptor, fed_body, header};

const OLLAMA_MODEL: &str = "application/vnd.ollama.image.model";

fn good() -> Vec<u8> {
    GgufBuilder::tiny_llama("Tiny").build()
}

/// A header that can be read, with a number that llama.cpp aborts over.
fn unsound() -> Vec<u8> {
    GgufBuilder::tiny_llama("Tiny")
        .kv("llama.attention.head_count", Kv::U32(7))
        .build()
}

/// The bundled model with its weights cut off.
fn cut_off() -> Vec<u8> {
    let mut file = good();
    file.truncate(file.len() - 40);
    file
}

/// A manifest whose layers are weights in the terms of Ollama.
fn model(layers: &[&[u8]]) -> Value {
    let layers: Vec<Value> = layers
        .iter()
        .map(|layer| descriptor(OLLAMA_MODEL, layer))
        .collect();
    json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor("application/vnd.oci.empty.v1+json", b"{}"),
        "layers": layers,
    })
}

/// Code and text of a refusal.
async fn refusal(response: Response) -> (StatusCode, String, String) {
    let status = response.status();
    let body: Value = response.json().await.unwrap();
    let error = &body["errors"][0];
    let text = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
    (status, text("code"), text("message"))
}

#[track_caller]
fn assert_refused(refused: &(StatusCode, String, String), code: &str, because: &str) {
    let (status, found, message) = refused;
    assert_eq!(
        (*status, found.as_str()),
        (StatusCode::BAD_REQUEST, code),
        "{message}"
    );
    assert!(message.contains(because), "{message}");
    assert!(message.contains("--gguf-policy"), "{message}");
}

async fn annotations(api: &Api, repository: &str, digest: &Digest) -> Value {
    let found = api
        .get(&format!("{repository}/_hayloft/annotations/{digest}"))
        .await;
    assert_eq!(found.status(), StatusCode::OK);
    let found: Value = found.json().await.unwrap();
    assert_eq!(found["digest"], digest.to_string());
    found["annotations"].clone()
}

#[tokio::test]
async fn a_bad_header_is_refused_before_the_rest_is_sent() {
    let api = Api::start();
    let location = api.begin("a").await;
    let (pieces, body) = fed_body();
    let sent = tokio::spawn(api.client.patch(&location).body(body).send());
    pieces.send(unsound().into()).await.unwrap();
    // The answer comes while the client still holds the body open.
    let mut weights = tokio::time::interval(std::time::Duration::from_millis(5));
    let piece = bytes::Bytes::from(vec![0; 1 << 20]);
    while !sent.is_finished() {
        weights.tick().await;
        let _ = pieces.try_send(piece.clone());
    }
    let refused = refusal(sent.await.unwrap().unwrap()).await;
    assert_refused(&refused, "BLOB_UPLOAD_INVALID", "7 heads");
    let session = api.client.get(&location).send().await.unwrap();
    assert_eq!(session.status(), StatusCode::NOT_FOUND, "the session ended");
}

#[tokio::test]
async fn a_bad_header_is_found_however_it_is_cut_into_requests() {
    let api = Api::start();
    let file = unsound();
    let location = api.begin("a").await;
    let mut refused = None;
    for (index, piece) in file.chunks(100).enumerate() {
        let response = api.chunk(&location, index * 100, piece);
        let response = response.send().await.unwrap();
        if response.status() != StatusCode::ACCEPTED {
            refused = Some(refusal(response).await);
            break;
        }
    }
    assert_refused(&refused.unwrap(), "BLOB_UPLOAD_INVALID", "7 heads");
    // As Ollama and single-request clients push: everything at once.
    for file in [unsound(), file[..200].to_vec(), cut_off()] {
        let digest = Digest::sha256(&file);
        let location = api.begin("a").await;
        let refused = refusal(api.close(&location, &digest, &file).await).await;
        assert_eq!(refused.0, StatusCode::BAD_REQUEST, "{}", refused.2);
        let whole = api.url(&format!("a/blobs/uploads/?digest={digest}"));
        let whole = api.client.post(whole).body(file).send().await.unwrap();
        let refused = refusal(whole).await;
        assert_eq!(refused.1, "BLOB_UPLOAD_INVALID", "{}", refused.2);
        let seen = api.head(&format!("a/blobs/{digest}")).await;
        assert_eq!(seen.status(), StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn weights_that_were_cut_off_are_refused_when_the_upload_is_closed() {
    let api = Api::start();
    let file = cut_off();
    let location = api.begin("a").await;
    let (first, rest) = file.split_at(300);
    let chunk = api.chunk(&location, 0, first).send().await.unwrap();
    assert_eq!(chunk.status(), StatusCode::ACCEPTED);
    let closed = api.close(&location, &Digest::sha256(&file), rest).await;
    assert_refused(&refusal(closed).await, "BLOB_UPLOAD_INVALID", "cut off");
}

#[tokio::test]
async fn an_upload_that_outlived_the_registry_is_looked_at_when_it_is_called_weights() {
    let folder = scratch();
    let bad = unsound();
    let digest = Digest::sha256(&bad);
    let mut api = Api::on(Server::registry().data(folder.path()).start());
    let location = api.begin("a").await;
    let chunk = api.chunk(&location, 0, &bad[..100]).send().await.unwrap();
    assert_eq!(chunk.status(), StatusCode::ACCEPTED);
    let path = location.split_once("/v2/").unwrap().1.to_owned();
    api.server.kill();
    api = Api::on(Server::registry().data(folder.path()).start());
    let closed = api.close(&api.url(&path), &digest, &bad[100..]).await;
    assert_eq!(closed.status(), StatusCode::CREATED);
    api.push_blob("a", b"{}").await;
    let put = api.put_manifest("a", "1", &model(&[&bad])).await;
    let refused = refusal(put).await;
    assert_refused(&refused, "MANIFEST_INVALID", "7 heads");
    assert!(refused.2.contains(&digest.to_string()), "{}", refused.2);
    // What nobody calls weights is nobody's business.
    let image = crate::registry_support::image(&[&bad]);
    let put = api.put_manifest("a", "1", &image).await;
    assert_eq!(put.status(), StatusCode::CREATED);
}

#[tokio::test]
async fn policies_differ_by_repository_and_a_mount_brings_nothing_past_them() {
    let rules = ["scratch/*=off", "team/*=warn"].join(";");
    let server = Server::registry().environment("HAYLOFT_GGUF_POLICY", &rules);
    let api = Api::on(server.start());
    let bad = unsound();
    let digest = api.push_blob("scratch/x", &bad).await;
    assert_eq!(annotations(&api, "scratch/x", &digest).await, json!({}));
    for repository in ["scratch/x", "team/x", "strict/x"] {
        let mount = format!("{repository}/blobs/uploads/?mount={digest}&from=scratch/x");
        if repository != "scratch/x" {
            assert_eq!(api.post(&mount).await.status(), StatusCode::CREATED);
        }
        api.push_blob(repository, b"{}").await;
    }
    let put = api.put_manifest("scratch/x", "1", &model(&[&bad])).await;
    assert_eq!(put.status(), StatusCode::CREATED);
    assert!(put.headers().get("warning").is_none());
    let put = api.put_manifest("team/x", "1", &model(&[&bad])).await;
    assert_eq!(put.status(), StatusCode::CREATED);
    let warning = header(&put, "warning");
    assert!(
        warning.starts_with("299 - \"") && warning.contains("7 heads"),
        "{warning}"
    );
    let noted = annotations(&api, "team/x", &digest).await;
    let fault = noted["org.hayloft.gguf.fault"].as_str().unwrap();
    assert!(fault.contains("7 heads"), "{noted}");
    let put = api.put_manifest("strict/x", "1", &model(&[&bad])).await;
    assert_refused(&refusal(put).await, "MANIFEST_INVALID", "7 heads");
    // A push that is only warned of.
    let location = api.begin("team/y").await;
    let closed = api.close(&location, &digest, &bad).await;
    assert_eq!(closed.status(), StatusCode::CREATED);
    assert!(header(&closed, "warning").contains("7 heads"));
    assert!(api.server.log().contains("llama.cpp would choke on"));
}

#[tokio::test]
async fn what_is_no_gguf_file_passes_untouched() {
    let api = Api::start();
    let random = noise(2_000_000, 7);
    let contents: [&[u8]; 6] = [
        b"",
        b"GG",
        b"GGUF",
        b"GGUF is the format of models, says this README",
        b"GGUF\0\0\0\0\0\0\0\0",
        &random,
    ];
    for content in contents {
        let digest = api.push_blob("a", content).await;
        let back = api.get(&format!("a/blobs/{digest}")).await;
        assert_eq!(back.bytes().await.unwrap(), content);
        assert_eq!(annotations(&api, "a", &digest).await, json!({}));
    }
    let _ = api.push_image("a", "image", &random).await;
    // But nothing is served as weights that is none.
    let put = api.put_manifest("a", "1", &model(&[&random])).await;
    assert_refused(&refusal(put).await, "MANIFEST_INVALID", "no GGUF file");
    // Weights in another format say so by their name.
    let mut other = model(&[&random]);
    other["layers"][0]["mediaType"] = json!("application/vnd.cncf.model.weight.v1.raw");
    other["layers"][0]["annotations"] = json!({"org.cncf.model.filepath": "model.safetensors"});
    let put = api.put_manifest("a", "1", &other).await;
    assert_eq!(put.status(), StatusCode::CREATED);
}

#[tokio::test]
async fn skopeo_is_told_why_a_layer_is_refused() {
    let api = Api::start();
    for (layer, comes) in [(good(), true), (unsound(), false)] {
        let folder = scratch();
        image_folder(folder.path(), &layer);
        let from = format!("dir:{}", folder.path().display());
        let to = format!("docker://{}/a:1", api.server.address());
        // As it is: skopeo would compress a layer on its way.
        let copy = [
            "copy",
            "--preserve-digests",
            "--dest-tls-verify=false",
            "--retry-times=0",
            &from,
            &to,
        ];
        let copied = run(Command::new("skopeo").args(copy));
        if comes {
            let _ = copied.succeeded();
        } else {
            let said = copied.failed();
            assert!(said.contains("7 heads"), "{said}");
        }
    }
}

#[tokio::test]
async fn a_model_in_several_files_is_whole_or_refused() {
    let part = |number: u16| {
        let first = match number {
            0 => GgufBuilder::tiny_llama("Tiny"),
            _ => GgufBuilder::new(),
        };
        first
            .kv("split.no", Kv::U16(number))
            .kv("split.count", Kv::U16(3))
            .kv("split.tensors.count", Kv::I32(5))
            .tensor(&format!("blk.{number}.weight"), &[64], "F32")
            .build()
    };
    let parts = [part(0), part(1), part(2)];
    let api = Api::start();
    api.push_blob("a", b"{}").await;
    for content in &parts {
        let digest = api.push_blob("a", content).await;
        let noted = annotations(&api, "a", &digest).await;
        assert!(noted["org.hayloft.gguf.part"].is_string(), "{noted}");
    }
    let manifest = model(&[&parts[0], &parts[2]]);
    let put = api.put_manifest("a", "1", &manifest).await;
    assert_refused(&refusal(put).await, "MANIFEST_INVALID", "no part 2");
    let manifest = model(&[&parts[0], &parts[1], &parts[2]]);
    let put = api.put_manifest("a", "1", &manifest).await;
    assert_eq!(put.status(), StatusCode::CREATED);
}

#[tokio::test]
async fn what_a_file_says_of_itself_is_kept_with_its_records() {
    let folder = scratch();
    let mut api = Api::on(Server::registry().data(folder.path()).start());
    let file = GgufBuilder::tiny_llama("Tiny")
        .kv("general.license", "apache-2.0")
        .kv("tokenizer.chat_template", "{{ messages }}")
        .build();
    let digest = api.push_blob("a", &file).await;
    let mount = format!("b/blobs/uploads/?mount={digest}&from=a");
    assert_eq!(api.post(&mount).await.status(), StatusCode::CREATED);
    let expected = json!({
        "org.hayloft.gguf.kind": "model",
        "org.hayloft.gguf.architecture": "llama",
        "org.hayloft.gguf.parameters": "576",
        "org.hayloft.gguf.parameter-size": "576",
        "org.hayloft.gguf.quantisation": "Q8_0",
        "org.hayloft.gguf.context-length": "512",
        "org.hayloft.gguf.embedding-length": "64",
        "org.hayloft.gguf.tensors": "2",
        "org.hayloft.gguf.name": "Tiny",
        "org.hayloft.gguf.license": "apache-2.0",
        "org.hayloft.gguf.chat-template": "{{ messages }}",
        "org.hayloft.gguf.chat-template-digest": Digest::sha256(b"{{ messages }}"),
    });
    for repository in ["a", "b"] {
        assert_eq!(annotations(&api, repository, &digest).await, expected);
    }
    let absent = api.get(&format!("c/_hayloft/annotations/{digest}")).await;
    assert_eq!(absent.status(), StatusCode::NOT_FOUND);
    api.server.kill();
    let data = folder.path().to_str().unwrap();
    let _ = hayloft(&["registry", "reindex", "--data", data]).succeeded();
    api = Api::on(Server::registry().data(folder.path()).start());
    assert_eq!(annotations(&api, "b", &digest).await, expected);
}
