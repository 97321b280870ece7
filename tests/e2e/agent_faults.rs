//! What may happen to an agent in the middle of a pull: kill -9, SIGTERM, a full disk.

use artifact::agent_api::{AgentErrorCode, EnsureRequest};
use artifact::client::{AgentClient, Error};
use artifact::{CacheLayout, Digest, Reference};
use tests::upstream::{Fault, Upstream, noise};
use tests::{Server, SmallDisk, hayloft, scratch};

const MIB: u64 = 1024 * 1024;
/// What each of four connections may have in hand when it is cut off.
const IN_HAND: u64 = 4 * 4 * MIB;

fn request(reference: &Reference) -> EnsureRequest {
    EnsureRequest {
        reference: reference.clone(),
        plain_http: false,
        name: None,
    }
}

/// Starts a pull in the background; the agent goes away under it.
fn pull_in_background(agent: &Server, reference: &Reference) -> tokio::task::JoinHandle<()> {
    let client = AgentClient::open(&agent.url()).unwrap();
    let request = request(reference);
    tokio::spawn(async move {
        let cut = client.pull(&request, |_| {}).await.unwrap_err();
        assert!(cut.is_unreachable(), "{cut}");
    })
}

fn assert_nothing_visible(layout: &CacheLayout, reference: &Reference, weights: &[u8]) {
    assert!(!layout.blob(&Digest::sha256(weights)).exists());
    assert!(!layout.plain_view_of(reference).exists());
}

fn assert_right(layout: &CacheLayout, reference: &Reference, weights: &[u8]) {
    let pulled = std::fs::read(layout.plain_view_of(reference).join("model.gguf")).unwrap();
    assert_eq!(Digest::sha256(&pulled), Digest::sha256(weights));
}

#[tokio::test]
async fn a_pull_goes_on_after_kill_9_and_fetches_only_what_is_missing() {
    let weights = noise(96 << 20, 31);
    for killed_at in [3 * MIB, 41 * MIB, 88 * MIB] {
        let origin = Upstream::start().await;
        let reference = origin.add_model("1", weights.clone());
        origin.set_fault(Fault::Slow(48 * MIB));
        let folder = scratch();
        let layout = CacheLayout::new(folder.path().join("cache"));
        let mut agent = Server::agent().data(folder.path()).start();
        let pull = pull_in_background(&agent, &reference);
        origin.wait_for_bytes(killed_at).await;
        agent.kill();
        pull.await.unwrap();
        assert_nothing_visible(&layout, &reference, &weights);
        let sent = origin.counts().bytes;
        let agent = Server::agent().data(folder.path()).start();
        let client = AgentClient::open(&agent.url()).unwrap();
        client.pull(&request(&reference), |_| {}).await.unwrap();
        assert_right(&layout, &reference, &weights);
        let again = origin.counts().bytes - sent;
        let missing = (weights.len() as u64).saturating_sub(sent);
        assert!(
            again <= missing + IN_HAND + MIB,
            "killed at {killed_at}: {again} bytes fetched again, {missing} were missing"
        );
    }
}

#[tokio::test]
async fn an_agent_that_is_told_to_stop_ends_well_in_the_middle_of_a_pull() {
    let weights = noise(64 << 20, 32);
    let origin = Upstream::start().await;
    let reference = origin.add_model("1", weights.clone());
    origin.set_fault(Fault::Slow(16 * MIB));
    let folder = scratch();
    let layout = CacheLayout::new(folder.path().join("cache"));
    let mut agent = Server::agent().data(folder.path()).start();
    let pull = pull_in_background(&agent, &reference);
    origin.wait_for_bytes(24 * MIB).await;
    assert_eq!(agent.terminate(), Some(0));
    pull.await.unwrap();
    assert_nothing_visible(&layout, &reference, &weights);
    let sent = origin.counts().bytes;
    origin.clear_fault();
    let agent = Server::agent().data(folder.path()).start();
    let client = AgentClient::open(&agent.url()).unwrap();
    client.pull(&request(&reference), |_| {}).await.unwrap();
    assert_right(&layout, &reference, &weights);
    let again = origin.counts().bytes - sent;
    let missing = (weights.len() as u64).saturating_sub(sent);
    assert!(
        again <= missing + IN_HAND + MIB,
        "{again} bytes again, {missing} missing"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_does_not_fit_is_refused_before_its_first_byte() {
    let origin = Upstream::start().await;
    let reference = origin.add_model("large", noise(40 << 20, 33)).to_string();
    let small = origin.add_model("small", noise(4 << 20, 34)).to_string();
    let disk = SmallDisk::mount(32);
    let data = disk.path().to_str().unwrap();
    let said = hayloft(&["pull", &reference, "--data", data]);
    assert!(said.stderr.contains("bytes"), "{}", said.stderr);
    let said = said.failed();
    assert!(
        said.contains("remove models or name a larger disk"),
        "{said}"
    );
    assert_eq!(origin.counts().blobs, 0);
    let _ = hayloft(&["pull", &small, "--data", data]).succeeded();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_up_in_the_middle_does_not_take_the_pull_with_it() {
    let weights = noise(24 << 20, 35);
    let origin = Upstream::start().await;
    let reference = origin.add_model("1", weights.clone());
    origin.set_fault(Fault::Slow(8 * MIB));
    let disk = SmallDisk::mount(48);
    let agent = Server::agent().data(disk.path()).start();
    let client = AgentClient::open(&agent.url()).unwrap();
    let asked = request(&reference);
    let pull = client.pull(&asked, |_| {});
    let fill = async {
        origin.wait_for_bytes(8 * MIB).await;
        disk.fill();
    };
    let (pulled, ()) = tokio::join!(pull, fill);
    let layout = CacheLayout::new(disk.path().join("cache"));
    // The weights had their space from the start. What had not may fail, clearly, and then nothing
    // is visible and the rest goes on once there is space.
    if let Err(error) = pulled {
        let code = match &error {
            Error::Agent { error } => error.code,
            other => panic!("{other}"),
        };
        assert_eq!(code, AgentErrorCode::NoSpace, "{error}");
        assert!(
            !layout
                .plain_view_of(&reference)
                .join("manifest.json")
                .exists()
        );
        std::fs::remove_file(disk.path().join("filler")).unwrap();
        let sent = origin.counts().bytes;
        client.pull(&request(&reference), |_| {}).await.unwrap();
        assert!(
            origin.counts().bytes - sent < MIB,
            "the weights were fetched again"
        );
    }
    assert_right(&layout, &reference, &weights);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_sends_other_bytes_leaves_nothing_behind() {
    let weights = noise(8 << 20, 36);
    let origin = Upstream::start().await;
    let reference = origin.add_model("1", weights.clone());
    origin.set_fault(Fault::WrongBytes);
    let folder = scratch();
    let data = folder.path().to_str().unwrap();
    let said = hayloft(&["pull", &reference.to_string(), "--data", data]).failed();
    assert!(said.contains("sends other bytes"), "{said}");
    let layout = CacheLayout::new(folder.path().join("cache"));
    assert_nothing_visible(&layout, &reference, &weights);
    assert_eq!(std::fs::read_dir(layout.ingest()).unwrap().count(), 0);
}
