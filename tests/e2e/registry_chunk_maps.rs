//! Chunk maps of a registry: made as blobs come in, kept beside them, listed among the referrers of the
//! manifests that name them, and gone with them.

use std::path::Path;

use artifact::Digest;
use artifact::chunk_map::{CHUNK_MAP, CHUNK_MAPS, ChunkHash, ChunkMap, MAP_OF};
use artifact::client::{Origin, OriginUrl, RegistryOptions, Transport};
use futures::future::join_all;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tests::upstream::noise;
use tests::{Builder, Server, eventually, fixture, scratch};

use crate::registry_access::{ANN, PASSWORD};
use crate::registry_dialects::{as_docker, push};
use crate::registry_operation::counter;
use crate::registry_replicas::Shared;
use crate::registry_support::{Api, OCI_MANIFEST, descriptor, header, image};

/// The bundled model: 3 MB of GGUF.
pub(crate) fn weights() -> Vec<u8> {
    std::fs::read(fixture("hay-tiny-q8_0.gguf")).unwrap()
}

/// A registry in this folder, with these arguments.
pub(crate) fn on(folder: &Path, arguments: &[&str]) -> Api {
    Api::on(with(Server::registry().data(folder), arguments).start())
}

pub(crate) fn with(builder: Builder, arguments: &[&str]) -> Builder {
    arguments
        .iter()
        .fold(builder, |builder, argument| builder.argument(argument))
}

pub(crate) async fn digest_of(api: &Api, repository: &str) -> String {
    let head = api.head(&format!("{repository}/manifests/1")).await;
    assert_eq!(head.status(), StatusCode::OK);
    header(&head, "docker-content-digest")
}

/// The referrers of a manifest with chunk maps.
pub(crate) async fn listed(api: &Api, repository: &str, subject: &str) -> Vec<Value> {
    let path = format!("{repository}/referrers/{subject}?artifactType={CHUNK_MAPS}");
    let answer = api.get(&path).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(header(&answer, "oci-filters-applied"), "artifactType");
    let list: Value = answer.json().await.unwrap();
    list["manifests"].as_array().unwrap().clone()
}

/// The digest of the one referrer with chunk maps, at once.
pub(crate) async fn offered(api: &Api, repository: &str) -> String {
    let subject = digest_of(api, repository).await;
    let listed = listed(api, repository, &subject).await;
    assert_eq!(listed.len(), 1, "{listed:?}");
    listed[0]["digest"].as_str().unwrap().to_owned()
}

/// The same when a blob has to be read first.
pub(crate) async fn offered_soon(api: &Api, repository: &str) -> String {
    let subject = digest_of(api, repository).await;
    eventually("the maps are listed", 20, async || {
        let listed = listed(api, repository, &subject).await;
        Some(listed.first()?["digest"].as_str()?.to_owned())
    })
    .await
}

/// The maps that a manifest names, by its digest, as a node reads them.
pub(crate) async fn maps(api: &Api, repository: &str, digest: &str) -> Vec<ChunkMap> {
    let answer = api.get(&format!("{repository}/manifests/{digest}")).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(header(&answer, "content-type"), OCI_MANIFEST);
    let content = answer.bytes().await.unwrap();
    assert_eq!(Digest::sha256(&content).to_string(), digest);
    let manifest: Value = serde_json::from_slice(&content).unwrap();
    assert_eq!(manifest["artifactType"], CHUNK_MAPS);
    let empty = manifest["config"]["digest"].as_str().unwrap();
    let empty = api.get(&format!("{repository}/blobs/{empty}")).await;
    assert_eq!(empty.bytes().await.unwrap(), "{}");
    let mut maps = Vec::new();
    for layer in manifest["layers"].as_array().unwrap() {
        assert_eq!(layer["mediaType"], CHUNK_MAP);
        let digest = layer["digest"].as_str().unwrap();
        let blob = api.get(&format!("{repository}/blobs/{digest}")).await;
        assert_eq!(blob.status(), StatusCode::OK);
        let blob = blob.bytes().await.unwrap();
        assert_eq!(Digest::sha256(&blob).to_string(), digest);
        let map = ChunkMap::parse(&blob).unwrap();
        assert_eq!(layer["annotations"][MAP_OF], map.blob().to_string());
        maps.push(map);
    }
    maps
}

