//! Distribution-spec, section "Error Codes": every refusal has its status, its code and a message.

use artifact::Digest;
use reqwest::StatusCode;
use serde_json::json;

use tests::upstream::noise;

use crate::registry_support::{
    Api, OCI_INDEX, OCI_MANIFEST, descriptor, error_code, header, image, raw, raw_get,
};

#[tokio::test]
async fn bad_repository_names_are_refused_before_anything_is_touched() {
    let api = Api::start();
    let long = "a".repeat(300);
    for name in [
        "\u{c4}",
        "A/B_",
        "..",
        "a/../b",
        "a//b",
        "_uploads",
        "a/_tags",
        "-a",
        "a.",
        "a..b",
        "a___b",
        "%2e%2e",
        "%2E%2E/etc",
        "a%2fb",
        "a%00b",
        "a%zz",
        "%252e%252e",
        "a%20b",
        "\u{0430}",
        &long,
    ] {
        let (status, answer) = raw_get(api.server.address(), &format!("/v2/{name}/tags/list"));
        assert_eq!(status, 400, "{name}: {answer}");
        // A path that is not text at all is refused by HTTP itself.
        assert!(
            answer.contains("NAME_INVALID") || !name.is_ascii(),
            "{name}: {answer}"
        );
    }
}

#[tokio::test]
async fn bad_digests_are_refused_before_anything_is_touched() {
    let api = Api::start();
    let hex = Digest::sha256(b"x").hex();
    for digest in [
        format!("sha256:{}", hex.to_uppercase()),
        format!("sha256:{}", &hex[1..]),
        format!("sha256:{hex}0"),
        format!("sha256:{}%00", &hex[1..]),
        format!("SHA256:{hex}"),
        format!("md5:{}", &hex[..32]),
        "sha256:".to_owned(),
        "sha256:..".to_owned(),
        "sha256:%2e%2e".to_owned(),
        "nothing".to_owned(),
    ] {
        for part in ["blobs", "referrers"] {
            let (status, answer) = raw_get(api.server.address(), &format!("/v2/a/{part}/{digest}"));
            assert_eq!(status, 400, "{digest}: {answer}");
            let code = if digest.contains("%00") {
                "NAME_INVALID"
            } else {
                "DIGEST_INVALID"
            };
            assert!(answer.contains(code), "{digest}: {answer}");
        }
    }
    let (status, _) = raw_get(
        api.server.address(),
        "/v2/a/blobs/sha256:../../../etc/passwd",
    );
    assert!(matches!(status, 400 | 404));
}

#[tokio::test]
async fn bad_digests_of_uploads_are_refused() {
    let api = Api::start();
    for query in [
        "digest=sha256:../../etc/passwd",
        "digest=sha256:xyz",
        "mount=x",
        "",
    ] {
        let location = api.begin("a").await;
        let response = api
            .client
            .put(format!("{location}?{query}"))
            .body("x")
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{query}");
        assert_eq!(error_code(response).await, "DIGEST_INVALID");
    }
    for query in ["digest=sha256:..%2f..%2fetc", "mount=sha256:xyz&from=b"] {
        let response = api.post(&format!("a/blobs/uploads/?{query}")).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{query}");
    }
}

