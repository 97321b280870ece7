//! The mirror before registries that other people wrote, with logins as docker keeps them, and
//! before several addresses of which the first one fails.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use artifact::Digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tests::upstream::{Fault, Upstream, noise};
use tests::{Builder, S3Server, Server, run, scratch};

use crate::agent_api::DebianRegistry;
use crate::mirror_support::{MODEL, is_right, mirror_of};
use crate::registry_access::{ANN, PASSWORD};
use crate::registry_support::{Api, image};

/// A registry that mirrors these addresses below `hub`, in this order.
fn mirror(addresses: &[&str]) -> Builder {
    let builder = Server::registry();
    addresses.iter().fold(builder, |builder, address| {
        let upstream = format!("hub=oci+http://{address}");
        builder.argument("--upstream").argument(&upstream)
    })
}

/// A registry of ours that only ann may use.
fn guarded(folder: &Path) -> Server {
    let accounts = folder.join("htpasswd");
    std::fs::write(&accounts, ANN).unwrap();
    let accounts = accounts.to_str().unwrap().to_owned();
    let server = Server::registry();
    server.argument("--htpasswd").argument(&accounts).start()
}

/// Pushes an image of one layer by a client with a login, if there is one.
async fn push(registry: &str, login: Option<(&str, &str)>, layer: &[u8]) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let with_login = |request: reqwest::RequestBuilder| match login {
        Some((name, password)) => request.basic_auth(name, Some(password)),
        None => request,
    };
    for content in [b"{}".as_slice(), layer] {
        let begin = client.post(format!("http://{registry}/v2/team/image/blobs/uploads/"));
        let begun = with_login(begin).send().await.unwrap();
        assert_eq!(begun.status(), StatusCode::ACCEPTED);
        let location = begun.headers()["location"].to_str().unwrap();
        let join = if location.contains('?') { '&' } else { '?' };
        let whole = format!("{location}{join}digest={}", Digest::sha256(content));
        let put = with_login(client.put(whole).body(content.to_vec()));
        assert_eq!(put.send().await.unwrap().status(), StatusCode::CREATED);
    }
    let manifest = image(&[layer]);
    let url = format!("http://{registry}/v2/team/image/manifests/1");
    let put = client
        .put(url)
        .header("content-type", manifest["mediaType"].as_str().unwrap())
        .body(manifest.to_string());
    assert_eq!(
        with_login(put).send().await.unwrap().status(),
        StatusCode::CREATED
    );
}

async fn assert_pulls(api: &Api, layer: &[u8]) {
    let manifest = api.get("hub/team/image/manifests/1").await;
    let status = manifest.status();
    let manifest: Value = manifest.json().await.unwrap();
    assert_eq!(status, StatusCode::OK, "{manifest}\n{}", api.server.log());
    assert_eq!(manifest, image(&[layer]));
    let digest = Digest::sha256(layer);
    let blob = api.get(&format!("hub/team/image/blobs/{digest}")).await;
    assert!(is_right(blob, &digest).await);
}

async fn message(response: reqwest::Response) -> (StatusCode, String) {
    let status = response.status();
    let body: Value = response.json().await.unwrap();
    let message = body["errors"][0]["message"].as_str().unwrap_or_default();
    (status, message.to_owned())
}

#[tokio::test]
async fn a_second_hayloft_lets_the_mirror_in_by_the_login_of_dockers_file() {
    let folder = scratch();
    let layer = noise(1_000_000, 3);
    let upstream = guarded(folder.path());
    let address = upstream.address();
    push(address, Some(("ann", PASSWORD)), &layer).await;
    let docker = folder.path().join("docker");
    std::fs::create_dir(&docker).unwrap();
    let known = |password: &str| {
        let login = STANDARD.encode(format!("ann:{password}"));
        let config = json!({ "auths": { address: { "auth": login } } });
        std::fs::write(docker.join("config.json"), config.to_string()).unwrap();
        let started = mirror(&[address]).environment("DOCKER_CONFIG", docker.to_str().unwrap());
        Api::on(started.start())
    };
    assert_pulls(&known(PASSWORD), &layer).await;
    let api = known("falsch-Kp19");
    let (status, said) = message(api.get("hub/team/image/manifests/1").await).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{said}");
    assert!(said.contains(address), "{said}");
    assert!(!said.contains("falsch") && !api.server.log().contains("falsch"));
    let empty = scratch();
    let home = empty.path().to_str().unwrap();
    let stranger = mirror(&[address]).environment("DOCKER_CONFIG", home);
    let stranger = Api::on(stranger.environment("HOME", home).start());
    let (status, said) = message(stranger.get("hub/team/image/manifests/1").await).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{said}");
}

