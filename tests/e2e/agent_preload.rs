//! A desired list that the agent keeps satisfied, its status, and waiting for models.

use std::path::Path;

use artifact::agent_api::{AgentErrorCode, AgentStatus, EnsureRequest, PreloadState};
use artifact::client::{AgentClient, Error};
use artifact::{CacheLayout, Reference};
use serde_json::Value;
use tests::upstream::{Fault, Upstream, noise};
use tests::{Finished, Server, eventually, hayloft, hayloft_command, run, scratch};

const MIB: usize = 1024 * 1024;
/// How long the agent may take to look at its list and at what it names.
const PATIENCE: u64 = 30;

/// Writes a list as a mounted `ConfigMap` has it: a link to a file in a folder that is a link.
fn mount(folder: &Path, version: &str, text: &str) -> std::path::PathBuf {
    let content = folder.join(version);
    std::fs::create_dir_all(&content).unwrap();
    std::fs::write(content.join("models.toml"), text).unwrap();
    let swapped = folder.join("..data_tmp");
    std::os::unix::fs::symlink(version, &swapped).unwrap();
    std::fs::rename(&swapped, folder.join("..data")).unwrap();
    let list = folder.join("models.toml");
    if !list.is_symlink() {
        std::os::unix::fs::symlink("..data/models.toml", &list).unwrap();
    }
    list
}

fn entry(reference: &Reference) -> String {
    format!("[[model]]\nreference = \"{reference}\"\n")
}

fn start(list: &Path, data: &Path) -> (Server, AgentClient) {
    let agent = Server::agent()
        .data(data)
        .argument("--preload")
        .argument(list.to_str().unwrap())
        .argument("--preload-interval")
        .argument("1s")
        .start();
    let client = AgentClient::open(&agent.url()).unwrap();
    (agent, client)
}

/// Waits until the status is as `wanted` says.
async fn until(
    client: &AgentClient,
    what: &str,
    wanted: impl Fn(&AgentStatus) -> bool,
) -> AgentStatus {
    eventually(what, PATIENCE, async || {
        let status = client.status().await.unwrap();
        wanted(&status).then_some(status)
    })
    .await
}

fn states(status: &AgentStatus) -> Vec<&'static str> {
    let models = &status.preload.as_ref().unwrap().models;
    models.iter().map(|model| model.state.as_str()).collect()
}

