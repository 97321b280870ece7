//! Chunk maps as a client finds them: referrers of a manifest, none of which is believed.

use artifact::chunk_map::{ChunkMap, MAX_MAP_BYTES};
use artifact::client::{ChunkMaps, Error, Origin, OriginUrl, RegistryOptions, Transport};
use artifact::{ChunkHash, Digest};
use bytes::Bytes;
use serde_json::{Value, json};
use tests::upstream::{Upstream, chunk_map_of, noise};
use tests::variants::hay_tiny;

const SIZE: usize = 2 << 20;

async fn open(at: &str) -> Origin {
    let at: OriginUrl = at.parse().unwrap();
    let options = RegistryOptions::default();
    Origin::open(&Transport::default(), &at, "test/model", &options)
        .await
        .unwrap()
}

/// An origin, what asks it, a manifest and a blob with its map.
struct World {
    upstream: Upstream,
    origin: Origin,
    manifest: Digest,
    blob: Digest,
    map: ChunkMap,
}

impl World {
    async fn new() -> Self {
        let upstream = Upstream::start().await;
        let blob = noise(SIZE, 1);
        Self {
            origin: open(&format!("oci+http://{}", upstream.address())).await,
            upstream,
            manifest: Digest::sha256(b"the manifest"),
            blob: Digest::sha256(&blob),
            map: chunk_map_of(&blob),
        }
    }

    fn good(&self) -> (Digest, Bytes) {
        (self.blob, self.map.encode().into())
    }

    async fn maps(&self) -> Result<ChunkMaps, Error> {
        self.origin.chunk_maps(&self.manifest).await
    }

    /// What comes of asking for the map of the blob.
    async fn found(&self) -> Result<Option<ChunkMap>, Error> {
        self.maps().await?.of(&self.blob, SIZE as u64).await
    }

    /// What comes of it when this is all that is offered.
    async fn found_in(
        &self,
        maps: &[(Digest, Bytes)],
        change: impl FnOnce(&mut Value),
    ) -> Result<Option<ChunkMap>, Error> {
        self.upstream.clear_referrers();
        self.upstream
            .offer_maps_changed(&self.manifest, maps, change);
        self.found().await
    }
}

#[tokio::test]
async fn a_map_is_found_by_its_blob_among_the_referrers_of_the_manifest() {
    let world = World::new().await;
    let other = noise(SIZE, 2);
    let others = (Digest::sha256(&other), chunk_map_of(&other).encode().into());
    let signature = json!({
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": Digest::sha256(b"a signature"),
        "size": 1,
        "artifactType": "application/vnd.example.signature",
    });
    world.upstream.list_referrer(&world.manifest, signature);
    world
        .upstream
        .offer_maps(&world.manifest, &[others, world.good()]);

    let maps = world.maps().await.unwrap();
    assert!(!maps.is_empty());
    let found = maps.of(&world.blob, SIZE as u64).await.unwrap();
    assert_eq!(found.as_ref(), Some(&world.map));
    let unknown = Digest::sha256(b"unknown");
    assert_eq!(maps.of(&unknown, SIZE as u64).await.unwrap(), None);
}

