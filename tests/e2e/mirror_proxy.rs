//! Upstreams behind real proxies: squid with rules, logins and interception, and a SOCKS5 proxy.
//! The upstream's name is known to the proxy alone, so whatever arrives has come through it.

use artifact::Digest;
use reqwest::{Certificate, StatusCode};
use serde_json::Value;
use tests::squid::{FORBIDDEN, UPSTREAM};
use tests::upstream::noise;
use tests::{Authority, Builder, Server, Socks, Squid, scratch};

use crate::registry_support::Api;

const IMAGE: &str = "team/image";

/// A registry with an image, to be reached by its name through a proxy alone.
struct Origin {
    api: Api,
    layer: Vec<u8>,
    /// By which it speaks TLS.
    authority: Option<Authority>,
    _folder: tempfile::TempDir,
}

impl Origin {
    /// By plain HTTP, or by TLS with a certificate for its name that is good from `year` on.
    async fn start(tls_from: Option<i32>) -> Self {
        let folder = scratch();
        let authority = tls_from.map(|_| Authority::named("Company Authority"));
        let mut server = Server::registry();
        if let (Some(authority), Some(year)) = (&authority, tls_from) {
            let pair = authority.issue_from(&[UPSTREAM, "127.0.0.1"], year);
            let (certificate, key) = pair.write(folder.path());
            server = server
                .argument("--tls-cert")
                .argument(certificate.to_str().unwrap())
                .argument("--tls-key")
                .argument(key.to_str().unwrap());
        }
        let mut api = Api::on(server.start());
        if let Some(authority) = &authority {
            let pem = std::fs::read(authority.file()).unwrap();
            let root = Certificate::from_pem(&pem).unwrap();
            let builder = reqwest::Client::builder().no_proxy();
            // Its own certificate may not be good yet, which is not what this client is for.
            let builder = builder.tls_danger_accept_invalid_certs(true);
            api.client = builder.tls_certs_only([root]).build().unwrap();
        }
        let layer = noise(2_000_000, 11);
        let _ = api.push_image(IMAGE, "1", &layer).await;
        Self {
            api,
            layer,
            authority,
            _folder: folder,
        }
    }

    fn port(&self) -> &str {
        self.api.server.address().rsplit_once(':').unwrap().1
    }

    /// A registry that mirrors it below `hub`, by this name.
    fn mirrored_as(&self, host: &str) -> Builder {
        let scheme = if self.authority.is_some() {
            "https"
        } else {
            "http"
        };
        let upstream = format!("hub=oci+{scheme}://{host}:{}", self.port());
        Server::registry()
            .argument("--upstream")
            .argument(&upstream)
    }

    fn authority(&self) -> String {
        let authority = self.authority.as_ref().unwrap();
        authority.file().to_str().unwrap().to_owned()
    }

    /// Pulls the image through the mirror.
    async fn assert_pulled(&self, mirror: &Api) {
        let manifest = mirror.get(&format!("hub/{IMAGE}/manifests/1")).await;
        let status = manifest.status();
        let manifest: Value = manifest.json().await.unwrap();
        assert_eq!(
            status,
            StatusCode::OK,
            "{manifest}\n{}",
            mirror.server.log()
        );
        let digest = Digest::sha256(&self.layer);
        assert_eq!(manifest["layers"][0]["digest"], digest.to_string());
        let blob = mirror.get(&format!("hub/{IMAGE}/blobs/{digest}")).await;
        assert_eq!(blob.status(), StatusCode::OK);
        assert!(blob.bytes().await.unwrap() == self.layer);
    }
}

/// What a client is told when the image cannot be had.
async fn refusal(mirror: &Api) -> (StatusCode, String) {
    let answer = mirror.get(&format!("hub/{IMAGE}/manifests/1")).await;
    let status = answer.status();
    let body: Value = answer.json().await.unwrap();
    let message = body["errors"][0]["message"].as_str().unwrap_or_default();
    (status, message.to_owned())
}

#[tokio::test]
async fn plain_http_goes_through_the_proxy_and_what_is_here_without_it() {
    let origin = Origin::start(None).await;
    let squid = Squid::builder().start().await;
    let mirror = origin.mirrored_as(UPSTREAM);
    let mirror = Api::on(mirror.environment("HTTP_PROXY", &squid.url()).start());
    origin.assert_pulled(&mirror).await;
    let requests = squid.requests();
    let of_manifest = format!("http://{UPSTREAM}:{}/v2/{IMAGE}/manifests/1", origin.port());
    let asked = requests.iter().filter(|line| line.contains(&of_manifest));
    assert_eq!(asked.count(), 1, "{requests:#?}");
    drop(squid);
    origin.assert_pulled(&mirror).await;
}

#[tokio::test]
async fn https_goes_through_a_tunnel_of_the_proxy_and_trusts_a_private_authority() {
    let origin = Origin::start(Some(2000)).await;
    let squid = Squid::builder().start().await;
    let mirror = || origin.mirrored_as(UPSTREAM);
    let started = mirror()
        .environment("HTTPS_PROXY", &squid.url())
        .environment("SSL_CERT_FILE", &origin.authority());
    origin.assert_pulled(&Api::on(started.start())).await;
    let requests = squid.requests();
    let tunnel = format!("CONNECT {UPSTREAM}:{}", origin.port());
    assert!(
        requests.iter().all(|line| line.contains(&tunnel)),
        "{requests:#?}"
    );
    assert!(!requests.is_empty());

    let untrusting = mirror().environment("HTTPS_PROXY", &squid.url());
    let (status, message) = refusal(&Api::on(untrusting.start())).await;
    assert_eq!(status, StatusCode::BAD_GATEWAY, "{message}");
    assert!(message.contains("Company Authority"), "{message}");
}

