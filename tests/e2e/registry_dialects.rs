//! One push, every client: the manifest that each client gets by tag, where it lies, how it goes.

use artifact::Digest;
use artifact::chunk_map::CHUNK_MAPS;
use reqwest::{RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tests::{Server, eventually, fixture, hayloft, scratch};

use crate::registry_support::{Api, OCI_MANIFEST, descriptor, error_code, header};

pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// What stock Ollama calls itself.
pub(crate) const OLLAMA: &str = "ollama/0.9.6 (amd64 linux) Go/go1.24.4";
/// What Docker Model Runner's resolver accepts, and what it calls itself.
const DOCKER_ACCEPT: &str = "application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, */*";
const DOCKER_AGENT: &str = "model-distribution";

/// A request as Ollama makes it.
pub(crate) fn as_ollama(request: RequestBuilder) -> RequestBuilder {
    request
        .header("accept", DOCKER_MANIFEST)
        .header("user-agent", OLLAMA)
}

pub(crate) fn as_docker(request: RequestBuilder) -> RequestBuilder {
    request
        .header("accept", DOCKER_ACCEPT)
        .header("user-agent", DOCKER_AGENT)
}

/// A folder with the bundled model and this Modelfile, pushed.
pub(crate) fn push(api: &Api, name: &str, modelfile: Option<&str>) -> String {
    let folder = scratch();
    let weights = fixture("hay-tiny-q8_0.gguf");
    let path = match modelfile {
        None => weights,
        Some(text) => {
            std::fs::copy(&weights, folder.path().join("hay-tiny.gguf")).unwrap();
            std::fs::write(folder.path().join("Modelfile"), text).unwrap();
            folder.path().to_owned()
        }
    };
    let reference = format!("{}/{name}", api.server.address());
    let _ = hayloft(&["push", path.to_str().unwrap(), &reference]).succeeded();
    reference
}

async fn json_of(response: Response) -> Value {
    assert_eq!(response.status(), StatusCode::OK);
    let announced = header(&response, "docker-content-digest");
    let content = response.bytes().await.unwrap();
    assert_eq!(announced, Digest::sha256(&content).to_string());
    serde_json::from_slice(&content).unwrap()
}

async fn asked(api: &Api, path: &str, speak: fn(RequestBuilder) -> RequestBuilder) -> Value {
    let request = speak(api.client.get(api.url(path)));
    json_of(request.send().await.unwrap()).await
}

fn types(manifest: &Value) -> Vec<&str> {
    let layers = manifest["layers"].as_array().unwrap();
    let types = layers.iter().map(|layer| layer["mediaType"].as_str());
    types.map(Option::unwrap).collect()
}

/// The text of the layer with this type.
async fn text(api: &Api, repository: &str, manifest: &Value, media_type: &str) -> String {
    let layers = manifest["layers"].as_array().unwrap();
    let mut layers = layers.iter();
    let layer = layers
        .find(|layer| layer["mediaType"] == media_type)
        .unwrap_or_else(|| panic!("no {media_type} in {manifest}"));
    let digest = layer["digest"].as_str().unwrap();
    let blob = api.get(&format!("{repository}/blobs/{digest}")).await;
    blob.text().await.unwrap()
}

pub(crate) const MODELFILE: &str = "FROM ./hay-tiny.gguf\nTEMPLATE {{ .Prompt }}\nSYSTEM Be brief.\n\
    PARAMETER temperature 0\nPARAMETER num_ctx 2048\nMESSAGE user Hello\nLICENSE Apache-2.0\n";

#[tokio::test]
async fn one_push_is_served_to_ollama_to_docker_model_and_as_it_was_pushed() {
    let api = Api::start();
    push(&api, "team/hay:1", Some(MODELFILE));
    let path = "team/hay/manifests/1";
    let pushed = asked(&api, path, |request| request).await;
    assert_eq!(pushed["mediaType"], OCI_MANIFEST);
    let weights = &pushed["layers"][0]["digest"];

    let ollama = asked(&api, path, as_ollama).await;
    assert_eq!(ollama["mediaType"], DOCKER_MANIFEST);
    let prefix = "application/vnd.ollama.image.";
    let wanted = [
        "model", "template", "system", "params", "messages", "license",
    ];
    assert_eq!(types(&ollama), wanted.map(|name| format!("{prefix}{name}")));
    assert_eq!(ollama["layers"][0]["digest"], *weights);
    for (name, wanted) in [
        ("template", "{{ .Prompt }}"),
        ("system", "Be brief."),
        ("license", "Apache-2.0"),
    ] {
        let text = text(&api, "team/hay", &ollama, &format!("{prefix}{name}")).await;
        assert_eq!(text, wanted);
    }
    let params = text(&api, "team/hay", &ollama, &format!("{prefix}params")).await;
    let params: Value = serde_json::from_str(&params).unwrap();
    assert_eq!(params, json!({ "temperature": 0.0, "num_ctx": 2048 }));

    let docker = asked(&api, path, as_docker).await;
    assert_eq!(docker["mediaType"], OCI_MANIFEST);
    let prefix = "application/vnd.docker.ai.";
    let wanted = ["gguf.v3", "license"].map(|name| format!("{prefix}{name}"));
    assert_eq!(types(&docker), wanted);
    assert_eq!(docker["layers"][0]["digest"], *weights);
    let config = docker["config"]["digest"].as_str().unwrap();
    let config = api.get(&format!("team/hay/blobs/{config}")).await;
    let config: Value = config.json().await.unwrap();
    assert_eq!(config["config"]["format"], "gguf");
    assert_eq!(config["config"]["architecture"], "llama");
    assert_eq!(config["config"]["quantization"], "Q8_0");
    assert_eq!(config["config"]["context_size"], 2048);
    assert_eq!(config["rootfs"]["diff_ids"][0], *weights);
    // Layers are not compressed, so each must be named by its own digest.
    let diff_ids = config["rootfs"]["diff_ids"].as_array().unwrap();
    assert_eq!(diff_ids.len(), docker["layers"].as_array().unwrap().len());
}

#[tokio::test]
async fn head_agrees_with_get_and_a_digest_gives_exactly_its_bytes() {
    let api = Api::start();
    push(&api, "team/hay:1", None);
    let url = api.url("team/hay/manifests/1");
    for speak in [as_ollama, as_docker, |request| request] {
        let head = speak(api.client.head(&url)).send().await.unwrap();
        let get = speak(api.client.get(&url)).send().await.unwrap();
        let names = [
            "content-length",
            "content-type",
            "docker-content-digest",
            "etag",
            "vary",
        ];
        for name in names {
            assert_eq!(header(&head, name), header(&get, name));
        }
        let digest = header(&get, "docker-content-digest");
        let etag = header(&get, "etag");
        let content = get.bytes().await.unwrap();
        assert_eq!(header(&head, "content-length"), content.len().to_string());
        let known = speak(api.client.get(&url)).header("if-none-match", etag);
        let known = known.send().await.unwrap();
        assert_eq!(known.status(), StatusCode::NOT_MODIFIED);
        // Whoever asks by digest, in whatever words.
        let exact = api.url(&format!("team/hay/manifests/{digest}"));
        for other in [as_ollama, as_docker] {
            let same = other(api.client.get(&exact)).send().await.unwrap();
            assert_eq!(same.bytes().await.unwrap(), content);
        }
    }
}

/// The referrers of a manifest in `team/hay`, but for the chunk maps of its blobs.
async fn derived_from(api: &Api, source: &str) -> Vec<Value> {
    let list = api.get(&format!("team/hay/referrers/{source}")).await;
    let list: Value = list.json().await.unwrap();
    let mut list = list["manifests"].as_array().unwrap().clone();
    list.retain(|entry| entry["artifactType"] != CHUNK_MAPS);
    list
}

#[tokio::test]
async fn what_is_derived_is_the_same_everywhere_and_refers_back_to_its_source() {
    let (here, there) = (Api::start(), Api::start());
    let mut derived = Vec::new();
    for api in [&here, &there] {
        push(api, "team/hay:1", Some(MODELFILE));
        let url = api.url("team/hay/manifests/1");
        for speak in [as_ollama, as_docker] {
            let answer = speak(api.client.head(&url)).send().await.unwrap();
            derived.push(header(&answer, "docker-content-digest"));
        }
    }
    assert_eq!(derived[..2], derived[2..]);
    let source = header(
        &here.head("team/hay/manifests/1").await,
        "docker-content-digest",
    );
    let list = derived_from(&here, &source).await;
    let mut listed: Vec<_> = list.iter().map(|entry| entry["digest"].as_str()).collect();
    let mut wanted: Vec<_> = derived[..2].iter().map(|it| Some(it.as_str())).collect();
    listed.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(listed, wanted);
    for entry in &list {
        assert_eq!(entry["annotations"]["org.hayloft.derived.from"], source);
    }
    let docker = asked(&here, "team/hay/manifests/1", as_docker).await;
    assert_eq!(docker["subject"]["digest"], source);
}

#[tokio::test]
async fn derived_manifests_stay_with_their_source_and_go_with_it() {
    let api = Api::start();
    push(&api, "team/hay:1", Some(MODELFILE));
    let source = header(
        &api.head("team/hay/manifests/1").await,
        "docker-content-digest",
    );
    let url = api.url("team/hay/manifests/1");
    let mut derived = Vec::new();
    for speak in [as_ollama, as_docker] {
        let answer = speak(api.client.head(&url)).send().await.unwrap();
        derived.push(header(&answer, "docker-content-digest"));
    }
    let _ = api.push_image("other/image", "1", b"stays").await;
    let gc = || {
        let registry = api.server.address();
        let gc = ["gc", "--registry", registry, "--grace", "0", "--force"];
        hayloft(&gc).succeeded()
    };
    gc();
    for digest in &derived {
        let path = format!("team/hay/manifests/{digest}");
        assert_eq!(api.head(&path).await.status(), StatusCode::OK);
    }
    let pulled = asked(&api, "team/hay/manifests/1", as_ollama).await;
    let template = "application/vnd.ollama.image.template";
    let template = text(&api, "team/hay", &pulled, template).await;
    assert_eq!(template, "{{ .Prompt }}");

    // A tag alone does not take its manifest along, and so not what was made from it.
    let gone = api.delete(&format!("team/hay/manifests/{source}")).await;
    assert_eq!(gone.status(), StatusCode::ACCEPTED);
    gc();
    for digest in &derived {
        let path = format!("team/hay/manifests/{digest}");
        assert_eq!(api.head(&path).await.status(), StatusCode::NOT_FOUND);
    }
    let blobs = std::fs::read_dir(api.server.data().join("registry/blobs/sha256")).unwrap();
    assert_eq!(blobs.count(), 3, "only the other image is left");

    // Pushed again, it is derived again, to the same bytes.
    push(&api, "team/hay:1", Some(MODELFILE));
    let again = as_ollama(api.client.head(&url)).send().await.unwrap();
    assert_eq!(header(&again, "docker-content-digest"), derived[0]);
    let fsck = hayloft(&["fsck", "--registry", api.server.address()]);
    let _ = fsck.succeeded();
}

#[tokio::test]
async fn derived_manifests_outlive_a_restart_and_a_rebuild_of_the_index() {
    let folder = scratch();
    let api = Api::on(Server::registry().data(folder.path()).start());
    push(&api, "team/hay:1", None);
    let url = api.url("team/hay/manifests/1");
    let first = as_ollama(api.client.get(&url)).send().await.unwrap();
    let digest = header(&first, "docker-content-digest");
    let content = first.bytes().await.unwrap();
    drop(api);
    std::fs::remove_dir_all(folder.path().join("registry/index")).unwrap();
    let api = Api::on(Server::registry().data(folder.path()).start());
    let exact = api.get(&format!("team/hay/manifests/{digest}")).await;
    assert_eq!(exact.bytes().await.unwrap(), content);
    let url = api.url("team/hay/manifests/1");
    let again = as_ollama(api.client.head(&url)).send().await.unwrap();
    assert_eq!(header(&again, "docker-content-digest"), digest);
}

#[tokio::test]
async fn a_read_only_registry_derives_in_memory() {
    let folder = scratch();
    let data = || Server::registry().data(folder.path());
    let api = Api::on(data().start());
    push(&api, "team/hay:1", Some(MODELFILE));
    drop(api);
    let blobs = || {
        let blobs = folder.path().join("registry/blobs/sha256");
        std::fs::read_dir(blobs).unwrap().count()
    };
    let before = blobs();
    let api = Api::on(data().argument("--read-only").start());
    let ollama = asked(&api, "team/hay/manifests/1", as_ollama).await;
    let system = "application/vnd.ollama.image.system";
    assert_eq!(text(&api, "team/hay", &ollama, system).await, "Be brief.");
    let config = ollama["config"]["digest"].as_str().unwrap();
    let path = format!("team/hay/blobs/{config}");
    let head = api.head(&path).await;
    assert_eq!(head.status(), StatusCode::OK);
    let ranged = api.client.get(api.url(&path)).header("range", "bytes=0-3");
    let ranged = ranged.send().await.unwrap();
    assert_eq!(ranged.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(ranged.bytes().await.unwrap().len(), 4);
    // containerd resolves by HEAD, then asks by digest.
    let url = api.url("team/hay/manifests/1");
    let head = as_docker(api.client.head(&url)).send().await.unwrap();
    let digest = header(&head, "docker-content-digest");
    let docker = asked(&api, &format!("team/hay/manifests/{digest}"), as_docker).await;
    assert_eq!(docker["layers"][0]["digest"], ollama["layers"][0]["digest"]);
    // Another repository does not see it.
    let stranger = api.head(&format!("other/hay/blobs/{config}")).await;
    assert_eq!(stranger.status(), StatusCode::NOT_FOUND);
    assert_eq!(blobs(), before);
}

#[tokio::test]
async fn what_is_no_model_is_served_as_it_was_pushed_whoever_asks() {
    let api = Api::start();
    let digest = api.push_image("team/image", "1", b"layer").await;
    let url = api.url("team/image/manifests/1");
    for speak in [as_ollama, as_docker] {
        let answer = speak(api.client.get(&url)).send().await.unwrap();
        assert_eq!(header(&answer, "docker-content-digest"), digest.to_string());
    }
}

/// A ModelPack manifest with these layers, under the tag `1`.
async fn push_modelpack(api: &Api, repository: &str, layers: &[(&str, &str, &[u8])]) -> Value {
    let config = br#"{"descriptor":{},"modelfs":{"type":"layers","diffIds":[]},"config":{}}"#;
    api.push_blob(repository, config).await;
    let mut described = Vec::new();
    for (media_type, name, content) in layers {
        api.push_blob(repository, content).await;
        let mut layer = descriptor(media_type, content);
        // As modctl annotates what it packs.
        layer["annotations"] = json!({
            "org.cncf.model.filepath": name,
            "org.cncf.model.file.mediatype.untested": "false",
            "org.cncf.model.file.metadata+json":
                json!({ "name": name, "mode": 420, "size": content.len(), "typeflag": 48 })
                    .to_string(),
        });
        described.push(layer);
    }
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": "application/vnd.cncf.model.manifest.v1+json",
        "config": descriptor("application/vnd.cncf.model.config.v1+json", config),
        "layers": described,
    });
    let put = api.put_manifest(repository, "1", &manifest).await;
    assert_eq!(put.status(), StatusCode::CREATED);
    manifest
}