/// Every chunk is what the map says.
pub(crate) fn assert_describes(map: &ChunkMap, content: &[u8]) {
    assert_eq!(map.blob(), Digest::sha256(content));
    assert_eq!(map.size(), content.len() as u64);
    assert!(map.len() > 1);
    for (range, hash) in map.chunks() {
        let [start, end] = [range.start, range.end].map(|at| usize::try_from(at).unwrap());
        assert_eq!(hash, ChunkHash::of(&content[start..end]));
    }
}

/// A manifest of these layers under the tag `1`, of a model in ModelPack's words.
pub(crate) async fn put_model(api: &Api, repository: &str, layers: &[&[u8]]) {
    let config = br#"{"descriptor":{},"modelfs":{"type":"layers","diffIds":[]},"config":{}}"#;
    api.push_blob(repository, config).await;
    let layers: Vec<_> = layers
        .iter()
        .map(|layer| descriptor("application/vnd.cncf.model.weight.v1.raw", layer))
        .collect();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": "application/vnd.cncf.model.manifest.v1+json",
        "config": descriptor("application/vnd.cncf.model.config.v1+json", config),
        "layers": layers,
    });
    let put = api.put_manifest(repository, "1", &manifest).await;
    assert_eq!(put.status(), StatusCode::CREATED);
}

