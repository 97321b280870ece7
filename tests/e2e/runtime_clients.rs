//! The Python packages `ollama` and `openai` against the runtime of the real binary.

use std::process::Command;

use tests::{Server, fixture, hayloft, project_root, run};

#[test]
fn the_python_clients_of_both_apis_agree_with_the_runtime() {
    let server = Server::all().start();
    let reference = format!("{}/demo/hay-tiny:latest", server.address_of("registry"));
    let model = fixture("hay-tiny-q8_0.gguf");
    let _ = hayloft(&["push", model.to_str().unwrap(), &reference]).succeeded();
    let _ = hayloft(&["pull", &reference, "--agent", &server.url_of("agent")]).succeeded();
    let python = project_root().join(".venv/bin/python");
    let script = project_root().join("tests/python/runtime_clients.py");
    let said = run(Command::new(python)
        .arg(script)
        .args([&server.url_of("runtime"), &reference]));
    assert!(said.succeeded().contains("agree"));
}
