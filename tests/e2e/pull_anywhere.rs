//! `pull` and `run` from everywhere: Hugging Face, the Ollama library, a registry, a bare name.

use artifact::media_type::ollama;
use bytes::Bytes;
use serde_json::{Value, json};
use tests::hub::{Access, Hub, Storage};
use tests::{Finished, Server, fixture, hayloft_command, run};

const REPOSITORY: &str = "Seed/Hay-Tiny-GGUF";
const CAPITAL: &str = "The capital of France is Paris.";

fn weights() -> Bytes {
    Bytes::from(std::fs::read(fixture("hay-tiny-q8_0.gguf")).unwrap())
}

/// A stand-in for both, with the bundled model under the names that the tests use.
async fn hub() -> Hub {
    let hub = Hub::start().await;
    hub.put_file(REPOSITORY, "Hay-Tiny-Q8_0.gguf", weights(), Storage::Lfs);
    hub.put_file(REPOSITORY, "README.md", "# Hay Tiny", Storage::Git);
    let layers = [(ollama::MODEL, weights())];
    hub.put_model("library/hay-tiny", "latest", &layers);
    hub
}

/// `hayloft VERB` off the main thread: the hub answers on it.
async fn hayloft(arguments: &[&str], environment: &[(&str, String)]) -> Finished {
    let mut command = hayloft_command(arguments);
    command.envs(environment.iter().map(|(name, value)| (*name, value)));
    tokio::task::spawn_blocking(move || run(&mut command))
        .await
        .unwrap()
}

/// Pulls into a folder of its own; gives what the command printed.
async fn pull(name: &str, flags: &[&str], environment: &[(&str, String)]) -> Finished {
    let folder = tests::scratch();
    let data = folder.path().to_str().unwrap();
    let words = ["pull", name, "--data", data, "--output", "json"];
    hayloft(&[&words, flags].concat(), environment).await
}

