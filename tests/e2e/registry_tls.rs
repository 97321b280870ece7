//! TLS: addresses, versions of HTTP, and certificates that are exchanged while it runs.

use std::path::Path;

use reqwest::{Certificate, StatusCode, Version};
use tests::{Authority, Server, eventually, hayloft_command, run, scratch};

use crate::registry_support::{Api, header, raw_get};

/// A registry with a certificate of this authority, from files in `folder`.
pub(crate) fn start(authority: &Authority, folder: &Path) -> Server {
    let (certificate, key) = authority.issue().write(folder);
    Server::registry()
        .argument("--tls-cert")
        .argument(certificate.to_str().unwrap())
        .argument("--tls-key")
        .argument(key.to_str().unwrap())
        .start()
}

fn client(authority: &Authority) -> reqwest::Client {
    let pem = std::fs::read(authority.file()).unwrap();
    let root = Certificate::from_pem(&pem).unwrap();
    let builder = reqwest::Client::builder().no_proxy();
    builder.tls_certs_only([root]).build().unwrap()
}

#[tokio::test]
async fn a_registry_with_a_certificate_is_reached_by_https_alone() {
    let authority = Authority::new();
    let folder = scratch();
    let server = start(&authority, folder.path());
    assert!(server.url().starts_with("https://"), "{}", server.url());
    let mut api = Api::on(server);
    api.client = client(&authority);

    let answer = api.get("").await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.version(), Version::HTTP_2);
    let digest = api.push_image("a/b", "v1", b"layer").await;
    assert_eq!(
        api.head(&format!("a/b/manifests/{digest}")).await.status(),
        StatusCode::OK
    );
    let begun = api.post("a/b/blobs/uploads/").await;
    let location = header(&begun, "location");
    assert!(location.starts_with("https://"), "{location}");

    let (status, said) = raw_get(api.server.address(), "/v2/");
    assert_eq!(status, 400);
    assert!(said.contains("https"), "{said}");
    let stranger = reqwest::Client::builder().no_proxy().build().unwrap();
    assert!(stranger.get(api.url("")).send().await.is_err());
}

#[tokio::test]
async fn http_1_is_spoken_over_tls_too() {
    let authority = Authority::new();
    let folder = scratch();
    let server = start(&authority, folder.path());
    let pem = std::fs::read(authority.file()).unwrap();
    let client = reqwest::Client::builder()
        .no_proxy()
        .http1_only()
        .tls_certs_only([Certificate::from_pem(&pem).unwrap()])
        .build()
        .unwrap();
    let answer = client.get(format!("{}/v2/", server.url())).send().await;
    assert_eq!(answer.unwrap().version(), Version::HTTP_11);
}

#[tokio::test]
async fn a_new_certificate_is_served_to_new_connections_while_old_ones_go_on() {
    let (old, new) = (Authority::new(), Authority::new());
    let folder = scratch();
    let server = start(&old, folder.path());
    let ping = format!("{}/v2/", server.url());
    let connected = client(&old);
    assert_eq!(connected.get(&ping).send().await.unwrap().status(), 200);

    let _ = new.issue().write(folder.path());
    let newcomer = client(&new);
    eventually("the new certificate is served", 20, async || {
        newcomer.get(&ping).send().await.ok()
    })
    .await;
    // Its connection is the one from before: a new one would meet a stranger's certificate.
    assert_eq!(connected.get(&ping).send().await.unwrap().status(), 200);
    assert!(client(&old).get(&ping).send().await.is_err());

    // A key that does not belong to the certificate.
    std::fs::write(folder.path().join("registry.key"), old.issue().key).unwrap();
    eventually("the bad pair is refused", 20, async || {
        let log = server.log();
        log.contains("the old one stays").then_some(())
    })
    .await;
    assert_eq!(client(&new).get(&ping).send().await.unwrap().status(), 200);
    assert!(!server.log().contains("PRIVATE KEY"));
}

#[tokio::test]
async fn a_hangup_signal_has_the_files_read_at_once_and_ends_nothing() {
    let authority = Authority::new();
    let folder = scratch();
    let server = start(&authority, folder.path());
    let ping = format!("{}/v2/", server.url());
    let client = client(&authority);
    assert_eq!(client.get(&ping).send().await.unwrap().status(), 200);
    tests::hang_up(server.id());
    eventually("the certificate was read again", 20, async || {
        server
            .log()
            .contains("serving a new certificate")
            .then_some(())
    })
    .await;
    assert_eq!(client.get(&ping).send().await.unwrap().status(), 200);
}

#[test]
fn a_pair_that_cannot_be_used_ends_the_start_with_its_reason() {
    let authority = Authority::new();
    let folder = scratch();
    let (certificate, key) = authority.issue().write(folder.path());
    let other = folder.path().join("other.key");
    std::fs::write(&other, authority.issue().key).unwrap();
    let empty = folder.path().join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    for (certificate, key, words) in [
        (&certificate, &other, "do not belong together"),
        (&empty, &key, "no CERTIFICATE"),
        (&certificate, &empty, "no private key"),
    ] {
        let mut command = hayloft_command(["registry", "--listen", "127.0.0.1:0", "--data"]);
        command.arg(folder.path().join("data"));
        command.arg("--tls-cert").arg(certificate);
        let said = run(command.arg("--tls-key").arg(key)).failed();
        assert!(said.contains(words), "{said}");
    }
}
