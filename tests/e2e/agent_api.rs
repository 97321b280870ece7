//! The node agent's API, over TCP and over its Unix socket: ensure with progress, list, pin, remove.

use std::os::unix::fs::PermissionsExt;

use artifact::agent_api::{AgentErrorCode, EnsureRequest, PullEvent};
use artifact::client::{AgentClient, Error};
use artifact::{CacheLayout, Digest, Reference};
use futures::StreamExt;
use tests::upstream::{Fault, Upstream, noise};
use tests::{Server, eventually, fixture, hayloft};

const MIB: usize = 1024 * 1024;

fn request(reference: &Reference) -> EnsureRequest {
    EnsureRequest {
        reference: reference.clone(),
        plain_http: false,
        name: None,
    }
}

fn code_of(error: &Error) -> AgentErrorCode {
    match error {
        Error::Agent { error } => error.code,
        other => panic!("the agent itself did not answer: {other}"),
    }
}

#[tokio::test]
async fn a_pull_tells_its_progress_and_ends_with_the_model() {
    let origin = Upstream::start().await;
    let weights = noise(24 * MIB, 21);
    let reference = origin.add_model("1", weights.clone());
    origin.set_fault(Fault::Slow(16 * MIB as u64));
    let agent = Server::agent().start();
    let client = AgentClient::open(&agent.url()).unwrap();
    let events = client.ensure(&request(&reference)).await.unwrap();
    let events: Vec<_> = events.map(Result::unwrap).collect().await;
    assert!(
        matches!(events[0], PullEvent::Resolving { .. }),
        "{:?}",
        events[0]
    );
    let PullEvent::Resolved { blobs, .. } = &events[1] else {
        panic!("{:?}", events[1]);
    };
    assert_eq!(blobs.len(), 2);
    let weights_digest = Digest::sha256(&weights);
    let steps: Vec<u64> = events
        .iter()
        .filter_map(|event| match event {
            PullEvent::Progress {
                digest, completed, ..
            } => (*digest == weights_digest).then_some(*completed),
            _ => None,
        })
        .collect();
    assert!(steps.len() >= 2 && steps.is_sorted(), "{steps:?}");
    assert_eq!(steps.last(), Some(&(24 * MIB as u64)));
    let Some(PullEvent::Ready {
        model,
        fetched,
        reused,
        note,
    }) = events.last()
    else {
        panic!("{events:?}");
    };
    assert_eq!(model.reference, reference);
    assert_eq!((*fetched, *reused), (model.size, 0));
    assert_eq!(*note, None);
}

#[tokio::test]
async fn ten_askers_over_http_share_one_download() {
    let origin = Upstream::start().await;
    let weights = noise(16 * MIB, 22);
    let reference = origin.add_model("1", weights.clone());
    origin.set_fault(Fault::Slow(32 * MIB as u64));
    let agent = Server::agent().start();
    let client = AgentClient::open(&agent.url()).unwrap();
    let request = request(&reference);
    let pulls = (0..10).map(|_| client.pull(&request, |_| {}));
    for pulled in futures::future::join_all(pulls).await {
        assert_eq!(pulled.unwrap().reference, reference);
    }
    let sent = origin.counts().bytes;
    assert!(sent < weights.len() as u64 + 4096, "{sent} bytes were sent");
}

