//! A stock Ollama 0.9.6 that reads the node's cache through the Ollama view.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use serde_json::{Value, json};
use tests::{Server, fixture, hayloft, run, scratch};

use crate::peer::{self, PeerServer};

/// Questions asked of Ollama; the exact answers lie beside the model.
pub(crate) const QUESTIONS: [&str; 6] = [
    "What is the capital of France?",
    "Who are you?",
    "What is a digest?",
    "Count to ten.",
    "What is 9 + 2?",
    "Translate three into French.",
];

/// Ollama serving the models of `view`, in a mount namespace where `cache` is read-only: what a pod
/// that mounts the cache read-only sees.
fn ollama(home: &Path, cache: &Path, view: &Path) -> PeerServer {
    let script = r#"mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" &&
        if touch "$1/probe" 2>/dev/null; then echo "$1 can be written to" >&2; exit 1; fi &&
        exec "$2" serve"#;
    let mut command = Command::new("unshare");
    if !run(Command::new("id").arg("-u")).succeeded().trim().eq("0") {
        command.arg("--map-root-user");
    }
    command
        .args(["--mount", "sh", "-c", script, "sh"])
        .arg(cache)
        .arg(peer::program("ollama"))
        .env("HOME", home)
        .env("OLLAMA_HOST", "127.0.0.1:0")
        .env("OLLAMA_MODELS", view)
        // Its start-up would otherwise try to delete what it thinks nobody uses.
        .env("OLLAMA_NOPRUNE", "1");
    PeerServer::start(command, "Listening on ")
}

/// Every name below a folder with its size, inode and time of last change.
fn snapshot(folder: &Path) -> BTreeMap<PathBuf, (u64, u64, SystemTime)> {
    peer::files_below(folder)
        .into_iter()
        .map(|path| {
            let seen = std::fs::symlink_metadata(&path).unwrap();
            (path, (seen.len(), seen.ino(), seen.modified().unwrap()))
        })
        .collect()
}

async fn get(url: &str) -> Value {
    let answer = reqwest::get(url).await.unwrap().error_for_status().unwrap();
    answer.json().await.unwrap()
}

async fn post(url: &str, body: &Value) -> Value {
    let answer = reqwest::Client::new()
        .post(url)
        .json(body)
        .send()
        .await
        .unwrap();
    let status = answer.status();
    let text = answer.text().await.unwrap();
    assert!(status.is_success(), "{status}: {text}");
    serde_json::from_str(&text).unwrap()
}

#[tokio::test]
async fn stock_ollama_lists_the_cached_model_and_gives_the_same_answers() {
    let registry = Server::registry().start();
    let agent = Server::agent().start();
    let home = scratch();
    let reference = peer::push_model(registry.address(), "team/hay-tiny:q8_0");
    let _ = hayloft(&["pull", &reference, "--agent", &agent.url()]).succeeded();
    let view = views(agent.data()).join("ollama");
    let before = snapshot(&view);

    let ollama = ollama(home.path(), agent.data(), &view);
    let url = format!("http://{}", ollama.address());
    let version = get(&format!("{url}/api/version")).await;
    assert!(version["version"].is_string(), "{version}");

    let tags = get(&format!("{url}/api/tags")).await;
    let names: Vec<_> = tags["models"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| &model["name"])
        .collect();
    assert_eq!(names, [&json!(reference)]);
    let details = &tags["models"][0]["details"];
    assert_eq!(
        (&details["format"], &details["family"]),
        (&json!("gguf"), &json!("llama"))
    );

    let answers = std::fs::read(fixture("hay-tiny-answers.json")).unwrap();
    let answers: BTreeMap<String, String> = serde_json::from_slice(&answers).unwrap();
    for question in QUESTIONS {
        let body = json!({
            "model": reference,
            "stream": false,
            "options": {"temperature": 0},
            "messages": [{"role": "user", "content": question}],
        });
        let answer = post(&format!("{url}/api/chat"), &body).await;
        assert_eq!(
            answer["message"]["content"],
            json!(answers[question]),
            "{question}"
        );
    }
    let france = json!({
        "model": reference,
        "stream": false,
        "options": {"temperature": 0},
        "prompt": QUESTIONS[0],
    });
    let answer = post(&format!("{url}/api/generate"), &france).await;
    assert_eq!(answer["response"], json!(answers[QUESTIONS[0]]));
    assert_eq!(
        (&answer["prompt_eval_count"], &answer["eval_count"]),
        (&json!(15), &json!(8))
    );

    drop(ollama);
    assert_eq!(snapshot(&view), before, "Ollama changed the view");
}

