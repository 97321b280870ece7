//! The model's known answers: alone, together, and counted as stock Ollama counts.

use futures::StreamExt;
use serde_json::json;

use crate::support::{ANSWER, NAME, QUESTION, TestRuntime, answers, chat_body};

#[tokio::test(flavor = "multi_thread")]
async fn every_known_question_is_answered_exactly_alone() {
    let runtime = TestRuntime::start().await;
    for (question, answer) in answers() {
        let reply = runtime.chat(&question).await;
        assert_eq!(reply["message"]["content"], json!(answer), "{question}");
        assert_eq!(reply["done_reason"], "stop");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_known_question_is_answered_exactly_eight_at_a_time() {
    let runtime = TestRuntime::start().await;
    let replies: Vec<_> = futures::stream::iter(answers())
        .map(|(question, answer)| {
            let runtime = &runtime;
            async move { (runtime.chat(&question).await, question, answer) }
        })
        .buffer_unordered(8)
        .collect()
        .await;
    assert_eq!(replies.len(), 68);
    for (reply, question, answer) in replies {
        assert_eq!(reply["message"]["content"], json!(answer), "{question}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_counted_as_stock_ollama_counts_them() {
    let runtime = TestRuntime::start().await;
    // The second time the prompt is in the cache, and counted all the same.
    for _ in 0..2 {
        let reply = runtime.chat(QUESTION).await;
        assert_eq!(reply["message"]["content"], ANSWER);
        assert_eq!(reply["message"]["role"], "assistant");
        assert_eq!(reply["model"], "hay-tiny");
        assert_eq!(reply["prompt_eval_count"], 15);
        assert_eq!(reply["eval_count"], 8);
        for duration in ["total_duration", "prompt_eval_duration", "eval_duration"] {
            assert!(reply[duration].as_u64().unwrap() > 0, "{duration}: {reply}");
        }
        let parts = ["load_duration", "prompt_eval_duration", "eval_duration"]
            .map(|part| reply[part].as_u64().unwrap_or(0));
        assert!(parts.iter().sum::<u64>() <= reply["total_duration"].as_u64().unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_chat_is_the_same_answer_in_pieces() {
    let runtime = TestRuntime::start().await;
    let lines = runtime.lines("/api/chat", &chat_body(QUESTION, true)).await;
    let (last, pieces) = lines.split_last().unwrap();
    assert!(pieces.len() > 3, "{lines:?}");
    let text: String = pieces
        .iter()
        .map(|piece| piece["message"]["content"].as_str().unwrap())
        .collect();
    assert_eq!(text, ANSWER);
    assert!(pieces.iter().all(|piece| piece["done"] == false));
    assert!(pieces.iter().all(|piece| piece.get("eval_count").is_none()));
    assert_eq!(last["done"], true);
    assert_eq!(last["done_reason"], "stop");
    assert_eq!(last["eval_count"], 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn generate_puts_the_prompt_into_the_chat_template() {
    let runtime = TestRuntime::start().await;
    let reply = runtime
        .ask(
            "/api/generate",
            &json!({"model": NAME, "prompt": QUESTION, "stream": false, "options": {"temperature": 0}}),
        )
        .await;
    assert_eq!(reply["response"], ANSWER);
    assert_eq!(reply["prompt_eval_count"], 15);
}

#[tokio::test(flavor = "multi_thread")]
async fn generate_takes_a_raw_prompt_as_it_is() {
    let runtime = TestRuntime::start().await;
    let prompt = format!("<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n");
    let reply = runtime
        .ask(
            "/api/generate",
            &json!({"model": "hay-tiny", "prompt": prompt, "raw": true, "stream": false, "options": {"temperature": 0}}),
        )
        .await;
    assert_eq!(reply["response"], ANSWER);
    assert_eq!(reply["prompt_eval_count"], 15);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_turn_reuses_the_first() {
    let runtime = TestRuntime::start().await;
    let body = json!({
        "model": "hay-tiny",
        "messages": [
            {"role": "user", "content": QUESTION},
            {"role": "assistant", "content": ANSWER},
            {"role": "user", "content": "What is 3 plus 4?"},
        ],
        "stream": false,
        "temperature": 0,
    });
    runtime.chat(QUESTION).await;
    let reply = runtime.ask("/v1/chat/completions", &body).await;
    let cached = &reply["usage"]["prompt_tokens_details"]["cached_tokens"];
    assert!(cached.as_u64().unwrap() >= 15, "{reply}");
    assert_eq!(reply["choices"][0]["message"]["content"], "3 plus 4 is 7.");
}
