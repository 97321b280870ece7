//! The oras client for Python.

use std::process::Command;

use artifact::gguf::Value;
use artifact::gguf::builder::GgufBuilder;
use tests::{Server, project_root, run, scratch};

use crate::peer::output;

#[test]
fn oras_pushes_files_lists_their_tag_and_pulls_them_back() {
    let registry = Server::registry().start();
    let folder = scratch();
    let python = project_root().join(".venv/bin/python");
    let script = project_root().join("tests/python/oras_round_trip.py");
    let said = output(
        Command::new(python)
            .arg(script)
            .arg(registry.address())
            .current_dir(folder.path())
            .env("HOME", folder.path()),
    );
    assert!(said.ends_with("the files came back unchanged"), "{said}");
}

#[test]
fn oras_is_told_why_a_gguf_file_is_refused() {
    let registry = Server::registry().start();
    let folder = scratch();
    let unsound = GgufBuilder::tiny_llama("Tiny")
        .kv("llama.attention.head_count", Value::U32(7))
        .build();
    std::fs::write(folder.path().join("model.gguf"), unsound).unwrap();
    let target = format!("{}/team/model:v1", registry.address());
    let said = run(Command::new(project_root().join(".venv/bin/python"))
        .arg(project_root().join("tests/python/oras_push.py"))
        .args([&target, "model.gguf"])
        .current_dir(folder.path())
        .env("HOME", folder.path()))
    .failed();
    assert!(said.contains("7 heads"), "{said}");
}
