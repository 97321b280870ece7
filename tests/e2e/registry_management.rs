//! Distribution-spec, section "Content Management": deleting tags, manifests and blobs.

use artifact::Digest;
use reqwest::StatusCode;
use serde_json::Value;

use crate::registry_support::{Api, error_code, header};

#[tokio::test]
async fn deleting_a_tag_leaves_the_manifest_and_its_other_tags() {
    let api = Api::start();
    let digest = api.push_image("a", "v1", b"layer").await;
    let _ = api.push_image("a", "v2", b"layer").await;
    assert_eq!(
        api.delete("a/manifests/v1").await.status(),
        StatusCode::ACCEPTED
    );
    assert_eq!(
        api.head("a/manifests/v1").await.status(),
        StatusCode::NOT_FOUND
    );
    assert_eq!(api.head("a/manifests/v2").await.status(), StatusCode::OK);
    assert_eq!(
        api.head(&format!("a/manifests/{digest}")).await.status(),
        StatusCode::OK
    );
    assert_eq!(
        api.delete("a/manifests/v1").await.status(),
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn deleting_a_manifest_takes_every_tag_that_points_to_it() {
    let api = Api::start();
    let digest = api.push_image("a", "v1", b"one").await;
    let _ = api.push_image("a", "v2", b"one").await;
    let _ = api.push_image("a", "other", b"two").await;
    let deleted = api.delete(&format!("a/manifests/{digest}")).await;
    assert_eq!(deleted.status(), StatusCode::ACCEPTED);
    for reference in [digest.to_string().as_str(), "v1", "v2"] {
        let response = api.head(&format!("a/manifests/{reference}")).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{reference}");
    }
    let tags: Value = api.get("a/tags/list").await.json().await.unwrap();
    assert_eq!(tags["tags"], serde_json::json!(["other"]));
    let again = api.delete(&format!("a/manifests/{digest}")).await;
    assert_eq!(again.status(), StatusCode::NOT_FOUND);
    assert_eq!(error_code(again).await, "MANIFEST_UNKNOWN");
}

#[tokio::test]
async fn deleting_a_blob_takes_it_out_of_its_repository_alone() {
    let api = Api::start();
    let digest = api.push_blob("one", b"shared").await;
    let _ = api.push_blob("two", b"shared").await;
    let path = format!("one/blobs/{digest}");
    assert_eq!(api.delete(&path).await.status(), StatusCode::ACCEPTED);
    assert_eq!(api.head(&path).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(api.delete(&path).await.status(), StatusCode::NOT_FOUND);
    let kept = api.get(&format!("two/blobs/{digest}")).await;
    assert_eq!(kept.text().await.unwrap(), "shared");
    let pushed_again = api.push_blob("one", b"shared").await;
    assert_eq!(
        api.head(&format!("one/blobs/{pushed_again}"))
            .await
            .status(),
        StatusCode::OK
    );
}

#[tokio::test]
async fn a_blob_that_a_manifest_names_cannot_be_deleted_before_it() {
    let api = Api::start();
    let manifest = api.push_image("a", "v1", b"layer").await;
    let layer = Digest::sha256(b"layer");
    let refused = api.delete(&format!("a/blobs/{layer}")).await;
    assert_eq!(refused.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(header(&refused, "allow"), "GET, HEAD");
    assert_eq!(error_code(refused).await, "DENIED");
    assert_eq!(
        api.head(&format!("a/blobs/{layer}")).await.status(),
        StatusCode::OK
    );
    let _ = api.delete(&format!("a/manifests/{manifest}")).await;
    let deleted = api.delete(&format!("a/blobs/{layer}")).await;
    assert_eq!(deleted.status(), StatusCode::ACCEPTED);
}
