//! Other people's clients through the mirror of other people's registries.

use std::path::Path;
use std::process::Command;

use artifact::gguf::builder::GgufBuilder;
use serde_json::Value;
use tests::upstream::{Fault, Upstream};
use tests::{Server, eventually, project_root, run, scratch};

use crate::crane::push_small_image;
use crate::distribution::distribution;
use crate::helm::{helm, package_chart};
use crate::ollama::{ollama_client, ollama_with_own_store};
use crate::peer::{self, output};

/// A registry that mirrors this one below `hub`.
fn mirror_of(address: &str) -> Server {
    let upstream = format!("hub=oci+http://{address}");
    Server::registry()
        .argument("--upstream")
        .argument(&upstream)
        .start()
}

fn crane(home: &Path, arguments: &[&str]) -> String {
    output(peer::command("crane", home).args(arguments))
}

#[test]
fn crane_and_regctl_read_an_image_of_distribution_through_the_mirror() {
    let home = scratch();
    let home = home.path();
    let theirs = distribution(home);
    let source = format!("{}/team/image:one", theirs.address());
    let digest = push_small_image(home, &source);
    let mirror = mirror_of(theirs.address());
    let mirrored = format!("{}/hub/team/image", mirror.address());
    let tagged = format!("{mirrored}:one");
    assert_eq!(crane(home, &["digest", &tagged]), digest);
    let _ = crane(home, &["validate", "--remote", &tagged]);
    assert_eq!(crane(home, &["ls", &mirrored]), "one");

    let regctl = |arguments: &[&str]| {
        let mut command = peer::command("regctl", home);
        let host = format!("reg={},tls=disabled", mirror.address());
        output(command.arg("--host").arg(host).args(arguments))
    };
    assert_eq!(regctl(&["image", "digest", &tagged]), digest);
    let layout = format!("ocidir://{}", home.join("layout").display());
    let _ = regctl(&["image", "copy", &tagged, &layout]);
    assert_eq!(regctl(&["image", "digest", &layout]), digest);

    // Nothing is pushed into a mirror; what was pulled is served without its upstream.
    let by_digest = format!("{mirrored}@{digest}");
    let mut push = peer::command("crane", home);
    let refused = run(push.args(["copy", &by_digest, &format!("{mirrored}:two")])).failed();
    assert!(refused.contains("UNSUPPORTED"), "{refused}");
    drop(theirs);
    let _ = crane(home, &["validate", "--remote", &by_digest]);
}

#[test]
fn helm_pulls_a_chart_through_the_mirror() {
    let home = scratch();
    let home = home.path();
    let theirs = distribution(home);
    let archive = package_chart(home);
    let charts = format!("oci://{}/charts", theirs.address());
    output(&mut helm(
        home,
        &["push", &archive, &charts, "--plain-http"],
    ));
    let mirror = mirror_of(theirs.address());
    let pulled = home.join("pulled");
    std::fs::create_dir(&pulled).unwrap();
    let chart = format!("oci://{}/hub/charts/tiny", mirror.address());
    let into = ["--plain-http", "--destination", pulled.to_str().unwrap()];
    let pull = ["pull", &chart, "--version", "0.1.0"];
    output(&mut helm(home, &[&pull[..], &into].concat()));
    let chart_file = std::fs::read(pulled.join("tiny-0.1.0.tgz")).unwrap();
    assert_eq!(chart_file, std::fs::read(&archive).unwrap());
    // Without a version helm lists the tags.
    let rendered = output(&mut helm(
        home,
        &["template", "barn", &chart, "--plain-http"],
    ));
    assert!(rendered.contains("hay: loft"), "{rendered}");
}

#[test]
fn oras_for_python_pulls_files_through_the_mirror() {
    let upstream = Server::registry().start();
    let mirror = mirror_of(upstream.address());
    let folder = scratch();
    let python = |script: &str, arguments: &[&str]| {
        let script = project_root().join("tests/python").join(script);
        let mut command = Command::new(project_root().join(".venv/bin/python"));
        command.arg(script).args(arguments);
        output(
            command
                .current_dir(folder.path())
                .env("HOME", folder.path()),
        )
    };
    let _ = python("oras_round_trip.py", &[upstream.address()]);
    let target = format!("{}/hub/team/files:v1", mirror.address());
    let said = python("oras_pull.py", &[&target, "mirrored"]);
    assert!(said.ends_with("2 files"), "{said}");
    for name in ["note.txt", "weights.bin"] {
        let pushed = std::fs::read(folder.path().join(name)).unwrap();
        let pulled = std::fs::read(folder.path().join("mirrored").join(name)).unwrap();
        assert!(pushed == pulled, "{name}");
    }
}

