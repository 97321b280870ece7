//! `hayloft doctor`: each thing that can be wrong with a node, made wrong, and found.

use std::path::Path;

use serde_json::Value;
use tests::hub::Hub;
use tests::squid::{FORBIDDEN, UPSTREAM};
use tests::{Authority, Finished, Server, SmallDisk, Squid, hayloft_command, run, scratch};

use crate::registry_access::ANN;

/// Runs the doctor off the test's own thread, whose servers have to answer meanwhile.
async fn doctor(data: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Finished {
    let mut command = hayloft_command(["doctor", "--data", data.to_str().unwrap()]);
    command.args(arguments).envs(variables.iter().copied());
    command
        .env_remove("DOCKER_CONFIG")
        .env("HOME", "/nonexistent");
    let finished = tokio::task::spawn_blocking(move || run(&mut command));
    finished.await.unwrap()
}

#[track_caller]
fn says(finished: &Finished, code: i32, texts: &[&str]) {
    let said = &finished.stdout;
    assert_eq!(finished.code, code, "{said}\n{}", finished.stderr);
    for text in texts {
        assert!(said.contains(text), "{text:?} is not in\n{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_well_is_told_so_to_people_and_to_programs() {
    let registry = Server::registry().start();
    let agent = Server::agent().start();
    let host = registry.address();
    let data = agent.data();
    let found = doctor(data, &["--registry", host, "--agent", &agent.url()], &[]).await;
    let told = [
        "is ready",
        "takes and keeps",
        "answers 200",
        "agrees with 127.0.0.1",
    ];
    says(&found, 0, &told);
    let found = doctor(data, &["--registry", host, "-o", "json"], &[]).await;
    let report: Value = serde_json::from_str(&found.stdout).unwrap();
    assert_eq!(report["failures"], 0, "{report}");
    let levels = report["findings"].as_array().unwrap();
    assert!(
        levels.iter().all(|finding| finding["level"] != "fail"),
        "{report}"
    );
    let missing = format!("{host}/team/none:1");
    let found = doctor(data, &[&missing], &[]).await;
    says(&found, 1, &["FAIL", "is not in the registry"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_ports_and_other_programs_are_told_apart() {
    let folder = scratch();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = free.local_addr().unwrap().to_string();
    drop(free);
    let found = doctor(folder.path(), &["--registry", &closed], &[]).await;
    says(&found, 1, &["tcp", "nothing listens there"]);
    let found = doctor(folder.path(), &["--registry", "no-such-host.invalid"], &[]).await;
    says(
        &found,
        1,
        &["dns", "cannot be resolved", "/etc/resolv.conf"],
    );
    // An agent is no registry, and a registry is no agent.
    let agent = Server::agent().start();
    let found = doctor(folder.path(), &["--registry", agent.address()], &[]).await;
    says(&found, 1, &["answers 404", "another program listens there"]);
    let registry = Server::registry().start();
    let found = doctor(folder.path(), &["--agent", &registry.url()], &[]).await;
    says(&found, 1, &["does not answer as a node agent does"]);
    let found = doctor(folder.path(), &["--agent", &closed], &[]).await;
    says(&found, 1, &["no node agent answers"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_authority_and_a_wrong_time_of_a_certificate_are_named() {
    let authority = Authority::new();
    for (year, without, with) in [
        (2000, "issued by \"Test Authority\"", None),
        (
            2090,
            "issued by \"Test Authority\"",
            Some("another name or time"),
        ),
    ] {
        let folder = scratch();
        let pair = authority.issue_from(&["127.0.0.1"], year);
        let (certificate, key) = pair.write(folder.path());
        let registry = Server::registry()
            .argument("--tls-cert")
            .argument(certificate.to_str().unwrap())
            .argument("--tls-key")
            .argument(key.to_str().unwrap())
            .start();
        let host = registry.address();
        let trust = authority.file();
        let trust = ["--registry", host, "--ca-file", trust.to_str().unwrap()];
        let found = doctor(folder.path(), &trust, &[]).await;
        match with {
            None => says(&found, 0, &["answers 200"]),
            Some(with) => says(&found, 1, &[with]),
        }
        let found = doctor(folder.path(), &["--registry", host], &[]).await;
        if year == 2000 {
            says(&found, 1, &[without, "--ca-file"]);
        } else {
            says(&found, 1, &["FAIL"]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_is_missing_or_used_is_told_with_its_file() {
    let folder = scratch();
    let accounts = folder.path().join("htpasswd");
    std::fs::write(&accounts, ANN).unwrap();
    let registry = Server::registry()
        .argument("--htpasswd")
        .argument(accounts.to_str().unwrap())
        .start();
    let host = registry.address();
    let found = doctor(folder.path(), &["--registry", host], &[]).await;
    says(&found, 1, &["answers 401", "there is no login for"]);
    let secret = folder.path().join("secret.json");
    let login = format!(r#"{{"auths":{{"{host}":{{"username":"ann","password":"geheim"}}}}}}"#);
    std::fs::write(&secret, login).unwrap();
    let arguments = [
        "--registry",
        host,
        "--registry-config",
        secret.to_str().unwrap(),
    ];
    let found = doctor(folder.path(), &arguments, &[]).await;
    says(&found, 1, &["refuses access", "secret.json is used"]);
    assert!(!found.stdout.contains("geheim"));
}

#[tokio::test(flavor = "multi_thread")]
async fn proxies_are_named_with_their_variable_and_their_refusal() {
    let squid = Squid::builder().start().await;
    let (url, address) = (squid.url(), squid.address());
    let proxy = ("HTTPS_PROXY", url.as_str());
    let folder = scratch();
    let refused = format!("{FORBIDDEN}:443");
    let found = doctor(folder.path(), &["--registry", &refused], &[proxy]).await;
    says(
        &found,
        1,
        &[
            &address,
            "by HTTPS_PROXY",
            "does not pass on",
            "NO_PROXY lacks",
        ],
    );
    let hub = Hub::start().await;
    let port = hub.address().port();
    let upstream = format!("x.test=hf+http://{UPSTREAM}:{port}");
    let model = ["x.test/a/b:1", "--upstream", &upstream];
    let found = doctor(
        folder.path(),
        &model,
        &[("HTTP_PROXY", &url), ("NO_PROXY", "localhost,127.0.0.1")],
    )
    .await;
    says(&found, 1, &["by HTTP_PROXY", "nothing contradicts itself"]);
    assert!(
        !found.stdout.contains("dns          registry"),
        "{}",
        found.stdout
    );
    let dead = ("HTTPS_PROXY", "http://127.0.0.1:1");
    let found = doctor(folder.path(), &["--registry", "example.com"], &[dead]).await;
    says(&found, 1, &["the proxy does not run"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_and_one_that_is_memory_and_a_foreign_link_are_told() {
    let disk = SmallDisk::mount(8);
    std::fs::create_dir(disk.path().join("cache")).unwrap();
    let found = doctor(disk.path(), &[], &[]).await;
    says(&found, 0, &["is on tmpfs", "it is memory"]);
    disk.fill();
    let found = doctor(disk.path(), &[], &[]).await;
    says(
        &found,
        1,
        &["100 % in use", "cannot be written to", "free some space"],
    );
    disk.free();
    std::os::unix::fs::symlink("/etc", disk.path().join("cache/blobs")).unwrap();
    let found = doctor(disk.path(), &[], &[]).await;
    says(&found, 1, &["permissions", "cache/blobs is not a folder"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn variables_that_work_against_each_other_are_told() {
    let folder = scratch();
    let variables = [
        ("HTTP_PROXY", "http://a:1"),
        ("http_proxy", "http://b:2"),
        ("NO_PROXY", "*.example.com"),
        ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
        ("SSL_CERT_FILE", "/nonexistent.pem"),
    ];
    let found = doctor(folder.path(), &[], &variables).await;
    for text in [
        "HTTP_PROXY and http_proxy differ",
        "fits nothing",
        "swallows names of the cluster",
        "/nonexistent.pem",
    ] {
        assert!(found.stdout.contains(text), "{text}: {}", found.stdout);
    }
}
