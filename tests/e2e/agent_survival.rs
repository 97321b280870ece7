//! What an agent outlives: its folder wiped, its disk full or read-only, links planted in its cache.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use artifact::agent_api::{AgentErrorCode, EnsureRequest};
use artifact::client::{AgentClient, Error};
use artifact::{CacheLayout, Reference};
use tests::upstream::{Upstream, noise};
use tests::{Finished, Server, SmallDisk, eventually, hayloft, run, scratch};

const MIB: usize = 1024 * 1024;

fn request(reference: &Reference) -> EnsureRequest {
    EnsureRequest {
        reference: reference.clone(),
        plain_http: false,
        name: None,
    }
}

async fn pull(client: &AgentClient, reference: &Reference) -> Result<(), Error> {
    client.pull(&request(reference), |_| {}).await.map(drop)
}

/// An agent that is to end at once.
fn refused(data: &Path) -> Finished {
    let data = data.to_str().unwrap();
    hayloft(&["agent", "--data", data, "--listen", "127.0.0.1:0"])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_that_is_wiped_or_removed_under_the_agent_is_made_anew_by_the_next_pull() {
    let origin = Upstream::start().await;
    let model = origin.add_model("1", noise(2 * MIB, 71));
    let folder = scratch();
    let agent = Server::agent().data(folder.path()).start();
    let client = AgentClient::open(&agent.url()).unwrap();
    let layout = CacheLayout::new(folder.path().join("cache"));
    let view = layout.plain_view_of(&model).join("model.gguf");
    pull(&client, &model).await.unwrap();
    for entry in std::fs::read_dir(layout.root()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            std::fs::remove_dir_all(path).unwrap();
        } else {
            std::fs::remove_file(path).unwrap();
        }
    }
    pull(&client, &model).await.unwrap();
    assert!(view.is_file());
    std::fs::remove_dir_all(layout.root()).unwrap();
    pull(&client, &model).await.unwrap();
    assert!(view.is_file());
    let said = refused(folder.path()).failed();
    assert!(said.contains("in use by another node agent"), "{said}");
    let socket = format!("unix://{}", layout.socket().display());
    let local = AgentClient::open(&socket).unwrap();
    eventually("the socket", 10, async || local.list().await.ok()).await;
    // The index works again: the last use is known.
    let model = client.get(&model).await.unwrap().unwrap();
    assert!(model.last_used.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_disk_serves_what_is_cached_and_says_why_not_more() {
    let origin = Upstream::start().await;
    let model = origin.add_model("1", noise(2 * MIB, 72));
    let other = origin.add_model("2", noise(MIB, 73));
    let disk = SmallDisk::mount(64);
    let remount = |options: &str| {
        let mounted = run(Command::new("mount").args(["-o", options]).arg(disk.path()));
        assert_eq!(mounted.code, 0, "{}", mounted.stderr);
    };
    let mut agent = Server::agent().data(disk.path()).start();
    let client = AgentClient::open(&agent.url()).unwrap();
    pull(&client, &model).await.unwrap();
    assert_eq!(agent.terminate(), Some(0));
    remount("remount,ro");
    let agent = Server::agent().data(disk.path()).start();
    let client = AgentClient::open(&agent.url()).unwrap();
    pull(&client, &model).await.unwrap();
    assert_eq!(client.list().await.unwrap().len(), 1);
    assert!(!client.is_ready().await.unwrap());
    let ready = reqwest::get(format!("{}/readyz", agent.url())).await;
    let why = ready.unwrap().text().await.unwrap();
    assert!(why.contains("Read-only file system"), "{why}");
    let refused = pull(&client, &other).await.unwrap_err().to_string();
    assert!(refused.contains("Read-only file system"), "{refused}");
    remount("remount,rw");
    pull(&client, &other).await.unwrap();
    assert!(client.is_ready().await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_serves_what_is_cached_and_refuses_the_rest() {
    let origin = Upstream::start().await;
    let model = origin.add_model("1", noise(2 * MIB, 74));
    let disk = SmallDisk::mount(32);
    let mut agent = Server::agent().data(disk.path()).start();
    let client = AgentClient::open(&agent.url()).unwrap();
    pull(&client, &model).await.unwrap();
    client.pin(&model, true).await.unwrap();
    agent.kill();
    disk.fill();
    let agent = Server::agent().data(disk.path()).start();
    let client = AgentClient::open(&agent.url()).unwrap();
    pull(&client, &model).await.unwrap();
    let other = origin.add_model("2", noise(MIB, 75));
    match pull(&client, &other).await.unwrap_err() {
        Error::Agent { error } => assert_eq!(error.code, AgentErrorCode::NoSpace, "{error}"),
        other => panic!("{other}"),
    }
    disk.free();
    pull(&client, &other).await.unwrap();
}

#[test]
fn links_in_place_of_the_caches_folders_are_not_followed() {
    for planted in [
        "blobs",
        "blobs/sha256",
        "ingest",
        "views",
        "views/plain",
        "agent.lock",
    ] {
        let folder = scratch();
        let outside = folder.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        let link = folder.path().join("cache").join(planted);
        std::fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink(&outside, &link).unwrap();
        let said = refused(folder.path()).failed();
        assert!(said.contains(planted), "{planted}: {said}");
        assert_eq!(
            std::fs::read_dir(&outside).unwrap().count(),
            0,
            "{planted} was followed"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn links_where_the_agent_writes_files_are_replaced_and_not_written_through() {
    let origin = Upstream::start().await;
    let weights = noise(2 * MIB, 76);
    let model = origin.add_model("1", weights.clone());
    let folder = scratch();
    let layout = CacheLayout::new(folder.path().join("cache"));
    let outside = folder.path().join("outside");
    std::fs::write(&outside, "outside").unwrap();
    let digest = artifact::Digest::sha256(&weights);
    let view = layout.plain_view_of(&model);
    for link in [
        layout.blob(&digest),
        layout.ingest_part(&digest),
        layout.ingest_map(&digest),
        layout.index(),
        layout.socket(),
        view.join("model.gguf"),
        view.join("manifest.json"),
        view.join(".pinned"),
    ] {
        std::fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink(&outside, &link).unwrap();
    }
    let agent = Server::agent().data(folder.path()).start();
    let client = AgentClient::open(&agent.url()).unwrap();
    // The first try may find the planted part and refuse it; nothing is ever written through.
    eventually("the pull", 20, async || pull(&client, &model).await.ok()).await;
    assert_eq!(std::fs::read_to_string(&outside).unwrap(), "outside");
    let pulled = std::fs::read(view.join("model.gguf")).unwrap();
    assert_eq!(artifact::Digest::sha256(&pulled), digest);
}

#[tokio::test]
async fn a_cache_that_others_may_write_to_is_closed_to_them() {
    let folder = scratch();
    let cache = folder.path().join("cache");
    std::fs::create_dir(&cache).unwrap();
    std::fs::set_permissions(&cache, std::fs::Permissions::from_mode(0o777)).unwrap();
    let agent = Server::agent().data(folder.path()).start();
    eventually("the mode", 10, async || {
        let mode = cache.metadata().unwrap().permissions().mode();
        (mode & 0o7777 == 0o755 && agent.log().contains("others could write")).then_some(())
    })
    .await;
}

#[test]
fn a_cache_of_another_user_is_refused() {
    let folder = scratch();
    let cache = folder.path().join("cache");
    std::fs::create_dir(&cache).unwrap();
    std::os::unix::fs::chown(&cache, Some(12_345), None).unwrap();
    let said = refused(folder.path()).failed();
    assert!(said.contains("belongs to user 12345"), "{said}");
}
