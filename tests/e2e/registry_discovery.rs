//! Distribution-spec, section "Content Discovery": tags, referrers, and Docker's catalog.

use artifact::Digest;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::registry_support::{
    Api, OCI_INDEX, OCI_MANIFEST, descriptor, error_code, header, image,
};

async fn list(api: &Api, path: &str, member: &str) -> (Vec<String>, Option<String>) {
    let response = api.get(path).await;
    assert_eq!(response.status(), StatusCode::OK, "{path}");
    let link = response
        .headers()
        .get("link")
        .map(|link| link.to_str().unwrap().to_owned());
    let body: Value = response.json().await.unwrap();
    let names = body[member].as_array().unwrap();
    (
        names
            .iter()
            .map(|name| name.as_str().unwrap().to_owned())
            .collect(),
        link,
    )
}

#[tokio::test]
async fn tags_are_listed_in_order_and_page_by_page() {
    let api = Api::start();
    for tag in ["b", "A", "c", "a", "latest"] {
        let _ = api.push_image("many", tag, b"layer").await;
    }
    let (tags, link) = list(&api, "many/tags/list", "tags").await;
    assert_eq!(tags, ["A", "a", "b", "c", "latest"]);
    assert_eq!(link, None);
    let (tags, link) = list(&api, "many/tags/list?n=2", "tags").await;
    assert_eq!(tags, ["A", "a"]);
    assert_eq!(
        link.unwrap(),
        "</v2/many/tags/list?n=2&last=a>; rel=\"next\""
    );
    let (tags, link) = list(&api, "many/tags/list?n=3&last=a", "tags").await;
    assert_eq!(tags, ["b", "c", "latest"]);
    assert_eq!(link, None, "a page that ends the list has no next one");
    let (tags, _) = list(&api, "many/tags/list?last=b", "tags").await;
    assert_eq!(tags, ["c", "latest"]);
    let (tags, link) = list(&api, "many/tags/list?n=0", "tags").await;
    assert!(tags.is_empty() && link.is_none());
    let (tags, _) = list(&api, "many/tags/list?n=4294967295&last=zzz", "tags").await;
    assert!(tags.is_empty());
}

#[tokio::test]
async fn tags_of_a_repository_that_is_not_there_are_404() {
    let api = Api::start();
    let response = api.get("nowhere/tags/list").await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    assert_eq!(error_code(response).await, "NAME_UNKNOWN");
}

#[tokio::test]
async fn page_lengths_that_are_not_numbers_are_refused() {
    let api = Api::start();
    let _ = api.push_image("a", "v1", b"layer").await;
    for path in ["a/tags/list", "_catalog"] {
        for n in ["-1", "9223372036854775808", "1e3", "x", "", "1%00"] {
            let response = api.get(&format!("{path}?n={n}")).await;
            assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{path} {n}");
        }
        let response = api.get(&format!("{path}?last=%00")).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    }
}

#[tokio::test]
async fn the_catalog_lists_repositories_page_by_page() {
    let api = Api::start();
    for name in ["b", "a/b", "a", "a-b"] {
        let _ = api.push_image(name, "v1", b"layer").await;
    }
    let (names, _) = list(&api, "_catalog", "repositories").await;
    assert_eq!(names, ["a", "a-b", "a/b", "b"]);
    let (names, link) = list(&api, "_catalog?n=3", "repositories").await;
    assert_eq!(names, ["a", "a-b", "a/b"]);
    let next = link.unwrap();
    assert_eq!(next, "</v2/_catalog?n=3&last=a%2Fb>; rel=\"next\"");
    let (names, link) = list(&api, "_catalog?n=3&last=a%2Fb", "repositories").await;
    assert_eq!(names, ["b"]);
    assert_eq!(link, None);
}

/// Pushes a referrer of `subject` with this artifact type.
async fn refer(api: &Api, subject: &Value, artifact_type: &str) -> Digest {
    let mut manifest = image(&[b"layer"]);
    manifest["subject"] = subject.clone();
    manifest["artifactType"] = json!(artifact_type);
    manifest["annotations"] = json!({ "org.example.kind": artifact_type });
    let digest = Digest::sha256(manifest.to_string().as_bytes());
    let response = api.put_manifest("a", &digest.to_string(), &manifest).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    digest
}

async fn referrers(api: &Api, query: &str) -> (Vec<Value>, Option<String>) {
    let response = api.get(&format!("a/referrers/{query}")).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(header(&response, "content-type"), OCI_INDEX);
    let filters = response.headers().get("oci-filters-applied");
    let filters = filters.map(|value| value.to_str().unwrap().to_owned());
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["schemaVersion"], 2);
    (body["manifests"].as_array().unwrap().clone(), filters)
}

