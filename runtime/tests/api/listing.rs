//! What is here and what runs: tags, show, ps, version, health.

use serde_json::{Value, json};

use crate::support::{NAME, QUESTION, TestCache, TestRuntime, model_file};

#[tokio::test(flavor = "multi_thread")]
async fn the_server_says_that_it_is_there() {
    let runtime = TestRuntime::start().await;
    let get = |path: &'static str| runtime.client.get(format!("{}{path}", runtime.base)).send();
    let response = get("/").await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.text().await.unwrap(), "Ollama is running");
    let head = runtime.client.head(&runtime.base).send().await.unwrap();
    assert_eq!(head.status(), 200);
    let version = runtime.get("/api/version").await;
    assert_eq!(version["version"].as_str().unwrap().split('.').count(), 3);
    for path in ["/healthz", "/readyz"] {
        assert_eq!(get(path).await.unwrap().status(), 200, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_lists_models_as_ollama_does() {
    let cache = TestCache::new();
    let digest = cache.add(NAME, &std::fs::read(model_file()).unwrap(), &[]);
    let runtime = TestRuntime::start_with(cache, |_config| {}).await;
    let tags = runtime.get("/api/tags").await;
    let [model] = tags["models"].as_array().unwrap().as_slice() else {
        panic!("{tags}");
    };
    assert_eq!(model["name"], NAME);
    assert_eq!(model["model"], NAME);
    assert_eq!(model["digest"], json!(digest.hex().to_string()));
    assert!(model["size"].as_u64().unwrap() >= 3_020_192);
    assert!(
        model["modified_at"]
            .as_str()
            .unwrap()
            .parse::<jiff::Timestamp>()
            .is_ok()
    );
    assert_eq!(
        model["details"],
        json!({
            "parent_model": "", "format": "gguf", "family": "llama", "families": ["llama"],
            "parameter_size": "2.79M", "quantization_level": "Q8_0",
            "context_length": 512, "embedding_length": 256,
        })
    );
    assert_eq!(model["capabilities"], json!(["completion"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn show_reads_the_files_and_loads_nothing() {
    let cache = TestCache::new();
    let layers: [(&str, &[u8]); 3] = [
        (
            "application/vnd.ollama.image.params",
            br#"{"temperature": 0.5, "stop": ["a", "b"]}"#,
        ),
        ("application/vnd.ollama.image.system", b"Be brief."),
        ("application/vnd.ollama.image.license", b"Apache-2.0"),
    ];
    cache.add(NAME, &std::fs::read(model_file()).unwrap(), &layers);
    let runtime = TestRuntime::start_with(cache, |_config| {}).await;
    let shown = runtime
        .ask("/api/show", &json!({"model": "hay-tiny"}))
        .await;
    assert_eq!(shown["system"], "Be brief.");
    assert_eq!(shown["license"], "Apache-2.0");
    assert_eq!(
        shown["parameters"]
            .as_str()
            .unwrap()
            .lines()
            .collect::<Vec<_>>(),
        [
            "temperature                    0.5",
            "stop                           \"a\"",
            "stop                           \"b\"",
        ]
    );
    assert!(shown["template"].as_str().unwrap().contains("im_start"));
    assert!(
        shown["modelfile"]
            .as_str()
            .unwrap()
            .contains("SYSTEM \"\"\"Be brief.\"\"\"")
    );
    assert_eq!(shown["model_info"]["general.architecture"], "llama");
    assert_eq!(shown["model_info"]["llama.context_length"], 512);
    assert_eq!(shown["model_info"]["general.parameter_count"], 2_787_584);
    assert_eq!(shown["model_info"]["tokenizer.ggml.tokens"], Value::Null);
    assert_eq!(shown["details"]["quantization_level"], "Q8_0");
    assert_eq!(runtime.get("/api/ps").await["models"], json!([]));
    let verbose = runtime
        .ask("/api/show", &json!({"name": NAME, "verbose": true}))
        .await;
    let tokens = &verbose["model_info"]["tokenizer.ggml.tokens"];
    assert_eq!(tokens.as_array().unwrap().len(), 1664);
    assert!(!verbose["tensors"].as_array().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn ps_lists_what_is_loaded() {
    let runtime = TestRuntime::start().await;
    runtime.chat(QUESTION).await;
    let ps = runtime.get("/api/ps").await;
    let model = &ps["models"][0];
    assert_eq!(model["name"], NAME);
    assert_eq!(model["digest"].as_str().unwrap().len(), 64);
    assert!(model["size"].as_u64().unwrap() > 2_000_000);
    assert_eq!(model["size_vram"], 0);
    assert_eq!(model["details"]["family"], "llama");
}
