//! Options: stop texts, limits, seeds, the model's own parameters, prompts that are too long.

use serde_json::{Value, json};

use crate::support::{ANSWER, NAME, QUESTION, TestCache, TestRuntime, chat_body, model_file};

async fn with_options(runtime: &TestRuntime, options: &Value) -> Value {
    let mut body = chat_body(QUESTION, false);
    body["options"] = options.clone();
    runtime.ask("/api/chat", &body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_ends_before_a_stop_text() {
    let runtime = TestRuntime::start().await;
    for stop in [json!("France"), json!(["nowhere", " of Fra", "France"])] {
        let reply = with_options(&runtime, &json!({"temperature": 0, "stop": stop})).await;
        let text = reply["message"]["content"].as_str().unwrap();
        assert_eq!(
            text.trim_end(),
            if stop.is_string() {
                "The capital of"
            } else {
                "The capital"
            }
        );
        assert_eq!(reply["done_reason"], "stop");
    }
    // Streamed, nothing of the stop text comes out either.
    let mut body = chat_body(QUESTION, true);
    body["options"] = json!({"temperature": 0, "stop": "is Paris"});
    let lines = runtime.lines("/api/chat", &body).await;
    let text: String = lines
        .iter()
        .map(|line| line["message"]["content"].as_str().unwrap())
        .collect();
    assert_eq!(text, "The capital of France ");
}

#[tokio::test(flavor = "multi_thread")]
async fn num_predict_bounds_the_answer() {
    let runtime = TestRuntime::start().await;
    let reply = with_options(&runtime, &json!({"temperature": 0, "num_predict": 3})).await;
    assert_eq!(reply["done_reason"], "length");
    assert_eq!(reply["eval_count"], 3);
    assert!(ANSWER.starts_with(reply["message"]["content"].as_str().unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seed_makes_chance_repeatable() {
    let runtime = TestRuntime::start().await;
    let ask = |seed: i64| {
        let runtime = &runtime;
        async move {
            let body = json!({
                "model": "hay-tiny", "prompt": "hay", "raw": true, "stream": false,
                "options": {"temperature": 3.0, "top_k": 0, "top_p": 1.0, "seed": seed, "num_predict": 20},
            });
            runtime.ask("/api/generate", &body).await["response"].clone()
        }
    };
    assert_eq!(ask(1).await, ask(1).await);
    assert_ne!(ask(1).await, ask(2).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn penalties_and_other_samplers_are_taken() {
    let runtime = TestRuntime::start().await;
    let options = json!({
        "temperature": 0.7, "top_k": 20, "top_p": 0.8, "min_p": 0.05, "typical_p": 0.9,
        "repeat_last_n": -1, "repeat_penalty": 1.3, "presence_penalty": 0.5,
        "frequency_penalty": 0.5, "seed": 3, "num_predict": 30,
    });
    let reply = with_options(&runtime, &options).await;
    assert!(reply["eval_count"].as_u64().unwrap() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_options_are_refused() {
    let runtime = TestRuntime::start().await;
    for options in [
        json!({"temperature": "hot"}),
        json!({"temperature": -1}),
        json!({"top_k": [1]}),
        json!({"stop": {"a": 1}}),
        json!({"num_ctx": -1}),
        json!({"num_predict": "all"}),
        json!({"repeat_penalty": 0}),
    ] {
        let mut body = chat_body(QUESTION, false);
        body["options"] = options.clone();
        let (status, reply) = runtime.post_json("/api/chat", &body).await;
        assert_eq!(status, 400, "{options}: {reply}");
        assert!(
            reply["error"].as_str().unwrap().contains("option"),
            "{reply}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_model_s_own_parameters_and_system_text_count_until_the_request_says_otherwise() {
    let cache = TestCache::new();
    let layers: [(&str, &[u8]); 2] = [
        (
            "application/vnd.ollama.image.params",
            br#"{"temperature": 0, "num_predict": 2, "stop": ["<|im_end|>"]}"#,
        ),
        ("application/vnd.ollama.image.system", b"Be brief."),
    ];
    cache.add(NAME, &std::fs::read(model_file()).unwrap(), &layers);
    let runtime = TestRuntime::start_with(cache, |_config| {}).await;
    let mut body = chat_body(QUESTION, false);
    body["options"] = json!({});
    let reply = runtime.ask("/api/chat", &body).await;
    assert_eq!(reply["eval_count"], 2, "{reply}");
    let with_system = reply["prompt_eval_count"].as_u64().unwrap();
    assert!(with_system > 15, "{reply}");
    body["options"] = json!({"num_predict": 4});
    let reply = runtime.ask("/api/chat", &body).await;
    assert_eq!(reply["eval_count"], 4);
    body["messages"] = json!([
        {"role": "system", "content": "Be very, very, very brief."},
        {"role": "user", "content": QUESTION},
    ]);
    let reply = runtime.ask("/api/chat", &body).await;
    assert!(reply["prompt_eval_count"].as_u64().unwrap() > with_system);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_that_is_too_long_loses_its_oldest_messages() {
    let runtime = TestRuntime::start().await;
    let mut messages = vec![json!({"role": "system", "content": "You are Hay."})];
    for _ in 0..60 {
        messages.push(json!({"role": "user", "content": "What is a DaemonSet?"}));
        messages.push(json!({"role": "assistant", "content": "It runs everywhere."}));
    }
    messages.push(json!({"role": "user", "content": QUESTION}));
    let mut body = chat_body(QUESTION, false);
    body["messages"] = json!(messages);
    body["options"] = json!({"temperature": 0, "num_predict": 5});
    let reply = runtime.ask("/api/chat", &body).await;
    let count = reply["prompt_eval_count"].as_u64().unwrap();
    assert!((300..=512).contains(&count), "{reply}");
    body["truncate"] = json!(false);
    let (status, reply) = runtime.post_json("/api/chat", &body).await;
    assert_eq!(status, 400);
    assert_eq!(
        reply["error"],
        "the input length exceeds the context length"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_that_is_too_long_is_cut_or_refused() {
    let runtime = TestRuntime::start().await;
    let mut body = json!({
        "model": "hay-tiny", "prompt": "hay ".repeat(5000), "raw": true, "stream": false,
        "options": {"temperature": 0, "num_predict": 5},
    });
    let reply = runtime.ask("/api/generate", &body).await;
    let count = reply["prompt_eval_count"].as_u64().unwrap();
    assert!((300..512).contains(&count), "{reply}");
    body["truncate"] = json!(false);
    let (status, _reply) = runtime.post_json("/api/generate", &body).await;
    assert_eq!(status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_context_ends_the_answer() {
    let runtime = TestRuntime::start().await;
    let body = json!({
        "model": "hay-tiny", "prompt": "Once upon", "raw": true, "stream": false,
        "options": {"temperature": 5.0, "top_k": 0, "top_p": 1.0, "seed": 5, "num_ctx": 64},
    });
    let reply = runtime.ask("/api/generate", &body).await;
    assert_eq!(reply["done_reason"], "length", "{reply}");
    let all = reply["prompt_eval_count"].as_u64().unwrap() + reply["eval_count"].as_u64().unwrap();
    assert_eq!(all, 64);
}
