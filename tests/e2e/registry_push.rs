//! Distribution-spec, section "Push": blobs in every way, mounting, and manifests.

use artifact::{Algorithm, Digest};
use bytes::Bytes;
use reqwest::StatusCode;
use serde_json::json;

use tests::upstream::noise;

use crate::registry_support::{
    Api, OCI_INDEX, OCI_MANIFEST, descriptor, error_code, fed_body, header, image,
};

#[tokio::test]
async fn post_then_put_pushes_a_blob() {
    let api = Api::start();
    let digest = Digest::sha256(b"content");
    let location = api.begin("a/b").await;
    assert!(
        location.starts_with(&api.url("a/b/blobs/uploads/")),
        "{location}"
    );
    let response = api.close(&location, &digest, b"content").await;
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(
        header(&response, "docker-content-digest"),
        digest.to_string()
    );
    let blob = format!("{}{}", api.server.url(), header(&response, "location"));
    let pulled = api.client.get(blob).send().await.unwrap();
    assert_eq!(pulled.bytes().await.unwrap(), "content");
}

#[tokio::test]
async fn a_single_post_pushes_a_blob() {
    let api = Api::start();
    for algorithm in Algorithm::ALL {
        for content in ["content", ""] {
            let digest = Digest::of(algorithm, content.as_bytes());
            let url = api.url(&format!("a/blobs/uploads/?digest={digest}"));
            let response = api.client.post(url).body(content).send().await.unwrap();
            assert_eq!(response.status(), StatusCode::CREATED, "{digest}");
            let pulled = api.get(&format!("a/blobs/{digest}")).await;
            assert_eq!(pulled.text().await.unwrap(), content);
        }
    }
}

#[tokio::test]
async fn a_single_post_without_content_asks_and_gets_a_session() {
    let api = Api::start();
    let digest = Digest::sha256(b"content");
    let response = api.post(&format!("a/blobs/uploads/?digest={digest}")).await;
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    let location = header(&response, "location");
    let response = api.close(&location, &digest, b"content").await;
    assert_eq!(response.status(), StatusCode::CREATED);
}

#[tokio::test]
async fn a_blob_comes_in_chunks_and_the_last_may_ride_in_the_put() {
    let api = Api::start();
    let content = noise(300_000, 3);
    let digest = Digest::sha256(&content);
    for last_in_put in [false, true] {
        let repository = format!("chunked/{last_in_put}");
        let location = api.begin(&repository).await;
        let patched = if last_in_put { 200_000 } else { 300_000 };
        for start in (0..patched).step_by(100_000) {
            let chunk = &content[start..start + 100_000];
            let response = api.chunk(&location, start, chunk).send().await.unwrap();
            assert_eq!(response.status(), StatusCode::ACCEPTED);
            assert_eq!(header(&response, "range"), format!("0-{}", start + 99_999));
            assert_eq!(header(&response, "location"), location);
        }
        let response = api.close(&location, &digest, &content[patched..]).await;
        assert_eq!(response.status(), StatusCode::CREATED);
        let pulled = api.get(&format!("{repository}/blobs/{digest}")).await;
        assert_eq!(pulled.bytes().await.unwrap(), content);
    }
}

#[tokio::test]
async fn a_blob_comes_as_a_stream_of_unknown_length() {
    let api = Api::start();
    let content = noise(5_000_000, 4);
    let digest = Digest::sha256(&content);
    let location = api.begin("streamed").await;
    let (sender, body) = fed_body();
    let patch = tokio::spawn(api.client.patch(&location).body(body).send());
    for piece in content.chunks(70_001) {
        sender.send(Bytes::copy_from_slice(piece)).await.unwrap();
    }
    drop(sender);
    let response = patch.await.unwrap().unwrap();
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    assert_eq!(header(&response, "range"), "0-4999999");
    let response = api.close(&location, &digest, b"").await;
    assert_eq!(response.status(), StatusCode::CREATED);
}