#[tokio::test]
async fn a_credential_helper_is_asked_for_the_login_of_an_upstream() {
    let folder = scratch();
    let layer = noise(1_000_000, 4);
    let upstream = guarded(folder.path());
    let address = upstream.address();
    push(address, Some(("ann", PASSWORD)), &layer).await;
    let helper = folder.path().join("docker-credential-hay");
    let script = format!(
        "#!/bin/sh\nread -r server\ntest \"$1\" = get && test \"$server\" = '{address}' && echo '{}'\n",
        json!({ "ServerURL": address, "Username": "ann", "Secret": PASSWORD })
    );
    std::fs::write(&helper, script).unwrap();
    std::fs::set_permissions(&helper, PermissionsExt::from_mode(0o755)).unwrap();
    let config = json!({ "credHelpers": { address: "hay" } });
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let home = folder.path().to_str().unwrap();
    let path = format!("{home}:{}", std::env::var("PATH").unwrap());
    let started = mirror(&[address])
        .environment("DOCKER_CONFIG", home)
        .environment("PATH", &path);
    assert_pulls(&Api::on(started.start()), &layer).await;
}

#[tokio::test]
async fn debians_registry_is_mirrored_and_skopeo_copies_out_of_the_mirror() {
    let upstream = DebianRegistry::start().await;
    let layer = noise(3_000_000, 5);
    push(&upstream.address, None, &layer).await;
    let api = Api::on(mirror(&[&upstream.address]).start());
    let folder = scratch();
    let to = format!("dir:{}", folder.path().display());
    let from = format!("docker://{}/hub/team/image:1", api.server.address());
    let copy = ["copy", "--src-tls-verify=false", &from, &to];
    let _ = run(Command::new("skopeo").args(copy)).succeeded();
    let blob = folder.path().join(Digest::sha256(&layer).hex());
    assert!(std::fs::read(blob).unwrap() == layer);
    // Without its upstream the mirror serves what it has, and says so.
    drop(upstream);
    assert_pulls(&api, &layer).await;
}

#[tokio::test]
async fn the_second_address_is_asked_when_the_first_one_is_down() {
    let upstream = DebianRegistry::start().await;
    let layer = noise(500_000, 6);
    push(&upstream.address, None, &layer).await;
    let nobody = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let unknown = "registry.invalid";
    let api = Api::on(mirror(&[&nobody, unknown, &upstream.address]).start());
    assert_pulls(&api, &layer).await;
}

#[tokio::test]
async fn a_name_that_nobody_knows_is_named() {
    let api = Api::on(mirror(&["registry.invalid"]).start());
    let (status, said) = message(api.get("hub/team/image/manifests/1").await).await;
    assert_eq!(status, StatusCode::BAD_GATEWAY, "{said}");
    assert!(
        said.contains("registry.invalid cannot be resolved"),
        "{said}"
    );
}

#[tokio::test]
async fn an_upstream_that_ends_in_mid_fill_is_replaced_by_the_next_one() {
    let weights = noise(24 << 20, 7);
    let digest = Digest::sha256(&weights);
    let first = Upstream::start().await;
    let second = Upstream::start().await;
    for origin in [&first, &second] {
        origin.add_model("1", weights.clone());
    }
    let api = Api::on(mirror_of(&[&first, &second]).start());
    api.mirrored_manifest("1").await;
    first.set_fault(Fault::Slow(8 << 20));
    let mut response = api.mirrored_blob(&digest).await;
    let mut hasher = artifact::digest::Digester::new(artifact::Algorithm::Sha256);
    let mut received = 0;
    let mut first = Some(first);
    while let Some(chunk) = response.chunk().await.unwrap() {
        received += chunk.len();
        hasher.update(&chunk);
        if received > 4 << 20
            && let Some(first) = first.take()
        {
            assert!(first.counts().bytes > 0);
            first.stop().await;
        }
    }
    assert_eq!(hasher.finish(), digest);
    let of_second = second.counts().bytes;
    let total = weights.len() as u64;
    assert!(of_second > 0 && of_second < total, "{of_second} of {total}");
}

#[tokio::test]
async fn two_replicas_that_fill_the_same_blob_both_serve_it() {
    let origin = Upstream::start().await;
    let weights = noise(16 << 20, 8);
    let digest = Digest::sha256(&weights);
    origin.add_model("1", weights.clone());
    origin.set_fault(Fault::Slow(16 << 20));
    let s3 = S3Server::start();
    let postgres = tests::Postgres::start();
    let upstream = format!("hub=oci+http://{}", origin.address());
    let replica = || {
        let replica = s3.registry().environment("HAYLOFT_INDEX", &postgres.url());
        Api::on(replica.argument("--upstream").argument(&upstream).start())
    };
    let (one, two) = (replica(), replica());
    one.mirrored_manifest("1").await;
    two.mirrored_manifest("1").await;
    let (of_one, of_two) = tokio::join!(
        async { is_right(one.mirrored_blob(&digest).await, &digest).await },
        async { is_right(two.mirrored_blob(&digest).await, &digest).await },
    );
    assert!(of_one && of_two);
    let bytes = origin.counts().bytes;
    assert!(bytes <= 2 * weights.len() as u64, "{bytes}");
    origin.stop().await;
    for api in [&one, &two] {
        let again = api.get(&format!("{MODEL}/blobs/{digest}")).await;
        assert!(is_right(again, &digest).await, "{}", api.server.log());
    }
}
