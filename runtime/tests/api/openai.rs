//! The OpenAI API: answers, streams, errors.

use serde_json::{Value, json};

use crate::support::{ANSWER, NAME, QUESTION, TestRuntime};

fn body(stream: bool) -> Value {
    json!({
        "model": "hay-tiny",
        "messages": [{"role": "user", "content": [{"type": "text", "text": QUESTION}]}],
        "temperature": 0,
        "stream": stream,
    })
}

async fn events(runtime: &TestRuntime, path: &str, body: &Value) -> Vec<String> {
    let response = runtime.post(path, body).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let text = response.text().await.unwrap();
    text.split_terminator("\n\n")
        .map(|event| event.strip_prefix("data: ").unwrap().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_completion_has_openai_s_form() {
    let runtime = TestRuntime::start().await;
    let reply = runtime.ask("/v1/chat/completions", &body(false)).await;
    assert_eq!(reply["object"], "chat.completion");
    assert!(reply["id"].as_str().unwrap().starts_with("chatcmpl-"));
    let choice = &reply["choices"][0];
    assert_eq!(
        choice["message"],
        json!({"role": "assistant", "content": ANSWER})
    );
    assert_eq!(choice["finish_reason"], "stop");
    assert_eq!(reply["usage"]["prompt_tokens"], 15);
    assert_eq!(reply["usage"]["completion_tokens"], 8);
    assert_eq!(reply["usage"]["total_tokens"], 23);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_chat_completion_ends_in_done() {
    let runtime = TestRuntime::start().await;
    let mut body = body(true);
    body["stream_options"] = json!({"include_usage": true});
    let events = events(&runtime, "/v1/chat/completions", &body).await;
    let (done, chunks) = events.split_last().unwrap();
    assert_eq!(done, "[DONE]");
    let chunks: Vec<Value> = chunks
        .iter()
        .map(|chunk| serde_json::from_str(chunk).unwrap())
        .collect();
    assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
    let text: String = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str())
        .collect();
    assert_eq!(text, ANSWER);
    let [.., finish, usage] = chunks.as_slice() else {
        panic!("{chunks:?}");
    };
    assert_eq!(finish["choices"][0]["finish_reason"], "stop");
    assert_eq!(usage["choices"], json!([]));
    assert_eq!(usage["usage"]["completion_tokens"], 8);
    assert!(chunks.iter().all(|chunk| chunk["id"] == chunks[0]["id"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn text_completions_come_whole_and_streamed() {
    let runtime = TestRuntime::start().await;
    let mut body = json!({"model": NAME, "prompt": QUESTION, "temperature": 0, "max_tokens": 50});
    let reply = runtime.ask("/v1/completions", &body).await;
    assert_eq!(reply["object"], "text_completion");
    assert_eq!(reply["choices"][0]["text"], ANSWER);
    body["stream"] = json!(true);
    let events = events(&runtime, "/v1/completions", &body).await;
    assert_eq!(events.last().unwrap(), "[DONE]");
    let text: String = events[..events.len() - 1]
        .iter()
        .map(|event| {
            let chunk: Value = serde_json::from_str(event).unwrap();
            chunk["choices"][0]["text"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(text, ANSWER);
}

#[tokio::test(flavor = "multi_thread")]
async fn both_names_of_the_token_limit_count() {
    let runtime = TestRuntime::start().await;
    for name in ["max_tokens", "max_completion_tokens"] {
        let mut body = body(false);
        body[name] = json!(2);
        let reply = runtime.ask("/v1/chat/completions", &body).await;
        assert_eq!(reply["usage"]["completion_tokens"], 2, "{name}");
        assert_eq!(reply["choices"][0]["finish_reason"], "length");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn models_are_listed_and_found() {
    let runtime = TestRuntime::start().await;
    let list = runtime.get("/v1/models").await;
    assert_eq!(list["object"], "list");
    assert_eq!(list["data"][0]["id"], NAME);
    assert_eq!(list["data"][0]["owned_by"], "demo");
    let one = runtime.get(&format!("/v1/models/{NAME}")).await;
    assert_eq!(one["id"], NAME);
    assert_eq!(runtime.get("/v1/models/hay-tiny").await["id"], NAME);
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_have_openai_s_form() {
    let runtime = TestRuntime::start().await;
    for (path, change, status, kind) in [
        (
            "/v1/chat/completions",
            json!({"model": "absent"}),
            404,
            "not_found_error",
        ),
        (
            "/v1/chat/completions",
            json!({"messages": []}),
            400,
            "invalid_request_error",
        ),
        (
            "/v1/chat/completions",
            json!({"n": 2}),
            400,
            "invalid_request_error",
        ),
        (
            "/v1/chat/completions",
            json!({"temperature": "hot"}),
            400,
            "invalid_request_error",
        ),
        (
            "/v1/chat/completions",
            json!({"max_tokens": 0}),
            400,
            "invalid_request_error",
        ),
        (
            "/v1/chat/completions",
            json!({"response_format": {"type": "xml"}}),
            400,
            "invalid_request_error",
        ),
        (
            "/v1/completions",
            json!({"prompt": ["a", "b"]}),
            400,
            "invalid_request_error",
        ),
        ("/v1/embeddings", json!({}), 501, "api_error"),
    ] {
        let mut body = body(false);
        for (key, value) in change.as_object().unwrap() {
            body[key] = value.clone();
        }
        let (answered, reply) = runtime.post_json(path, &body).await;
        assert_eq!(answered.as_u16(), status, "{change}: {reply}");
        assert_eq!(reply["error"]["type"], kind, "{reply}");
        assert!(!reply["error"]["message"].as_str().unwrap().is_empty());
        assert!(reply["error"].as_object().unwrap().contains_key("param"));
    }
}