#[tokio::test]
async fn an_origin_that_offers_no_maps_is_no_error() {
    let world = World::new().await;
    assert!(world.maps().await.unwrap().is_empty());
    assert_eq!(world.found().await.unwrap(), None);
    // At Hugging Face nobody is asked: nothing listens there.
    let hub = open("hf+http://127.0.0.1:1").await;
    assert!(hub.chunk_maps(&world.manifest).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_map_that_is_not_of_the_blob_is_refused_with_the_reason() {
    let world = World::new().await;
    let (blob, good) = world.good();
    let other = noise(SIZE, 3);
    let chunks = [(SIZE as u64 - 1, ChunkHash::of(b""))];
    let shorter = ChunkMap::new(blob, chunks).unwrap().encode();
    let damaged = [good.as_ref(), b"more"].concat();
    for (map, reason) in [
        (Bytes::from_static(b"no map"), "6 bytes where"),
        (damaged.into(), "bytes where"),
        (chunk_map_of(&other).encode().into(), "it is of blob"),
        (shorter.into(), "and the blob has"),
        (Bytes::new(), "0 bytes where"),
    ] {
        let error = world.found_in(&[(blob, map)], |_| {}).await.unwrap_err();
        assert!(matches!(error, Error::ChunkMap { .. }), "{error}");
        assert!(error.to_string().contains(reason), "{error}");
    }
}

#[tokio::test]
async fn a_map_that_does_not_come_as_it_was_announced_is_refused() {
    let world = World::new().await;
    let missing = Digest::sha256(b"missing");
    let change = |manifest: &mut Value| manifest["layers"][0]["digest"] = json!(missing);
    let error = world.found_in(&[world.good()], change).await.unwrap_err();
    assert!(matches!(error, Error::BlobUnknown { .. }), "{error}");

    let other = Bytes::from(vec![0; world.map.encode().len()]);
    world.upstream.add_wrong_blob(&missing, other);
    let error = world.found().await.unwrap_err();
    assert!(matches!(error, Error::DigestMismatch { .. }), "{error}");

    let change = |manifest: &mut Value| manifest["layers"][0]["size"] = json!(100);
    let error = world.found_in(&[world.good()], change).await.unwrap_err();
    assert!(matches!(error, Error::WrongSize { .. }), "{error}");
}

#[tokio::test]
async fn a_layer_that_is_no_map_is_not_fetched() {
    let world = World::new().await;
    for (member, value) in [
        ("mediaType", json!("application/octet-stream")),
        ("size", json!(MAX_MAP_BYTES + 1)),
        ("annotations", json!({})),
        (
            "annotations",
            json!({ "org.hayloft.chunk-map.blob": "sha256:../.." }),
        ),
    ] {
        let change = |manifest: &mut Value| manifest["layers"][0][member] = value.clone();
        let found = world.found_in(&[world.good()], change).await;
        assert_eq!(found.unwrap(), None, "{member}: {value}");
    }
    assert_eq!(world.upstream.counts().blobs, 0);
}

#[tokio::test]
async fn a_manifest_that_is_not_of_the_subject_or_of_the_type_offers_nothing() {
    let world = World::new().await;
    for (member, value) in [
        ("subject", json!(null)),
        ("artifactType", json!("application/vnd.example.other")),
        ("layers", json!("none")),
    ] {
        let change = |manifest: &mut Value| manifest[member] = value.clone();
        let found = world.found_in(&[world.good()], change).await;
        assert!(found.is_err(), "{member}: {value}");
    }
    // An entry of another media type, one that is not there, one that is too large for a manifest.
    let entry = |media_type: &str, size: u64| {
        json!({
            "mediaType": media_type,
            "digest": Digest::sha256(b"nowhere"),
            "size": size,
            "artifactType": "application/vnd.hayloft.chunk-maps.v1",
        })
    };
    let manifest = "application/vnd.oci.image.manifest.v1+json";
    for entry in [
        entry("application/vnd.oci.image.index.v1+json", 10),
        entry(manifest, 10),
        entry(manifest, 1 << 40),
    ] {
        world.upstream.clear_referrers();
        world.upstream.list_referrer(&world.manifest, entry.clone());
        assert!(world.found().await.is_err(), "{entry}");
        // What is good counts all the same.
        world.upstream.offer_maps(&world.manifest, &[world.good()]);
        assert!(world.found().await.unwrap().is_some(), "{entry}");
    }
}

#[tokio::test]
async fn a_list_of_referrers_that_is_none_or_very_long_is_an_error() {
    let world = World::new().await;
    world
        .upstream
        .list_referrer(&world.manifest, json!({ "digest": "nonsense" }));
    let error = world.found().await.unwrap_err();
    assert!(matches!(error, Error::Answer { .. }), "{error}");
    let long = json!({ "annotations": { "filling": "x".repeat(5 << 20) } });
    world.upstream.list_referrer(&world.manifest, long);
    let error = world.found().await.unwrap_err();
    assert!(matches!(error, Error::TooLong { .. }), "{error}");
}

#[tokio::test]
async fn of_several_maps_the_first_good_one_counts_and_many_bad_ones_end_the_search() {
    let world = World::new().await;
    let bad = |text: String| (world.blob, Bytes::from(text));
    world
        .upstream
        .offer_maps(&world.manifest, &[bad("bad".to_owned()), world.good()]);
    assert_eq!(world.found().await.unwrap(), Some(world.map.clone()));

    let many: Vec<_> = (0..100)
        .map(|number| bad(format!("bad {number}")))
        .collect();
    let before = world.upstream.counts().blobs;
    assert!(world.found_in(&many, |_| {}).await.is_err());
    assert_eq!(world.upstream.counts().blobs - before, 4);
}

/// `hayloft inspect --chunks`, off the main thread: the origin answers on it.
async fn inspect(reference: &str, flags: &[&str]) -> tests::Finished {
    let words = [&["inspect", reference, "--chunks"], flags].concat();
    let mut command = tests::hayloft_command(words);
    tokio::task::spawn_blocking(move || tests::run(&mut command))
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn inspect_lists_the_chunks_that_a_registry_offers_and_says_when_it_offers_none() {
    let upstream = Upstream::start().await;
    let model = hay_tiny();
    let reference = upstream.add_model("1", model.clone()).to_string();
    let said = inspect(&reference, &[]).await.succeeded();
    assert!(said.contains("no chunk maps"), "{said}");
    let empty = inspect(&reference, &["--output", "json"]).await.succeeded();
    let empty: Value = serde_json::from_str(&empty).unwrap();
    assert_eq!(empty["chunk_maps"], json!([]));

    let map = chunk_map_of(&model);
    let manifest: Digest = empty["digest"].as_str().unwrap().parse().unwrap();
    let offered = (map.blob(), Bytes::from(map.encode()));
    upstream.offer_maps(&manifest, &[offered]);
    let shown = inspect(&reference, &["--output", "json"]).await.succeeded();
    let shown: Value = serde_json::from_str(&shown).unwrap();
    let found = &shown["chunk_maps"][0];
    assert_eq!(found["blob"], json!(map.blob()));
    assert_eq!(found["count"], json!(16));
    assert_eq!(found["min_length"], json!(21_691));
    assert_eq!(found["max_length"], json!(452_608));
    let second = json!({
        "offset": 29_925,
        "length": 21_691,
        "blake3": map.hash(1).unwrap().to_string(),
    });
    assert_eq!(found["chunks"][1], second);

    let said = inspect(&reference, &[]).await.succeeded();
    assert!(
        said.contains("SHORTEST") && said.contains("OFFSET"),
        "{said}"
    );
    assert!(said.contains(&map.hash(15).unwrap().to_string()), "{said}");

    // One that says something wrong is told as it is.
    upstream.clear_referrers();
    upstream.offer_maps(&manifest, &[(map.blob(), Bytes::from_static(b"bad"))]);
    let said = inspect(&reference, &[]).await.failed();
    assert!(
        said.contains("chunk map") && said.contains("cannot be used"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn inspect_lists_the_chunks_of_a_model_that_was_pushed_to_our_registry() {
    let registry = tests::Server::registry().start();
    let reference = format!("{}/demo/hay-tiny:1", registry.address());
    let model = tests::fixture("hay-tiny-q8_0.gguf");
    let _ = tests::hayloft(&["push", model.to_str().unwrap(), &reference]).succeeded();
    let map = chunk_map_of(&hay_tiny());
    let shown = inspect(&reference, &["--output", "json"]).await.succeeded();
    let shown: Value = serde_json::from_str(&shown).unwrap();
    let maps = shown["chunk_maps"].as_array().unwrap();
    assert_eq!(maps.len(), 1, "{shown}");
    assert_eq!(maps[0]["blob"], json!(map.blob()));
    let hashes = map.chunks().map(|(_, hash)| json!(hash.to_string()));
    let found = maps[0]["chunks"].as_array().unwrap();
    let found = found.iter().map(|chunk| chunk["blake3"].clone());
    assert!(found.eq(hashes), "{shown}");
}
