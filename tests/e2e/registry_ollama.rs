//! What breaks real Ollama clients elsewhere, each trap by itself: request sequences as stock Ollama
//! 0.9.6 and newer versions make them.

use std::io::Write;

use artifact::Digest;
use reqwest::{RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tests::upstream::noise;
use tests::{Server, eventually, fixture, scratch};

use crate::registry_access::{ANN, PASSWORD};
use crate::registry_dialects::{DOCKER_MANIFEST, as_ollama};
use crate::registry_support::{Api, descriptor, error_code, header, raw};

/// An absolute address below that of a registry.
#[track_caller]
fn assert_absolute(api: &Api, address: &str) {
    let wanted = format!("{}/v2/", api.server.url());
    assert!(address.starts_with(&wanted), "{address}");
}

/// A range as Ollama asks for one: no credentials, no name of its own.
fn part(address: &str, first: usize, last: usize) -> RequestBuilder {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let range = format!("bytes={first}-{last}");
    client.get(address).header("range", range)
}

/// What the `Location` of an answer means, as Go resolves it.
fn resolved(response: &Response) -> String {
    let location = header(response, "location");
    response.url().join(&location).unwrap().to_string()
}

#[tokio::test]
async fn location_on_a_200_of_the_probe_leads_to_exact_ranges() {
    let api = Api::start();
    let content = noise(1_000_000, 41);
    let digest = api.push_blob("team/hay", &content).await;
    let url = api.url(&format!("team/hay/blobs/{digest}"));
    let probe = as_ollama(api.client.get(&url)).send().await.unwrap();
    assert_eq!(probe.status(), StatusCode::OK);
    let place = resolved(&probe);
    // It never reads the body of its probe.
    drop(probe);
    for (first, last) in [(0, 249_999), (250_000, 499_999), (999_999, 999_999)] {
        let part = part(&place, first, last).send().await.unwrap();
        assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
        let wanted = format!("bytes {first}-{last}/1000000");
        assert_eq!(header(&part, "content-range"), wanted);
        assert_eq!(
            header(&part, "content-length"),
            (last - first + 1).to_string()
        );
        assert_eq!(part.bytes().await.unwrap(), content[first..=last]);
    }
}

/// A registry that only ann may use; its client logs in as her.
fn guarded(data: &std::path::Path, arguments: &[&str]) -> Api {
    let accounts = data.join("htpasswd");
    std::fs::write(&accounts, ANN).unwrap();
    let mut server = Server::registry()
        .data(data)
        .argument("--htpasswd")
        .argument(accounts.to_str().unwrap());
    for argument in arguments {
        server = server.argument(argument);
    }
    let mut api = Api::on(server.start());
    let mut headers = reqwest::header::HeaderMap::new();
    let login = api
        .client
        .get(api.url(""))
        .basic_auth("ann", Some(PASSWORD));
    let login = login.build().unwrap().headers()["authorization"].clone();
    headers.insert("authorization", login);
    let client = reqwest::Client::builder().no_proxy();
    api.client = client.default_headers(headers).build().unwrap();
    api
}

#[tokio::test]
async fn range_urls_authorise_themselves_where_a_login_is_needed() {
    let folder = scratch();
    let api = guarded(folder.path(), &[]);
    let content = noise(1_000_000, 42);
    let digest = api.push_blob("team/hay", &content).await;
    let other = api.push_blob("team/hay", b"another blob").await;
    let probe = api.get(&format!("team/hay/blobs/{digest}")).await;
    let place = resolved(&probe);
    assert!(place.contains("signature="), "{place}");
    let taken = part(&place, 10, 19).send().await.unwrap();
    assert_eq!(taken.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(taken.bytes().await.unwrap(), content[10..20]);

    // Whole, the pass gives no longer pass; it opens nothing else, and lets nobody write.
    let stranger = reqwest::Client::builder().no_proxy().build().unwrap();
    let whole = stranger.get(&place).send().await.unwrap();
    assert_eq!(whole.status(), StatusCode::OK);
    assert_eq!(resolved(&whole), place);
    let digests = (digest.to_string(), other.to_string());
    for forged in [
        place.replace(&digests.0, &digests.1),
        place.replace("team/hay", "team/straw"),
        place.replace("expires=1", "expires=2"),
        place.replace("signature=", "signature=0"),
        place.split('?').next().unwrap().to_owned(),
    ] {
        assert_ne!(forged, place);
        let refused = part(&forged, 0, 9).send().await.unwrap();
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED, "{forged}");
        assert_eq!(header(&refused, "content-length"), "0");
        assert_eq!(refused.text().await.unwrap(), "");
    }
    let deleted = stranger.delete(&place).send().await.unwrap();
    assert_eq!(deleted.status(), StatusCode::UNAUTHORIZED);
    assert!(!api.server.log().contains("signature="), "in the log");

    // It outlives a restart, of a registry that may write and of one that may not.
    drop(api);
    for arguments in [&[][..], &["--read-only"]] {
        let api = guarded(folder.path(), arguments);
        let (_, path) = place.split_once("/v2/").unwrap();
        let again = part(&api.url(path), 10, 19).send().await.unwrap();
        assert_eq!(again.status(), StatusCode::PARTIAL_CONTENT);
    }
}

#[tokio::test]
async fn upload_urls_are_absolute_under_both_names() {
    let api = Api::start();
    let begun = api.post("team/hay/blobs/uploads/").await;
    assert_eq!(begun.status(), StatusCode::ACCEPTED);
    for name in ["location", "docker-upload-location"] {
        assert_absolute(&api, &header(&begun, name));
    }
    let mounted = format!(
        "team/hay/blobs/uploads/?mount={}&from=library/none",
        Digest::sha256(b"absent")
    );
    let begun = api.post(&mounted).await;
    assert_eq!(begun.status(), StatusCode::ACCEPTED);
    assert_absolute(&api, &header(&begun, "docker-upload-location"));
}

#[tokio::test]
async fn stock_ollamas_push_in_parts_with_an_etag_at_the_end() {
    let api = Api::start();
    let content = noise(300_000, 43);
    let digest = Digest::sha256(&content);
    let blob = format!("team/hay/blobs/{digest}");
    assert_eq!(api.head(&blob).await.status(), StatusCode::NOT_FOUND);
    let begun = as_ollama(api.client.post(api.url("team/hay/blobs/uploads/")));
    let begun = begun.header("content-length", 0).send().await.unwrap();
    let mut session = header(&begun, "docker-upload-location");
    for (first, last) in [(0, 149_999), (150_000, 299_999)] {
        let sent = as_ollama(api.client.patch(&session))
            .header("content-type", "application/octet-stream")
            .header("content-range", format!("{first}-{last}"))
            .header("x-redirect-uploads", "1")
            .body(content[first..=last].to_vec())
            .send()
            .await
            .unwrap();
        // Anything but a redirect; the next address comes with each answer.
        assert_eq!(sent.status(), StatusCode::ACCEPTED);
        session = header(&sent, "docker-upload-location");
        assert_absolute(&api, &session);
        assert_eq!(header(&sent, "location"), session);
    }
    let etag = "0cc175b9c0f1b6a831c399e269772661-2";
    let closed = format!("{session}?digest={digest}&etag={etag}");
    let closed = as_ollama(api.client.put(closed))
        .header("content-type", "application/octet-stream")
        .header("content-length", 0)
        .send()
        .await
        .unwrap();
    assert_eq!(closed.status(), StatusCode::CREATED);
    let head = as_ollama(api.client.head(api.url(&blob)));
    let head = head.send().await.unwrap();
    assert_eq!(head.status(), StatusCode::OK);
    assert_eq!(header(&head, "content-length"), "300000");
}

/// The empty POST with which newer versions begin the push of a tensor.
async fn question(api: &Api, digest: &Digest, size: usize) -> Response {
    let url = api.url(&format!("team/hay/blobs/uploads/?digest={digest}"));
    as_ollama(api.client.post(url))
        .header("content-length", 0)
        .header("x-redirect-uploads", "2")
        .header("x-content-length", size)
        .send()
        .await
        .unwrap()
}

#[tokio::test]
async fn an_empty_post_with_the_digest_of_something_is_202_and_201_once_it_is_there() {
    let api = Api::start();
    let content = noise(100_000, 44);
    let digest = Digest::sha256(&content);
    let asked = question(&api, &digest, content.len()).await;
    assert_eq!(asked.status(), StatusCode::ACCEPTED);
    let session = header(&asked, "location");
    assert_absolute(&api, &session);
    // No address to send it to directly: it goes through the session.
    assert!(asked.headers().get("x-direct-upload-url").is_none());
    let range = format!("0-{}", content.len() - 1);
    let sent = as_ollama(api.client.patch(&session)).header("content-range", range);
    let sent = sent.body(content.clone()).send().await.unwrap();
    assert_eq!(sent.status(), StatusCode::ACCEPTED);
    let closed = api.close(&header(&sent, "location"), &digest, b"").await;
    assert_eq!(closed.status(), StatusCode::CREATED);
    let again = question(&api, &digest, content.len()).await;
    assert_eq!(again.status(), StatusCode::CREATED);

    // What another repository holds is not in this one.
    let elsewhere = api.push_blob("other", b"elsewhere").await;
    let asked = question(&api, &elsewhere, 9).await;
    assert_eq!(asked.status(), StatusCode::ACCEPTED);
    // The digest of nothing with an empty body is a push, not a question.
    let nothing = question(&api, &Digest::sha256(b""), 0).await;
    assert_eq!(nothing.status(), StatusCode::CREATED);
    let path = format!("team/hay/blobs/{}", Digest::sha256(b""));
    assert_eq!(api.head(&path).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_size_beyond_the_limit_is_refused_before_anything_is_sent() {
    let server = Server::registry().argument("--max-blob-size");
    let api = Api::on(server.argument("1MiB").start());
    let refused = question(&api, &Digest::sha256(b"large"), 2 << 20).await;
    assert_eq!(refused.status(), StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn a_tensor_is_pulled_whole_and_resumed_by_an_open_range() {
    let api = Api::start();
    let content = noise(200_000, 45);
    let digest = api.push_blob("team/hay", &content).await;
    let url = api.url(&format!("team/hay/blobs/{digest}"));
    // It resolves redirects by a GET whose body it reads to the end, then fetches from there.
    let resolving = as_ollama(api.client.get(&url)).send().await.unwrap();
    assert_eq!(resolving.status(), StatusCode::OK);
    assert_eq!(resolving.bytes().await.unwrap(), content);
    let rest = as_ollama(api.client.get(&url)).header("range", "bytes=150000-");
    let rest = rest.send().await.unwrap();
    assert_eq!(rest.status(), StatusCode::PARTIAL_CONTENT);
    let wanted = "bytes 150000-199999/200000";
    assert_eq!(header(&rest, "content-range"), wanted);
    assert_eq!(rest.bytes().await.unwrap(), content[150_000..]);
}

#[tokio::test]
async fn upper_case_in_names_is_one_name_for_push_and_pull() {
    let api = Api::start();
    let content = std::fs::read(fixture("hay-tiny-q8_0.gguf")).unwrap();
    let digest = api.push_blob("Team/Llama-3.2-GGUF", &content).await;
    let config = api.push_blob("Team/Llama-3.2-GGUF", b"{}").await;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": descriptor("application/vnd.docker.container.image.v1+json", b"{}"),
        "layers": [descriptor("application/vnd.ollama.image.model", &content)],
    });
    let put = api.put_manifest("Team/Llama-3.2-GGUF", "Q4_K_M", &manifest);
    assert_eq!(put.await.status(), StatusCode::CREATED);
    for name in [
        "Team/Llama-3.2-GGUF",
        "team/llama-3.2-gguf",
        "TEAM/llama-3.2-Gguf",
    ] {
        let url = api.url(&format!("{name}/manifests/Q4_K_M"));
        let pulled = as_ollama(api.client.get(url)).send().await.unwrap();
        assert_eq!(pulled.status(), StatusCode::OK, "{name}");
        assert_eq!(pulled.json::<Value>().await.unwrap(), manifest);
        for digest in [&digest, &config] {
            let head = api.head(&format!("{name}/blobs/{digest}")).await;
            assert_eq!(head.status(), StatusCode::OK);
        }
    }
    let listed: Value = api.get("_catalog").await.json().await.unwrap();
    assert_eq!(listed["repositories"], json!(["team/llama-3.2-gguf"]));
    // Tags are not names: their case counts, as the specification has it.
    let other = api.head("team/llama-3.2-gguf/manifests/q4_k_m").await;
    assert_eq!(other.status(), StatusCode::NOT_FOUND);
    // Mounted from a name as it was spelled.
    let mount = format!("other/hay/blobs/uploads/?mount={digest}&from=Team/Llama-3.2-GGUF");
    assert_eq!(api.post(&mount).await.status(), StatusCode::CREATED);
}

#[tokio::test]
async fn names_end_at_255_characters() {
    let api = Api::start();
    // Ollama's own parts of a name end at 80.
    let longest = format!("{}/{}", "n".repeat(80), "m".repeat(80));
    let digest = api.push_blob(&longest, b"content").await;
    let head = api.head(&format!("{longest}/blobs/{digest}")).await;
    assert_eq!(head.status(), StatusCode::OK);
    let limit = "x".repeat(255);
    let digest = api.push_blob(&limit, b"content").await;
    let head = api.head(&format!("{limit}/blobs/{digest}")).await;
    assert_eq!(head.status(), StatusCode::OK);
    let refused = api.get(&format!("{limit}x/manifests/latest")).await;
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    assert_eq!(error_code(refused).await, "NAME_INVALID");
}

#[tokio::test]
async fn a_missing_manifest_is_404_which_ollama_calls_a_file_that_does_not_exist() {
    let api = Api::start();
    for name in ["team/none", "Team/None"] {
        let url = api.url(&format!("{name}/manifests/latest"));
        let missing = as_ollama(api.client.get(url)).send().await.unwrap();
        assert_eq!(missing.status(), StatusCode::NOT_FOUND);
        assert_eq!(error_code(missing).await, "MANIFEST_UNKNOWN");
    }
}

#[tokio::test]
async fn a_refused_part_has_no_body_that_could_be_taken_for_content() {
    let api = Api::start();
    let absent = Digest::sha256(b"absent");
    let url = api.url(&format!("team/hay/blobs/{absent}"));
    let refused = part(&url, 0, 99).send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::NOT_FOUND);
    assert_eq!(header(&refused, "content-length"), "0");
    assert_eq!(refused.text().await.unwrap(), "");
    let digest = api.push_blob("team/hay", b"short").await;
    let url = api.url(&format!("team/hay/blobs/{digest}"));
    let beyond = part(&url, 100, 199).send().await.unwrap();
    assert_eq!(beyond.status(), StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(beyond.text().await.unwrap(), "");
    // Everybody else is told what is wrong.
    let told = api.get(&format!("team/hay/blobs/{absent}")).await;
    assert_eq!(error_code(told).await, "BLOB_UNKNOWN");
}

#[tokio::test]
async fn a_part_refused_for_too_many_connections_has_no_body_either() {
    let server = Server::registry().argument("--connections");
    let api = Api::on(server.argument("4").start());
    let digest = api.push_blob("team/hay", b"content").await;
    let address = api.server.address().to_owned();
    let mut busy = Vec::new();
    for _ in 0..4 {
        let mut stream = std::net::TcpStream::connect(&address).unwrap();
        let head = "PUT /v2/a/manifests/v1 HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n";
        stream.write_all(head.as_bytes()).unwrap();
        busy.push(stream);
    }
    let request = format!(
        "GET /v2/team/hay/blobs/{digest} HTTP/1.1\r\nhost: {address}\r\nrange: bytes=0-3\r\n\
         connection: close\r\n\r\n"
    );
    let answer = eventually("all places are busy", 10, async || {
        let answer = raw(&address, request.as_bytes());
        answer.starts_with("HTTP/1.1 503").then_some(answer)
    })
    .await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.to_lowercase().contains("connection: close"), "{head}");
    assert_eq!(body, "");
}