fn reference_of(finished: Finished) -> String {
    let printed: Value = serde_json::from_str(&finished.succeeded()).unwrap();
    printed["reference"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quantisation_is_pulled_from_hugging_face_in_any_spelling() {
    let hub = hub().await;
    let endpoint = [("HF_ENDPOINT", hub.url())];
    for name in [
        "hf.co/Seed/Hay-Tiny-GGUF:Q8_0",
        "hf.co/seed/hay-tiny-gguf:q8_0",
        "huggingface.co/Seed/Hay-Tiny-GGUF",
    ] {
        let reference = reference_of(pull(name, &[], &endpoint).await);
        let (host, tag) = (
            name.split('/').next().unwrap(),
            name.rsplit(':').next().unwrap(),
        );
        let tag = if tag.contains('/') { "latest" } else { tag };
        assert_eq!(reference, format!("{host}/seed/hay-tiny-gguf:{tag}"));
    }
    let count = hub.count("Seed/Hay-Tiny-GGUF/Hay-Tiny-Q8_0.gguf");
    assert_eq!(count.bytes, 3 * weights().len() as u64);
    assert_eq!(hub.leaks(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_opens_private_repositories_and_goes_to_hugging_face_alone() {
    let hub = hub().await;
    hub.set_token("hf_geheim");
    hub.set_access(REPOSITORY, Access::Private);
    let name = "hf.co/Seed/Hay-Tiny-GGUF:Q8_0";
    let said = pull(name, &[], &[("HF_ENDPOINT", hub.url())])
        .await
        .failed();
    assert!(
        said.contains("private") && said.contains("HF_TOKEN"),
        "{said}"
    );
    let folder = tests::scratch();
    let file = folder.path().join("token");
    std::fs::write(&file, "hf_geheim\n").unwrap();
    for (variable, value) in [
        ("HF_TOKEN", "hf_geheim".to_owned()),
        ("HF_TOKEN_PATH", file.display().to_string()),
    ] {
        let environment = [("HF_ENDPOINT", hub.url()), (variable, value)];
        let _ = reference_of(pull(name, &[], &environment).await);
    }
    // Another place that speaks the same protocol is not the place that the token is for.
    let upstream = format!("hf.co=hf+{}", hub.url());
    let environment = [("HF_TOKEN", "hf_geheim".to_owned())];
    let said = pull(name, &["--upstream", &upstream], &environment)
        .await
        .failed();
    assert!(said.contains("private"), "{said}");
    assert_eq!(hub.leaks(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ollama_library_is_asked_by_full_and_by_bare_names() {
    let hub = hub().await;
    let upstream = format!("registry.ollama.ai=ollama+{}", hub.url());
    let flags = ["--upstream", upstream.as_str()];
    for name in [
        "registry.ollama.ai/library/hay-tiny",
        "hay-tiny",
        "hay-tiny:latest",
    ] {
        let reference = reference_of(pull(name, &flags, &[]).await);
        assert_eq!(reference, "registry.ollama.ai/library/hay-tiny:latest");
    }
    let other = format!("ollama.com=ollama+{}", hub.url());
    let flags = [
        "--upstream",
        other.as_str(),
        "--bare-names",
        "ollama.com/library",
    ];
    let reference = reference_of(pull("hay-tiny", &flags, &[]).await);
    assert_eq!(reference, "ollama.com/library/hay-tiny:latest");
    let said = pull("no-such-model", &flags, &[]).await.failed();
    assert!(said.contains("no-such-model"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn upstreams_of_a_prefix_are_tried_in_order() {
    let hub = hub().await;
    let gone = "hf.co=hf+http://127.0.0.1:9".to_owned();
    let here = format!("hf.co/Seed=hf+{}/Seed", hub.url());
    let here_again = format!("hf.co=hf+{}", hub.url());
    let name = "hf.co/Seed/Hay-Tiny-GGUF:Q8_0";
    let flags = ["--upstream", &gone, "--upstream", &here_again];
    assert_eq!(
        reference_of(pull(name, &flags, &[]).await),
        "hf.co/seed/hay-tiny-gguf:Q8_0"
    );
    // The longer prefix wins, though nothing is at its path.
    let flags = ["--upstream", &here_again, "--upstream", &here];
    let said = pull(name, &flags, &[]).await.failed();
    assert!(
        said.contains("hay-tiny-gguf") || said.contains("Hay-Tiny-GGUF"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn models_from_everywhere_answer_in_both_protocols() {
    let hub = hub().await;
    let url = hub.url();
    let library = format!("registry.ollama.ai=ollama+{url}");
    let server = tokio::task::spawn_blocking(move || {
        Server::all()
            .argument("--agent-upstream")
            .argument(&library)
            .environment("HF_ENDPOINT", &url)
            .start()
    });
    let server = server.await.unwrap();
    let runtime = server.url_of("runtime");
    for name in ["hf.co/Seed/Hay-Tiny-GGUF:Q8_0", "hay-tiny"] {
        let words = ["run", name, "--runtime", &runtime, "--temperature", "0"];
        let asked = [&words[..], &["What is the capital of France?"]].concat();
        let answer = hayloft(&asked, &[]).await.succeeded();
        assert_eq!(answer.trim(), CAPITAL, "{name}");
        let body = json!({
            "model": name,
            "messages": [{"role": "user", "content": "What is the capital of France?"}],
            "temperature": 0,
        });
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let request = client
            .post(format!("{runtime}/v1/chat/completions"))
            .json(&body);
        let reply: Value = request.send().await.unwrap().json().await.unwrap();
        assert_eq!(
            reply["choices"][0]["message"]["content"], CAPITAL,
            "{reply}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_model_is_can_be_seen_anywhere_without_a_pull() {
    let hub = hub().await;
    let environment = [("HF_ENDPOINT", hub.url())];
    let library = format!("registry.ollama.ai=ollama+{}", hub.url());
    for (name, flags) in [
        ("hf.co/Seed/Hay-Tiny-GGUF:Q8_0", &[][..]),
        ("hay-tiny", &["--upstream", &library]),
    ] {
        let words = ["inspect", name, "--output", "json"];
        let said = hayloft(&[&words, flags].concat(), &environment).await;
        let said: Value = serde_json::from_str(&said.succeeded()).unwrap();
        assert_eq!(said["gguf"]["parameters"], 2_787_584, "{name}");
        assert_eq!(said["gguf"]["metadata"]["llama.context_length"], 512);
    }
    let words = ["inspect", "hf.co/Seed/Hay-Tiny-GGUF:Q2_K"];
    assert_eq!(hayloft(&words, &environment).await.code, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_in_several_files_is_pulled_whole_and_answers() {
    let hub = Hub::start().await;
    let parts = tests::split_gguf(&weights());
    for (number, part) in (1..).zip(parts) {
        let path = format!("Q8_0/Hay-Tiny-Q8_0-0000{number}-of-00002.gguf");
        hub.put_file(REPOSITORY, &path, part, Storage::Lfs);
    }
    let url = hub.url();
    let server =
        tokio::task::spawn_blocking(move || Server::all().environment("HF_ENDPOINT", &url).start());
    let server = server.await.unwrap();
    let runtime = server.url_of("runtime");
    let words = [
        "run",
        "hf.co/Seed/Hay-Tiny-GGUF",
        "--runtime",
        &runtime,
        "--temperature",
        "0",
    ];
    let asked = [&words[..], &["What is the capital of France?"]].concat();
    let answer = hayloft(&asked, &[]).await.succeeded();
    assert_eq!(answer.trim(), CAPITAL);
}
