//! `pull` when the origin or the way to it is at fault: every message says what, where, what to do.

use std::net::SocketAddr;

use tests::hub::{Access, Fault, Hub, Storage};
use tests::{Authority, Finished, Server, fixture, hayloft_command, run};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const REPOSITORY: &str = "Seed/Hay-Tiny-GGUF";
const FILE: &str = "Hay-Tiny-Q8_0.gguf";
const NAME: &str = "hf.co/Seed/Hay-Tiny-GGUF:Q8_0";
const SIZE: u64 = 3_020_192;

fn fill(hub: &Hub) {
    let weights = std::fs::read(fixture("hay-tiny-q8_0.gguf")).unwrap();
    hub.put_file(REPOSITORY, FILE, weights, Storage::Lfs);
}

async fn hub() -> Hub {
    let hub = Hub::start().await;
    fill(&hub);
    hub
}

/// Pulls [`NAME`] into a folder of its own, with these variables.
async fn pull(flags: &[&str], environment: &[(&str, &str)]) -> Finished {
    let folder = tests::scratch();
    let data = folder.path().to_str().unwrap();
    let mut command = hayloft_command(["pull", NAME, "--data", data]);
    command.args(flags).envs(environment.iter().copied());
    tokio::task::spawn_blocking(move || run(&mut command))
        .await
        .unwrap()
}

async fn from(hub: &Hub) -> Finished {
    pull(&[], &[("HF_ENDPOINT", &hub.url())]).await
}