#[tokio::test]
async fn referrers_are_listed_with_type_and_annotations_and_filtered() {
    let api = Api::start();
    let _ = api.push_image("a", "v1", b"layer").await;
    let subject = image(&[b"layer"]).to_string();
    let digest = Digest::sha256(subject.as_bytes());
    let subject = descriptor(OCI_MANIFEST, subject.as_bytes());
    let (none, filters) = referrers(&api, &digest.to_string()).await;
    assert!(none.is_empty() && filters.is_none());
    let signature = refer(&api, &subject, "application/example.signature").await;
    let _ = refer(&api, &subject, "application/example.sbom").await;
    let (all, _) = referrers(&api, &digest.to_string()).await;
    assert_eq!(all.len(), 2);
    let query = format!("{digest}?artifactType=application/example.signature");
    let (some, filters) = referrers(&api, &query).await;
    assert_eq!(filters.as_deref(), Some("artifactType"));
    assert_eq!(some.len(), 1);
    assert_eq!(some[0]["digest"], signature.to_string());
    assert_eq!(some[0]["artifactType"], "application/example.signature");
    assert_eq!(
        some[0]["annotations"]["org.example.kind"],
        "application/example.signature"
    );
    let deleted = api.delete(&format!("a/manifests/{signature}")).await;
    assert_eq!(deleted.status(), StatusCode::ACCEPTED);
    assert_eq!(referrers(&api, &digest.to_string()).await.0.len(), 1);
}

#[tokio::test]
async fn referrers_of_an_unknown_repository_are_an_empty_list_and_a_bad_digest_is_400() {
    let api = Api::start();
    let digest = Digest::sha256(b"anything");
    assert!(referrers(&api, &digest.to_string()).await.0.is_empty());
    let response = api.get("a/referrers/sha256:xyz").await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert_eq!(error_code(response).await, "DIGEST_INVALID");
}

#[tokio::test]
async fn without_an_artifact_type_the_config_media_type_stands_in() {
    let api = Api::start();
    let _ = api.push_image("a", "v1", b"layer").await;
    let mut manifest = image(&[b"layer"]);
    manifest["subject"] = descriptor(OCI_MANIFEST, b"subject");
    let response = api.put_manifest("a", "referrer", &manifest).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    let subject = Digest::sha256(b"subject").to_string();
    let (listed, _) = referrers(&api, &subject).await;
    assert_eq!(
        listed[0]["artifactType"],
        "application/vnd.oci.empty.v1+json"
    );
}

#[tokio::test]
async fn referrers_that_do_not_fit_one_page_are_linked() {
    let api = Api::start();
    let _ = api.push_image("a", "v1", b"layer").await;
    let subject = descriptor(OCI_MANIFEST, b"subject");
    for number in 0..9 {
        let mut manifest = image(&[b"layer"]);
        manifest["subject"] = subject.clone();
        manifest["annotations"] =
            json!({ "long": "x".repeat(500_000), "number": number.to_string() });
        let response = api
            .put_manifest("a", &format!("r{number}"), &manifest)
            .await;
        assert_eq!(response.status(), StatusCode::CREATED);
    }
    let mut path = format!("a/referrers/{}", Digest::sha256(b"subject"));
    let mut seen = std::collections::BTreeSet::new();
    let mut pages = 0;
    loop {
        let response = api.get(&path).await;
        let link = response
            .headers()
            .get("link")
            .map(|link| link.to_str().unwrap().to_owned());
        let body: Value = response.json().await.unwrap();
        for entry in body["manifests"].as_array().unwrap() {
            assert!(seen.insert(entry["digest"].as_str().unwrap().to_owned()));
        }
        pages += 1;
        let Some(link) = link else { break };
        let next = link
            .strip_prefix("</v2/")
            .unwrap()
            .split('>')
            .next()
            .unwrap();
        next.clone_into(&mut path);
    }
    assert_eq!(seen.len(), 9);
    assert!(pages > 1, "4.5 MB of referrers came as one page");
}

#[tokio::test]
async fn a_list_under_the_referrers_tag_schema_is_kept_as_any_tag() {
    let api = Api::start();
    let _ = api.push_image("a", "v1", b"layer").await;
    let subject = image(&[b"layer"]).to_string();
    let digest = Digest::sha256(subject.as_bytes());
    let subject = descriptor(OCI_MANIFEST, subject.as_bytes());
    let referrer = refer(&api, &subject, "application/example.signature").await;
    let size: usize = header(
        &api.head(&format!("a/manifests/{referrer}")).await,
        "content-length",
    )
    .parse()
    .unwrap();
    let list = json!({
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [{ "mediaType": OCI_MANIFEST, "digest": referrer, "size": size }],
    });
    let tag = format!("sha256-{}", digest.hex());
    let response = api.put_manifest("a", &tag, &list).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    let listed: Value = api
        .get(&format!("a/manifests/{tag}"))
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(listed, list);
    let (listed, _) = referrers(&api, &digest.to_string()).await;
    assert_eq!(listed[0]["digest"], referrer.to_string());
}
