//! The description of the agent's API against its handlers: the real agent is asked everything, well
//! and badly, and each answer is checked against what the description says of it.

use std::io::Write;
use std::process::{Command, Stdio};

use reqwest::Method;
use serde_json::{Value, json};
use tests::upstream::{Upstream, noise};
use tests::{Server, project_root};

/// Asks the agent, and keeps what it answered.
struct Asker {
    agent: Server,
    http: reqwest::Client,
    answers: Vec<Value>,
}

impl Asker {
    async fn ask(&mut self, method: Method, path: &str, body: Option<Value>) -> (u16, String) {
        let url = format!("{}{path}", self.agent.url());
        let mut request = self.http.request(method.clone(), url);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let kind = answer.headers().get("content-type").cloned();
        let text = answer.text().await.unwrap();
        self.answers.push(json!({
            "method": method.as_str(),
            "path": path,
            "route": route_of(path),
            "status": status,
            "content_type": kind.map(|kind| kind.to_str().unwrap().to_owned()),
            "body": text,
        }));
        (status, text)
    }

    async fn get(&mut self, path: &str) -> (u16, String) {
        self.ask(Method::GET, path, None).await
    }

    async fn post(&mut self, path: &str, body: Value) -> (u16, String) {
        self.ask(Method::POST, path, Some(body)).await
    }
}

/// The path as the description has it.
fn route_of(path: &str) -> &str {
    let path = path.split('?').next().unwrap();
    match path.strip_prefix("/agent/v1/leases/") {
        Some(_) => "/agent/v1/leases/{id}",
        None => path,
    }
}

/// Has the description and the answers checked by programs that know nothing of us.
fn check(description: &Value, answers: &[Value]) {
    let mut checker = Command::new(project_root().join(".venv/bin/python"))
        .arg(project_root().join("tests/python/check_openapi.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let given = json!({ "description": description, "answers": answers }).to_string();
    let mut stdin = checker.stdin.take().unwrap();
    stdin.write_all(given.as_bytes()).unwrap();
    drop(stdin);
    let said = checker.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success(), "{errors}");
    assert_eq!(String::from_utf8_lossy(&said.stdout).trim(), "agree");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_as_the_description_says() {
    let origin = Upstream::start().await;
    let name = origin.add_model("1", noise(3 << 20, 51)).to_string();
    let mut asker = Asker {
        agent: Server::agent().start(),
        http: reqwest::Client::new(),
        answers: Vec::new(),
    };
    let (_, text) = asker.get("/agent/v1/openapi.json").await;
    let description: Value = serde_json::from_str(&text).unwrap();
    let ensure = "/agent/v1/models/ensure";
    let (_, events) = asker.post(ensure, json!({ "reference": name })).await;
    let last = events.lines().last().unwrap();
    assert!(last.contains(r#""event":"ready""#), "{events}");
    let missing = format!("{}:2", name.strip_suffix(":1").unwrap());
    let (_, events) = asker.post(ensure, json!({ "reference": missing })).await;
    assert!(events.contains(r#""code":"not_found""#), "{events}");
    let (status, _) = asker.post(ensure, json!({ "reference": "a/../b" })).await;
    assert_eq!(status, 400);
    let (status, _) = asker.get("/agent/v1/models").await;
    assert_eq!(status, 200);
    let model = format!("/agent/v1/model?reference={name}");
    let nothing = "/agent/v1/model?reference=example.com/no/model";
    for (path, expected) in [
        (model.as_str(), 200),
        (nothing, 404),
        ("/agent/v1/model?reference=..", 400),
        ("/agent/v1/status", 200),
        ("/healthz", 200),
        ("/readyz", 200),
        ("/metrics", 200),
    ] {
        let (status, body) = asker.get(path).await;
        assert_eq!(status, expected, "{path}: {body}");
    }
    let pin = "/agent/v1/model/pin";
    for (reference, expected) in [
        (name.as_str(), 200),
        ("example.com/no/model", 404),
        ("", 400),
    ] {
        let body = json!({ "reference": reference, "pinned": true });
        assert_eq!(asker.post(pin, body).await.0, expected, "{reference}");
    }
    assert_eq!(asker.ask(Method::DELETE, &model, None).await.0, 409);
    leases(&mut asker, &name).await;
    let body = json!({ "reference": name, "pinned": false });
    assert_eq!(asker.post(pin, body).await.0, 200);
    for (path, expected) in [
        (model.as_str(), 204),
        (nothing, 404),
        ("/agent/v1/model", 400),
    ] {
        let (status, _) = asker.ask(Method::DELETE, path, None).await;
        assert_eq!(status, expected, "{path}");
    }
    check(&description, &asker.answers);
}

async fn leases(asker: &mut Asker, name: &str) {
    let lease = "/agent/v1/leases/one";
    for (reference, seconds, expected) in [
        (name, 60, 200),
        (name, 0, 400),
        ("example.com/no/model", 60, 404),
    ] {
        let body = json!({ "reference": reference, "holder": "test", "seconds": seconds });
        let (status, said) = asker.ask(Method::PUT, lease, Some(body)).await;
        assert_eq!(status, expected, "{said}");
    }
    assert_eq!(asker.get("/agent/v1/leases").await.0, 200);
    for expected in [204, 404] {
        assert_eq!(asker.ask(Method::DELETE, lease, None).await.0, expected);
    }
}

#[tokio::test]
async fn what_is_no_path_and_no_method_of_the_api_is_told_in_its_own_words() {
    let agent = Server::agent().start();
    let http = reqwest::Client::new();
    let answer = http.get(format!("{}/v2/", agent.url())).send().await;
    let answer = answer.unwrap();
    assert_eq!(answer.status(), 404);
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["code"], "not_found");
    let answer = http
        .put(format!("{}/agent/v1/models", agent.url()))
        .send()
        .await;
    let answer = answer.unwrap();
    assert_eq!(answer.status(), 405);
    assert!(answer.headers().contains_key("allow"));
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["code"], "bad_request");
}

/// A route beside utoipa's would be served and not described.
#[test]
fn no_route_of_the_agent_is_added_past_its_description() {
    let folder = project_root().join("node-agent/src");
    let http = std::fs::read_dir(folder.join("http")).unwrap();
    let files = http.map(|entry| entry.unwrap().path());
    for file in files.chain([folder.join("http.rs")]) {
        let text = std::fs::read_to_string(&file).unwrap();
        for way in [".route(", ".nest(", "route_service(", "nest_service("] {
            assert!(!text.contains(way), "{}: {way}", file.display());
        }
    }
}