#[tokio::test]
async fn a_dialect_that_cannot_express_a_model_says_why() {
    let api = Api::start();
    let raw = "application/vnd.cncf.model.weight.v1.raw";
    let weights = std::fs::read(fixture("hay-tiny-q8_0.gguf")).unwrap();
    // Whole files both, which the check of GGUF headers lets in.
    let other = [&weights[..], b"\0"].concat();
    let tar = "application/vnd.cncf.model.weight.v1.tar";
    push_modelpack(&api, "team/archive", &[(tar, "model.tar", b"tar")]).await;
    let url = api.url("team/archive/manifests/1");
    let refused = as_ollama(api.client.get(&url)).send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::NOT_ACCEPTABLE);
    assert_eq!(error_code(refused).await, "UNSUPPORTED");

    let two: [(&str, &str, &[u8]); 2] = [
        (raw, "a-00001-of-00002.gguf", &weights),
        (raw, "a-00002-of-00002.gguf", &other),
    ];
    let pushed = push_modelpack(&api, "team/split", &two).await;
    let url = api.url("team/split/manifests/1");
    let refused = as_ollama(api.client.get(&url)).send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::NOT_ACCEPTABLE);
    let said = refused.text().await.unwrap();
    assert!(said.contains("2 files of weights"), "{said}");
    // Docker Model takes the parts one by one.
    let docker = asked(&api, "team/split/manifests/1", as_docker).await;
    assert_eq!(docker["layers"][1]["digest"], pushed["layers"][1]["digest"]);
}