#[tokio::test]
async fn a_certificate_that_is_not_good_yet_is_refused_in_words() {
    let origin = Origin::start(Some(2400)).await;
    let squid = Squid::builder().start().await;
    let mirror = origin
        .mirrored_as(UPSTREAM)
        .environment("HTTPS_PROXY", &squid.url())
        .environment("SSL_CERT_FILE", &origin.authority());
    let (status, message) = refusal(&Api::on(mirror.start())).await;
    assert_eq!(status, StatusCode::BAD_GATEWAY, "{message}");
    assert!(message.contains("not valid yet"), "{message}");
}

#[tokio::test]
async fn a_proxy_that_wants_a_login_gets_it_or_is_named() {
    let origin = Origin::start(None).await;
    let squid = Squid::builder().login("ann", "geheim").start().await;
    let with = |proxy: &str| {
        let mirror = origin.mirrored_as(UPSTREAM);
        Api::on(mirror.environment("http_proxy", proxy).start())
    };
    let url = format!("http://ann:geheim@{}", squid.address());
    let mirror = with(&url);
    origin.assert_pulled(&mirror).await;
    assert!(!mirror.server.log().contains("geheim"));
    for url in [
        squid.url(),
        format!("http://ann:falsch@{}", squid.address()),
    ] {
        let mirror = with(&url);
        let (status, message) = refusal(&mirror).await;
        assert!(
            [StatusCode::BAD_GATEWAY, StatusCode::FORBIDDEN].contains(&status),
            "{status} {message}"
        );
        assert!(message.contains(&squid.address()), "{message}");
        let log = mirror.server.log();
        assert!(!message.contains("falsch") && !log.contains("falsch"));
    }
}

#[tokio::test]
async fn a_proxy_that_refuses_is_named() {
    for tls_from in [None, Some(2000)] {
        let origin = Origin::start(tls_from).await;
        let squid = Squid::builder().start().await;
        let mirror = origin
            .mirrored_as(FORBIDDEN)
            .environment("ALL_PROXY", &squid.url());
        let (status, message) = refusal(&Api::on(mirror.start())).await;
        assert!(
            [StatusCode::BAD_GATEWAY, StatusCode::FORBIDDEN].contains(&status),
            "{status} {message}"
        );
        assert!(message.contains(&squid.address()), "{message}");
        let requests = squid.requests();
        assert!(requests[0].contains("TCP_DENIED"), "{requests:#?}");
    }
}

#[tokio::test]
async fn what_no_proxy_names_does_not_go_there() {
    let origin = Origin::start(None).await;
    let squid = Squid::builder().start().await;
    for spared in [UPSTREAM, ".upstream.test", "other.test,upstream.test"] {
        let mirror = origin
            .mirrored_as(UPSTREAM)
            .environment("HTTP_PROXY", &squid.url())
            .environment("NO_PROXY", spared);
        // Without the proxy nobody knows the name.
        let (status, message) = refusal(&Api::on(mirror.start())).await;
        assert_eq!(status, StatusCode::BAD_GATEWAY, "{message}");
        assert!(message.contains("cannot be resolved"), "{message}");
        assert!(message.contains(UPSTREAM), "{message}");
    }
    assert_eq!(squid.requests(), Vec::<String>::new());
}

#[tokio::test]
async fn a_proxy_that_reads_along_is_trusted_by_its_authority_or_named() {
    let origin = Origin::start(Some(2000)).await;
    let squid = Squid::builder().intercepting().start().await;
    let mirror = || {
        let mirror = origin.mirrored_as(UPSTREAM);
        mirror.environment("HTTPS_PROXY", &squid.url())
    };
    let authority = squid.authority();
    let trusting = mirror().environment("SSL_CERT_FILE", authority.to_str().unwrap());
    origin.assert_pulled(&Api::on(trusting.start())).await;
    let requests = squid.requests();
    let read = format!("GET https://{UPSTREAM}:{}/v2/{IMAGE}/", origin.port());
    assert!(
        requests.iter().any(|line| line.contains(&read)),
        "{requests:#?}"
    );

    let (status, message) = refusal(&Api::on(mirror().start())).await;
    assert_eq!(status, StatusCode::BAD_GATEWAY, "{message}");
    assert!(message.contains("Proxy Authority"), "{message}");
}

#[tokio::test]
async fn a_socks_proxy_looks_names_up_and_passes_everything_on() {
    for tls_from in [None, Some(2000)] {
        let origin = Origin::start(tls_from).await;
        let socks = Socks::start().await;
        let mut mirror = origin
            .mirrored_as(UPSTREAM)
            .environment("ALL_PROXY", &socks.url());
        if tls_from.is_some() {
            mirror = mirror.environment("SSL_CERT_FILE", &origin.authority());
        }
        origin.assert_pulled(&Api::on(mirror.start())).await;
    }
}