#[track_caller]
fn says(finished: Finished, parts: &[&str]) {
    let said = finished.failed();
    for part in parts {
        assert!(said.contains(part), "{part:?} is not in: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_breaks_off_once_goes_on_where_it_was() {
    let hub = hub().await;
    hub.set_fault_times(Fault::DropAtHalf, 1);
    let _ = from(&hub).await.succeeded();
    let sent = hub.count(&format!("{REPOSITORY}/{FILE}")).bytes;
    assert_eq!(sent, SIZE, "what had come was fetched again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_origin_is_asked_again_when_it_says_so() {
    let hub = hub().await;
    hub.set_retry_after(1);
    hub.set_question_fault_times(Fault::Status(429), 1);
    hub.set_fault_times(Fault::Status(503), 1);
    let _ = from(&hub).await.succeeded();
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_and_wrong_lengths_are_told_with_their_digest_and_place() {
    let hub = hub().await;
    hub.set_fault(Fault::WrongBytes);
    says(from(&hub).await, &["sha256:", "sends other bytes"]);
    hub.set_fault(Fault::AnnounceMore);
    says(from(&hub).await, &["announces", &SIZE.to_string()]);
    hub.set_fault(Fault::Page);
    says(from(&hub).await, &["web page", "proxy"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_page_in_the_place_of_an_answer_is_told_as_such() {
    let hub = hub().await;
    hub.set_question_fault(Fault::Page);
    says(
        from(&hub).await,
        &["/api/models/", "web page", "log-in portal"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_in_a_circle_are_told_with_their_goal() {
    let hub = hub().await;
    hub.set_fault(Fault::RedirectLoop);
    says(
        from(&hub).await,
        &["redirects to", "/resolve/", "one redirect too many"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_model_names_what_there_is_instead() {
    let hub = hub().await;
    let url = hub.url();
    let folder = tests::scratch();
    let data = folder.path().to_str().unwrap();
    let name = "hf.co/Seed/Hay-Tiny-GGUF:Q4_K_M";
    let mut command = hayloft_command(["pull", name, "--data", data]);
    command.env("HF_ENDPOINT", url);
    let finished = tokio::task::spawn_blocking(move || run(&mut command));
    let finished = finished.await.unwrap();
    assert_eq!(finished.code, 3);
    says(finished, &["Q4_K_M", "it has Q8_0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_untrusted_certificate_names_its_issuer_and_the_option_and_both_options_work() {
    let authority = Authority::new();
    let hub = Hub::start_tls(&authority.issue()).await;
    fill(&hub);
    let url = hub.url();
    says(
        from(&hub).await,
        &[&url, "issued by \"Test Authority\"", "--ca-file"],
    );
    let file = authority.file();
    let file = file.to_str().unwrap();
    // Trusted, it leads on to a host without TLS, which is not followed.
    let endpoint = ("HF_ENDPOINT", url.as_str());
    let told = ["from https to http", "redirects to http://127.0.0.2"];
    says(pull(&["--ca-file", file], &[endpoint]).await, &told);
    says(pull(&[], &[endpoint, ("SSL_CERT_FILE", file)]).await, &told);
    let missing = pull(&["--ca-file", "/nonexistent.pem"], &[endpoint]).await;
    says(missing, &["/nonexistent.pem"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_without_an_address_is_told_apart_from_a_port_without_a_server() {
    let name = pull(
        &["--upstream", "hf.co=hf+https://no-such-host.invalid"],
        &[],
    )
    .await;
    says(name, &["no-such-host.invalid", "cannot be resolved"]);
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = gone.local_addr().unwrap();
    drop(gone);
    let upstream = format!("hf.co=hf+http://{address}");
    let refused = pull(&["--upstream", &upstream], &[]).await;
    says(refused, &[&address.to_string(), "nothing listens there"]);
}

/// A proxy that answers everything with one status.
async fn refusing_proxy(status: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let answer = format!(
                "HTTP/1.1 {status}\r\nx-squid-error: ERR_ACCESS_DENIED 0\r\ncontent-length: 0\r\n\
                 connection: close\r\n\r\n"
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_refuses_is_named_and_its_password_is_not() {
    for (status, told) in [
        ("403 Forbidden", "refuse"),
        ("407 Proxy Authentication Required", "name and a password"),
    ] {
        let address = refusing_proxy(status).await;
        let proxy = format!("http://me:geheim@{address}");
        for (variable, upstream) in [
            ("HTTP_PROXY", "hf.co=hf+http://models.test"),
            ("HTTPS_PROXY", "hf.co=hf+https://models.test"),
        ] {
            let finished = pull(&["--upstream", upstream], &[(variable, &proxy)]).await;
            let said = finished.failed();
            assert!(said.contains(&format!("the proxy {address}")), "{said}");
            assert!(said.contains("models.test"), "{said}");
            assert!(!said.contains("geheim"), "{said}");
            let is_told = said.contains(told) || said.contains("403");
            assert!(is_told, "{said}");
        }
    }
    let gone = [("HTTPS_PROXY", "http://127.0.0.1:9")];
    let upstream = ["--upstream", "hf.co=hf+https://models.test"];
    says(
        pull(&upstream, &gone).await,
        &["the proxy 127.0.0.1:9", "nothing listens"],
    );
    let direct = [("HTTPS_PROXY", "http://127.0.0.1:9"), ("NO_PROXY", ".test")];
    says(
        pull(&upstream, &direct).await,
        &["models.test", "cannot be resolved"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_mirrors_a_private_repository_behind_a_private_authority() {
    let authority = Authority::new();
    let hub = Hub::start_tls(&authority.issue()).await;
    fill(&hub);
    hub.set_token("hf_geheim");
    hub.set_access(REPOSITORY, Access::Private);
    let (url, file) = (hub.url(), authority.file());
    let started = tokio::task::spawn_blocking(move || {
        Server::registry()
            .argument("--upstream")
            .argument(&format!("hub=hf+{url}"))
            .argument("--mirror-ca")
            .argument(file.to_str().unwrap())
            .environment("HF_ENDPOINT", &url)
            .environment("HF_TOKEN", "hf_geheim")
            .start()
    });
    let registry = started.await.unwrap();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let manifest = "v2/hub/Seed/Hay-Tiny-GGUF/manifests/Q8_0";
    let answer = client.get(format!("{}/{manifest}", registry.url())).send();
    let answer = answer.await.unwrap();
    assert_eq!(answer.status(), 200, "{}", registry.log());
    assert!(!registry.log().contains("hf_geheim"));
    assert_eq!(hub.leaks(), 0);
}

#[tokio::test]
async fn a_mirror_gives_its_token_to_no_other_upstream_of_the_kind() {
    let hub = Hub::start().await;
    fill(&hub);
    hub.set_token("hf_geheim");
    hub.set_access(REPOSITORY, Access::Private);
    let upstream = format!("hub=hf+{}", hub.url());
    // The token is for huggingface.co, as nothing else is said.
    let registry = Server::registry()
        .argument("--upstream")
        .argument(&upstream)
        .environment("HF_TOKEN", "hf_geheim")
        .start();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let manifest = "v2/hub/Seed/Hay-Tiny-GGUF/manifests/Q8_0";
    let answer = client.get(format!("{}/{manifest}", registry.url())).send();
    assert!(answer.await.unwrap().status().is_client_error());
}