#[tokio::test]
async fn what_modctl_packs_is_served_as_pushed_and_its_weights_to_ollama() {
    let api = Api::start();
    let weights = std::fs::read(fixture("hay-tiny-q8_0.gguf")).unwrap();
    let pushed = push_modelpack(
        &api,
        "team/modctl",
        &[
            (
                "application/vnd.cncf.model.weight.v1.raw",
                "hay.gguf",
                &weights,
            ),
            ("application/vnd.cncf.model.doc.v1.tar", "README.md", b"tar"),
            ("application/vnd.cncf.model.code.v1.tar", "run.py", b"code"),
        ],
    )
    .await;
    let path = "team/modctl/manifests/1";
    assert_eq!(asked(&api, path, |request| request).await, pushed);
    let ollama = asked(&api, path, as_ollama).await;
    assert_eq!(ollama["layers"][0]["digest"], pushed["layers"][0]["digest"]);
    assert!(types(&ollama).iter().all(|name| name.contains("ollama")));
}

#[tokio::test]
async fn a_hundred_clients_that_ask_at_once_get_one_manifest() {
    let api = Api::start();
    push(&api, "team/hay:1", Some(MODELFILE));
    let url = api.url("team/hay/manifests/1");
    let asked = (0..100).map(|_| as_ollama(api.client.get(&url)).send());
    let answers = futures::future::join_all(asked).await;
    let digests: std::collections::BTreeSet<_> = answers
        .into_iter()
        .map(|answer| header(&answer.unwrap(), "docker-content-digest"))
        .collect();
    assert_eq!(digests.len(), 1);
    let source = header(
        &api.head("team/hay/manifests/1").await,
        "docker-content-digest",
    );
    assert_eq!(derived_from(&api, &source).await.len(), 1);
}