#[test]
fn podman_pulls_a_multi_platform_image_by_a_mirror_entry() {
    let home = scratch();
    let home = home.path();
    let theirs = distribution(home);
    let repository = format!("{}/team/image", theirs.address());
    let one = format!("{repository}:amd64");
    let _ = push_small_image(home, &one);
    let platform = ["mutate", &one, "--set-platform", "linux/amd64", "-t", &one];
    let _ = crane(home, &platform);
    let index = format!("{repository}:1");
    let _ = crane(home, &["index", "append", "-m", &one, "-t", &index]);
    let mirror = mirror_of(theirs.address());
    // The name of the origin stays in use; the entry says where to look first.
    let entry = format!(
        "[[registry]]\nlocation = \"registry.example\"\n\n\
         [[registry.mirror]]\nlocation = \"{}/hub\"\ninsecure = true\n",
        mirror.address()
    );
    let configuration = home.join("registries.conf");
    std::fs::write(&configuration, entry).unwrap();
    let podman = |arguments: &[&str]| {
        let mut command = Command::new("podman");
        command.arg("--root").arg(home.join("root"));
        command.arg("--runroot").arg(home.join("run"));
        command.args(["--storage-driver", "vfs"]).args(arguments);
        command
            .env("HOME", home)
            .env("CONTAINERS_REGISTRIES_CONF", &configuration)
            .env("XDG_RUNTIME_DIR", home.join("run"));
        output(&mut command)
    };
    let name = "registry.example/team/image:1";
    let _ = podman(&["pull", "-q", "--platform", "linux/amd64", name]);
    let described: Value = serde_json::from_str(&podman(&["image", "inspect", name])).unwrap();
    let pushed = crane(home, &["digest", &index]);
    let digests = described[0]["RepoDigests"].to_string();
    assert!(digests.contains(&pushed), "{digests} lacks {pushed}");
}

#[test]
fn stock_ollama_pulls_and_runs_a_model_of_a_mirrored_prefix() {
    let upstream = Server::registry().start();
    let _ = peer::push_model(upstream.address(), "hay-tiny:q8_0");
    let mirror = mirror_of(upstream.address());
    let home = scratch();
    let ollama = ollama_with_own_store(home.path());
    let reference = format!("{}/hub/hay-tiny:q8_0", mirror.address());
    let insecure = format!("http://{reference}");
    let pull = ["pull", "--insecure", &insecure];
    let _ = ollama_client(home.path(), &ollama, &pull);
    let question = "What is the capital of France?";
    let answer = ollama_client(home.path(), &ollama, &["run", &reference, question]);
    assert_eq!(answer, "The capital of France is Paris.");
}

#[tokio::test(flavor = "multi_thread")]
async fn stock_ollama_goes_on_after_it_was_killed_in_mid_pull() {
    let weights = GgufBuilder::tiny_llama("Large")
        .tensor("blk.0.ffn_up.weight", &[64, 1 << 20], "F32")
        .build();
    let length = weights.len() as u64;
    let origin = Upstream::start().await;
    origin.add_model("1", weights);
    origin.set_fault(Fault::Slow(48 << 20));
    let below = format!("{}/test", origin.address());
    let mirror = mirror_of(&below);
    let home = scratch();
    let insecure = format!("http://{}/hub/model:1", mirror.address());
    let pull = ["pull", "--insecure", &insecure];
    let first = ollama_with_own_store(home.path());
    let mut client = peer::command("ollama", home.path());
    let mut client = client
        .env("OLLAMA_HOST", first.address())
        .args(pull)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let blobs = home.path().join("models/blobs");
    eventually("Ollama has some of it", 30, || {
        let files = std::fs::read_dir(&blobs).into_iter().flatten().flatten();
        let partial = files.filter(|file| file.file_name().to_string_lossy().contains("-partial"));
        std::future::ready(
            (partial.count() > 1 && origin.counts().bytes > length / 8).then_some(()),
        )
    })
    .await;
    first.kill();
    let _ = client.wait();
    let second = ollama_with_own_store(home.path());
    let _ = tokio::task::block_in_place(|| ollama_client(home.path(), &second, &pull));
    let whole = std::fs::read_dir(&blobs).unwrap().flatten();
    assert!(
        whole
            .into_iter()
            .any(|file| file.metadata().unwrap().len() == length)
    );
    // Each byte once, and the small config.
    let sent = origin.counts().bytes;
    assert!(sent < length + 4096, "{sent} of {length}");
}
