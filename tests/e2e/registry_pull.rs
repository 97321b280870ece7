//! Distribution-spec, section "Pull": manifests, blobs, ranges, and checking what exists.

use artifact::Digest;
use reqwest::StatusCode;

use tests::upstream::noise;

use crate::registry_support::{Api, OCI_MANIFEST, error_code, header, image};

#[tokio::test]
async fn pulling_manifests_gives_the_exact_bytes_by_tag_and_by_digest() {
    let api = Api::start();
    let digest = api.push_image("team/llama", "8b", b"layer").await;
    let wanted = image(&[b"layer"]).to_string();
    for reference in ["8b".to_owned(), digest.to_string()] {
        let response = api.get(&format!("team/llama/manifests/{reference}")).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(header(&response, "content-type"), OCI_MANIFEST);
        assert_eq!(
            header(&response, "docker-content-digest"),
            digest.to_string()
        );
        assert_eq!(response.text().await.unwrap(), wanted);
    }
}

#[tokio::test]
async fn pulling_a_manifest_or_blob_that_is_not_there_is_404() {
    let api = Api::start();
    let absent = Digest::sha256(b"absent");
    let response = api.get("a/manifests/v1").await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    assert_eq!(error_code(response).await, "MANIFEST_UNKNOWN");
    let response = api.get(&format!("a/blobs/{absent}")).await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    assert_eq!(error_code(response).await, "BLOB_UNKNOWN");
}

#[tokio::test]
async fn pulling_blobs_gives_content_digest_and_a_location_to_fetch_ranges_from() {
    let api = Api::start();
    let content = noise(3_000_000, 1);
    let digest = api.push_blob("a/b", &content).await;
    let response = api.get(&format!("a/b/blobs/{digest}")).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(
        header(&response, "docker-content-digest"),
        digest.to_string()
    );
    assert_eq!(header(&response, "content-length"), "3000000");
    assert_eq!(
        header(&response, "location"),
        format!("/v2/a/b/blobs/{digest}")
    );
    assert_eq!(response.bytes().await.unwrap(), content);
}

#[tokio::test]
async fn ranges_of_a_blob_are_cut_exactly() {
    let api = Api::start();
    let content = noise(2048, 2);
    let digest = api.push_blob("a", &content).await;
    let url = api.url(&format!("a/blobs/{digest}"));
    for (range, place, wanted) in [
        ("bytes=500-1499", "bytes 500-1499/2048", &content[500..1500]),
        ("bytes=500-", "bytes 500-2047/2048", &content[500..]),
        ("bytes=-500", "bytes 1548-2047/2048", &content[1548..]),
        ("bytes=2000-5000", "bytes 2000-2047/2048", &content[2000..]),
        ("bytes=0-0", "bytes 0-0/2048", &content[..1]),
    ] {
        let response = api
            .client
            .get(&url)
            .header("range", range)
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::PARTIAL_CONTENT, "{range}");
        assert_eq!(header(&response, "content-range"), place);
        assert_eq!(
            header(&response, "content-length"),
            wanted.len().to_string()
        );
        assert_eq!(response.bytes().await.unwrap(), wanted);
    }
    for range in ["bytes=500-0", "bytes=5000-10000", "bytes=2048-", "bytes=-0"] {
        let response = api
            .client
            .get(&url)
            .header("range", range)
            .send()
            .await
            .unwrap();
        assert_eq!(
            response.status(),
            StatusCode::RANGE_NOT_SATISFIABLE,
            "{range}"
        );
        assert_eq!(header(&response, "content-range"), "bytes */2048");
    }
}

#[tokio::test]
async fn head_tells_that_content_exists_with_its_size_and_digest() {
    let api = Api::start();
    let manifest = api.push_image("a", "v1", b"layer").await;
    let layer = Digest::sha256(b"layer");
    let response = api.head(&format!("a/blobs/{layer}")).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(header(&response, "content-length"), "5");
    assert_eq!(
        header(&response, "docker-content-digest"),
        layer.to_string()
    );
    let response = api.head("a/manifests/v1").await;
    assert_eq!(response.status(), StatusCode::OK);
    let size = image(&[b"layer"]).to_string().len().to_string();
    assert_eq!(header(&response, "content-length"), size);
    assert_eq!(
        header(&response, "docker-content-digest"),
        manifest.to_string()
    );
    assert_eq!(
        api.head("a/manifests/v2").await.status(),
        StatusCode::NOT_FOUND
    );
    let absent = Digest::sha256(b"absent");
    let response = api.head(&format!("a/blobs/{absent}")).await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_blob_of_another_repository_is_not_there() {
    let api = Api::start();
    let digest = api.push_blob("mine", b"secret").await;
    let response = api.head(&format!("yours/blobs/{digest}")).await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn content_that_the_client_has_is_not_sent_again() {
    let api = Api::start();
    let manifest = api.push_image("a", "v1", b"layer").await;
    let layer = Digest::sha256(b"layer");
    for path in [format!("a/blobs/{layer}"), "a/manifests/v1".to_owned()] {
        let etag = header(&api.head(&path).await, "etag");
        let url = api.url(&path);
        let asked = api
            .client
            .get(url)
            .header("if-none-match", etag)
            .send()
            .await;
        assert_eq!(asked.unwrap().status(), StatusCode::NOT_MODIFIED);
    }
    assert!(
        api.head(&format!("a/manifests/{manifest}"))
            .await
            .status()
            .is_success()
    );
}

#[tokio::test]
async fn determining_support_is_a_plain_200() {
    let api = Api::start();
    let response = api.get("").await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(
        header(&response, "docker-distribution-api-version"),
        "registry/2.0"
    );
    for path in ["/healthz", "/readyz"] {
        let url = format!("{}{path}", api.server.url());
        assert_eq!(
            api.client.get(url).send().await.unwrap().status(),
            StatusCode::OK
        );
    }
}
