//! Bad input: a clear error in the API's own form, and a runtime that goes on.

use serde_json::{Value, json};

use crate::support::{ANSWER, NAME, QUESTION, TestCache, TestRuntime, chat_body, model_file};

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_cannot_be_read_are_refused() {
    let runtime = TestRuntime::start().await;
    for path in ["/api/chat", "/api/generate", "/api/show", "/api/pull"] {
        for (body, expected) in [
            ("", "missing request body"),
            ("  \n", "missing request body"),
            ("{\"model\": ", "EOF"),
            ("[1, 2]", ""),
            ("{\"model\": 5}", "invalid type"),
            ("{}", "model is required"),
        ] {
            let url = format!("{}{path}", runtime.base);
            let response = runtime.client.post(url).body(body).send().await.unwrap();
            assert_eq!(response.status(), 400, "{path} {body:?}");
            let error: Value = response.json().await.unwrap();
            let text = error["error"].as_str().unwrap();
            assert!(text.contains(expected), "{path} {body:?}: {text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_may_be_compressed_and_count_as_what_they_inflate_to() {
    let runtime = TestRuntime::start().await;
    let post = async |body: &[u8]| {
        let url = format!("{}/v1/chat/completions", runtime.base);
        let packed = zstd::encode_all(body, 3).unwrap();
        let request = runtime.client.post(url).header("Content-Encoding", "zstd");
        request.body(packed).send().await.unwrap()
    };
    let mut chat = chat_body(QUESTION, false);
    chat["temperature"] = json!(0);
    let answer: Value = post(chat.to_string().as_bytes())
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(answer["choices"][0]["message"]["content"], ANSWER);
    let bomb = vec![b' '; 64 * 1024 * 1024];
    assert_eq!(post(&bomb).await.status(), 413);
}

#[tokio::test(flavor = "multi_thread")]
async fn models_that_are_not_here_are_404() {
    let runtime = TestRuntime::start().await;
    for (path, mut body) in [
        ("/api/chat", chat_body(QUESTION, false)),
        ("/api/generate", json!({"prompt": "Hello"})),
        ("/api/show", json!({})),
    ] {
        body["model"] = json!("absent");
        let (status, reply) = runtime.post_json(path, &body).await;
        assert_eq!(status, 404, "{path}");
        assert_eq!(reply["error"], "model 'absent' not found");
    }
    let (status, reply) = runtime
        .post_json("/api/show", &json!({"model": "../../etc/passwd"}))
        .await;
    assert_eq!(status, 400, "{reply}");
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_paths_and_methods_answer_in_ollama_s_form() {
    let runtime = TestRuntime::start().await;
    let (status, reply) = runtime.post_json("/api/no-such-path", &json!({})).await;
    assert_eq!(status, 404);
    assert!(reply["error"].is_string());
    let response = runtime
        .client
        .put(format!("{}/api/chat", runtime.base))
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 405);
    let reply: Value = response.json().await.unwrap();
    assert!(reply["error"].is_string());
    for path in ["/api/embed", "/api/create", "/api/copy", "/api/push"] {
        let (status, reply) = runtime.post_json(path, &json!({})).await;
        assert_eq!(status, 501);
        assert!(
            reply["error"]
                .as_str()
                .unwrap()
                .contains("not supported yet")
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_model_cannot_do_is_said() {
    let runtime = TestRuntime::start().await;
    let refused = |change: Value| {
        let runtime = &runtime;
        async move {
            let path = if change.get("prompt").is_some() {
                "/api/generate"
            } else {
                "/api/chat"
            };
            let mut body = if path == "/api/chat" {
                chat_body(QUESTION, false)
            } else {
                json!({"model": "hay-tiny", "stream": false})
            };
            for (key, value) in change.as_object().unwrap() {
                body[key] = value.clone();
            }
            let (status, reply) = runtime.post_json(path, &body).await;
            assert_eq!(status, 400, "{change}: {reply}");
            reply["error"].as_str().unwrap().to_owned()
        }
    };
    let tools = json!([{"type": "function", "function": {"name": "f", "parameters": {}}}]);
    assert_eq!(
        refused(json!({"tools": tools})).await,
        "\"hay-tiny\" does not support tools"
    );
    assert_eq!(
        refused(json!({"think": true})).await,
        "\"hay-tiny\" does not support thinking"
    );
    assert!(refused(json!({"think": 5})).await.contains("think"));
    assert!(
        refused(json!({"prompt": "a", "suffix": "b"}))
            .await
            .contains("insert")
    );
    assert!(
        refused(json!({"prompt": "a", "template": "b"}))
            .await
            .contains("template")
    );
    assert!(
        refused(json!({"prompt": "a", "images": ["aGk="]}))
            .await
            .contains("images")
    );
    assert!(
        refused(json!({"prompt": "a", "context": [1, 2]}))
            .await
            .contains("context")
    );
    assert!(
        refused(json!({"prompt": "a", "raw": true, "system": "b"}))
            .await
            .contains("raw mode")
    );
    assert!(
        refused(json!({"keep_alive": "soon"}))
            .await
            .contains("duration")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_never_reaches_the_engine_and_others_are_still_served() {
    let whole = std::fs::read(model_file()).unwrap();
    let cache = TestCache::with_model();
    cache.add(
        "registry.test:5000/demo/cut:latest",
        &whole[..whole.len() / 2],
        &[],
    );
    cache.add("registry.test:5000/demo/header:latest", &whole[..1000], &[]);
    cache.add(
        "registry.test:5000/demo/noise:latest",
        b"not a GGUF file at all",
        &[],
    );
    let runtime = TestRuntime::start_with(cache, |_config| {}).await;
    for name in ["cut", "header", "noise"] {
        let mut body = chat_body(QUESTION, false);
        body["model"] = json!(name);
        let (status, reply) = runtime.post_json("/api/chat", &body).await;
        assert_eq!(status, 500, "{name}: {reply}");
        let text = reply["error"].as_str().unwrap();
        assert!(text.contains("damaged"), "{text}");
    }
    assert_eq!(runtime.chat(QUESTION).await["message"]["content"], ANSWER);
    let tags = runtime.get("/api/tags").await;
    assert_eq!(tags["models"].as_array().unwrap().len(), 1, "{tags}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pulling_and_deleting_need_an_agent() {
    let runtime = TestRuntime::start().await;
    let (status, reply) = runtime
        .post_json("/api/pull", &json!({"model": NAME}))
        .await;
    assert_eq!(status, 500);
    assert!(
        reply["error"].as_str().unwrap().contains("node agent"),
        "{reply}"
    );
    let response = runtime
        .client
        .delete(format!("{}/api/delete", runtime.base))
        .body(json!({"model": NAME}).to_string())
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_hosts_names_and_origins_are_turned_away() {
    let runtime = TestRuntime::start().await;
    let with_header = |name: &'static str, value: &'static str| {
        let request = runtime.client.get(format!("{}/api/tags", runtime.base));
        async move { request.header(name, value).send().await.unwrap() }
    };
    assert_eq!(with_header("host", "evil.example").await.status(), 403);
    assert_eq!(with_header("host", "localhost").await.status(), 200);
    let local = with_header("origin", "http://localhost:3000").await;
    assert_eq!(
        local.headers()["access-control-allow-origin"],
        "http://localhost:3000"
    );
    let foreign = with_header("origin", "https://evil.example").await;
    assert!(
        !foreign
            .headers()
            .contains_key("access-control-allow-origin")
    );
}
