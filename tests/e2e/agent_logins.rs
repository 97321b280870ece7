//! Logins for the agent's registries: pull secrets, mounted as files, matched by host and path.

use std::os::unix::fs::symlink;
use std::path::Path;

use artifact::agent_api::{AgentErrorCode, EnsureRequest};
use artifact::client::{AgentClient, Error};
use artifact::{ModelName, Reference};
use serde_json::json;
use tests::{Server, fixture, hayloft_command, run, scratch};

use crate::registry_access::{ANN, PASSWORD};

/// A mounted secret, as the kubelet lays it out; again with another text, it changes at once.
fn mount(folder: &Path, version: u32, key: &str, username: &str, password: &str) {
    let inner = folder.join(format!("..{version}"));
    std::fs::create_dir_all(&inner).unwrap();
    let config = json!({ "auths": { key: { "username": username, "password": password } } });
    std::fs::write(inner.join(".dockerconfigjson"), config.to_string()).unwrap();
    let temporary = folder.join("..data_tmp");
    symlink(inner.file_name().unwrap(), &temporary).unwrap();
    std::fs::rename(temporary, folder.join("..data")).unwrap();
    let _ = symlink("..data/.dockerconfigjson", folder.join(".dockerconfigjson"));
}

#[tokio::test(flavor = "multi_thread")]
async fn pull_secrets_are_used_by_host_and_path_and_read_again_when_they_change() {
    let folder = scratch();
    let accounts = folder.path().join("htpasswd");
    std::fs::write(&accounts, ANN).unwrap();
    let registry = Server::registry()
        .argument("--htpasswd")
        .argument(accounts.to_str().unwrap())
        .start();
    let host = registry.address().to_owned();
    let reference = Reference::parse(&format!("{host}/team/model:1")).unwrap();
    let docker = folder.path().join("docker");
    std::fs::create_dir(&docker).unwrap();
    let login = json!({ "auths": { &host: { "auth": base64_of("ann", PASSWORD) } } });
    std::fs::write(docker.join("config.json"), login.to_string()).unwrap();
    let model = fixture("hay-tiny-q8_0.gguf");
    let mut push = hayloft_command(["push", model.to_str().unwrap(), &reference.to_string()]);
    let _ = run(push.env("DOCKER_CONFIG", &docker)).succeeded();

    let secrets = folder.path().join("secrets");
    for name in ["other", "ours"] {
        std::fs::create_dir_all(secrets.join(name)).unwrap();
    }
    mount(&secrets.join("other"), 1, &host, "nobody", "nothing");
    let agent = Server::agent()
        .argument("--registry-config")
        .argument(secrets.to_str().unwrap())
        .start();
    let client = AgentClient::open(&agent.url()).unwrap();
    let request = EnsureRequest::from(&ModelName::from(reference.clone()));
    let refused = client.pull(&request, |_| {}).await.unwrap_err();
    let Error::Agent { error } = refused else {
        panic!("{refused}");
    };
    assert_eq!(error.code, AgentErrorCode::Denied, "{error}");
    // The key with a path is the more specific one; the secret arrived while the agent ran.
    mount(
        &secrets.join("ours"),
        1,
        &format!("https://{host}/team"),
        "ann",
        "old",
    );
    let _ = client.pull(&request, |_| {}).await.unwrap_err();
    mount(
        &secrets.join("ours"),
        2,
        &format!("https://{host}/team"),
        "ann",
        PASSWORD,
    );
    client.pull(&request, |_| {}).await.unwrap();
    assert!(!agent.log().contains(PASSWORD), "{}", agent.log());
}

fn base64_of(username: &str, password: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}"))
}
