//! House rules as a test: crate edges, module docs, file length.

use std::fs;
use std::path::{Path, PathBuf};

use tests::project_root;

/// Lines of code in one file, inline tests not counted.
const MAX_LINES: usize = 500;

fn rust_files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut pending: Vec<PathBuf> = [
        "artifact",
        "registry",
        "node-agent",
        "runtime",
        "cli",
        "tests",
    ]
    .iter()
    .map(|folder| project_root().join(folder))
    .collect();
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files
}

#[test]
fn every_file_says_first_what_it_is() {
    let silent: Vec<_> = rust_files()
        .into_iter()
        .filter(|file| !fs::read_to_string(file).unwrap().starts_with("//! "))
        .collect();
    assert!(silent.is_empty(), "no //! line first: {silent:?}");
}

#[test]
fn no_file_is_longer_than_a_reader_can_hold() {
    let code_lines = |file: &Path| {
        let text = fs::read_to_string(file).unwrap();
        text.lines()
            .take_while(|line| *line != "#[cfg(test)]")
            .count()
    };
    let long: Vec<_> = rust_files()
        .into_iter()
        .map(|file| (code_lines(&file), file))
        .filter(|(lines, _)| *lines > MAX_LINES)
        .collect();
    assert!(long.is_empty(), "over {MAX_LINES} lines: {long:?}");
}

#[test]
fn the_three_roles_never_import_each_other() {
    for role in ["registry", "node-agent", "runtime", "artifact"] {
        let manifest = fs::read_to_string(project_root().join(role).join("Cargo.toml")).unwrap();
        let dependencies = manifest.split("[dependencies]").nth(1).unwrap();
        let dependencies = dependencies.split("\n[").next().unwrap();
        for other in ["registry", "node-agent", "runtime", "cli"] {
            assert!(
                !dependencies
                    .lines()
                    .any(|line| line.starts_with(&format!("{other}."))),
                "{role} imports {other}"
            );
        }
    }
}
