//! distribution 3.1.2, the reference registry: artifacts go there and back unchanged.

use std::path::Path;
use std::process::Command;

use tests::{Server, scratch};

use crate::crane::push_small_image;
use crate::peer::{self, PeerServer, output};

/// A distribution registry with its data below `folder`.
pub(crate) fn distribution(folder: &Path) -> PeerServer {
    let config = folder.join("distribution.yml");
    let data = folder.join("distribution");
    std::fs::write(
        &config,
        format!(
            "version: 0.1\nlog: {{level: info}}\n\
             storage: {{filesystem: {{rootdirectory: '{}'}}}}\n\
             http: {{addr: '127.0.0.1:0'}}\n",
            data.display()
        ),
    )
    .unwrap();
    let mut command = peer::command("distribution", folder);
    command
        .arg("serve")
        .arg(config)
        .env("OTEL_TRACES_EXPORTER", "none");
    PeerServer::start(command, "listening on ")
}

fn crane_copy(home: &Path, from: &str, to: &str) {
    output(peer::command("crane", home).args(["copy", from, to]));
}

fn crane_digest(home: &Path, reference: &str) -> String {
    let mut command: Command = peer::command("crane", home);
    output(command.args(["digest", reference]))
}

#[test]
fn an_image_moves_from_distribution_to_hayloft_and_back_with_one_digest() {
    let home = scratch();
    let theirs = distribution(home.path());
    let ours = Server::registry().start();
    let source = format!("{}/team/image:one", theirs.address());
    let digest = push_small_image(home.path(), &source);

    let moved = format!("{}/team/image:one", ours.address());
    crane_copy(home.path(), &source, &moved);
    assert_eq!(crane_digest(home.path(), &moved), digest);

    let back = format!("{}/back/image:one", theirs.address());
    crane_copy(home.path(), &moved, &back);
    assert_eq!(crane_digest(home.path(), &back), digest);
}

#[test]
fn a_model_moves_from_hayloft_to_distribution_and_an_agent_pulls_it_there() {
    let home = scratch();
    let theirs = distribution(home.path());
    let ours = Server::registry().start();
    let reference = peer::push_model(ours.address(), "team/hay-tiny:q8_0");
    let moved = format!("{}/team/hay-tiny:q8_0", theirs.address());
    crane_copy(home.path(), &reference, &moved);
    assert_eq!(
        crane_digest(home.path(), &moved),
        crane_digest(home.path(), &reference)
    );
    peer::assert_pulls_the_bundled_model(&moved);
}

#[test]
fn hayloft_pushes_a_model_straight_into_distribution() {
    let home = scratch();
    let theirs = distribution(home.path());
    let reference = peer::push_model(theirs.address(), "team/hay-tiny:q8_0");
    peer::assert_pulls_the_bundled_model(&reference);
}