#[tokio::test]
async fn the_map_of_a_pushed_model_is_listed_at_once_and_says_what_its_chunks_are() {
    let (api, other) = (Api::start(), Api::start());
    push(&api, "team/hay:1", None);
    let subject = digest_of(&api, "team/hay").await;
    let all = api.get(&format!("team/hay/referrers/{subject}")).await;
    let all: Value = all.json().await.unwrap();
    assert_eq!(
        all["manifests"],
        json!(listed(&api, "team/hay", &subject).await)
    );
    let digest = offered(&api, "team/hay").await;
    let maps = maps(&api, "team/hay", &digest).await;
    assert_eq!(maps.len(), 1);
    assert_describes(&maps[0], &weights());
    let entry = &listed(&api, "team/hay", &subject).await[0];
    assert_eq!(entry["artifactType"], CHUNK_MAPS);
    assert_eq!(entry.get("annotations"), None);

    // As the uploads came, and once for the whole; the small blobs have none.
    assert_eq!(
        counter(&api, r#"chunk_maps_total{source="upload"}"#).await,
        1
    );
    let bytes = counter(&api, r#"chunk_mapped_bytes_total{source="upload"}"#).await;
    assert_eq!(bytes, 3_020_192);
    assert_eq!(counter(&api, "chunk_map_reads_total").await, 0);
    assert_eq!(counter(&api, "chunk_maps_published_total").await, 1);

    // Another registry makes the same, and what was made of it for Docker has maps of its own.
    push(&other, "team/hay:1", None);
    assert_eq!(offered(&other, "team/hay").await, digest);
    let docker = as_docker(api.client.head(api.url("team/hay/manifests/1")));
    let docker = header(&docker.send().await.unwrap(), "docker-content-digest");
    assert_ne!(docker, subject);
    assert_eq!(listed(&api, "team/hay", &docker).await.len(), 1);
    assert_eq!(listed(&api, "team/hay", &digest).await, Vec::<Value>::new());
}

#[tokio::test]
async fn a_node_finds_the_map_by_itself() {
    let api = Api::start();
    push(&api, "team/hay:1", None);
    let subject = Digest::parse(&digest_of(&api, "team/hay").await).unwrap();
    let at: OriginUrl = format!("oci+{}", api.server.url()).parse().unwrap();
    let transport = Transport::default();
    let options = RegistryOptions::default();
    let origin = Origin::open(&transport, &at, "team/hay", &options);
    let maps = origin.await.unwrap().chunk_maps(&subject).await.unwrap();
    let content = weights();
    let blob = Digest::sha256(&content);
    let map = maps.of(&blob, content.len() as u64).await.unwrap();
    assert_describes(&map.unwrap(), &content);
}

#[tokio::test]
async fn an_upload_in_several_requests_is_mapped_without_a_read() {
    let api = Api::start();
    let content = noise(7_000_000, 1);
    let location = api.begin("a").await;
    for start in [0, 500_000, 1_000_000, 4_000_000] {
        let end = match start {
            500_000 => 1_000_000,
            0 => 500_000,
            1_000_000 => 4_000_000,
            _ => 6_000_000,
        };
        let sent = api.chunk(&location, start, &content[start..end]);
        assert_eq!(sent.send().await.unwrap().status(), StatusCode::ACCEPTED);
    }
    let digest = Digest::sha256(&content);
    let closed = api.close(&location, &digest, &content[6_000_000..]).await;
    assert_eq!(closed.status(), StatusCode::CREATED);
    put_model(&api, "a", &[&content]).await;
    let digest = offered(&api, "a").await;
    assert_describes(&maps(&api, "a", &digest).await[0], &content);
    assert_eq!(counter(&api, "chunk_map_reads_total").await, 0);
}

#[tokio::test]
async fn an_upload_that_outlived_its_registry_is_mapped_by_one_read() {
    let folder = scratch();
    let mut api = on(folder.path(), &[]);
    let content = weights();
    let location = api.begin("a").await;
    let path = location.split_once("/v2/").unwrap().1.to_owned();
    let sent = api.chunk(&location, 0, &content[..2_000_000]);
    assert_eq!(sent.send().await.unwrap().status(), StatusCode::ACCEPTED);
    api.server.kill();

    let api = on(folder.path(), &[]);
    let blob = Digest::sha256(&content);
    let closed = api
        .close(&api.url(&path), &blob, &content[2_000_000..])
        .await;
    assert_eq!(closed.status(), StatusCode::CREATED);
    let whole = noise(2_000_000, 2);
    api.push_blob("a", &whole).await;
    put_model(&api, "a", &[&content, &whole]).await;
    let subject = digest_of(&api, "a").await;
    // Not half of the maps: one that lists some today and all tomorrow would be two.
    assert_eq!(listed(&api, "a", &subject).await, Vec::<Value>::new());
    let digest = offered_soon(&api, "a").await;
    let maps = maps(&api, "a", &digest).await;
    assert_describes(&maps[0], &content);
    assert_describes(&maps[1], &whole);
    assert_eq!(listed(&api, "a", &subject).await.len(), 1);
    assert_eq!(counter(&api, "chunk_map_reads_total").await, 1);
    assert_eq!(counter(&api, r#"chunk_maps_total{source="read"}"#).await, 1);
}

#[tokio::test]
async fn a_mounted_blob_has_the_map_that_it_had() {
    let api = Api::start();
    let content = weights();
    let blob = api.push_blob("a", &content).await;
    let mount = format!("b/copy/blobs/uploads/?mount={blob}&from=a");
    assert_eq!(api.post(&mount).await.status(), StatusCode::CREATED);
    put_model(&api, "b/copy", &[&content]).await;
    let digest = offered(&api, "b/copy").await;
    assert_describes(&maps(&api, "b/copy", &digest).await[0], &content);
    assert_eq!(counter(&api, "chunk_map_reads_total").await, 0);
    // The other repository learns nothing of it.
    let stranger = api.head(&format!("a/manifests/{digest}")).await;
    assert_eq!(stranger.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn many_who_ask_at_once_find_one_manifest() {
    let api = Api::start();
    push(&api, "team/hay:1", None);
    let subject = digest_of(&api, "team/hay").await;
    let lists = join_all((0..16).map(|_| listed(&api, "team/hay", &subject))).await;
    for list in &lists {
        assert_eq!(list, &lists[0]);
        assert_eq!(list.len(), 1);
    }
    assert_eq!(counter(&api, "chunk_maps_published_total").await, 1);
}

#[tokio::test]
async fn replicas_offer_the_same_maps_at_once() {
    let shared = Shared::start();
    let (one, other) = shared.two_at_once();
    let content = weights();
    one.push_blob("a", &content).await;
    put_model(&one, "a", &[&content]).await;
    let subject = digest_of(&one, "a").await;
    let apis = [&one, &other, &one, &other];
    let lists = join_all(apis.map(|api| listed(api, "a", &subject))).await;
    for list in &lists {
        assert_eq!(list, &lists[0]);
        assert_eq!(list.len(), 1);
    }
    let digest = offered(&other, "a").await;
    assert_describes(&maps(&other, "a", &digest).await[0], &content);
}

#[tokio::test]
async fn who_may_not_read_the_repository_starts_nothing() {
    let folder = scratch();
    let accounts = folder.path().join("htpasswd");
    std::fs::write(&accounts, ANN).unwrap();
    let data = scratch();
    let api = on(data.path(), &[]);
    push(&api, "team/hay:1", None);
    let subject = digest_of(&api, "team/hay").await;
    drop(api);
    let api = on(data.path(), &["--htpasswd", accounts.to_str().unwrap()]);
    let path = format!("team/hay/referrers/{subject}");
    assert_eq!(api.get(&path).await.status(), StatusCode::UNAUTHORIZED);
    let page = api.client.get(format!("{}/metrics", api.server.url()));
    let page = page.basic_auth("ann", Some(PASSWORD)).send().await.unwrap();
    let page = page.text().await.unwrap();
    assert!(
        page.contains("hayloft_registry_chunk_maps_published_total 0"),
        "{page}"
    );
}

/// A registry that mirrors another one below `hub`.
fn mirror(of: &Api) -> Api {
    let upstream = format!("hub=oci+http://{}", of.server.address());
    Api::on(with(Server::registry(), &["--upstream", &upstream]).start())
}

#[tokio::test]
async fn a_mirror_passes_on_the_maps_of_its_upstream() {
    let upstream = Api::start();
    push(&upstream, "team/hay:1", None);
    let mirror = mirror(&upstream);
    let digest = offered(&mirror, "hub/team/hay").await;
    assert_eq!(digest, offered(&upstream, "team/hay").await);
    assert_describes(&maps(&mirror, "hub/team/hay", &digest).await[0], &weights());
    assert_eq!(counter(&mirror, "chunk_maps_published_total").await, 0);
    // Once the weights are here too, nothing else is made of them.
    let blob = Digest::sha256(&weights());
    let pulled = mirror.get(&format!("hub/team/hay/blobs/{blob}")).await;
    assert_eq!(pulled.bytes().await.unwrap(), weights());
    assert_eq!(offered(&mirror, "hub/team/hay").await, digest);
    assert_eq!(counter(&mirror, "chunk_maps_published_total").await, 0);
}

#[tokio::test]
async fn a_mirror_makes_the_maps_that_its_upstream_has_not() {
    let folder = scratch();
    let upstream = on(folder.path(), &["--chunk-maps", "off"]);
    push(&upstream, "team/hay:1", None);
    let mirror = mirror(&upstream);
    let subject = digest_of(&mirror, "hub/team/hay").await;
    let none = Vec::<Value>::new();
    // A mirror that holds nothing makes nothing.
    assert_eq!(listed(&mirror, "hub/team/hay", &subject).await, none);
    let blob = Digest::sha256(&weights());
    let pulled = mirror.get(&format!("hub/team/hay/blobs/{blob}")).await;
    assert_eq!(pulled.bytes().await.unwrap(), weights());
    // It was cut as it came.
    let digest = eventually("the blob is filled", 20, async || {
        let listed = listed(&mirror, "hub/team/hay", &subject).await;
        Some(listed.first()?["digest"].as_str()?.to_owned())
    })
    .await;
    assert_describes(&maps(&mirror, "hub/team/hay", &digest).await[0], &weights());
    assert_eq!(counter(&mirror, "chunk_maps_published_total").await, 1);
    assert_eq!(
        counter(&mirror, r#"chunk_maps_total{source="fill"}"#).await,
        1
    );
    assert_eq!(counter(&mirror, "chunk_map_reads_total").await, 0);
}

#[tokio::test]
async fn other_referrers_are_listed_as_ever_beside_the_maps() {
    let api = Api::start();
    push(&api, "team/hay:1", None);
    let subject = digest_of(&api, "team/hay").await;
    let size = api.head("team/hay/manifests/1").await;
    let size: u64 = header(&size, "content-length").parse().unwrap();
    api.push_blob("team/hay", b"{}").await;
    api.push_blob("team/hay", b"signature").await;
    let mut signature = image(&[b"signature"]);
    signature["artifactType"] = json!("example/signature");
    signature["subject"] = json!({ "mediaType": OCI_MANIFEST, "digest": subject, "size": size });
    let put = api.put_manifest("team/hay", "signature", &signature).await;
    assert_eq!(put.status(), StatusCode::CREATED);
    // Whoever wants signatures alone makes nobody make maps.
    let path = format!("team/hay/referrers/{subject}");
    let signatures = api
        .get(&format!("{path}?artifactType=example/signature"))
        .await;
    let signatures: Value = signatures.json().await.unwrap();
    assert_eq!(signatures["manifests"].as_array().unwrap().len(), 1);
    assert_eq!(counter(&api, "chunk_maps_published_total").await, 0);
    let all: Value = api.get(&path).await.json().await.unwrap();
    assert_eq!(all["manifests"].as_array().unwrap().len(), 2);
}
