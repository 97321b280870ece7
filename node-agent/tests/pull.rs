//! Pulls from real HTTP origins into real folders: the good path, one download for many askers, the
//! views, warm pulls, removal and pins.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::path::Path;

use artifact::agent_api::{AgentErrorCode, EnsureRequest, ModelEntry, PullEvent};
use artifact::{CacheLayout, Digest, Reference};
use node_agent::{Config, Error, LocalNode};
use tests::upstream::{Fault, Upstream, noise};

const MIB: usize = 1024 * 1024;

fn request(reference: &Reference) -> EnsureRequest {
    EnsureRequest {
        reference: reference.clone(),
        plain_http: false,
        name: None,
    }
}

async fn ensure(node: &LocalNode, reference: &Reference) -> Result<ModelEntry, Error> {
    node.ensure(&request(reference), &mut |_| {}).await
}

async fn fetched(node: &LocalNode, reference: &Reference) -> u64 {
    let mut last = None;
    node.ensure(&request(reference), &mut |event| {
        if let PullEvent::Ready { fetched, .. } = event {
            last = Some(*fetched);
        }
    })
    .await
    .unwrap();
    last.unwrap()
}

fn files_below(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    let mut pending = vec![folder.to_owned()];
    while let Some(current) = pending.pop() {
        for entry in std::fs::read_dir(current).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.is_symlink() {
                pending.push(path);
            } else {
                names.push(path.strip_prefix(folder).unwrap().display().to_string());
            }
        }
    }
    names.sort();
    names
}

#[tokio::test]
async fn a_model_is_pulled_verified_and_shown_in_the_plain_view() {
    let origin = Upstream::start().await;
    let weights = noise(20 * MIB + 123, 1);
    let reference = origin.add_model("1", weights.clone());
    let folder = tests::scratch();
    let node = LocalNode::open(Config::new(folder.path())).await.unwrap();
    let model = ensure(&node, &reference).await.unwrap();
    assert_eq!(model.reference, reference);
    let layout = CacheLayout::new(folder.path());
    let view = layout.plain_view_of(&reference);
    assert_eq!(std::fs::read(view.join("model.gguf")).unwrap(), weights);
    let blob = layout.blob(&Digest::sha256(&weights));
    let metadata = std::fs::metadata(&blob).unwrap();
    assert!(metadata.permissions().readonly());
    assert!(
        std::fs::read_link(view.join("model.gguf"))
            .unwrap()
            .is_relative()
    );
    assert_eq!(files_below(&layout.ingest()), Vec::<String>::new());
    assert_eq!(node.list().await.unwrap(), [model]);
    let counts = origin.counts();
    assert_eq!(
        counts.bytes,
        weights.len() as u64 + config_bytes(&origin, &weights)
    );
}

/// The config is the other blob of a model; all bytes but the weights are its.
fn config_bytes(origin: &Upstream, weights: &[u8]) -> u64 {
    origin.counts().bytes - weights.len() as u64
}

#[tokio::test]
async fn ten_who_ask_at_once_share_one_download() {
    let origin = Upstream::start().await;
    let weights = noise(12 * MIB, 2);
    let reference = origin.add_model("1", weights.clone());
    origin.set_fault(Fault::Slow(64 * MIB as u64));
    let folder = tests::scratch();
    let node = LocalNode::open(Config::new(folder.path())).await.unwrap();
    let asks = (0..10).map(|_| ensure(&node, &reference));
    let models = futures::future::join_all(asks).await;
    for model in models {
        assert_eq!(model.unwrap().reference, reference);
    }
    let sent = origin.counts().bytes;
    assert!(sent < weights.len() as u64 + 4096, "{sent} bytes were sent");
}

