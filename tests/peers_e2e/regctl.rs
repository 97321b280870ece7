//! regctl, of regclient.

use std::path::Path;
use std::process::Command;

use tests::{Server, run, scratch};

use crate::crane::push_small_image;
use crate::peer::{self, output};

/// regctl speaks TLS unless told otherwise, even to loopback.
fn regctl(home: &Path, registry: &Server, arguments: &[&str]) -> Command {
    let mut command = peer::command("regctl", home);
    command
        .arg("--host")
        .arg(format!("reg={},tls=disabled", registry.address()))
        .args(arguments);
    command
}

#[test]
fn regctl_copies_an_image_and_reads_its_manifest_tags_and_blobs() {
    let registry = Server::registry().start();
    let home = scratch();
    let source = format!("{}/team/image:one", registry.address());
    let digest = push_small_image(home.path(), &source);
    let regctl = |arguments: &[&str]| regctl(home.path(), &registry, arguments);

    let repository = format!("{}/mirror/image", registry.address());
    let copy = format!("{repository}:two");
    output(&mut regctl(&["image", "copy", &source, &copy]));
    assert_eq!(output(&mut regctl(&["tag", "ls", &repository])), "two");
    assert_eq!(output(&mut regctl(&["image", "digest", &copy])), digest);
    let head = output(&mut regctl(&["manifest", "head", &copy]));
    assert!(head.contains(&digest), "{head}");

    let manifest = output(&mut regctl(&[
        "manifest", "get", "--format", "raw-body", &copy,
    ]));
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    let layer = manifest["layers"][0]["digest"].as_str().unwrap();
    let size = manifest["layers"][0]["size"].as_u64().unwrap();
    let head = output(&mut regctl(&["blob", "head", &repository, layer]));
    assert!(head.contains(&size.to_string()), "{head}");

    output(&mut regctl(&["tag", "delete", &copy]));
    assert_eq!(output(&mut regctl(&["tag", "ls", &repository])), "");
    let gone = run(&mut regctl(&["manifest", "head", &copy])).failed();
    assert!(gone.to_lowercase().contains("not found"), "{gone}");
}

#[test]
fn regctl_attaches_an_artifact_and_finds_it_as_a_referrer() {
    let registry = Server::registry().start();
    let home = scratch();
    let subject = format!("{}/team/image:one", registry.address());
    push_small_image(home.path(), &subject);
    let note = home.path().join("note.txt");
    std::fs::write(&note, "reviewed\n").unwrap();
    let regctl = |arguments: &[&str]| regctl(home.path(), &registry, arguments);

    let kind = "application/vnd.example.review";
    let note = note.to_str().unwrap();
    output(&mut regctl(&[
        "artifact",
        "put",
        "--artifact-type",
        kind,
        "--subject",
        &subject,
        "--file",
        note,
    ]));
    let list = |filter: &str| {
        let listed = output(&mut regctl(&[
            "artifact",
            "list",
            "--filter-artifact-type",
            filter,
            "--format",
            "{{json .}}",
            &subject,
        ]));
        let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
        listed["descriptors"].as_array().map_or(0, Vec::len)
    };
    assert_eq!(list(kind), 1);
    assert_eq!(list("application/vnd.example.other"), 0);
    let content = output(&mut regctl(&[
        "artifact",
        "get",
        "--subject",
        &subject,
        "--filter-artifact-type",
        kind,
    ]));
    assert_eq!(content, "reviewed");
}

#[test]
fn regctl_copies_an_image_with_its_referrers() {
    let registry = Server::registry().start();
    let home = scratch();
    let source = format!("{}/team/image:one", registry.address());
    push_small_image(home.path(), &source);
    let note = home.path().join("note.txt");
    std::fs::write(&note, "signed\n").unwrap();
    let regctl = |arguments: &[&str]| regctl(home.path(), &registry, arguments);
    let kind = "application/vnd.example.signature";
    let file = note.to_str().unwrap();
    output(&mut regctl(&[
        "artifact",
        "put",
        "--artifact-type",
        kind,
        "--subject",
        &source,
        "--file",
        file,
    ]));

    let copy = format!("{}/mirror/image:one", registry.address());
    output(&mut regctl(&[
        "image",
        "copy",
        "--referrers",
        &source,
        &copy,
    ]));
    let content = output(&mut regctl(&[
        "artifact",
        "get",
        "--subject",
        &copy,
        "--filter-artifact-type",
        kind,
    ]));
    assert_eq!(content, "signed");
}
