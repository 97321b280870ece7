//! Room on the node's disk: what is evicted, in which order, and what never is.

use artifact::agent_api::{AgentErrorCode, EnsureRequest};
use artifact::client::{AgentClient, Error};
use artifact::{CacheLayout, Digest, Reference};
use tests::upstream::{Fault, Upstream, noise};
use tests::{Reader, Server, SmallDisk, eventually, scratch};

const MIB: usize = 1024 * 1024;

fn request(reference: &Reference) -> EnsureRequest {
    EnsureRequest {
        reference: reference.clone(),
        plain_http: false,
        name: None,
    }
}

/// An agent whose disk is small, and an origin of models.
struct Node {
    origin: Upstream,
    disk: SmallDisk,
    agent: Server,
    client: AgentClient,
}

impl Node {
    async fn start(mebibytes: usize, arguments: &[&str]) -> Self {
        let disk = SmallDisk::mount(mebibytes);
        let agent = start_agent(&disk, arguments);
        Self {
            origin: Upstream::start().await,
            client: AgentClient::open(&agent.url()).unwrap(),
            disk,
            agent,
        }
    }

    fn add(&self, tag: &str, mebibytes: usize) -> Reference {
        let seed = tag.bytes().map(u64::from).sum();
        self.origin.add_model(tag, noise(mebibytes * MIB, seed))
    }

    async fn pull(&self, reference: &Reference) -> Result<(), Error> {
        let pulled = self.client.pull(&request(reference), |_| {}).await;
        pulled.map(drop)
    }

    async fn refusal(&self, reference: &Reference) -> String {
        match self.pull(reference).await {
            Err(Error::Agent { error }) => {
                assert_eq!(error.code, AgentErrorCode::NoSpace, "{error}");
                error.message
            }
            other => panic!("{other:?}"),
        }
    }

    async fn tags(&self) -> Vec<String> {
        let models = self.client.list().await.unwrap();
        let tags = models.iter().map(|model| model.reference.view_name());
        tags.collect()
    }

    fn layout(&self) -> CacheLayout {
        CacheLayout::new(self.disk.path().join("cache"))
    }

    /// The blob of a model's weights.
    fn weights(&self, reference: &Reference) -> std::path::PathBuf {
        let link = self.layout().plain_view_of(reference).join("model.gguf");
        std::fs::canonicalize(link).unwrap()
    }
}

fn start_agent(disk: &SmallDisk, arguments: &[&str]) -> Server {
    let agent = Server::agent().data(disk.path());
    let agent = arguments
        .iter()
        .fold(agent, |agent, argument| agent.argument(argument));
    agent.start()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_least_recently_used_model_goes_when_the_disk_would_pass_its_high_mark() {
    let node = Node::start(64, &[]).await;
    let [a, b, c, d] = ["a", "b", "c", "d"].map(|tag| node.add(tag, 14));
    for model in [&a, &b, &c] {
        node.pull(model).await.unwrap();
    }
    let old = node.weights(&b);
    node.pull(&a).await.unwrap();
    node.pull(&d).await.unwrap();
    assert_eq!(node.tags().await, ["a", "c", "d"]);
    assert!(!old.exists(), "the blob of the evicted model is still here");
    assert!(node.agent.log().contains("evicted to make room"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_pinned_or_mapped_by_another_process_is_passed_by_and_named_in_the_refusal() {
    let node = Node::start(64, &[]).await;
    let (a, b, c) = (node.add("a", 20), node.add("b", 20), node.add("c", 32));
    node.pull(&a).await.unwrap();
    node.pull(&b).await.unwrap();
    node.client.pin(&a, true).await.unwrap();
    let reader = Reader::map(&node.weights(&b));
    let blobs = node.origin.counts().blobs;
    let said = node.refusal(&c).await;
    assert!(said.contains("1 pinned, 0 leased, 1 in use"), "{said}");
    assert!(said.contains("it needs"), "{said}");
    assert_eq!(node.tags().await, ["a", "b"]);
    assert!(node.weights(&b).exists());
    assert_eq!(node.origin.counts().blobs, blobs, "fetched without room");
    drop(reader);
    node.pull(&c).await.unwrap();
    assert_eq!(node.tags().await, ["a", "c"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_that_a_kept_model_names_too_stay_when_the_other_one_goes() {
    let node = Node::start(64, &[]).await;
    let weights = noise(20 * MIB, 7);
    let (one, two) = (
        node.origin.add_model("one", weights.clone()),
        node.origin.add_model("two", weights.clone()),
    );
    node.pull(&one).await.unwrap();
    node.pull(&two).await.unwrap();
    node.client.pin(&two, true).await.unwrap();
    node.pull(&node.add("large", 32)).await.unwrap();
    assert_eq!(node.tags().await, ["large", "two"]);
    let kept = std::fs::read(node.weights(&two)).unwrap();
    assert_eq!(Digest::sha256(&kept), Digest::sha256(&weights));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cache_keeps_to_a_size_of_its_own() {
    let origin = Upstream::start().await;
    let folder = scratch();
    let agent = Server::agent()
        .data(folder.path())
        .argument("--cache-size=40MiB")
        .argument("--high-watermark=100")
        .argument("--min-free=0")
        .start();
    let client = AgentClient::open(&agent.url()).unwrap();
    for tag in ["1", "2", "3"] {
        let model = origin.add_model(tag, noise(16 * MIB, tag.len() as u64));
        client.pull(&request(&model), |_| {}).await.unwrap();
    }
    let models = [1, 2, 3].map(|seed| origin.add_model(&format!("m{seed}"), noise(16 * MIB, seed)));
    for model in &models {
        client.pull(&request(model), |_| {}).await.unwrap();
    }
    assert!(client.get(&models[0]).await.unwrap().is_none());
    assert!(client.get(&models[2]).await.unwrap().is_some());
    let large = origin.add_model("large", noise(48 * MIB, 9));
    let refused = client.pull(&request(&large), |_| {}).await.unwrap_err();
    let said = refused.to_string();
    assert!(said.contains("that the cache may take"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_others_fill_is_brought_below_its_low_mark_again() {
    let mut node = Node::start(64, &[]).await;
    for tag in ["a", "b", "c"] {
        node.pull(&node.add(tag, 10)).await.unwrap();
    }
    std::fs::write(node.disk.path().join("other"), vec![1; 20 * MIB]).unwrap();
    // The task's first round is at the start.
    assert_eq!(node.agent.terminate(), Some(0));
    node.agent = start_agent(&node.disk, &[]);
    node.client = AgentClient::open(&node.agent.url()).unwrap();
    eventually("an eviction", 10, async || {
        (node.tags().await == ["b", "c"]).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_nobody_goes_on_with_is_deleted_in_the_end() {
    let mut node = Node::start(64, &[]).await;
    let model = node.add("a", 30);
    node.origin.set_fault(Fault::Slow(8 * MIB as u64));
    let (client, asked) = (node.client.clone(), request(&model));
    let pull = tokio::spawn(async move { client.pull(&asked, |_| {}).await.map(drop) });
    node.origin.wait_for_bytes(6 * MIB as u64).await;
    node.agent.kill();
    pull.await.unwrap().unwrap_err();
    let ingest = node.layout().ingest();
    let left = || std::fs::read_dir(&ingest).unwrap().count();
    node.agent = start_agent(&node.disk, &[]);
    assert!(left() > 0, "a fresh download is gone");
    node.agent.kill();
    node.agent = start_agent(&node.disk, &["--keep-partial=0"]);
    eventually("the download's end", 10, async || {
        (left() == 0).then_some(())
    })
    .await;
}
