//! Logins: htpasswd accounts, who is let in, what a refusal says, and what never shows.

use std::path::PathBuf;

use reqwest::{Response, StatusCode};
use tests::{Server, eventually, hayloft_command, run, scratch};

use crate::registry_support::{Api, error_code, header, image};

/// A password that must not appear anywhere, with its hash at the lowest cost.
pub(crate) const PASSWORD: &str = "canary-right-Zq81";
pub(crate) const ANN: &str = "ann:$2y$05$abcdefghijklmnopqrstuut4UwPSTb038GyphAbsq1wFmQT4wtOhm\n";
const BOB: &str = "bob:$2b$05$ABCDEFGHIJKLMNOPQRSTUu7TkeenKYjvfKL/KPpQOamufrrohKrBa\n";
const OTHER_PASSWORD: &str = "canary-other-Wk27";
const ANN_CHANGED: &str = "ann:$2y$05$abcdefghijklmnopqrstuujphiNOqvWgLIPxyR07fm0eC3Tibqc/O\n";

/// A registry with accounts, and the file they are in.
struct Guarded {
    api: Api,
    accounts: PathBuf,
    _folder: tempfile::TempDir,
}

impl Guarded {
    fn start(accounts: &str) -> Self {
        let folder = scratch();
        let path = folder.path().join("htpasswd");
        std::fs::write(&path, accounts).unwrap();
        let server = Server::registry()
            .argument("--htpasswd")
            .argument(path.to_str().unwrap())
            .environment("HAYLOFT_LOG", "trace")
            .start();
        Self {
            api: Api::on(server),
            accounts: path,
            _folder: folder,
        }
    }

    async fn login(&self, name: &str, password: &str) -> Response {
        let url = self.api.url("");
        let request = self.api.client.get(url).basic_auth(name, Some(password));
        request.send().await.unwrap()
    }

    async fn status(&self, name: &str, password: &str) -> StatusCode {
        self.login(name, password).await.status()
    }
}

#[tokio::test]
async fn with_accounts_nothing_but_health_answers_without_a_login() {
    let guarded = Guarded::start(ANN);
    let api = &guarded.api;
    let digest = artifact::Digest::sha256(b"x");
    for (method, path) in [
        ("GET", "v2/".to_owned()),
        ("GET", "v2/_catalog".to_owned()),
        ("GET", "v2/a/tags/list".to_owned()),
        ("HEAD", format!("v2/a/blobs/{digest}")),
        ("DELETE", "v2/a/manifests/v1".to_owned()),
        ("POST", "v2/a/blobs/uploads/".to_owned()),
        ("GET", format!("v2/a/referrers/{digest}")),
        ("GET", "v2/A/../tags/list".to_owned()),
        ("GET", "v2/nothing/of/this/api".to_owned()),
        ("GET", "metrics".to_owned()),
    ] {
        let url = format!("{}/{path}", api.server.url());
        let request = api.client.request(method.parse().unwrap(), url);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{method} {path}");
        let challenge = header(&answer, "www-authenticate");
        assert!(challenge.starts_with("Basic realm="), "{challenge}");
        if method != "HEAD" {
            assert_eq!(error_code(answer).await, "UNAUTHORIZED", "{path}");
        }
    }
    for path in ["healthz", "readyz"] {
        let url = format!("{}/{path}", api.server.url());
        let answer = api.client.get(url).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
    }
}

