//! Files that are no model to chat with: real ones without weights, and damaged ones with numbers
//! that lie. The runtime refuses each, and goes on.

use std::path::Path;

use serde_json::json;

use crate::support::{ANSWER, NAME, QUESTION, TestCache, TestRuntime, chat_body, model_file};

/// Real vocabulary-only GGUFs, fetched by `scripts/fetch-ggufs.sh`.
#[tokio::test(flavor = "multi_thread")]
#[expect(
    clippy::disallowed_methods,
    reason = "the environment says what must be there"
)]
async fn files_without_weights_are_refused() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.peers/ggufs");
    let Ok(entries) = std::fs::read_dir(&folder) else {
        assert!(
            std::env::var_os("HAYLOFT_REQUIRE_GGUFS").is_none(),
            "{} is missing: run scripts/fetch-ggufs.sh",
            folder.display()
        );
        return;
    };
    let cache = TestCache::with_model();
    let mut names = Vec::new();
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.extension().is_none_or(|extension| extension != "gguf") {
            continue;
        }
        let name = path.file_stem().unwrap().to_str().unwrap().to_lowercase();
        let reference = format!("registry.test:5000/vocab/{name}:latest");
        cache.add(&reference, &std::fs::read(&path).unwrap(), &[]);
        names.push(reference);
    }
    assert!(!names.is_empty());
    let runtime = TestRuntime::start_with(cache, |_config| {}).await;
    for name in names {
        let mut body = chat_body(QUESTION, false);
        body["model"] = json!(name);
        let (status, reply) = runtime.post_json("/api/chat", &body).await;
        assert!(
            [400, 500].contains(&status.as_u16()),
            "{name}: {status} {reply}"
        );
        assert!(reply["error"].is_string(), "{name}: {reply}");
    }
    assert_eq!(runtime.chat(QUESTION).await["message"]["content"], ANSWER);
}

/// The bundled model with one number of its header changed.
fn with_number(key: &str, value: u32) -> Vec<u8> {
    let mut bytes = std::fs::read(model_file()).unwrap();
    let key = key.as_bytes();
    let at = bytes.windows(key.len()).position(|window| window == key);
    // After the key: a type of four bytes (4 is u32), then the number.
    let number = at.expect("the key is in the header") + key.len() + 4;
    assert_eq!(bytes[number - 4..number], 4_u32.to_le_bytes());
    bytes[number..number + 4].copy_from_slice(&value.to_le_bytes());
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_that_lie_are_refused_or_harmless() {
    let cache = TestCache::with_model();
    let mut names = Vec::new();
    for key in [
        "llama.block_count",
        "llama.embedding_length",
        "llama.feed_forward_length",
        "llama.attention.head_count",
        "llama.attention.head_count_kv",
        "llama.rope.dimension_count",
        "llama.context_length",
        "llama.vocab_size",
        "tokenizer.ggml.eos_token_id",
        "tokenizer.ggml.bos_token_id",
    ] {
        for value in [0, 1, 3, 7, 255, 1 << 20, u32::MAX] {
            let reference = format!("registry.test:5000/lies/m{}:latest", names.len());
            cache.add(&reference, &with_number(key, value), &[]);
            names.push((reference, key, value));
        }
    }
    let runtime = TestRuntime::start_with(cache, |_config| {}).await;
    for (name, key, value) in names {
        let mut body = chat_body(QUESTION, false);
        body["model"] = json!(name);
        body["options"]["num_predict"] = json!(3);
        let (status, reply) = runtime.post_json("/api/chat", &body).await;
        let is_refused = status == 500 && reply["error"].is_string();
        assert!(
            is_refused || status == 200,
            "{key} = {value}: {status} {reply}"
        );
    }
    let mut body = chat_body(QUESTION, false);
    body["model"] = json!(NAME);
    let reply = runtime.ask("/api/chat", &body).await;
    assert_eq!(reply["message"]["content"], ANSWER);
}
