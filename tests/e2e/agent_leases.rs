//! Leases of consumers: what they keep, how they end, and what a removal says to them.

use artifact::agent_api::{AgentErrorCode, EnsureRequest, LeaseRequest};
use artifact::client::{AgentClient, Error};
use artifact::{CacheLayout, Reference};
use tests::upstream::{Upstream, noise};
use tests::{Reader, Server, SmallDisk, eventually, hayloft, scratch};

const MIB: usize = 1024 * 1024;

fn request(reference: &Reference) -> EnsureRequest {
    EnsureRequest {
        reference: reference.clone(),
        plain_http: false,
        name: None,
    }
}

fn lease(reference: &Reference, seconds: u32) -> LeaseRequest {
    LeaseRequest {
        reference: reference.clone(),
        holder: "a test".to_owned(),
        seconds,
    }
}

fn code_of(error: &Error) -> AgentErrorCode {
    match error {
        Error::Agent { error } => error.code,
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leased_model_is_neither_evicted_nor_removed_not_even_after_a_restart() {
    let origin = Upstream::start().await;
    let disk = SmallDisk::mount(64);
    let mut agent = Server::agent().data(disk.path()).start();
    let mut client = AgentClient::open(&agent.url()).unwrap();
    let [a, b, c] = [("a", 20, 1), ("b", 20, 2), ("c", 32, 3)]
        .map(|(tag, size, seed)| origin.add_model(tag, noise(size * MIB, seed)));
    client.pull(&request(&a), |_| {}).await.unwrap();
    let given = client.put_lease("pod-1", &lease(&a, 3600)).await.unwrap();
    assert_eq!(given.model.reference, a);
    agent.kill();
    agent = Server::agent().data(disk.path()).start();
    client = AgentClient::open(&agent.url()).unwrap();
    let held = client.leases().await.unwrap();
    assert_eq!((held.len(), held[0].holder.as_str()), (1, "a test"));
    client.pull(&request(&b), |_| {}).await.unwrap();
    client.pull(&request(&c), |_| {}).await.unwrap();
    let kept: Vec<_> = client.list().await.unwrap();
    let kept: Vec<_> = kept.iter().map(|m| m.reference.clone()).collect();
    assert_eq!(kept, [a.clone(), c]);
    let refused = client.remove(&a).await.unwrap_err();
    assert_eq!(code_of(&refused), AgentErrorCode::Conflict);
    assert!(refused.to_string().contains("a test"), "{refused}");
    client.end_lease("pod-1").await.unwrap();
    client.remove(&a).await.unwrap();
}

#[tokio::test]
async fn a_lease_ends_by_itself_and_leaves_no_file() {
    let origin = Upstream::start().await;
    let folder = scratch();
    let agent = Server::agent().data(folder.path()).start();
    let client = AgentClient::open(&agent.url()).unwrap();
    let model = origin.add_model("1", noise(MIB, 1));
    client.pull(&request(&model), |_| {}).await.unwrap();
    client.put_lease("short", &lease(&model, 1)).await.unwrap();
    let file = folder.path().join("cache/leases/short.json");
    assert!(file.is_file());
    eventually("the lease's end", 10, async || {
        client.leases().await.unwrap().is_empty().then_some(())
    })
    .await;
    assert!(!file.exists());
    client.remove(&model).await.unwrap();
}

#[tokio::test]
async fn leases_that_break_the_rules_are_refused() {
    let origin = Upstream::start().await;
    let folder = scratch();
    let agent = Server::agent().data(folder.path()).start();
    let client = AgentClient::open(&agent.url()).unwrap();
    let model = origin.add_model("1", noise(MIB, 1));
    let absent = client.put_lease("x", &lease(&model, 60)).await.unwrap_err();
    assert_eq!(code_of(&absent), AgentErrorCode::NotFound);
    client.pull(&request(&model), |_| {}).await.unwrap();
    for (id, seconds) in [("x", 0), ("x", 86_401), (".hidden", 60), ("..%2fx", 60)] {
        let refused = client.put_lease(id, &lease(&model, seconds)).await;
        assert_eq!(
            code_of(&refused.unwrap_err()),
            AgentErrorCode::BadRequest,
            "{id} {seconds}"
        );
    }
    let unknown = client.end_lease("nobody").await.unwrap_err();
    assert_eq!(code_of(&unknown), AgentErrorCode::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_a_process_has_mapped_is_removed_by_force_only() {
    let origin = Upstream::start().await;
    let folder = scratch();
    let agent = Server::agent().data(folder.path()).start();
    let client = AgentClient::open(&agent.url()).unwrap();
    let model = origin.add_model("1", noise(4 * MIB, 2));
    client.pull(&request(&model), |_| {}).await.unwrap();
    let view = CacheLayout::new(folder.path().join("cache")).plain_view_of(&model);
    let reader = Reader::map(&view.join("model.gguf"));
    let (name, url) = (model.to_string(), agent.url());
    let said = hayloft(&["rm", &name, "--agent", &url]).failed();
    assert!(said.contains("in use"), "{said}");
    assert!(view.exists());
    let _ = hayloft(&["rm", "--force", &name, "--agent", &url]).succeeded();
    assert!(!view.exists());
    drop(reader);
}

#[tokio::test]
async fn lease_files_that_are_damaged_or_links_are_dropped() {
    let folder = scratch();
    let leases = folder.path().join("cache/leases");
    std::fs::create_dir_all(&leases).unwrap();
    let outside = folder.path().join("outside");
    std::fs::write(&outside, "outside").unwrap();
    std::fs::write(leases.join("damaged.json"), "{").unwrap();
    std::fs::write(leases.join("other.txt"), "").unwrap();
    std::os::unix::fs::symlink(&outside, leases.join("link.json")).unwrap();
    let agent = Server::agent().data(folder.path()).start();
    let client = AgentClient::open(&agent.url()).unwrap();
    assert!(client.leases().await.unwrap().is_empty());
    assert_eq!(std::fs::read_dir(&leases).unwrap().count(), 0);
    assert_eq!(std::fs::read_to_string(&outside).unwrap(), "outside");
}