#[tokio::test]
async fn a_warm_pull_moves_no_byte_and_by_digest_asks_nobody() {
    let origin = Upstream::start().await;
    let reference = origin.add_model("1", noise(MIB, 3));
    let folder = tests::scratch();
    let node = LocalNode::open(Config::new(folder.path())).await.unwrap();
    let model = ensure(&node, &reference).await.unwrap();
    let before = origin.counts();
    let started = std::time::Instant::now();
    assert_eq!(fetched(&node, &reference).await, 0);
    let elapsed = started.elapsed();
    assert!(elapsed.as_millis() < 50, "{elapsed:?}");
    assert_eq!(origin.counts().bytes, before.bytes);
    let by_digest = reference.clone().with_digest(model.digest);
    origin.stop().await;
    assert_eq!(fetched(&node, &by_digest).await, 0);
    // The registry is gone, the tag is served as it is, and the asker is told.
    let mut note = None;
    node.ensure(&request(&reference), &mut |event| {
        if let PullEvent::Ready { note: told, .. } = event {
            note = told.clone();
        }
    })
    .await
    .unwrap();
    assert!(note.unwrap().contains("from the cache"));
}

#[tokio::test]
async fn a_tag_that_moved_is_pulled_anew_and_what_nothing_names_is_deleted() {
    let origin = Upstream::start().await;
    let (old, new) = (noise(MIB, 4), noise(MIB, 5));
    let reference = origin.add_model("1", old.clone());
    let folder = tests::scratch();
    let node = LocalNode::open(Config::new(folder.path())).await.unwrap();
    ensure(&node, &reference).await.unwrap();
    origin.add_model("1", new.clone());
    ensure(&node, &reference).await.unwrap();
    let layout = CacheLayout::new(folder.path());
    let view = layout.plain_view_of(&reference).join("model.gguf");
    assert_eq!(std::fs::read(view).unwrap(), new);
    assert!(!layout.blob(&Digest::sha256(&old)).exists());
}

#[tokio::test]
async fn removing_a_model_keeps_the_blobs_that_others_name() {
    let origin = Upstream::start().await;
    let weights = noise(MIB, 6);
    let one = origin.add_model("one", weights.clone());
    let two = origin.add_model("two", weights.clone());
    let folder = tests::scratch();
    let node = LocalNode::open(Config::new(folder.path())).await.unwrap();
    ensure(&node, &one).await.unwrap();
    ensure(&node, &two).await.unwrap();
    let layout = CacheLayout::new(folder.path());
    node.remove(&one, false).await.unwrap();
    assert!(layout.blob(&Digest::sha256(&weights)).exists());
    assert!(node.find(&two).await.unwrap().is_some());
    node.remove(&two, false).await.unwrap();
    assert_eq!(
        files_below(&folder.path().join("blobs")),
        Vec::<String>::new()
    );
    assert_eq!(
        files_below(&folder.path().join("views")),
        Vec::<String>::new()
    );
    let error = node.remove(&two, false).await.unwrap_err();
    assert_eq!(error.code(), AgentErrorCode::NotFound);
}

#[tokio::test]
async fn a_pinned_model_stays_until_it_is_let_go() {
    let origin = Upstream::start().await;
    let reference = origin.add_model("1", noise(MIB, 7));
    let folder = tests::scratch();
    let node = LocalNode::open(Config::new(folder.path())).await.unwrap();
    ensure(&node, &reference).await.unwrap();
    assert!(node.pin(&reference, true).await.unwrap().pinned);
    assert_eq!(
        node.remove(&reference, false).await.unwrap_err().code(),
        AgentErrorCode::Conflict
    );
    drop(node);
    // The pin outlives the index.
    std::fs::remove_dir_all(folder.path().join("index")).unwrap();
    let node = LocalNode::open(Config::new(folder.path())).await.unwrap();
    assert!(node.find(&reference).await.unwrap().unwrap().pinned);
    node.pin(&reference, false).await.unwrap();
    node.remove(&reference, false).await.unwrap();
}

