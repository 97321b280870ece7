//! Requests together: interleaved, cancelled, turned away.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;

use crate::support::{ANSWER, QUESTION, TestCache, TestRuntime, follow, long_body};

#[tokio::test(flavor = "multi_thread")]
async fn two_long_answers_come_interleaved() {
    let runtime = TestRuntime::start().await;
    let order = Arc::new(Mutex::new(Vec::new()));
    let run = |who: u64| {
        let order = Arc::clone(&order);
        let runtime = &runtime;
        async move {
            let response = runtime.post("/api/generate", &long_body(who)).await;
            follow(response, |_line| order.lock().unwrap().push(who)).await;
        }
    };
    tokio::join!(run(1), run(2));
    let order = order.lock().unwrap();
    let changes = order.windows(2).filter(|pair| pair[0] != pair[1]).count();
    assert!(order.len() > 100, "only {} events", order.len());
    // Queued one behind the other they would change once.
    assert!(changes > 20, "{changes} changes in {} events", order.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_frees_its_place() {
    let runtime = TestRuntime::start_with(TestCache::with_model(), |config| {
        config.num_parallel = 1;
        config.max_queue = 0;
    })
    .await;
    let mut response = runtime.post("/api/generate", &long_body(7)).await;
    assert!(response.chunk().await.unwrap().is_some());
    let (status, body) = runtime
        .post_json(
            "/api/generate",
            &json!({"model": "hay-tiny", "prompt": "Hello"}),
        )
        .await;
    assert_eq!(status, 503, "{body}");
    assert_eq!(
        body["error"],
        "server busy, please try again.  maximum pending requests exceeded"
    );
    drop(response);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        let response = runtime
            .post(
                "/api/chat",
                &json!({
                    "model": "hay-tiny",
                    "messages": [{"role": "user", "content": QUESTION}],
                    "stream": false,
                    "options": {"temperature": 0},
                }),
            )
            .await;
        if response.status() == 200 {
            let reply: serde_json::Value = response.json().await.unwrap();
            assert_eq!(reply["message"]["content"], ANSWER);
            return;
        }
        assert_eq!(response.status(), 503);
        assert!(response.headers().contains_key("retry-after"));
        assert!(
            tokio::time::Instant::now() < deadline,
            "the place stays taken"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_requests_than_places_wait_for_their_turn() {
    let runtime = TestRuntime::start_with(TestCache::with_model(), |config| {
        config.num_parallel = 2;
    })
    .await;
    let replies = futures::future::join_all((0..12).map(|_| runtime.chat(QUESTION))).await;
    for reply in replies {
        assert_eq!(reply["message"]["content"], ANSWER);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_prompt_does_not_hold_up_an_answer() {
    let runtime = TestRuntime::start().await;
    let order = Arc::new(Mutex::new(Vec::new()));
    let long = async {
        let response = runtime.post("/api/generate", &long_body(3)).await;
        follow(response, |_line| order.lock().unwrap().push("answer")).await;
    };
    let prompts = async {
        for _ in 0..4 {
            let mut body = long_body(4);
            body["prompt"] = json!("hay ".repeat(200));
            body["options"]["num_predict"] = json!(1);
            let response = runtime.post("/api/generate", &body).await;
            follow(response, |_line| {}).await;
            order.lock().unwrap().push("prompt");
        }
    };
    tokio::join!(long, prompts);
    let order = order.lock().unwrap();
    let first = order.iter().position(|event| *event == "prompt").unwrap();
    assert!(order[first..].contains(&"answer"), "{order:?}");
}