#[tokio::test]
async fn a_model_that_comes_from_an_upstream_is_served_in_every_dialect_too() {
    let upstream = Api::start();
    push(&upstream, "team/hay:1", Some(MODELFILE));
    let route = format!("hub=oci+{}", upstream.server.url());
    let mirror = Server::registry().argument("--upstream").argument(&route);
    let api = Api::on(mirror.start());
    let path = "hub/team/hay/manifests/1";
    let ollama = asked(&api, path, as_ollama).await;
    let there = asked(&upstream, "team/hay/manifests/1", as_ollama).await;
    assert_eq!(ollama, there, "the same source gives the same bytes");
    let system = "application/vnd.ollama.image.system";
    let system = text(&api, "hub/team/hay", &ollama, system).await;
    assert_eq!(system, "Be brief.");
    let weights = ollama["layers"][0]["digest"].as_str().unwrap();
    let weights = api.get(&format!("hub/team/hay/blobs/{weights}")).await;
    let bundled = std::fs::read(fixture("hay-tiny-q8_0.gguf")).unwrap();
    assert_eq!(weights.bytes().await.unwrap(), bundled);
    // Names are the upstream's in any case.
    let folded = asked(&api, "Hub/Team/Hay/manifests/1", as_docker).await;
    assert_eq!(folded["layers"][0]["digest"], ollama["layers"][0]["digest"]);
}

