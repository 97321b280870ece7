//! The views of the cache: what Hugging Face's libraries, and whoever wants a path, find in them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use artifact::agent_api::EnsureRequest;
use artifact::client::AgentClient;
use artifact::gguf::builder::GgufBuilder;
use artifact::media_type::{OCI_MANIFEST, modelpack};
use artifact::{CacheLayout, Digest, Reference};
use serde_json::{Value, json};
use tests::hub::{Hub, Storage};
use tests::upstream::Upstream;
use tests::{Finished, Server, fixture, hayloft, hayloft_command, project_root, run, scratch};

use crate::hub_support::{MODEL, projector, small_model, told};

const REPOSITORY: &str = "Seed/Hay-Tiny-GGUF";

/// `tests/python/hub_offline.py` on the view, in a mount namespace where the cache is read-only and
/// has another path: what a pod that mounts it sees.
fn offline(cache: &Path, arguments: &[&str]) -> Finished {
    let script = r#"mkdir -p "$2" && mount --bind "$1" "$2" && mount -o remount,bind,ro "$2" &&
        shift 2 && exec "$@""#;
    let home = scratch();
    let mounted = home.path().join("mounted");
    let mut command = Command::new("unshare");
    if !run(Command::new("id").arg("-u")).succeeded().trim().eq("0") {
        command.arg("--map-root-user");
    }
    command
        .args(["--mount", "sh", "-c", script, "sh"])
        .args([cache, &mounted])
        .arg(project_root().join(".venv/bin/python"))
        .arg(project_root().join("tests/python/hub_offline.py"))
        .args(arguments);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HF_") {
            command.env_remove(&name);
        }
    }
    command
        .env("HF_HOME", home.path().join("home"))
        .env("HF_HUB_CACHE", mounted.join("views/huggingface"))
        .env("HF_HUB_OFFLINE", "1")
        .env("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        .env("HF_HUB_DISABLE_TELEMETRY", "1");
    run(&mut command)
}

fn cache_of(agent: &Server) -> PathBuf {
    agent.data().join("cache")
}

fn view_of(agent: &Server) -> PathBuf {
    CacheLayout::new(cache_of(agent)).huggingface_view()
}

/// Every name below a folder that is no folder.
fn names_below(folder: &Path) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut pending = vec![folder.to_owned()];
    while let Some(next) = pending.pop() {
        for entry in std::fs::read_dir(&next).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.symlink_metadata().unwrap().is_dir() {
                pending.push(path);
            } else {
                let below = path.strip_prefix(folder).unwrap();
                names.insert(below.to_str().unwrap().to_owned());
            }
        }
    }
    names
}

/// No link of any view leads nowhere.
fn assert_whole(cache: &Path) {
    for name in names_below(&cache.join("views")) {
        let path = cache.join("views").join(&name);
        assert!(path.exists(), "{name} leads nowhere");
    }
}

