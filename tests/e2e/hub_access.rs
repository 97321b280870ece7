//! Logins at `/hf`: a token that carries one, and what is seen without.

use std::path::Path;
use std::process::Command;

use tests::{Server, run, scratch};

use crate::hub_support::{Hub, python, small_model, story, told};
use crate::registry_access::{ANN, PASSWORD};
use crate::registry_support::header;

fn guarded(folder: &Path) -> Hub {
    let accounts = folder.join("htpasswd");
    std::fs::write(&accounts, ANN).unwrap();
    let server = Server::registry()
        .argument("--htpasswd")
        .argument(accounts.to_str().unwrap());
    Hub::on(server.start())
}

/// The token of a login, made as docs/hugging-face.md says.
fn token(login: &str) -> String {
    let script =
        r#"printf 'hf_%-34s\n' "$(printf %s "$1" | od -An -tx1 -v | tr -d ' \n')" | tr ' ' 0"#;
    let made = run(Command::new("sh").args(["-c", script, "sh", login]));
    made.succeeded().trim().to_owned()
}

#[test]
fn a_token_that_carries_a_login_opens_everything_and_nothing_else_does() {
    let folder = scratch();
    let hub = guarded(folder.path());
    let (endpoint, home) = (hub.endpoint(), scratch());
    let files = scratch();
    std::fs::write(files.path().join("model.gguf"), small_model("Tiny")).unwrap();
    let right = token(&format!("ann:{PASSWORD}"));
    let digits = right.strip_prefix("hf_").unwrap();
    assert!(digits.len() >= 34 && digits.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    let with = |token: &str, arguments: &[&str]| {
        let mut command = python(&endpoint, home.path(), arguments);
        command.env("HF_TOKEN", token);
        command.env("HF_HUB_DISABLE_XET", "1");
        told(run(&mut command))
    };
    assert_eq!(with(&right, &["who"])["name"], "ann");
    let path = files.path().to_str().unwrap();
    let made = with(&right, &["upload", "team/tiny", path]);
    assert_eq!(made["files"], serde_json::json!(["empty", "model.gguf"]));
    for name in ["team/tiny", "no/such"] {
        let seen = story(&endpoint, home.path(), &["refused", name]);
        assert_eq!(seen["kind"], "RepositoryNotFoundError", "{seen}");
        assert_eq!(seen["status"], 401);
        let seen = with(&token("ann:wrong"), &["refused", name]);
        assert_eq!(seen["kind"], "HfHubHTTPError", "{seen}");
        assert_eq!(seen["status"], 401);
    }
    let log = hub.api.server.log();
    assert!(!log.contains(digits) && !log.contains(PASSWORD));
}

#[tokio::test]
async fn without_a_login_nothing_is_told_but_how_to_log_in() {
    let folder = scratch();
    let hub = guarded(folder.path());
    for path in [
        "api/whoami-v2",
        "api/models",
        "api/models/a/b",
        "api/models/a/b/refs",
        "a/b/resolve/main/x",
        "v2/a/b/manifests/latest",
        "datasets/a/b/resolve/main/x",
        "no-such-path",
    ] {
        let response = hub.get(path).await;
        assert_eq!(response.status(), 401, "{path}");
        assert!(header(&response, "www-authenticate").starts_with("Basic"));
        assert_eq!(header(&response, "x-error-code"), "RepoNotFound");
    }
    for path in [
        "api/models/a/b/commit/main",
        "api/models/a/b/preupload/main",
        "api/repos/create",
        "a/b.git/info/lfs/objects/batch",
    ] {
        let response = hub.post(path, "{}".to_owned()).await;
        assert_eq!(response.status(), 401, "{path}");
    }
    // No session has this name, and to try is all that can be done without a login.
    let place = format!(
        "_upload/{}/{}/a/b",
        "00000000-0000-4000-8000-000000000000",
        "0".repeat(64)
    );
    let guessed = hub.request(reqwest::Method::PUT, &place).body("x").send();
    assert_eq!(guessed.await.unwrap().status(), 404);
}

#[tokio::test]
async fn a_registry_that_is_read_only_takes_no_commit() {
    let hub = Hub::on(Server::registry().argument("--read-only").start());
    for path in ["api/models/a/b/commit/main", "api/repos/create"] {
        let response = hub.post(path, "{}".to_owned()).await;
        assert_eq!(response.status(), 405, "{path}");
    }
}