#[tokio::test]
async fn what_was_made_here_of_a_mirrored_model_does_not_go_to_make_room() {
    let upstream = Api::start();
    push(&upstream, "team/hay:1", Some(MODELFILE));
    let folder = scratch();
    let mut other = std::fs::read(fixture("hay-tiny-q8_0.gguf")).unwrap();
    other.push(0);
    let path = folder.path().join("other.gguf");
    std::fs::write(&path, &other).unwrap();
    let reference = format!("{}/team/other:1", upstream.server.address());
    let _ = hayloft(&["push", path.to_str().unwrap(), &reference]).succeeded();

    let route = format!("hub=oci+{}", upstream.server.url());
    let mut mirror = Server::registry().argument("--upstream").argument(&route);
    for argument in ["--mirror-size", "4MiB", "--mirror-keep", "0s"] {
        mirror = mirror.argument(argument);
    }
    let api = Api::on(mirror.start());
    let ollama = asked(&api, "hub/team/hay/manifests/1", as_ollama).await;
    let weights = ollama["layers"][0]["digest"].as_str().unwrap();
    let fill = async |repository: &str, digest: &str| {
        let path = format!("hub/team/{repository}/blobs/{digest}");
        let content = api.get(&path).await.bytes().await.unwrap();
        assert_eq!(Digest::sha256(&content).to_string(), digest);
    };
    fill("hay", weights).await;
    let next = asked(&api, "hub/team/other/manifests/1", as_ollama).await;
    let digest = next["layers"][0]["digest"].as_str().unwrap();
    fill("other", digest).await;
    let file = |digest: &str| {
        let blobs = api.server.data().join("registry/blobs/sha256");
        blobs.join(digest.trim_start_matches("sha256:"))
    };
    eventually("the first weights have gone", 10, async || {
        (!file(weights).exists()).then_some(())
    })
    .await;
    for document in ollama["layers"].as_array().unwrap()[1..].iter() {
        fill("hay", document["digest"].as_str().unwrap()).await;
    }
    fill("hay", ollama["config"]["digest"].as_str().unwrap()).await;
    // They come back for the manifest that was made here as for the one that was pushed.
    fill("hay", weights).await;
}
