//! One push, every client: a stock Ollama pulls what others pushed, and others what it pushed.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use artifact::Digest;
use serde_json::{Value, json};
use tests::{Authority, HoldingProxy, Server, fixture, hayloft, project_root, run, scratch};

use crate::ollama::{QUESTIONS, ollama_client, ollama_that_trusts, ollama_with_own_store};
use crate::peer::{self, PeerServer};

const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// Pulls by that name and asks it for the capital of France.
#[track_caller]
fn pulls_and_answers(home: &Path, ollama: &PeerServer, pulled: &[&str], name: &str) {
    ollama_client(home, ollama, &[&["pull"], pulled].concat());
    let answer = ollama_client(home, ollama, &["run", name, QUESTIONS[0]]);
    assert_eq!(answer, "The capital of France is Paris.");
}

#[test]
fn stock_ollama_pulls_what_hayloft_pushed_and_gives_the_right_answer() {
    let registry = Server::registry().start();
    let reference = peer::push_model(registry.address(), "team/hay-tiny:q8_0");
    let home = scratch();
    let ollama = ollama_with_own_store(home.path());
    let insecure = format!("http://{reference}");
    pulls_and_answers(home.path(), &ollama, &["--insecure", &insecure], &reference);
    // Upper case, as Ollama lets one write it.
    let spelled = format!("{}/Team/Hay-Tiny:q8_0", registry.address());
    let insecure = format!("http://{spelled}");
    pulls_and_answers(home.path(), &ollama, &["--insecure", &insecure], &spelled);
}

#[test]
fn stock_ollama_pulls_a_model_in_dockers_dialect() {
    let registry = Server::registry().start();
    let source = peer::push_model(registry.address(), "team/hay-tiny:q8_0");
    let reference = format!("{}/ai/hay-tiny:docker", registry.address());
    let _ = hayloft(&["tag", &source, &reference, "--as", "docker"]).succeeded();
    let home = scratch();
    let ollama = ollama_with_own_store(home.path());
    let insecure = format!("http://{reference}");
    pulls_and_answers(home.path(), &ollama, &["--insecure", &insecure], &reference);
}

#[test]
fn stock_ollama_pulls_by_tls_with_a_private_authority() {
    let authority = Authority::new();
    let folder = scratch();
    let (certificate, key) = authority.issue().write(folder.path());
    let registry = Server::registry()
        .argument("--tls-cert")
        .argument(certificate.to_str().unwrap())
        .argument("--tls-key")
        .argument(key.to_str().unwrap())
        .start();
    let reference = format!("{}/team/hay-tiny:q8_0", registry.address());
    let model = fixture("hay-tiny-q8_0.gguf");
    let mut push = tests::hayloft_command(["push", model.to_str().unwrap(), &reference]);
    let _ = run(push.env("SSL_CERT_FILE", authority.file())).succeeded();
    let home = scratch();
    let ollama = ollama_that_trusts(home.path(), Some(&authority.file()));
    pulls_and_answers(home.path(), &ollama, &[&reference], &reference);
}

#[tokio::test]
async fn stock_ollama_goes_on_after_it_was_killed_in_the_middle_of_a_pull() {
    let registry = Server::registry().start();
    let _ = peer::push_model(registry.address(), "team/hay-tiny:q8_0");
    let proxy = HoldingProxy::start(registry.address(), 1_500_000).await;
    let reference = format!("{}/team/hay-tiny:q8_0", proxy.address());
    let insecure = format!("http://{reference}");
    let home = scratch();
    let ollama = ollama_with_own_store(home.path());
    let mut pulling = peer::command("ollama", home.path())
        .env("OLLAMA_HOST", ollama.address())
        .args(["pull", "--insecure", &insecure])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    proxy.holds().await;
    ollama.kill();
    proxy.release();
    // Its command line ends in one way or another; what counts is what lies there.
    let _ = pulling.wait().unwrap();
    let blobs = peer::files_below(&home.path().join("models"));
    let is_partial = |path: &PathBuf| path.to_string_lossy().contains("-partial");
    assert!(blobs.iter().any(is_partial), "{blobs:?}");
    let ollama = ollama_with_own_store(home.path());
    let client = home.path().to_owned();
    let asking = tokio::task::spawn_blocking(move || {
        pulls_and_answers(&client, &ollama, &["--insecure", &insecure], &reference);
    });
    asking.await.unwrap();
}