#[tokio::test]
async fn a_pull_goes_on_when_its_asker_leaves() {
    let origin = Upstream::start().await;
    let reference = origin.add_model("1", noise(16 * MIB, 23));
    origin.set_fault(Fault::Slow(16 * MIB as u64));
    let agent = Server::agent().start();
    let client = AgentClient::open(&agent.url()).unwrap();
    let mut events = client.ensure(&request(&reference)).await.unwrap();
    let _ = events.next().await.unwrap().unwrap();
    drop(events);
    eventually("the model is listed", 30, async || {
        let models = client.list().await.unwrap();
        (!models.is_empty()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_unix_socket_serves_the_same_and_only_its_group() {
    let origin = Upstream::start().await;
    let reference = origin.add_model("1", noise(MIB, 24));
    let agent = Server::agent().start();
    let socket = CacheLayout::new(agent.data().join("cache")).socket();
    let found = eventually("the socket is there", 10, async || {
        std::fs::metadata(&socket).ok()
    });
    let mode = found.await.permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let client = AgentClient::open(&format!("unix://{}", socket.display())).unwrap();
    assert!(client.is_ready().await.unwrap());
    let model = client.pull(&request(&reference), |_| {}).await.unwrap();
    assert_eq!(client.get(&reference).await.unwrap(), Some(model.clone()));
    assert_eq!(client.list().await.unwrap()[0].digest, model.digest);
    assert!(client.pin(&reference, true).await.unwrap().pinned);
    let refused = client.remove(&reference).await.unwrap_err();
    assert_eq!(code_of(&refused), AgentErrorCode::Conflict);
    client.pin(&reference, false).await.unwrap();
    client.remove(&reference).await.unwrap();
    assert_eq!(client.get(&reference).await.unwrap(), None);
    let gone = client.remove(&reference).await.unwrap_err();
    assert_eq!(code_of(&gone), AgentErrorCode::NotFound);
}

#[tokio::test]
async fn requests_that_cannot_be_read_are_refused_in_json() {
    let agent = Server::agent().start();
    let http = reqwest::Client::new();
    let url = |path: &str| format!("{}{path}", agent.url());
    let answers = [
        http.post(url("/agent/v1/models/ensure"))
            .header("content-type", "application/json")
            .body("{\"reference\":\"UPPER/../x\"}")
            .send()
            .await,
        http.post(url("/agent/v1/models/ensure"))
            .header("content-type", "application/json")
            .body(format!("{{\"reference\":\"{}\"}}", "a".repeat(100_000)))
            .send()
            .await,
        http.get(url("/agent/v1/model")).send().await,
        http.get(url("/agent/v1/model?reference=..%2f..%2fetc%2fpasswd"))
            .send()
            .await,
    ];
    for answer in answers {
        let answer = answer.unwrap();
        assert_eq!(answer.status(), 400);
        let body: serde_json::Value = answer.json().await.unwrap();
        assert_eq!(body["code"], "bad_request", "{body}");
    }
}

#[tokio::test]
async fn a_second_agent_on_the_folder_says_so_and_exits() {
    let first = Server::agent().start();
    let data = first.data().to_str().unwrap();
    let said = hayloft(&["agent", "--data", data, "--listen", "127.0.0.1:0"]).failed();
    assert!(said.contains("in use by another node agent"), "{said}");
}

#[tokio::test]
async fn a_model_from_debians_registry_is_pulled() {
    let registry = DebianRegistry::start().await;
    let reference = format!("{}/demo/hay-tiny:q8", registry.address);
    let model = fixture("hay-tiny-q8_0.gguf");
    let _ = hayloft(&["push", model.to_str().unwrap(), &reference]).succeeded();
    let agent = Server::agent().start();
    let client = AgentClient::open(&agent.url()).unwrap();
    let reference = Reference::parse(&reference).unwrap();
    client.pull(&request(&reference), |_| {}).await.unwrap();
    let layout = CacheLayout::new(agent.data().join("cache"));
    let pulled = std::fs::read(layout.plain_view_of(&reference).join("model.gguf")).unwrap();
    assert_eq!(pulled, std::fs::read(model).unwrap());
}

/// Debian's docker-registry on a port and in a folder of its own.
pub(crate) struct DebianRegistry {
    pub(crate) address: String,
    process: std::process::Child,
    _folder: tempfile::TempDir,
}

impl DebianRegistry {
    pub(crate) async fn start() -> Self {
        let folder = tests::scratch();
        // The port is free now, and nobody else asks for this one.
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let address = format!("127.0.0.1:{port}");
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}/data}}}}\nhttp: {{addr: {address}}}\n",
            folder.path().display()
        );
        let file = folder.path().join("config.yml");
        std::fs::write(&file, config).unwrap();
        let process = std::process::Command::new("docker-registry")
            .arg("serve")
            .arg(file)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("Debian's docker-registry is installed: run scripts/install-deps.sh");
        let url = format!("http://{address}/v2/");
        eventually("docker-registry answers", 20, async || {
            reqwest::get(&url).await.ok()
        })
        .await;
        Self {
            address,
            process,
            _folder: folder,
        }
    }
}

impl Drop for DebianRegistry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