#[tokio::test]
async fn the_right_password_lets_in_and_every_other_login_gets_one_and_the_same_answer() {
    let guarded = Guarded::start(ANN);
    assert_eq!(guarded.status("ann", PASSWORD).await, StatusCode::OK);
    let url = format!("{}/metrics", guarded.api.server.url());
    let request = guarded.api.client.get(url);
    let metrics = request.basic_auth("ann", Some(PASSWORD)).send().await;
    assert_eq!(metrics.unwrap().status(), StatusCode::OK);

    let mut answers = Vec::new();
    for (name, password) in [
        ("ann", OTHER_PASSWORD),
        ("ann", ""),
        ("eve", PASSWORD),
        ("Ann", PASSWORD),
        ("", PASSWORD),
    ] {
        let answer = guarded.login(name, password).await;
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{name}");
        answers.push(answer.text().await.unwrap());
    }
    for credentials in ["Bearer x", "Basic", "Basic %", "Negotiate x"] {
        let request = guarded.api.client.get(guarded.api.url(""));
        let request = request.header("authorization", credentials);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{credentials}");
        answers.push(answer.text().await.unwrap());
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
}

#[tokio::test]
async fn accounts_are_read_again_when_the_file_changes_and_a_bad_file_changes_nothing() {
    let guarded = Guarded::start(ANN);
    assert_eq!(
        guarded.status("bob", PASSWORD).await,
        StatusCode::UNAUTHORIZED
    );

    // In place, as an editor does it.
    std::fs::write(&guarded.accounts, format!("{ANN}{BOB}")).unwrap();
    eventually("bob gets in", 20, async || {
        (guarded.status("bob", PASSWORD).await == StatusCode::OK).then_some(())
    })
    .await;

    // By a rename, as a tool does it; a changed password no longer works though it was just proven.
    assert_eq!(guarded.status("ann", PASSWORD).await, StatusCode::OK);
    let new = guarded.accounts.with_extension("new");
    std::fs::write(&new, ANN_CHANGED).unwrap();
    std::fs::rename(&new, &guarded.accounts).unwrap();
    eventually("ann has another password", 20, async || {
        (guarded.status("ann", OTHER_PASSWORD).await == StatusCode::OK).then_some(())
    })
    .await;
    assert_eq!(
        guarded.status("ann", PASSWORD).await,
        StatusCode::UNAUTHORIZED
    );
    assert_eq!(
        guarded.status("bob", PASSWORD).await,
        StatusCode::UNAUTHORIZED
    );

    std::fs::write(&guarded.accounts, "ann:canary-plain\n").unwrap();
    eventually("the log tells of the bad file", 20, async || {
        let log = guarded.api.server.log();
        log.contains("line 1: the password is not hashed by bcrypt")
            .then_some(())
    })
    .await;
    assert_eq!(guarded.status("ann", OTHER_PASSWORD).await, StatusCode::OK);
    assert!(!guarded.api.server.log().contains("canary-plain"));
}

#[test]
fn a_file_that_cannot_be_used_ends_the_start_with_line_and_remedy() {
    let folder = scratch();
    let path = folder.path().join("htpasswd");
    for (content, words) in [
        (
            format!("{ANN}eve:$apr1$x$y\n"),
            "line 2: the password is not hashed by bcrypt",
        ),
        ("eve\n".to_owned(), "line 1: there is no colon"),
        (ANN.replace("$05$", "$20$"), "htpasswd -B -C 10"),
    ] {
        std::fs::write(&path, content).unwrap();
        let data = folder.path().join("data");
        let arguments = ["registry", "--listen", "127.0.0.1:0", "--htpasswd"];
        let mut command = hayloft_command(arguments);
        command.arg(&path).arg("--data").arg(data);
        let said = run(&mut command).failed();
        assert!(said.contains(words), "{said}");
    }
}

/// T19: logs at the most talkative level, error texts and metrics.
#[tokio::test]
async fn no_password_ever_shows() {
    let guarded = Guarded::start(ANN);
    let api = &guarded.api;
    let mut shown = String::new();
    for (name, password) in [
        ("ann", PASSWORD),
        ("ann", OTHER_PASSWORD),
        ("eve", OTHER_PASSWORD),
    ] {
        let answer = guarded.login(name, password).await;
        shown += &format!("{answer:?}");
        shown += &answer.text().await.unwrap();
        let url = api.url("a/manifests/v1");
        let request = api.client.put(url).basic_auth(name, Some(password));
        let answer = request.body(image(&[b"x"]).to_string()).send().await;
        shown += &answer.unwrap().text().await.unwrap();
    }
    let metrics = api.client.get(format!("{}/metrics", api.server.url()));
    let metrics = metrics.basic_auth("ann", Some(PASSWORD)).send().await;
    shown += &metrics.unwrap().text().await.unwrap();
    shown += &api.server.log();
    // base64 of `ann:canary-…`, `eve:canary-…` after the part that depends on the name.
    for secret in [
        "canary",
        "Y2FuYXJ5",
        "NhbmFye",
        "jYW5hcn",
        "abcdefghijklmnopqrstuut4",
    ] {
        assert!(!shown.contains(secret), "{secret} shows in:\n{shown}");
    }
    assert!(shown.contains("registry::access"), "the log was read");
}
