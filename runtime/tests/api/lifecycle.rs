//! Loading, keeping, unloading, shutting down.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    ANSWER, NAME, QUESTION, TestCache, TestRuntime, chat_body, long_body, model_file,
};

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_prompt_loads_and_with_keep_alive_0_unloads() {
    let runtime = TestRuntime::start().await;
    assert_eq!(runtime.get("/api/ps").await["models"], json!([]));
    let reply = runtime
        .ask("/api/generate", &json!({"model": "hay-tiny"}))
        .await;
    assert_eq!(
        (&reply["done"], &reply["done_reason"]),
        (&json!(true), &json!("load"))
    );
    assert_eq!(reply["response"], "");
    let ps = runtime.get("/api/ps").await;
    assert_eq!(ps["models"][0]["name"], NAME);
    assert_eq!(ps["models"][0]["context_length"], 512);
    let reply = runtime
        .ask(
            "/api/chat",
            &json!({"model": "hay-tiny", "messages": [], "keep_alive": 0}),
        )
        .await;
    assert_eq!(reply["done_reason"], "unload");
    assert_eq!(
        reply["message"],
        json!({"role": "assistant", "content": ""})
    );
    assert_eq!(runtime.get("/api/ps").await["models"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn keep_alive_0_unloads_after_the_answer() {
    let runtime = TestRuntime::start().await;
    for stream in [false, true] {
        let mut body = chat_body(QUESTION, stream);
        body["keep_alive"] = json!(0);
        let lines = runtime.lines("/api/chat", &body).await;
        assert_eq!(lines.last().unwrap()["done"], true);
        assert_eq!(runtime.get("/api/ps").await["models"], json!([]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_model_goes_when_its_time_is_over() {
    let runtime = TestRuntime::start().await;
    let mut body = chat_body(QUESTION, false);
    body["keep_alive"] = json!("300ms");
    runtime.ask("/api/chat", &body).await;
    runtime.wait_until_loaded(1).await;
    runtime.wait_until_loaded(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_may_stay_for_ever_and_its_expiry_can_be_read() {
    let runtime = TestRuntime::start().await;
    for (keep_alive, years) in [(json!(-1), 2200), (json!("5m"), 2000)] {
        let body = json!({"model": "hay-tiny", "keep_alive": keep_alive});
        runtime.ask("/api/generate", &body).await;
        let ps = runtime.get("/api/ps").await;
        let expires = ps["models"][0]["expires_at"].as_str().unwrap();
        assert!(expires[..4].parse::<u32>().unwrap() > years, "{expires}");
        let fraction = expires.split('.').nth(1).unwrap();
        assert_eq!(fraction.trim_end_matches('Z').len(), 6, "{expires}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_during_a_load_share_it() {
    let runtime = TestRuntime::start().await;
    let replies = futures::future::join_all((0..6).map(|_| runtime.chat(QUESTION))).await;
    for reply in replies {
        assert_eq!(reply["message"]["content"], ANSWER);
    }
    assert_eq!(
        runtime.get("/api/ps").await["models"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_idle_model_makes_way_when_no_more_fit() {
    let cache = TestCache::with_model();
    let f16 = std::fs::read(model_file()).unwrap();
    // The same weights with other bytes behind them: another digest, another model.
    let other = [f16.as_slice(), &[0; 32]].concat();
    cache.add("registry.test:5000/demo/other:latest", &other, &[]);
    let runtime = TestRuntime::start_with(cache, |config| config.max_loaded_models = 1).await;
    for model in ["hay-tiny", "other", "hay-tiny"] {
        let mut body = chat_body(QUESTION, false);
        body["model"] = json!(model);
        let reply = runtime.ask("/api/chat", &body).await;
        assert_eq!(reply["message"]["content"], ANSWER);
        let ps = runtime.get("/api/ps").await;
        let names: Vec<&Value> = ps["models"].as_array().unwrap().iter().collect();
        assert_eq!(names.len(), 1);
        assert!(names[0]["name"].as_str().unwrap().contains(model));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_longer_context_is_loaded_when_asked_for() {
    let runtime = TestRuntime::start_with(TestCache::with_model(), |config| {
        config.context_length = Some(128);
    })
    .await;
    let context = || async { runtime.get("/api/ps").await["models"][0]["context_length"].clone() };
    runtime.chat(QUESTION).await;
    assert_eq!(context().await, 128);
    let mut body = chat_body(QUESTION, false);
    body["options"]["num_ctx"] = json!(256);
    assert_eq!(
        runtime.ask("/api/chat", &body).await["message"]["content"],
        ANSWER
    );
    assert_eq!(context().await, 256);
    // A shorter one fits into what is loaded; one beyond the model's own is cut to it.
    runtime.chat(QUESTION).await;
    assert_eq!(context().await, 256);
    body["options"]["num_ctx"] = json!(100_000);
    runtime.ask("/api/chat", &body).await;
    assert_eq!(context().await, 512);
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_lets_answers_end_and_tells_those_that_take_too_long() {
    let runtime = TestRuntime::start_with(TestCache::with_model(), |config| {
        config.shutdown_grace = Duration::from_millis(5);
    })
    .await;
    let mut response = runtime.post("/api/generate", &long_body(11)).await;
    assert!(response.chunk().await.unwrap().is_some());
    let reading = tokio::spawn(response.text());
    runtime.stop().await;
    let text = reading.await.unwrap().unwrap();
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    // It ended by itself in time, or was told.
    assert!(
        last["done"] == true || last["error"] == "the server is shutting down",
        "{last}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_models_take_turns_on_one_place() {
    let cache = TestCache::with_model();
    let weights = std::fs::read(model_file()).unwrap();
    let other = [weights.as_slice(), &[0; 32]].concat();
    cache.add("registry.test:5000/demo/other:latest", &other, &[]);
    // One that cannot be loaded must not take the place of one that can.
    let broken = weights[..weights.len() / 2].to_vec();
    cache.add("registry.test:5000/demo/broken:latest", &broken, &[]);
    let runtime = TestRuntime::start_with(cache, |config| config.max_loaded_models = 1).await;
    let (status, _) = runtime
        .post_json("/api/generate", &json!({"model": "broken"}))
        .await;
    assert_eq!(status, 500);
    let asked = (0..12).map(|number| {
        let mut body = chat_body(QUESTION, false);
        body["model"] = json!(if number % 2 == 0 { "hay-tiny" } else { "other" });
        let runtime = &runtime;
        async move { runtime.ask("/api/chat", &body).await }
    });
    let replies = tokio::time::timeout(Duration::from_secs(60), futures::future::join_all(asked));
    for reply in replies.await.expect("a request waits for ever") {
        assert_eq!(reply["message"]["content"], ANSWER);
    }
}
