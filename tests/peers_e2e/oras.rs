//! The oras client for Python.

use std::process::Command;

use tests::{Server, project_root, scratch};

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