#[tokio::test]
async fn bad_tags_are_refused() {
    let api = Api::start();
    let _ = api.push_image("a", "v1", b"layer").await;
    let manifest = image(&[b"layer"]);
    let long = "t".repeat(129);
    for tag in ["-v1", ".v1", "v%201", "v+1", &long] {
        let response = api.put_manifest("a", tag, &manifest).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{tag}");
    }
    let digest = Digest::sha256(manifest.to_string().as_bytes());
    let response = api
        .put_manifest("a", &format!("{digest}?tag=../x"), &manifest)
        .await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn unknown_upload_sessions_are_404() {
    let api = Api::start();
    let begun = api.begin("a").await;
    let other_repository = begun.replace("/v2/a/", "/v2/b/");
    let digest = Digest::sha256(b"x");
    for location in [
        api.url("a/blobs/uploads/5a0e9bd1-7a9c-4d0c-9d52-3f1f0b0f8a11"),
        api.url("a/blobs/uploads/not-an-id"),
        other_repository,
    ] {
        for method in ["GET", "PATCH", "PUT", "DELETE"] {
            let method = method.parse().unwrap();
            let url = format!("{location}?digest={digest}");
            let response = api
                .client
                .request(method, url)
                .body("x")
                .send()
                .await
                .unwrap();
            assert_eq!(response.status(), StatusCode::NOT_FOUND, "{location}");
            assert_eq!(error_code(response).await, "BLOB_UPLOAD_UNKNOWN");
        }
    }
}

#[tokio::test]
async fn a_manifest_with_missing_blobs_is_refused_and_each_is_named() {
    let api = Api::start();
    api.push_blob("a", b"{}").await;
    let manifest = image(&[b"one", b"two"]);
    let response = api.put_manifest("a", "v1", &manifest).await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    let body: serde_json::Value = response.json().await.unwrap();
    let errors = body["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 2);
    for (error, blob) in errors.iter().zip([b"one", b"two"]) {
        assert_eq!(error["code"], "MANIFEST_BLOB_UNKNOWN");
        assert_eq!(error["detail"]["digest"], Digest::sha256(blob).to_string());
    }
    assert_eq!(
        api.head("a/manifests/v1").await.status(),
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn a_manifest_just_below_4_mib_is_accepted_and_one_above_is_413() {
    let api = Api::start();
    api.push_blob("a", b"{}").await;
    for (padding, status) in [
        (4 * 1024 * 1024 - 1000, StatusCode::CREATED),
        (4 * 1024 * 1024, StatusCode::PAYLOAD_TOO_LARGE),
        (40 * 1024 * 1024, StatusCode::PAYLOAD_TOO_LARGE),
    ] {
        let mut manifest = image(&[]);
        manifest["annotations"] = json!({ "padding": "x".repeat(padding) });
        let response = api.put_manifest("a", "large", &manifest).await;
        assert_eq!(response.status(), status, "{padding}");
    }
}

#[tokio::test]
async fn bodies_that_are_no_manifests_are_refused() {
    let api = Api::start();
    let _ = api.push_image("a", "v1", b"layer").await;
    let good = image(&[b"layer"]).to_string();
    let mut both = image(&[b"layer"]);
    both["manifests"] = json!([]);
    for body in [
        String::new(),
        "null".to_owned(),
        "{}".to_owned(),
        format!("{good} {{}}"),
        format!("\u{feff}{good}"),
        good.replacen("\"layers\"", "\"layers\":[],\"layers\"", 1),
        good.replacen("\"schemaVersion\":2", "\"schemaVersion\":1", 1),
        format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000)),
        both.to_string(),
    ] {
        let url = api.url("a/manifests/bad");
        let request = api.client.put(url).header("content-type", OCI_MANIFEST);
        let response = request.body(body.clone()).send().await.unwrap();
        let shown = &body[..body.len().min(60)];
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{shown}");
        assert_eq!(error_code(response).await, "MANIFEST_INVALID", "{shown}");
    }
    let url = api.url("a/manifests/bad");
    let request = api.client.put(url).header("content-type", OCI_INDEX);
    let response = request.body(good).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_descriptor_with_a_wrong_size_is_refused() {
    let api = Api::start();
    let _ = api.push_image("a", "v1", b"layer").await;
    for size in [
        json!(4),
        json!(6),
        json!(-1),
        json!(9_007_199_254_740_992_u64),
    ] {
        let mut manifest = image(&[b"layer"]);
        manifest["layers"][0]["size"] = size.clone();
        let response = api.put_manifest("a", "bad", &manifest).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{size}");
    }
}

#[tokio::test]
async fn a_manifest_put_under_the_digest_of_another_is_refused() {
    let api = Api::start();
    let _ = api.push_image("a", "v1", b"layer").await;
    let other = Digest::sha256(b"other");
    let response = api
        .put_manifest("a", &other.to_string(), &image(&[b"layer"]))
        .await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert_eq!(error_code(response).await, "DIGEST_INVALID");
    assert_eq!(
        api.head(&format!("a/manifests/{other}")).await.status(),
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn a_manifest_may_not_name_blobs_of_another_repository() {
    let api = Api::start();
    let _ = api.push_image("mine", "v1", b"layer").await;
    let response = api.put_manifest("yours", "v1", &image(&[b"layer"])).await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    assert_eq!(error_code(response).await, "MANIFEST_BLOB_UNKNOWN");
    let tags = api.get("yours/tags/list").await;
    assert_eq!(
        tags.status(),
        StatusCode::NOT_FOUND,
        "a refused push left a repository"
    );
}

#[tokio::test]
async fn methods_and_paths_outside_the_api_are_refused() {
    let api = Api::start();
    let digest = Digest::sha256(b"x");
    for (method, path) in [
        ("PUT", format!("a/blobs/{digest}")),
        ("POST", "a/manifests/v1".to_owned()),
        ("DELETE", "a/tags/list".to_owned()),
        ("GET", "a/blobs/uploads/".to_owned()),
        ("PUT", String::new()),
    ] {
        let url = api.url(&path);
        let response = api
            .client
            .request(method.parse().unwrap(), url)
            .send()
            .await
            .unwrap();
        assert_eq!(
            response.status(),
            StatusCode::METHOD_NOT_ALLOWED,
            "{method} {path}"
        );
        assert!(!header(&response, "allow").is_empty());
        assert_eq!(error_code(response).await, "UNSUPPORTED");
    }
    for path in ["a/tags", "a/unknown/thing", "x"] {
        assert_eq!(
            api.get(path).await.status(),
            StatusCode::NOT_FOUND,
            "{path}"
        );
    }
}

#[tokio::test]
async fn hostile_headers_do_no_harm() {
    let api = Api::start();
    let address = api.server.address();
    let huge = "x".repeat(2_000_000);
    let answer = raw(
        address,
        format!("GET /v2/ HTTP/1.1\r\nhost: a\r\nx: {huge}\r\n\r\n").as_bytes(),
    );
    assert!(
        answer.starts_with("HTTP/1.1 431") || answer.starts_with("HTTP/1.1 400"),
        "{answer}"
    );
    let many = "x: y\r\n".repeat(10_000);
    let answer = raw(
        address,
        format!("GET /v2/ HTTP/1.1\r\nhost: a\r\n{many}\r\n").as_bytes(),
    );
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    let forged = "POST /v2/a/blobs/uploads/ HTTP/1.1\r\nhost: evil\"<x>/y\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    let answer = raw(address, forged.as_bytes()).to_lowercase();
    assert!(!answer.contains("location: http"), "{answer}");
    let twice =
        "PATCH /v2/ HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxy";
    assert!(raw(address, twice.as_bytes()).starts_with("HTTP/1.1 400"));
    assert_eq!(api.get("").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_manifest_with_a_great_many_layers_is_read_in_bounded_time() {
    let api = Api::start();
    let layer = noise(10, 7);
    let _ = api.push_blob("a", b"{}").await;
    let _ = api.push_blob("a", &layer).await;
    let mut manifest = image(&[]);
    manifest["layers"] = vec![descriptor("a/b", &layer); 30_000].into();
    let response = api.put_manifest("a", "many", &manifest).await;
    assert_eq!(response.status(), StatusCode::CREATED);
}
