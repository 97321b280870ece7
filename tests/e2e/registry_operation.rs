//! Operating a registry: metrics, readiness, read-only mode, and an end that loses nothing.

use std::time::{Duration, Instant};

use artifact::Digest;
use bytes::Bytes;
use reqwest::StatusCode;
use tests::upstream::noise;
use tests::{Server, eventually, scratch};

use crate::registry_support::{Api, error_code, fed_body, header, image};

async fn page(api: &Api, path: &str) -> (StatusCode, String) {
    let url = format!("{}/{path}", api.server.url());
    let answer = api.client.get(url).send().await.unwrap();
    (answer.status(), answer.text().await.unwrap())
}

/// The value of a line of the metrics page, which begins with `name`.
fn value(text: &str, name: &str) -> f64 {
    let line = text.lines().find(|line| {
        line.strip_prefix(name)
            .is_some_and(|rest| rest.starts_with(' '))
    });
    let line = line.unwrap_or_else(|| panic!("no {name} in:\n{text}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// One counter of a registry, by its name behind `hayloft_registry_`.
pub(crate) async fn counter(api: &Api, name: &str) -> u64 {
    let (_, text) = page(api, "metrics").await;
    let prefix = format!("hayloft_registry_{name} ");
    let count = text.lines().find_map(|line| line.strip_prefix(&prefix));
    let count = count.unwrap_or_else(|| panic!("no {name} in:\n{text}"));
    count.parse().unwrap()
}

#[tokio::test]
async fn metrics_tell_what_was_asked_and_how_much_was_sent() {
    let api = Api::start();
    let layer = noise(1_000_000, 3);
    let _ = api.push_image("a", "v1", &layer).await;
    let blob = format!("a/blobs/{}", Digest::sha256(&layer));
    for _ in 0..3 {
        assert_eq!(api.get(&blob).await.bytes().await.unwrap().len(), 1_000_000);
    }
    let _ = api.get("a/manifests/none").await;
    let cancelled = api.begin("a").await;
    let _ = api.client.delete(cancelled).send().await.unwrap();

    let text = eventually("the last body is counted", 10, async || {
        let (_, text) = page(&api, "metrics").await;
        let sent = r#"hayloft_registry_sent_bytes_total{route="blob",method="GET"}"#;
        (value(&text, sent) >= 3_000_000.0).then_some(text)
    })
    .await;
    for (name, expected) in [
        (
            r#"requests_total{route="blob",method="GET",status="2xx"}"#,
            3.0,
        ),
        (
            r#"requests_total{route="manifest",method="GET",status="4xx"}"#,
            1.0,
        ),
        (
            r#"sent_bytes_total{route="blob",method="GET"}"#,
            3_000_000.0,
        ),
        (
            r#"received_bytes_total{route="upload",method="PUT"}"#,
            1_000_002.0,
        ),
        (
            r#"request_duration_seconds_count{route="blob",method="GET"}"#,
            3.0,
        ),
        (r#"upload_sessions_total{event="begun"}"#, 3.0),
        (r#"upload_sessions_total{event="finished"}"#, 2.0),
        (r#"upload_sessions_total{event="cancelled"}"#, 1.0),
        ("uploads_receiving", 0.0),
    ] {
        assert_eq!(
            value(&text, &format!("hayloft_registry_{name}")),
            expected,
            "{name}"
        );
    }
    assert!(value(&text, "hayloft_registry_connections_open") >= 1.0);
    assert!(
        text.contains("hayloft_registry_build_info{version="),
        "{text}"
    );
    assert!(text.ends_with("# EOF\n"));
}

#[tokio::test]
async fn what_is_stored_is_counted_at_the_start() {
    let folder = scratch();
    let mut api = Api::on(Server::registry().data(folder.path()).start());
    let layer = noise(500_000, 4);
    let _ = api.push_image("a", "v1", &layer).await;
    assert_eq!(api.server.terminate(), Some(0));
    let api = Api::on(Server::registry().data(folder.path()).start());
    let manifest = image(&[&layer]).to_string();
    let expected = (layer.len() + manifest.len() + 2) as f64;
    eventually("three blobs are counted", 10, async || {
        let (_, text) = page(&api, "metrics").await;
        let bytes = value(&text, "hayloft_registry_storage_bytes");
        let blobs = value(&text, "hayloft_registry_storage_blobs");
        (bytes == expected && blobs == 3.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn metrics_can_have_an_address_of_their_own_without_a_login() {
    let folder = scratch();
    let accounts = folder.path().join("htpasswd");
    std::fs::write(&accounts, crate::registry_access::ANN).unwrap();
    let server = Server::registry()
        .argument("--htpasswd")
        .argument(accounts.to_str().unwrap())
        .argument("--metrics-listen")
        .argument("127.0.0.1:0")
        .start();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let ask = async |role: &str, path: &str| {
        let url = format!("{}{path}", server.url_of(role));
        client.get(url).send().await.unwrap().status()
    };
    assert_eq!(ask("metrics", "/metrics").await, StatusCode::OK);
    assert_eq!(ask("metrics", "/readyz").await, StatusCode::OK);
    assert_eq!(ask("metrics", "/v2/").await, StatusCode::NOT_FOUND);
    assert_eq!(ask("registry", "/metrics").await, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_registry_that_cannot_write_is_not_ready_and_says_which_part() {
    let api = Api::start();
    assert_eq!(page(&api, "readyz").await.0, StatusCode::OK);
    std::fs::remove_dir_all(api.server.data().join("registry/temporary")).unwrap();
    let said = eventually("it is not ready", 20, async || {
        let (status, said) = page(&api, "readyz").await;
        (status == StatusCode::SERVICE_UNAVAILABLE).then_some(said)
    })
    .await;
    assert!(said.contains("storage"), "{said}");
    assert!(!said.contains('/'), "no path shows: {said}");
    assert_eq!(page(&api, "healthz").await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_read_only_registry_serves_pulls_and_refuses_every_change() {
    let folder = scratch();
    let mut api = Api::on(Server::registry().data(folder.path()).start());
    let digest = api.push_image("a", "v1", b"layer").await;
    let session = api.begin("a").await;
    assert_eq!(api.server.terminate(), Some(0));

    let server = Server::registry()
        .data(folder.path())
        .argument("--read-only");
    let api = Api::on(server.start());
    let session = session.split("/v2/").nth(1).unwrap().to_owned();
    let layer = Digest::sha256(b"layer");
    assert_eq!(api.get("a/manifests/v1").await.status(), StatusCode::OK);
    assert_eq!(
        api.get(&format!("a/blobs/{layer}")).await.status(),
        StatusCode::OK
    );
    assert_eq!(api.get("a/tags/list").await.status(), StatusCode::OK);
    assert_eq!(api.get(&session).await.status(), StatusCode::NO_CONTENT);
    for (method, path) in [
        ("POST", "a/blobs/uploads/".to_owned()),
        ("POST", format!("b/blobs/uploads/?mount={layer}&from=a")),
        ("PATCH", session.clone()),
        ("PUT", format!("{session}?digest={layer}")),
        ("DELETE", session),
        ("PUT", "a/manifests/v2".to_owned()),
        ("DELETE", "a/manifests/v1".to_owned()),
        ("DELETE", format!("a/manifests/{digest}")),
        ("DELETE", format!("a/blobs/{layer}")),
    ] {
        let request = api.client.request(method.parse().unwrap(), api.url(&path));
        let answer = request.body("layer").send().await.unwrap();
        assert_eq!(
            answer.status(),
            StatusCode::METHOD_NOT_ALLOWED,
            "{method} {path}"
        );
        assert_eq!(error_code(answer).await, "UNSUPPORTED");
    }
    assert_eq!(api.get("a/manifests/v1").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn an_upload_that_a_stop_cuts_off_goes_on_after_the_restart() {
    let folder = scratch();
    let content = noise(4_000_000, 5);
    let digest = Digest::sha256(&content);
    let server = Server::registry().data(folder.path());
    let mut api = Api::on(server.argument("--shutdown-grace").argument("1s").start());
    let location = api.begin("a").await;
    let (feed, body) = fed_body();
    let request = api.client.patch(&location).body(body).send();
    let sending = tokio::spawn(request);
    for piece in content[..3_000_000].chunks(100_000) {
        feed.send(Bytes::copy_from_slice(piece)).await.unwrap();
    }
    eventually("the pieces arrive", 10, async || {
        let (_, text) = page(&api, "metrics").await;
        (value(&text, "hayloft_registry_uploads_receiving") == 1.0).then_some(())
    })
    .await;
    // The connection stays open, with more to come, when the registry is told to end.
    assert_eq!(api.server.terminate(), Some(0));
    let answer = sending.await.unwrap();
    if let Ok(answer) = answer {
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(header(&answer, "retry-after").parse::<u64>().is_ok());
    }
    drop(feed);

    let api = Api::on(Server::registry().data(folder.path()).start());
    let location = api.url(location.split("/v2/").nth(1).unwrap());
    let offset = api.offset(&location).await;
    assert!((100_000..=3_000_000).contains(&offset), "{offset}");
    let closed = api.close(&location, &digest, &content[offset..]).await;
    assert_eq!(closed.status(), StatusCode::CREATED);
    let blob = api.get(&format!("a/blobs/{digest}")).await;
    assert!(blob.bytes().await.unwrap() == content);
}

#[tokio::test]
async fn a_stop_lets_running_requests_finish_and_takes_no_new_ones() {
    let mut api = Api::start();
    let content = noise(1_000_000, 6);
    let digest = Digest::sha256(&content);
    let location = api.begin("a").await;
    let (feed, body) = fed_body();
    let closing = api.client.put(format!("{location}?digest={digest}"));
    let sending = tokio::spawn(closing.body(body).send());
    feed.send(Bytes::copy_from_slice(&content[..500_000]))
        .await
        .unwrap();
    eventually("the upload runs", 10, async || {
        let (_, text) = page(&api, "metrics").await;
        (value(&text, "hayloft_registry_uploads_receiving") == 1.0).then_some(())
    })
    .await;
    assert!(tests::ask_to_end(api.server.id()));
    let address = api.server.address().to_owned();
    eventually("nobody is let in any more", 10, async || {
        std::net::TcpStream::connect(&address)
            .is_err()
            .then_some(())
    })
    .await;
    feed.send(Bytes::copy_from_slice(&content[500_000..]))
        .await
        .unwrap();
    drop(feed);
    let answer = sending.await.unwrap().unwrap();
    assert_eq!(answer.status(), StatusCode::CREATED);
    assert_eq!(api.server.wait(), Some(0));
}

#[tokio::test]
async fn a_second_signal_ends_the_wait() {
    let mut api = Api::start();
    let location = api.begin("a").await;
    let (feed, body) = fed_body();
    let sending = tokio::spawn(api.client.patch(&location).body(body).send());
    feed.send(Bytes::from_static(b"never finished"))
        .await
        .unwrap();
    eventually("the upload runs", 10, async || {
        let (_, text) = page(&api, "metrics").await;
        (value(&text, "hayloft_registry_uploads_receiving") == 1.0).then_some(())
    })
    .await;
    let began = Instant::now();
    assert!(tests::ask_to_end(api.server.id()));
    eventually("the first signal arrived", 10, async || {
        api.server
            .log()
            .contains("waiting for requests")
            .then_some(())
    })
    .await;
    assert!(tests::ask_to_end(api.server.id()));
    assert_eq!(api.server.wait(), Some(1));
    assert!(
        began.elapsed() < Duration::from_secs(15),
        "the grace time is 25 s"
    );
    assert!(sending.await.unwrap().is_err());
}