/// `hayloft pull` through the agent, off the main thread: the hub answers on it.
async fn pull(agent: &Server, name: &str) {
    let mut command = hayloft_command(["pull", name, "--node", "--agent", &agent.url()]);
    let pulled = tokio::task::spawn_blocking(move || run(&mut command));
    let _ = pulled.await.unwrap().succeeded();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_from_hugging_face_is_found_offline_under_its_name_and_commit() {
    let hub = Hub::start().await;
    let weights = std::fs::read(fixture(MODEL)).unwrap();
    for (path, content, storage) in [
        ("q8/Hay-Tiny-Q8_0.gguf", weights, Storage::Lfs),
        ("Hay-Tiny-Q4_0.gguf", small_model("other"), Storage::Lfs),
        ("README.md", b"# Hay Tiny".to_vec(), Storage::Git),
        (
            "config.json",
            b"{\"model_type\": \"llama\"}".to_vec(),
            Storage::Git,
        ),
    ] {
        hub.put_file(REPOSITORY, path, content, storage);
    }
    let url = hub.url();
    let starting = tokio::task::spawn_blocking(move || {
        Server::agent().environment("HF_ENDPOINT", &url).start()
    });
    let agent = starting.await.unwrap();
    pull(&agent, "hf.co/Seed/Hay-Tiny-GGUF:Q8_0").await;
    let found = told(offline(&cache_of(&agent), &[REPOSITORY, "main"]));
    assert_eq!(found["files"], json!(["q8/Hay-Tiny-Q8_0.gguf"]));
    let commit = found["commit"].as_str().unwrap().to_owned();
    assert_eq!(found["repos"], json!({ REPOSITORY: { &commit: ["main"] } }));
    // Another quantisation and the whole branch of the same commit share the folder.
    pull(&agent, "hf.co/seed/hay-tiny-gguf:Q4_0").await;
    pull(&agent, "hf.co/Seed/Hay-Tiny-GGUF:main").await;
    let found = told(offline(&cache_of(&agent), &[REPOSITORY, "main"]));
    assert_eq!(found["commit"], commit.as_str());
    let all = json!([
        "Hay-Tiny-Q4_0.gguf",
        "README.md",
        "config.json",
        "q8/Hay-Tiny-Q8_0.gguf"
    ]);
    assert_eq!(found["files"], all);
    for tag in ["main", "Q8_0"] {
        let reference = format!("hf.co/seed/hay-tiny-gguf:{tag}");
        let _ = hayloft(&["rm", &reference, "--agent", &agent.url()]).succeeded();
    }
    let found = told(offline(&cache_of(&agent), &[REPOSITORY, "main"]));
    assert_eq!(found["files"], json!(["Hay-Tiny-Q4_0.gguf"]));
    let last = "hf.co/seed/hay-tiny-gguf:Q4_0";
    let _ = hayloft(&["rm", last, "--agent", &agent.url()]).succeeded();
    assert_eq!(
        names_below(&cache_of(&agent).join("views")),
        BTreeSet::new()
    );
    assert_eq!(std::fs::read_dir(view_of(&agent)).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_and_the_view_name_commits_and_files_alike_and_an_update_moves_the_branch() {
    let registry = Server::registry().start();
    let agent = Server::agent().start();
    let folder = scratch();
    let push = |name: &str, tag: &str| {
        let file = folder.path().join(format!("{name}.gguf"));
        std::fs::write(&file, small_model(name)).unwrap();
        let reference = format!("{}/team/tiny:{tag}", registry.address());
        let _ = hayloft(&["push", file.to_str().unwrap(), &reference]).succeeded();
        let _ = hayloft(&["pull", &reference, "--agent", &agent.url()]).succeeded();
    };
    let sha = async |revision: &str| -> (Value, Value) {
        let url = format!(
            "{}/hf/api/models/team/tiny/revision/{revision}",
            registry.url()
        );
        let info: Value = reqwest::get(url).await.unwrap().json().await.unwrap();
        let files = info["siblings"].as_array().unwrap().iter();
        let names: BTreeSet<_> = files
            .map(|file| file["rfilename"].as_str().unwrap())
            .collect();
        (info["sha"].clone(), json!(names))
    };
    push("one", "q4");
    push("two", "q8");
    for revision in ["main", "q4", "q8"] {
        let found = told(offline(&cache_of(&agent), &["team/tiny", revision]));
        let (commit, files) = sha(revision).await;
        assert_eq!(
            (&found["commit"], &found["files"]),
            (&commit, &files),
            "{revision}"
        );
    }
    let before = sha("q8").await.0;
    push("three", "q8");
    let after = sha("q8").await.0;
    assert_ne!(before, after);
    let found = told(offline(&cache_of(&agent), &["team/tiny", "q8"]));
    assert_eq!(found["commit"], after);
    let repos = found["repos"]["team/tiny"].as_object().unwrap();
    assert!(!repos.contains_key(before.as_str().unwrap()), "{repos:?}");
    assert_whole(&cache_of(&agent));
}

/// A model with these layers: path and content.
fn add_model(origin: &Upstream, tag: &str, layers: &[(&str, Vec<u8>)]) -> Reference {
    let described: Vec<Value> = layers
        .iter()
        .map(|(path, content)| {
            json!({
                "mediaType": modelpack::WEIGHT_RAW,
                "digest": origin.add_blob(content.clone()),
                "size": content.len(),
                "annotations": { modelpack::FILEPATH: path },
            })
        })
        .collect();
    let config = json!({
        "mediaType": modelpack::CONFIG,
        "digest": origin.add_blob(b"{}".to_vec()),
        "size": 2,
    });
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": modelpack::ARTIFACT,
        "config": config,
        "layers": described,
    });
    origin.add_manifest(tag, OCI_MANIFEST, manifest.to_string())
}

fn request(reference: &Reference) -> EnsureRequest {
    EnsureRequest {
        reference: reference.clone(),
        plain_http: false,
        name: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn split_models_projectors_and_adapters_have_names_in_the_plain_view_and_none_leads_out() {
    let origin = Upstream::start().await;
    let parts = tests::split_gguf(&std::fs::read(fixture(MODEL)).unwrap());
    let mut layers: Vec<(&str, Vec<u8>)> = vec![
        ("m-00001-of-00002.gguf", parts[0].to_vec()),
        ("m-00002-of-00002.gguf", parts[1].to_vec()),
        ("mmproj-m.gguf", projector()),
        (
            "m-lora.gguf",
            GgufBuilder::new().kv("general.type", "adapter").build(),
        ),
        ("../../../../escaped", b"out".to_vec()),
        ("/etc/escaped-too", b"out too".to_vec()),
    ];
    let deep = format!("{}x", "d/".repeat(64));
    layers.push((&deep, b"deep".to_vec()));
    let reference = add_model(&origin, "1", &layers);
    let agent = Server::agent().start();
    let client = AgentClient::open(&agent.url()).unwrap();
    client.pull(&request(&reference), |_| {}).await.unwrap();
    let layout = CacheLayout::new(cache_of(&agent));
    let plain = names_below(&layout.plain_view_of(&reference));
    let expected = [
        "config.json",
        "escaped",
        "escaped-too",
        "m-00001-of-00002.gguf",
        "m-00002-of-00002.gguf",
        "m-lora.gguf",
        "manifest.json",
        "mmproj-m.gguf",
        "model.gguf",
        "x",
    ];
    assert_eq!(
        plain.iter().map(String::as_str).collect::<Vec<_>>(),
        expected
    );
    let found = told(offline(&cache_of(&agent), &["test/model", "1"]));
    let files: Vec<&str> = found["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| file.as_str().unwrap())
        .collect();
    assert!(
        files.contains(&"escaped") && files.contains(&"mmproj-m.gguf"),
        "{files:?}"
    );
    assert!(files.iter().all(|file| !file.contains("..")), "{files:?}");
    assert_whole(&cache_of(&agent));
}

#[tokio::test(flavor = "multi_thread")]
async fn views_that_were_half_made_are_made_good_at_the_next_start() {
    let origin = Upstream::start().await;
    let reference = origin.add_model("1", small_model("one"));
    let folder = scratch();
    let mut agent = Server::agent().data(folder.path()).start();
    let client = AgentClient::open(&agent.url()).unwrap();
    client.pull(&request(&reference), |_| {}).await.unwrap();
    let (cache, views) = (cache_of(&agent), cache_of(&agent).join("views"));
    let whole = names_below(&views);
    assert_eq!(
        whole
            .iter()
            .filter(|name| name.starts_with("ollama/manifests"))
            .count(),
        1
    );
    agent.kill();
    // What was about to be published: one view after the other lacks its last name.
    let layout = CacheLayout::new(&cache);
    std::fs::remove_file(layout.ollama_view_manifest(&reference).unwrap()).unwrap();
    let hub = layout.huggingface_view().join("models--test--model");
    std::fs::remove_file(hub.join("refs/main")).unwrap();
    // What was about to be removed: links of a model that the plain view no longer has, and some
    // that somebody planted.
    let gone = layout.plain_view().join("gone.example/a/b/1");
    std::fs::create_dir_all(&gone).unwrap();
    let away = Path::new("../../../../../../blobs/sha256/0");
    std::os::unix::fs::symlink(away, gone.join("model.gguf")).unwrap();
    let stale = layout.ollama_view().join("manifests/gone.example/a/b");
    std::fs::create_dir_all(&stale).unwrap();
    std::os::unix::fs::symlink(away, stale.join("1")).unwrap();
    let old = hub.join("snapshots").join("0".repeat(40));
    std::fs::create_dir_all(old.join("sub")).unwrap();
    std::os::unix::fs::symlink(away, old.join("sub/m.gguf")).unwrap();
    std::fs::write(hub.join("refs/old"), "0".repeat(40)).unwrap();
    let elsewhere = scratch();
    std::fs::write(elsewhere.path().join("kept"), "kept").unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), old.join("planted")).unwrap();
    let _agent = Server::agent().data(folder.path()).start();
    tests::eventually("the views are as before", 20, async || {
        (names_below(&views) == whole).then_some(())
    })
    .await;
    assert!(elsewhere.path().join("kept").exists());
    assert_whole(&cache);
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_while_models_are_published_and_removed_leaves_views_that_agree() {
    let origin = Upstream::start().await;
    let models: Vec<Reference> = (0..12)
        .map(|number| origin.add_model(&format!("t{number}"), small_model(&format!("m{number}"))))
        .collect();
    let folder = scratch();
    for round in 0..6_u64 {
        let mut agent = Server::agent().data(folder.path()).start();
        let client = AgentClient::open(&agent.url()).unwrap();
        let work = models.iter().map(|reference| {
            let (client, request) = (client.clone(), request(reference));
            async move {
                // Either may be cut off at any point.
                let _ = client.remove(&request.reference).await;
                let _ = client.pull(&request, |_| {}).await;
            }
        });
        let cut = tokio::time::Duration::from_millis(7 + 23 * round);
        let _ = tokio::time::timeout(cut, futures::future::join_all(work)).await;
        agent.kill();
    }
    let agent = Server::agent().data(folder.path()).start();
    let client = AgentClient::open(&agent.url()).unwrap();
    let listed = client.list().await.unwrap();
    assert_whole(&cache_of(&agent));
    let layout = CacheLayout::new(cache_of(&agent));
    let refs = layout.huggingface_view().join("models--test--model/refs");
    let mut branches = names_below(&refs);
    branches.remove("main");
    let tags = listed
        .iter()
        .map(|model| model.reference.tag().unwrap().to_string());
    assert_eq!(branches, tags.collect());
    for model in &listed {
        assert!(
            layout
                .ollama_view_manifest(&model.reference)
                .unwrap()
                .exists()
        );
        let weights = std::fs::read(layout.plain_view_of(&model.reference).join("model.gguf"));
        let digests = model.blobs.iter().map(|blob| blob.digest);
        assert!(
            digests
                .collect::<Vec<_>>()
                .contains(&Digest::sha256(&weights.unwrap()))
        );
    }
    let _ = told(offline(&cache_of(&agent), &[]));
}