#[tokio::test]
async fn sha512_blobs_come_in_announced_and_unannounced() {
    let api = Api::start();
    let content = noise(100_000, 5);
    let digest = Digest::of(Algorithm::Sha512, &content);
    for query in ["?digest-algorithm=sha512", ""] {
        let response = api
            .post(&format!("long{}/blobs/uploads/{query}", query.len()))
            .await;
        let location = header(&response, "location");
        let response = api.chunk(&location, 0, &content).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        let response = api.close(&location, &digest, b"").await;
        assert_eq!(response.status(), StatusCode::CREATED);
        assert_eq!(
            header(&response, "docker-content-digest"),
            digest.to_string()
        );
    }
    let response = api.post("long/blobs/uploads/?digest-algorithm=md5").await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn the_status_of_an_upload_is_asked_and_an_upload_is_cancelled() {
    let api = Api::start();
    let location = api.begin("a").await;
    assert_eq!(api.offset(&location).await, 0);
    let _ = api.chunk(&location, 0, b"hello").send().await.unwrap();
    let status = api.client.get(&location).send().await.unwrap();
    assert_eq!(status.status(), StatusCode::NO_CONTENT);
    assert_eq!(header(&status, "range"), "0-4");
    assert_eq!(header(&status, "location"), location);
    let cancelled = api.client.delete(&location).send().await.unwrap();
    assert_eq!(cancelled.status(), StatusCode::NO_CONTENT);
    let gone = api.client.get(&location).send().await.unwrap();
    assert_eq!(gone.status(), StatusCode::NOT_FOUND);
    assert_eq!(error_code(gone).await, "BLOB_UPLOAD_UNKNOWN");
}

#[tokio::test]
async fn a_blob_is_mounted_from_another_repository() {
    let api = Api::start();
    let digest = api.push_blob("source", b"content").await;
    for (target, from) in [("one", "&from=source"), ("two", "")] {
        let response = api
            .post(&format!("{target}/blobs/uploads/?mount={digest}{from}"))
            .await;
        assert_eq!(response.status(), StatusCode::CREATED);
        let location = header(&response, "location");
        assert_eq!(location, format!("/v2/{target}/blobs/{digest}"));
        let pulled = api.get(&format!("{target}/blobs/{digest}")).await;
        assert_eq!(pulled.text().await.unwrap(), "content");
    }
}

#[tokio::test]
async fn a_blob_that_cannot_be_mounted_opens_a_session() {
    let api = Api::start();
    let held = api.push_blob("source", b"content").await;
    let absent = Digest::sha256(b"absent");
    for (digest, from) in [(absent, "source"), (held, "elsewhere"), (held, "library/")] {
        let response = api
            .post(&format!("a/blobs/uploads/?mount={digest}&from={from}"))
            .await;
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        assert!(header(&response, "location").contains("/blobs/uploads/"));
    }
}

#[tokio::test]
async fn pushing_manifests_by_digest_sets_tags_named_in_the_query() {
    let api = Api::start();
    let _ = api.push_image("a", "first", b"layer").await;
    let manifest = image(&[b"layer", b"layer"]);
    for algorithm in Algorithm::ALL {
        let digest = Digest::of(algorithm, manifest.to_string().as_bytes());
        let name = algorithm.as_str();
        let reference = format!("{digest}?tag={name}.1&tag={name}.2");
        let response = api.put_manifest("a", &reference, &manifest).await;
        assert_eq!(response.status(), StatusCode::CREATED);
        let tags: Vec<_> = response.headers().get_all("oci-tag").iter().collect();
        assert_eq!(tags, [&format!("{name}.1"), &format!("{name}.2")]);
        assert_eq!(
            header(&response, "docker-content-digest"),
            digest.to_string()
        );
        let by_tag = api.head(&format!("a/manifests/{name}.2")).await;
        assert_eq!(header(&by_tag, "docker-content-digest"), digest.to_string());
    }
}

#[tokio::test]
async fn pushing_a_manifest_with_a_subject_that_is_absent_is_accepted() {
    let api = Api::start();
    let _ = api.push_image("a", "v1", b"layer").await;
    let mut manifest = image(&[b"layer"]);
    manifest["subject"] = descriptor(OCI_MANIFEST, b"absent");
    let response = api.put_manifest("a", "signature", &manifest).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    let subject = Digest::sha256(b"absent").to_string();
    assert_eq!(header(&response, "oci-subject"), subject);
}

#[tokio::test]
async fn an_index_is_pushed_after_its_manifests() {
    let api = Api::start();
    let _ = api.push_image("a", "v1", b"layer").await;
    let child = image(&[b"layer"]).to_string();
    let index = json!({
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [descriptor(OCI_MANIFEST, child.as_bytes())],
    });
    let response = api.put_manifest("a", "all", &index).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    let pulled = api.get("a/manifests/all").await;
    assert_eq!(header(&pulled, "content-type"), OCI_INDEX);
    let response = api.put_manifest("elsewhere", "all", &index).await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    assert_eq!(error_code(response).await, "MANIFEST_BLOB_UNKNOWN");
}

#[tokio::test]
async fn a_tag_that_is_pushed_again_moves() {
    let api = Api::start();
    let first = api.push_image("a", "latest", b"one").await;
    let second = api.push_image("a", "latest", b"two").await;
    let response = api.head("a/manifests/latest").await;
    assert_eq!(
        header(&response, "docker-content-digest"),
        second.to_string()
    );
    assert_eq!(
        api.head(&format!("a/manifests/{first}")).await.status(),
        StatusCode::OK
    );
}

#[tokio::test]
async fn layers_that_stay_elsewhere_need_not_be_pushed() {
    let api = Api::start();
    api.push_blob("a", b"{}").await;
    let mut manifest = image(&[b"foreign"]);
    manifest["layers"][0]["mediaType"] =
        json!("application/vnd.oci.image.layer.nondistributable.v1.tar");
    manifest["layers"][0]["urls"] = json!(["https://store.example.com/layer"]);
    let response = api.put_manifest("a", "v1", &manifest).await;
    assert_eq!(response.status(), StatusCode::CREATED);
}