/// A model that a stock Ollama pushed; gives its reference.
fn pushed_by_ollama(registry: &Server) -> String {
    let home = scratch();
    let ollama = ollama_with_own_store(home.path());
    let modelfile = home.path().join("Modelfile");
    let weights = fixture("hay-tiny-q8_0.gguf");
    let text = format!(
        "FROM {}\nPARAMETER temperature 0\nSYSTEM Be brief.\n",
        weights.display()
    );
    std::fs::write(&modelfile, text).unwrap();
    let reference = format!("{}/Team/By-Ollama:q8_0", registry.address());
    let create = ["create", &reference, "-f", modelfile.to_str().unwrap()];
    ollama_client(home.path(), &ollama, &create);
    ollama_client(home.path(), &ollama, &["push", "--insecure", &reference]);
    format!("{}/team/by-ollama:q8_0", registry.address())
}

/// A manifest as somebody with these headers gets it.
async fn manifest(registry: &Server, accept: &str, agent: &str) -> (Vec<u8>, Value) {
    let url = format!("{}/v2/team/by-ollama/manifests/q8_0", registry.url());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = client.get(url).header("accept", accept);
    let answer = answer.header("user-agent", agent).send().await.unwrap();
    let raw = answer.error_for_status().unwrap().bytes().await.unwrap();
    let parsed = serde_json::from_slice(&raw).unwrap();
    (raw.to_vec(), parsed)
}

#[tokio::test]
async fn what_ollama_pushed_reaches_every_other_client_as_it_reads_it() {
    let registry = Server::registry().start();
    let (registry, reference) = tokio::task::spawn_blocking(move || {
        let reference = pushed_by_ollama(&registry);
        peer::assert_pulls_the_bundled_model(&reference);
        (registry, reference)
    })
    .await
    .unwrap();
    // OCI clients, byte for byte.
    let (pushed, parsed) = manifest(&registry, "*/*", "curl/8").await;
    assert_eq!(parsed["mediaType"], DOCKER_MANIFEST);
    skopeo_and_crane_get_as_pushed(&reference, &pushed);
    oras_pulls_as_pushed(&reference, &pushed);
    // Docker Model Runner.
    let (_, docker) = manifest(&registry, "*/*", "model-distribution").await;
    let layers = docker["layers"].as_array().unwrap().iter();
    let types: Vec<_> = layers.map(|layer| &layer["mediaType"]).collect();
    assert_eq!(types, [&json!("application/vnd.docker.ai.gguf.v3")]);
}

/// skopeo and crane. skopeo knows no layers but an image's in a manifest of Docker's type, so it can
/// read Ollama's but not copy it; as ModelPack it can.
fn skopeo_and_crane_get_as_pushed(reference: &str, pushed: &[u8]) {
    let from = format!("docker://{reference}");
    let inspect = ["inspect", "--raw", "--tls-verify=false", &from];
    let seen = run(Command::new("skopeo").args(inspect)).succeeded();
    assert_eq!(seen.as_bytes(), pushed);
    let other = Server::registry().start();
    let target = format!("{}/copied/by-crane:1", other.address());
    let home = scratch();
    let mut crane = peer::command("crane", home.path());
    peer::output(crane.args(["copy", "--insecure", reference, &target]));
    let mut crane = peer::command("crane", home.path());
    let digest = peer::output(crane.args(["digest", "--insecure", &target]));
    assert_eq!(digest, Digest::sha256(pushed).to_string());

    let _ = hayloft(&["tag", reference, "modelpack", "--as", "modelpack"]).succeeded();
    let folder = scratch();
    let copied = folder.path().join("copied");
    let to = format!("dir:{}", copied.display());
    let from = from.replace(":q8_0", ":modelpack");
    let copy = ["copy", "--preserve-digests", "--src-tls-verify=false"];
    let _ = run(Command::new("skopeo").args(copy).args([&from, &to])).succeeded();
    let weights = std::fs::read(fixture("hay-tiny-q8_0.gguf")).unwrap();
    let layer = copied.join(Digest::sha256(&weights).hex());
    assert_eq!(std::fs::read(layer).unwrap(), weights);
}

/// The oras client for Python, which asks for any manifest.
fn oras_pulls_as_pushed(reference: &str, pushed: &[u8]) {
    let folder = scratch();
    let python = project_root().join(".venv/bin/python");
    let script = project_root().join("tests/python/oras_manifest.py");
    let mut command = Command::new(python);
    command
        .arg(script)
        .arg(reference)
        .env("HOME", folder.path());
    let said = peer::output(&mut command);
    assert_eq!(said, Digest::sha256(pushed).to_string());
}
