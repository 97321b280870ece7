//! The main job through the command line: push, pull once, ask.

use std::collections::HashMap;

use tests::{Server, fixture, hayloft, hayloft_command, run};

/// Question and exact greedy answer.
fn answers() -> HashMap<String, String> {
    let text = std::fs::read_to_string(fixture("hay-tiny-answers.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn a_model_goes_in_by_push_comes_out_by_pull_and_answers() {
    let server = Server::all().start();
    let reference = format!("{}/demo/hay-tiny:q8", server.address_of("registry"));
    let agent = server.url_of("agent");
    let runtime = server.url_of("runtime");
    let model = fixture("hay-tiny-q8_0.gguf");
    let _ = hayloft(&["push", model.to_str().unwrap(), &reference]).succeeded();
    let _ = hayloft(&["pull", &reference, "--agent", &agent]).succeeded();
    let listed = hayloft(&["list", "--agent", &agent, "--output", "json"]).succeeded();
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed[0]["reference"], reference.as_str());
    for (question, answer) in answers().iter().take(5) {
        let said = hayloft(&[
            "run",
            &reference,
            question,
            "--runtime",
            &runtime,
            "--temperature",
            "0",
        ]);
        assert_eq!(said.succeeded().trim(), answer);
    }
    let loaded = hayloft(&["ps", "--runtime", &runtime, "--output", "json"]).succeeded();
    let loaded: serde_json::Value = serde_json::from_str(&loaded).unwrap();
    assert_eq!(loaded[0]["name"], reference.as_str());
    // The runtime holds a lease of what it has loaded.
    let kept = hayloft(&["rm", &reference, "--agent", &agent]).failed();
    assert!(kept.contains("in use by hayloft runtime"), "{kept}");
    let _ = hayloft(&["rm", "--force", &reference, "--agent", &agent]).succeeded();
    let gone = hayloft(&["show", &reference, "--runtime", &runtime]).failed();
    assert!(gone.contains("not found"), "{gone}");
}

#[test]
fn pull_without_an_agent_fills_the_cache_below_data() {
    let registry = Server::registry().start();
    let reference = format!("{}/demo/hay-tiny", registry.address());
    let model = fixture("hay-tiny-q8_0.gguf");
    let _ = hayloft(&["push", model.to_str().unwrap(), &reference]).succeeded();
    let folder = tests::scratch();
    let data = folder.path().to_str().unwrap();
    let _ = hayloft(&["pull", &reference, "--data", data]).succeeded();
    let again = hayloft(&["pull", &reference, "--data", data, "--output", "json"]).succeeded();
    let again: serde_json::Value = serde_json::from_str(&again).unwrap();
    assert_eq!(again["fetched"], 0, "{again}");
    let view = folder
        .path()
        .join("cache/views/plain")
        .join(registry.address())
        .join("demo/hay-tiny/latest/model.gguf");
    assert_eq!(std::fs::read(view).unwrap(), std::fs::read(model).unwrap());
}

#[test]
fn errors_are_one_line_that_says_what_to_do() {
    let registry = Server::registry().start();
    let model = fixture("hay-tiny-q8_0.gguf");
    let model = model.to_str().unwrap();
    let folder = tests::scratch();
    let data = folder.path().to_str().unwrap();
    let absent = format!("{}/demo/absent:1", registry.address());
    let text_file = folder.path().join("not-a-model.gguf");
    std::fs::write(&text_file, "hello").unwrap();
    let target = format!("{}/demo/x", registry.address());
    let cases: Vec<(Vec<&str>, &str)> = vec![
        (
            vec!["push", "/nowhere/model.gguf", &target],
            "/nowhere/model.gguf",
        ),
        (vec!["push", text_file.to_str().unwrap(), &target], "GGUF"),
        (vec!["push", model, "127.0.0.1:1/demo/x"], "127.0.0.1:1"),
        (vec!["push", model, "h:1/Demo/X"], "lower-case"),
        (vec!["pull", &absent, "--data", data], "absent"),
        (
            vec!["pull", "127.0.0.1:1/demo/x", "--data", data],
            "127.0.0.1:1",
        ),
        (vec!["list", "--agent", "http://127.0.0.1:1"], "127.0.0.1:1"),
        (vec!["ps", "--runtime", "http://127.0.0.1:1"], "127.0.0.1:1"),
    ];
    for (arguments, wanted) in cases {
        let message = hayloft(&arguments).failed();
        let lines: Vec<_> = message
            .lines()
            .filter(|line| line.starts_with("error: "))
            .collect();
        assert_eq!(lines.len(), 1, "{arguments:?}: {message}");
        assert!(lines[0].contains(wanted), "{arguments:?}: {message}");
    }
}

#[tokio::test]
async fn roles_and_verbs_on_one_data_folder_find_each_other() {
    let registry = Server::registry().start();
    let reference = format!("{}/demo/hay-tiny", registry.address());
    let model = fixture("hay-tiny-q8_0.gguf");
    let _ = hayloft(&["push", model.to_str().unwrap(), &reference]).succeeded();
    let folder = tests::scratch();
    let runtime = Server::runtime().data(folder.path()).start();
    let agent = Server::agent().data(folder.path()).start();
    let socket = folder.path().join("cache/agent.sock");
    tests::eventually("the agent's socket", 20, async || {
        socket.exists().then_some(())
    })
    .await;
    // Through the runtime, which finds the agent by the socket.
    let url = runtime.url();
    let said = hayloft(&[
        "run",
        &reference,
        "Hello",
        "--runtime",
        &url,
        "--temperature",
        "0",
    ]);
    assert_eq!(said.succeeded().trim(), "Hello! How can I help you today?");
    // A verb in that folder, told of it by a relative path.
    let mut list = hayloft_command(["list", "--data", ".", "-o", "json"]);
    let listed = run(list.current_dir(folder.path())).succeeded();
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed[0]["reference"], format!("{reference}:latest"));
    drop(agent);
}
