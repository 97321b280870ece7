//! Structured output: enforced by a grammar, refused when it cannot be.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::TestRuntime;

fn body(format: &Value) -> Value {
    json!({
        "model": "hay-tiny",
        "messages": [{"role": "user", "content": "Who are you?"}],
        "stream": false,
        "format": format,
        "options": {"temperature": 0, "num_predict": 200},
    })
}

fn person() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": 8},
            "age": {"type": "integer", "minimum": 0, "maximum": 150},
            "mood": {"enum": ["glad", "sad"]},
            "tags": {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 2},
        },
        "required": ["name", "age", "mood", "tags"],
        "additionalProperties": false,
    })
}

fn check_person(text: &str) {
    let person: Value = serde_json::from_str(text).unwrap_or_else(|_| panic!("not JSON: {text}"));
    assert_eq!(person.as_object().unwrap().len(), 4, "{text}");
    assert!((1..=8).contains(&person["name"].as_str().unwrap().chars().count()));
    assert!((0..=150).contains(&person["age"].as_i64().unwrap()));
    assert!(["glad", "sad"].contains(&person["mood"].as_str().unwrap()));
    let tags = person["tags"].as_array().unwrap();
    assert!(tags.len() == 2 && tags.iter().all(Value::is_boolean));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_follows_the_schema() {
    let runtime = TestRuntime::start().await;
    let reply = runtime.ask("/api/chat", &body(&person())).await;
    assert_eq!(reply["done_reason"], "stop", "{reply}");
    check_person(reply["message"]["content"].as_str().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_follow_the_schema_together_and_at_any_temperature() {
    let runtime = TestRuntime::start().await;
    let asked = (0..8).map(|seed| {
        let mut body = body(&person());
        body["options"] = json!({"temperature": 1.5, "seed": seed, "num_predict": 300});
        let runtime = &runtime;
        async move { runtime.ask("/api/chat", &body).await }
    });
    for reply in futures::future::join_all(asked).await {
        assert_eq!(reply["done_reason"], "stop", "{reply}");
        check_person(reply["message"]["content"].as_str().unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn format_json_gives_a_json_object() {
    let runtime = TestRuntime::start().await;
    for seed in 0..4 {
        let mut body = body(&json!("json"));
        body["options"] = json!({"temperature": 1.0, "seed": seed, "num_predict": 400});
        let reply = runtime.ask("/api/chat", &body).await;
        let text = reply["message"]["content"].as_str().unwrap();
        assert!(text.starts_with('{'), "{text}");
        if reply["done_reason"] == "stop" {
            let value: Value = serde_json::from_str(text).unwrap();
            assert!(value.is_object(), "{text}");
            return;
        }
    }
    panic!("no answer came to its end");
}

#[tokio::test(flavor = "multi_thread")]
async fn openai_s_response_formats_are_enforced_too() {
    let runtime = TestRuntime::start().await;
    let reply = runtime
        .ask(
            "/v1/chat/completions",
            &json!({
                "model": "hay-tiny",
                "messages": [{"role": "user", "content": "Who are you?"}],
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "person", "strict": true, "schema": person()},
                },
                "max_completion_tokens": 300,
            }),
        )
        .await;
    check_person(reply["choices"][0]["message"]["content"].as_str().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn formats_that_cannot_be_enforced_are_refused_and_nothing_dies() {
    let runtime = TestRuntime::start().await;
    let mut doubling = serde_json::Map::new();
    for level in 0..30 {
        let next = json!({"$ref": format!("#/$defs/d{}", level + 1)});
        doubling.insert(format!("d{level}"), json!({"anyOf": [next, next]}));
    }
    doubling.insert("d30".to_owned(), json!({"type": "null"}));
    let many: serde_json::Map<String, Value> = (0..5000)
        .map(|number| (format!("p{number}"), json!({"type": "string"})))
        .collect();
    for format in [
        json!("xml"),
        json!(5),
        json!({"type": "no such type"}),
        json!({"$ref": "#/nowhere"}),
        json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}),
        json!({"$ref": "#/$defs/d0", "$defs": doubling}),
        json!({"type": "object", "properties": many}),
        json!({"type": "string", "maxLength": 10_000_000}),
        json!({"type": "string", "pattern": "^(((((a{0,900}){0,900}){0,900})))$"}),
        json!({"type": "string", "pattern": "^(a?){0,200}b$"}),
        json!({"const": "x".repeat(100_000)}),
    ] {
        let shown: String = format.to_string().chars().take(100).collect();
        let body = body(&format);
        let asked = runtime.post_json("/api/chat", &body);
        let (status, reply) = tokio::time::timeout(Duration::from_secs(20), asked)
            .await
            .unwrap_or_else(|_late| panic!("hangs the runtime: {shown}"));
        assert_eq!(status, 400, "{shown}: {reply}");
        assert!(reply["error"].is_string(), "{shown}: {reply}");
    }
    let reply = runtime.ask("/api/chat", &body(&person())).await;
    check_person(reply["message"]["content"].as_str().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn patterns_within_the_bounds_are_followed_in_good_time() {
    let runtime = TestRuntime::start().await;
    for pattern in [
        "^[0-9]{3}-[a-f]{2}$",
        "^(ab?)*c$",
        "^(a*)*$",
        "^(a?){0,15}b$",
    ] {
        let mut body = body(&json!({"type": "string", "pattern": pattern}));
        body["options"]["num_predict"] = json!(40);
        let asked = runtime.post_json("/api/chat", &body);
        let (status, reply) = tokio::time::timeout(Duration::from_secs(60), asked)
            .await
            .unwrap_or_else(|_late| panic!("hangs the runtime: {pattern}"));
        assert_eq!(status, 200, "{pattern}: {reply}");
        assert!(
            reply["message"]["content"]
                .as_str()
                .unwrap()
                .starts_with('"')
        );
    }
}