#[tokio::test]
async fn a_registry_that_wants_a_token_gets_its_handshake() {
    let origin = Upstream::start().await;
    let reference = origin.add_model("1", noise(MIB, 8));
    origin.require_token("let-me-in");
    let folder = tests::scratch();
    let node = LocalNode::open(Config::new(folder.path())).await.unwrap();
    ensure(&node, &reference).await.unwrap();
    assert_eq!(origin.counts().tokens, 1);
}

#[tokio::test]
async fn a_second_agent_on_the_folder_is_refused() {
    let folder = tests::scratch();
    let node = LocalNode::open(Config::new(folder.path())).await.unwrap();
    let error = LocalNode::open(Config::new(folder.path()))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Locked { .. }), "{error}");
    drop(node);
    LocalNode::open(Config::new(folder.path())).await.unwrap();
}

#[tokio::test]
async fn names_that_collide_in_the_views_are_refused_with_a_reason() {
    let origin = Upstream::start().await;
    let weights = noise(MIB, 9);
    let reference = origin.add_model("1", weights);
    let folder = tests::scratch();
    let node = LocalNode::open(Config::new(folder.path())).await.unwrap();
    ensure(&node, &reference).await.unwrap();
    // test/model:1 has a link model.gguf where test/model/1:model.gguf needs a folder.
    let inner = format!("{}/test/model/1:model.gguf", origin.address());
    let manifest = origin.add_model("model.gguf", noise(MIB, 10));
    assert_eq!(manifest.tag().unwrap().as_str(), "model.gguf");
    let error = ensure(&node, &Reference::parse(&inner).unwrap())
        .await
        .unwrap_err();
    assert_eq!(error.code(), AgentErrorCode::Conflict);
    assert!(error.to_string().contains("another tag"), "{error}");
}

#[tokio::test]
async fn a_planted_link_is_never_written_through() {
    let origin = Upstream::start().await;
    let weights = noise(MIB, 11);
    let reference = origin.add_model("1", weights.clone());
    let folder = tests::scratch();
    let outside = tests::scratch();
    let target = outside.path().join("precious");
    std::fs::write(&target, b"untouched").unwrap();
    let layout = CacheLayout::new(folder.path());
    let digest = Digest::sha256(&weights);
    std::fs::create_dir_all(layout.ingest()).unwrap();
    std::os::unix::fs::symlink(&target, layout.ingest_part(&digest)).unwrap();
    std::os::unix::fs::symlink(&target, layout.ingest_map(&digest)).unwrap();
    let node = LocalNode::open(Config::new(folder.path())).await.unwrap();
    ensure(&node, &reference).await.unwrap();
    assert_eq!(std::fs::read(&target).unwrap(), b"untouched");
    assert_eq!(std::fs::read(layout.blob(&digest)).unwrap(), weights);
}

#[tokio::test]
async fn something_that_is_no_model_is_refused_before_a_blob_is_fetched() {
    let origin = Upstream::start().await;
    let config = origin.add_blob(b"{}".to_vec());
    let layer = origin.add_blob(noise(MIB, 12));
    let body = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",
           "config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{config}","size":2}},
           "layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{layer}","size":{MIB}}}]}}"#
    );
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let reference = origin.add_manifest("image", media_type, body.into_bytes());
    let index = br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;
    let media_type = "application/vnd.oci.image.index.v1+json";
    let index = origin.add_manifest("index", media_type, index.to_vec());
    let folder = tests::scratch();
    let node = LocalNode::open(Config::new(folder.path())).await.unwrap();
    for reference in [reference, index] {
        let error = ensure(&node, &reference).await.unwrap_err();
        assert_eq!(error.code(), AgentErrorCode::Unsupported, "{error}");
    }
    assert_eq!(origin.counts().blobs, 0);
    let missing = Reference::parse(&format!("{}/test/model:none", origin.address())).unwrap();
    let error = ensure(&node, &missing).await.unwrap_err();
    assert_eq!(error.code(), AgentErrorCode::NotFound);
}
