//! crane, of go-containerregistry.

use std::path::Path;
use std::process::Command;

use tests::{Server, run, scratch};

use crate::peer::{self, output};

fn crane(home: &Path, arguments: &[&str]) -> Command {
    let mut command = peer::command("crane", home);
    command.args(arguments);
    command
}

/// Builds an image of one small layer and pushes it; gives its digest.
pub(crate) fn push_small_image(home: &Path, reference: &str) -> String {
    let layer = peer::small_layer(home);
    let layer = layer.to_str().unwrap();
    let pushed = output(&mut crane(
        home,
        &["append", "--oci-empty-base", "-f", layer, "-t", reference],
    ));
    pushed
        .rsplit_once('@')
        .expect("crane prints the pushed digest")
        .1
        .to_owned()
}

#[test]
fn crane_pushes_an_image_and_reads_it_back() {
    let registry = Server::registry().start();
    let home = scratch();
    let reference = format!("{}/team/image:one", registry.address());
    let digest = push_small_image(home.path(), &reference);

    assert_eq!(
        output(&mut crane(home.path(), &["digest", &reference])),
        digest
    );
    let layout = home.path().join("layout");
    let layout = layout.to_str().unwrap();
    output(&mut crane(
        home.path(),
        &["pull", "--format", "oci", &reference, layout],
    ));
    let again = format!("{}/team/again:one", registry.address());
    let pushed = output(&mut crane(home.path(), &["push", layout, &again]));
    assert!(pushed.ends_with(&digest), "{pushed} is not {digest}");
    output(&mut crane(home.path(), &["validate", "--remote", &again]));
}

#[test]
fn crane_lists_copies_and_deletes_tags() {
    let registry = Server::registry().start();
    let home = scratch();
    let repository = format!("{}/team/image", registry.address());
    let digest = push_small_image(home.path(), &format!("{repository}:b"));
    output(&mut crane(
        home.path(),
        &["tag", &format!("{repository}:b"), "a"],
    ));
    assert_eq!(
        output(&mut crane(home.path(), &["ls", &repository])),
        "a\nb"
    );

    let copy = format!("{}/other/copy:c", registry.address());
    output(&mut crane(
        home.path(),
        &["copy", &format!("{repository}:a"), &copy],
    ));
    assert_eq!(output(&mut crane(home.path(), &["digest", &copy])), digest);

    output(&mut crane(
        home.path(),
        &["delete", &format!("{repository}@{digest}")],
    ));
    let gone = run(&mut crane(
        home.path(),
        &["manifest", &format!("{repository}@{digest}")],
    ))
    .failed();
    assert!(gone.contains("MANIFEST_UNKNOWN"), "{gone}");
    assert_eq!(output(&mut crane(home.path(), &["digest", &copy])), digest);
}

#[test]
fn a_model_copied_by_crane_to_another_registry_is_still_the_model() {
    let source = Server::registry().start();
    let target = Server::registry().start();
    let home = scratch();
    let reference = peer::push_model(source.address(), "team/hay-tiny:q8_0");
    let copy = format!("{}/copies/hay-tiny:q8_0", target.address());
    output(&mut crane(home.path(), &["copy", &reference, &copy]));
    peer::assert_pulls_the_bundled_model(&copy);
}
