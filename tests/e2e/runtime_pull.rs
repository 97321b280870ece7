//! The runtime and the node agent together: pull, list, answer and delete over the Ollama API.

use serde_json::{Value, json};
use tests::{Server, fixture, hayloft};

struct Ollama {
    client: reqwest::Client,
    base: String,
}

impl Ollama {
    fn of(server: &Server) -> Self {
        Self {
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            base: server.url_of("runtime"),
        }
    }

    async fn post(&self, path: &str, body: Value) -> (u16, Vec<Value>) {
        let url = format!("{}{path}", self.base);
        let response = self.client.post(url).json(&body).send().await.unwrap();
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        (status, lines.collect())
    }

    async fn names(&self) -> Vec<String> {
        let url = format!("{}/api/tags", self.base);
        let tags: Value = self
            .client
            .get(url)
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        let models = tags["models"].as_array().unwrap();
        models
            .iter()
            .map(|model| model["name"].as_str().unwrap().to_owned())
            .collect()
    }

    async fn answer(&self, model: &str) -> (u16, Value) {
        let body = json!({
            "model": model,
            "messages": [{"role": "user", "content": "What is the capital of France?"}],
            "stream": false,
            "options": {"temperature": 0},
        });
        let (status, mut lines) = self.post("/api/chat", body).await;
        (status, lines.remove(0))
    }
}

fn pushed(server: &Server) -> String {
    let reference = format!("{}/demo/hay-tiny:latest", server.address_of("registry"));
    let model = fixture("hay-tiny-q8_0.gguf");
    let _ = hayloft(&["push", model.to_str().unwrap(), &reference]).succeeded();
    reference
}

#[tokio::test]
async fn a_model_is_pulled_answers_and_is_deleted_over_the_ollama_api() {
    let server = Server::all().start();
    let reference = pushed(&server);
    let ollama = Ollama::of(&server);
    assert_eq!(ollama.answer("hay-tiny").await.0, 404);

    let (status, lines) = ollama.post("/api/pull", json!({"model": reference})).await;
    assert_eq!(status, 200);
    assert_eq!(lines[0]["status"], "pulling manifest");
    assert_eq!(lines.last().unwrap()["status"], "success");
    let layer = lines
        .iter()
        .rfind(|line| line["total"] == 3_020_192)
        .expect("progress of the weights");
    assert_eq!(layer["completed"], layer["total"]);

    assert_eq!(ollama.names().await, [reference.as_str()]);
    let (status, reply) = ollama.answer("hay-tiny").await;
    assert_eq!(status, 200);
    assert_eq!(
        reply["message"]["content"],
        "The capital of France is Paris."
    );

    let url = format!("{}/api/delete", ollama.base);
    let body = json!({"model": "demo/hay-tiny"});
    let deleted = ollama.client.delete(url).json(&body).send().await.unwrap();
    assert_eq!(deleted.status(), 200);
    assert!(ollama.names().await.is_empty());
    assert_eq!(ollama.answer("hay-tiny").await.0, 404);
}

#[tokio::test]
async fn a_pull_without_stream_gives_the_last_word_only() {
    let server = Server::all().start();
    let reference = pushed(&server);
    let ollama = Ollama::of(&server);
    let body = json!({"name": reference, "stream": false});
    let (status, lines) = ollama.post("/api/pull", body).await;
    assert_eq!((status, lines), (200, vec![json!({"status": "success"})]));
    let absent = format!("{}/demo/absent:1", server.address_of("registry"));
    let body = json!({"model": absent, "stream": false});
    let (status, lines) = ollama.post("/api/pull", body).await;
    assert_eq!(status, 404);
    assert!(lines[0]["error"].as_str().unwrap().contains("absent"));
}

#[tokio::test]
async fn a_runtime_serves_what_is_cached_when_its_agent_is_gone() {
    let server = Server::all().start();
    let reference = pushed(&server);
    let folder = tests::scratch();
    let data = folder.path().to_str().unwrap();
    let _ = hayloft(&["pull", &reference, "--data", data]).succeeded();
    let runtime = Server::runtime()
        .data(folder.path())
        .argument("--agent")
        .argument("http://127.0.0.1:1")
        .start();
    let ollama = Ollama::of(&runtime);
    assert_eq!(ollama.names().await, [reference.as_str()]);
    let (status, reply) = ollama.answer("hay-tiny").await;
    assert_eq!(status, 200);
    assert_eq!(
        reply["message"]["content"],
        "The capital of France is Paris."
    );
    let (status, lines) = ollama.post("/api/pull", json!({"model": reference})).await;
    assert_eq!(status, 502);
    assert!(lines[0]["error"].as_str().unwrap().contains("127.0.0.1:1"));
}