/// The names that a running Ollama lists.
async fn listed(url: &str) -> Vec<String> {
    let tags = get(&format!("{url}/api/tags")).await;
    let models = tags["models"].as_array().unwrap().iter();
    let mut names: Vec<String> = models
        .map(|model| model["name"].as_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_running_ollama_follows_what_is_removed_and_updated_in_the_cache() {
    let registry = Server::registry().start();
    let agent = Server::agent().start();
    let home = scratch();
    let pull = |reference: &str| {
        let _ = hayloft(&["pull", reference, "--agent", &agent.url()]).succeeded();
    };
    let [one, two] = ["one", "two"].map(|tag| {
        let reference = peer::push_model(registry.address(), &format!("team/hay-tiny:{tag}"));
        pull(&reference);
        reference
    });
    let view = views(agent.data()).join("ollama");
    let ollama = ollama(home.path(), agent.data(), &view);
    let url = format!("http://{}", ollama.address());
    assert_eq!(listed(&url).await, [one.clone(), two.clone()]);
    let _ = hayloft(&["rm", &one, "--agent", &agent.url()]).succeeded();
    assert_eq!(listed(&url).await, std::slice::from_ref(&two));
    let folder = scratch();
    std::fs::copy(fixture("hay-tiny-q8_0.gguf"), folder.path().join("m.gguf")).unwrap();
    let modelfile = "FROM ./m.gguf\nSYSTEM You are changed.\n";
    std::fs::write(folder.path().join("Modelfile"), modelfile).unwrap();
    let _ = hayloft(&["push", folder.path().to_str().unwrap(), &two]).succeeded();
    pull(&two);
    assert_eq!(listed(&url).await, std::slice::from_ref(&two));
    let shown = post(&format!("{url}/api/show"), &json!({ "model": two })).await;
    assert_eq!(shown["system"], "You are changed.");
}

/// A stock Ollama with an empty store of its own.
pub(crate) fn ollama_with_own_store(home: &Path) -> PeerServer {
    ollama_that_trusts(home, None)
}

/// The same, with the authorities in this file and no others.
pub(crate) fn ollama_that_trusts(home: &Path, authorities: Option<&Path>) -> PeerServer {
    let mut command = peer::command("ollama", home);
    if let Some(file) = authorities {
        command.env("SSL_CERT_FILE", file);
    }
    command
        .arg("serve")
        .env("OLLAMA_HOST", "127.0.0.1:0")
        .env("OLLAMA_MODELS", home.join("models"))
        // What a killed one has begun would be deleted at the start.
        .env("OLLAMA_NOPRUNE", "1");
    PeerServer::start(command, "Listening on ")
}

/// Its command line, speaking to that server.
pub(crate) fn ollama_client(home: &Path, server: &PeerServer, arguments: &[&str]) -> String {
    let mut command = peer::command("ollama", home);
    peer::output(command.env("OLLAMA_HOST", server.address()).args(arguments))
}

#[test]
fn a_model_that_stock_ollama_pushes_reaches_an_agent_and_another_ollama() {
    let registry = Server::registry().start();
    let home = scratch();
    let first = ollama_with_own_store(home.path());
    let modelfile = home.path().join("Modelfile");
    let weights = fixture("hay-tiny-q8_0.gguf");
    std::fs::write(
        &modelfile,
        format!("FROM {}\nPARAMETER temperature 0\n", weights.display()),
    )
    .unwrap();
    let reference = format!("{}/team/made-by-ollama:q8_0", registry.address());
    ollama_client(
        home.path(),
        &first,
        &["create", &reference, "-f", modelfile.to_str().unwrap()],
    );
    ollama_client(home.path(), &first, &["push", "--insecure", &reference]);
    peer::assert_pulls_the_bundled_model(&reference);

    let other_home = scratch();
    let second = ollama_with_own_store(other_home.path());
    let insecure = format!("http://{reference}");
    ollama_client(
        other_home.path(),
        &second,
        &["pull", "--insecure", &insecure],
    );
    let answer = ollama_client(
        other_home.path(),
        &second,
        &["run", &reference, QUESTIONS[0]],
    );
    assert_eq!(answer, "The capital of France is Paris.");
}

/// The folder of views, wherever below its data the agent keeps the cache.
fn views(data: &Path) -> PathBuf {
    [data.to_owned(), data.join("cache")]
        .map(|root| root.join("views"))
        .into_iter()
        .find(|views| views.is_dir())
        .expect("the agent has published views")
}
