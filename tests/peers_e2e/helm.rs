//! Helm's charts in an OCI registry.

use std::path::Path;
use std::process::Command;

use tests::{Server, run, scratch};

use crate::peer::{self, output};

pub(crate) fn helm(home: &Path, arguments: &[&str]) -> Command {
    let mut command = peer::command("helm", home);
    command
        .env("HELM_CACHE_HOME", home.join("cache"))
        .env("HELM_CONFIG_HOME", home.join("config"))
        .env("HELM_DATA_HOME", home.join("data"))
        .args(arguments);
    command
}

/// Writes a chart of one template and packs it; gives the archive's path.
pub(crate) fn package_chart(home: &Path) -> String {
    let chart = home.join("tiny");
    std::fs::create_dir_all(chart.join("templates")).unwrap();
    std::fs::write(
        chart.join("Chart.yaml"),
        "apiVersion: v2\nname: tiny\nversion: 0.1.0\ndescription: One ConfigMap\n",
    )
    .unwrap();
    std::fs::write(
        chart.join("templates/configmap.yaml"),
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{ .Release.Name }}\ndata:\n  hay: loft\n",
    )
    .unwrap();
    let folder = home.to_str().unwrap();
    output(&mut helm(
        home,
        &["package", chart.to_str().unwrap(), "--destination", folder],
    ));
    format!("{folder}/tiny-0.1.0.tgz")
}

#[test]
fn helm_pushes_a_chart_and_pulls_the_same_archive() {
    let registry = Server::registry().start();
    let home = scratch();
    let archive = package_chart(home.path());
    let charts = format!("oci://{}/charts", registry.address());
    output(&mut helm(
        home.path(),
        &["push", &archive, &charts, "--plain-http"],
    ));

    let pulled = home.path().join("pulled");
    std::fs::create_dir(&pulled).unwrap();
    let chart = format!("{charts}/tiny");
    let into = pulled.to_str().unwrap();
    output(&mut helm(
        home.path(),
        &[
            "pull",
            &chart,
            "--version",
            "0.1.0",
            "--plain-http",
            "--destination",
            into,
        ],
    ));
    assert_eq!(
        std::fs::read(pulled.join("tiny-0.1.0.tgz")).unwrap(),
        std::fs::read(&archive).unwrap()
    );
}

#[test]
fn helm_renders_a_chart_straight_from_the_registry() {
    let registry = Server::registry().start();
    let home = scratch();
    let archive = package_chart(home.path());
    let charts = format!("oci://{}/charts", registry.address());
    output(&mut helm(
        home.path(),
        &["push", &archive, &charts, "--plain-http"],
    ));

    let chart = format!("{charts}/tiny");
    // Without a version helm lists the tags and picks the newest.
    let rendered = output(&mut helm(
        home.path(),
        &["template", "barn", &chart, "--plain-http"],
    ));
    assert!(
        rendered.contains("hay: loft") && rendered.contains("name: barn"),
        "{rendered}"
    );
}

#[test]
fn helm_says_that_a_missing_chart_is_not_found() {
    let registry = Server::registry().start();
    let home = scratch();
    let chart = format!("oci://{}/charts/none", registry.address());
    let error = run(&mut helm(
        home.path(),
        &["pull", &chart, "--version", "0.1.0", "--plain-http"],
    ))
    .failed();
    assert!(error.contains("not found"), "{error}");
}