async fn readiness(agent: &Server) -> (u16, String) {
    let answer = reqwest::get(format!("{}/readyz?preload", agent.url()))
        .await
        .unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

async fn metric(agent: &Server, line: &str) -> bool {
    let answer = reqwest::get(format!("{}/metrics", agent.url()))
        .await
        .unwrap();
    answer
        .text()
        .await
        .unwrap()
        .lines()
        .any(|other| other == line)
}

/// `hayloft` off the main thread: the origin answers on it.
async fn command(arguments: &[&str]) -> Finished {
    let mut command = hayloft_command(arguments);
    tokio::task::spawn_blocking(move || run(&mut command))
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_listed_is_pulled_pinned_and_told_and_what_fails_is_tried_again() {
    let origin = Upstream::start().await;
    let here = origin.add_model("here", noise(MIB, 61));
    let late = Reference::parse(&here.to_string().replace(":here", ":late")).unwrap();
    let folder = scratch();
    let list = mount(folder.path(), "v1", &(entry(&here) + &entry(&late)));
    let data = scratch();
    let (agent, client) = start(&list, data.path());
    let status = until(&client, "one is ready, one failed", |status| {
        states(status) == ["ready", "failed"]
    })
    .await;
    let models = status.preload.unwrap().models;
    let PreloadState::Failed { error, tries, .. } = &models[1].state else {
        panic!("{models:?}");
    };
    assert_eq!((error.code, *tries >= 1), (AgentErrorCode::NotFound, true));
    assert!(client.get(&here).await.unwrap().unwrap().pinned);
    let refused = client.remove(&here).await.unwrap_err();
    assert!(matches!(refused, Error::Agent { error } if error.code == AgentErrorCode::Conflict));
    let (code, text) = readiness(&agent).await;
    assert!(
        code == 503 && text.contains("late is failed"),
        "{code} {text}"
    );
    assert!(metric(&agent, r#"hayloft_agent_preload_models{state="failed"} 1"#).await);
    let said = command(&["agent", "status", "--agent", &agent.url()])
        .await
        .succeeded();
    assert!(said.contains("here") && said.contains("failed"), "{said}");
    let json = command(&["agent", "status", "--agent", &agent.url(), "-o", "json"]).await;
    let json: Value = serde_json::from_str(&json.succeeded()).unwrap();
    assert_eq!(json["preload"]["models"][0]["state"], "ready");
    assert!(json["disk"]["total"].as_u64() > json["disk"]["free"].as_u64());
    let _ = origin.add_model("late", noise(MIB, 62));
    until(&client, "all are ready", |status| {
        states(status) == ["ready", "ready"]
    })
    .await;
    assert_eq!(readiness(&agent).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_leaves_the_list_stays_unpinned_also_over_a_restart_and_pins_by_hand_stay() {
    let origin = Upstream::start().await;
    let [one, two, three] = ["1", "2", "3"].map(|tag| origin.add_model(tag, noise(MIB, 63)));
    let folder = scratch();
    let all = entry(&one) + &entry(&two) + &entry(&three);
    let list = mount(folder.path(), "v1", &all);
    let data = scratch();
    let (mut agent, client) = start(&list, data.path());
    until(&client, "all are ready", |status| {
        states(status) == ["ready"; 3]
    })
    .await;
    client.pin(&two, true).await.unwrap();
    mount(folder.path(), "v2", &entry(&one));
    until(&client, "the list is shorter", |status| {
        states(status) == ["ready"]
    })
    .await;
    eventually("the third is let go", PATIENCE, async || {
        let model = client.get(&three).await.unwrap().unwrap();
        (!model.pinned).then_some(())
    })
    .await;
    assert!(client.get(&two).await.unwrap().unwrap().pinned);
    agent.kill();
    mount(folder.path(), "v3", "");
    let (_agent, client) = start(&list, data.path());
    eventually("the first is let go", PATIENCE, async || {
        let model = client.get(&one).await.unwrap().unwrap();
        (!model.pinned).then_some(())
    })
    .await;
    assert_eq!(client.list().await.unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_is_wrong_or_gone_changes_nothing_and_is_told() {
    let origin = Upstream::start().await;
    let one = origin.add_model("1", noise(MIB, 64));
    let folder = scratch();
    let list = mount(folder.path(), "v1", &entry(&one));
    let data = scratch();
    let (agent, client) = start(&list, data.path());
    until(&client, "it is ready", |status| states(status) == ["ready"]).await;
    mount(folder.path(), "v2", "[[model]]\nreferense = \"x\"\n");
    let problem = |status: &AgentStatus| status.preload.clone().unwrap().problem;
    let status = until(&client, "the fault is told", |status| {
        problem(status).is_some()
    })
    .await;
    assert!(
        problem(&status)
            .unwrap()
            .contains("line 2: unknown field `referense`")
    );
    assert_eq!(states(&status), ["ready"]);
    eventually("the metric tells", PATIENCE, async || {
        metric(&agent, "hayloft_agent_preload_list_faulty 1")
            .await
            .then_some(())
    })
    .await;
    assert!(agent.log().contains("referense"), "{}", agent.log());
    std::fs::remove_file(&list).unwrap();
    let gone =
        |status: &AgentStatus| problem(status).is_some_and(|it| it.contains("cannot be read"));
    let status = until(&client, "that it is gone is told", gone).await;
    assert_eq!(states(&status), ["ready"]);
    assert!(client.get(&one).await.unwrap().unwrap().pinned);
    mount(folder.path(), "v3", &entry(&one));
    until(&client, "all is well", |status| problem(status).is_none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_moves_is_followed_and_a_model_that_is_unpinned_by_hand_is_pinned_again() {
    let origin = Upstream::start().await;
    let one = origin.add_model("1", noise(MIB, 65));
    let folder = scratch();
    let list = mount(folder.path(), "v1", &entry(&one));
    let data = scratch();
    let (_agent, client) = start(&list, data.path());
    until(&client, "it is ready", |status| states(status) == ["ready"]).await;
    let before = client.get(&one).await.unwrap().unwrap().digest;
    let _ = origin.add_model("1", noise(MIB, 66));
    eventually(
        "the new version is here, and pinned",
        PATIENCE,
        async || {
            let model = client.get(&one).await.unwrap();
            model.filter(|model| model.digest != before && model.pinned)
        },
    )
    .await;
    client.pin(&one, false).await.unwrap();
    eventually("it is pinned again", PATIENCE, async || {
        let model = client.get(&one).await.unwrap().unwrap();
        model.pinned.then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wait_begins_before_the_agent_and_ends_when_its_models_are_here() {
    let origin = Upstream::start().await;
    let one = origin.add_model("1", noise(8 * MIB, 67));
    origin.set_fault(Fault::Slow(4 * MIB as u64));
    let folder = scratch();
    let list = mount(folder.path(), "v1", &entry(&one));
    let data = scratch();
    let name = one.to_string();
    let arguments = [
        "wait",
        &name,
        "--data",
        data.path().to_str().unwrap(),
        "--timeout",
        "60s",
    ];
    let mut waiting = hayloft_command(arguments);
    let waited = tokio::task::spawn_blocking(move || run(&mut waiting));
    let (agent, client) = start(&list, data.path());
    let finished = waited.await.unwrap();
    assert!(finished.stderr.contains("pulling"), "{}", finished.stderr);
    assert!(finished.succeeded().contains(&name));
    let layout = CacheLayout::new(agent.data().join("cache"));
    assert!(layout.plain_view_of(&one).join("model.gguf").exists());
    // Nobody pulls that one: it is waited for in vain, unless it is asked for.
    origin.clear_fault();
    let two = origin.add_model("2", noise(MIB, 68)).to_string();
    let url = agent.url();
    let vain = command(&["wait", &two, "--agent", &url, "--timeout", "300ms"]).await;
    assert_eq!(vain.code, 9, "{}", vain.stderr);
    assert!(
        vain.stderr.contains("not on this node yet"),
        "{}",
        vain.stderr
    );
    let asked = command(&[
        "wait",
        &name,
        &two,
        "--agent",
        &url,
        "--pull",
        "--timeout",
        "60s",
    ])
    .await;
    assert_eq!(asked.succeeded().lines().count(), 2);
    // Another version than the one that is here.
    let digest = client.get(&one).await.unwrap().unwrap().digest;
    let other = format!("{name}@sha256:{}", "0".repeat(64));
    let vain = command(&["wait", &other, "--agent", &url, "--timeout", "300ms"]).await;
    assert_eq!(vain.code, 9);
    let any = [
        "wait",
        &other,
        "--agent",
        &url,
        "--timeout",
        "60s",
        "--any-digest",
    ];
    assert!(
        command(&any)
            .await
            .succeeded()
            .contains(&digest.to_string())
    );
}

#[test]
fn pull_node_asks_the_agent_or_fails() {
    let data = scratch();
    let folder = data.path().to_str().unwrap();
    let none = hayloft(&["pull", "127.0.0.1:1/a/b", "--node", "--data", folder]);
    assert_eq!(none.code, 4, "{}", none.stderr);
    assert!(none.stderr.contains("no agent answers"), "{}", none.stderr);
    assert!(!data.path().join("cache").exists());
    let none = hayloft(&["agent", "status", "--data", folder]);
    assert_eq!(none.code, 4, "{}", none.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_tells_downloads_and_their_bytes() {
    let origin = Upstream::start().await;
    let one = origin.add_model("1", noise(16 * MIB, 69));
    origin.set_fault(Fault::Slow(8 * MIB as u64));
    let agent = Server::agent().start();
    let client = AgentClient::open(&agent.url()).unwrap();
    let request = EnsureRequest {
        reference: one,
        plain_http: false,
        name: None,
    };
    let pulling = client.pull(&request, |_| {});
    let watching = until(&client, "a download is told", |status| {
        status
            .downloads
            .iter()
            .any(|download| download.completed > 0)
    });
    let (pulled, status) = tokio::join!(pulling, watching);
    pulled.unwrap();
    assert!(status.preload.is_none());
}
