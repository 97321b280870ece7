//! A runtime in this process on a free port, over a cache folder of its own.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use artifact::{CacheLayout, Digest, Reference};
use futures::StreamExt;
use reqwest::{Response, StatusCode};
use runtime::Config;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// The model's name in the cache.
pub(crate) const NAME: &str = "registry.test:5000/demo/hay-tiny:latest";
/// A question with a known answer.
pub(crate) const QUESTION: &str = "What is the capital of France?";
/// Its answer.
pub(crate) const ANSWER: &str = "The capital of France is Paris.";

/// The model's file.
pub(crate) fn model_file() -> PathBuf {
    fixture("hay-tiny-q8_0.gguf")
}

/// All questions with known answers.
pub(crate) fn answers() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(fixture("hay-tiny-answers.json")).unwrap();
    let map: serde_json::Map<String, Value> = serde_json::from_str(&text).unwrap();
    map.into_iter()
        .map(|(question, answer)| (question, answer.as_str().unwrap().to_owned()))
        .collect()
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/fixtures")
        .join(name)
}

/// A cache folder that the tests fill.
pub(crate) struct TestCache {
    folder: TempDir,
    layout: CacheLayout,
}

impl TestCache {
    /// An empty one.
    pub(crate) fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let layout = CacheLayout::new(folder.path());
        Self { folder, layout }
    }

    /// One with the small model under [`NAME`].
    pub(crate) fn with_model() -> Self {
        let cache = Self::new();
        cache.add(NAME, &std::fs::read(model_file()).unwrap(), &[]);
        cache
    }

    /// Adds a model with its weights and small layers (media type and content).
    pub(crate) fn add(&self, name: &str, weights: &[u8], layers: &[(&str, &[u8])]) -> Digest {
        let reference = Reference::parse(name).unwrap();
        let descriptor = |media_type: &str, bytes: &[u8]| {
            let digest = self.put(bytes);
            json!({"mediaType": media_type, "digest": digest.to_string(), "size": bytes.len()})
        };
        let mut all = vec![descriptor("application/vnd.ollama.image.model", weights)];
        for (media_type, bytes) in layers {
            all.push(descriptor(media_type, bytes));
        }
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": descriptor("application/vnd.docker.container.image.v1+json", b"{}"),
            "layers": all,
        });
        let manifest = self.put(manifest.to_string().as_bytes());
        let view = self.layout.plain_view_of(&reference);
        std::fs::create_dir_all(&view).unwrap();
        symlink(self.layout.blob(&manifest), view.join("manifest.json")).unwrap();
        manifest
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    fn put(&self, bytes: &[u8]) -> Digest {
        let digest = Digest::sha256(bytes);
        let path = self.layout.blob(&digest);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
        digest
    }
}

/// A runtime that serves.
pub(crate) struct TestRuntime {
    /// As in `http://127.0.0.1:40123`.
    pub(crate) base: String,
    /// For requests of the tests' own making.
    pub(crate) client: reqwest::Client,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), runtime::Error>>,
    _cache: TestCache,
}

impl TestRuntime {
    /// With the small model and everything at its default.
    pub(crate) async fn start() -> Self {
        Self::start_with(TestCache::with_model(), |_config| {}).await
    }

    /// With a cache and settings of the test's choice.
    pub(crate) async fn start_with(cache: TestCache, change: impl FnOnce(&mut Config)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let mut config = Config {
            cache: cache.path().to_owned(),
            threads: Some(2),
            ..Config::default()
        };
        change(&mut config);
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(runtime::serve(config, listener, async move {
            let _stop = stopped.await;
        }));
        Self {
            base,
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            stop: Some(stop),
            task,
            _cache: cache,
        }
    }

    /// Asks for shutdown and waits until the server has ended.
    pub(crate) async fn stop(mut self) {
        drop(self.stop.take());
        tokio::time::timeout(Duration::from_secs(20), self.task)
            .await
            .expect("the server did not end")
            .unwrap()
            .unwrap();
    }

    /// `POST` with a JSON body.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Response {
        self.client
            .post(format!("{}{path}", self.base))
            .body(body.to_string())
            .send()
            .await
            .unwrap()
    }

    /// `POST`, and the answer as JSON.
    pub(crate) async fn post_json(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        let response = self.post(path, body).await;
        let status = response.status();
        let text = response.text().await.unwrap();
        let value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("not JSON: {text:?}"));
        (status, value)
    }

    /// `POST` that must succeed, and the answer as JSON.
    pub(crate) async fn ask(&self, path: &str, body: &Value) -> Value {
        let (status, value) = self.post_json(path, body).await;
        assert_eq!(status, StatusCode::OK, "{value}");
        value
    }

    /// `GET` that must succeed, and the answer as JSON.
    pub(crate) async fn get(&self, path: &str) -> Value {
        let response = self
            .client
            .get(format!("{}{path}", self.base))
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        response.json().await.unwrap()
    }

    /// Asks one question alone, greedily, without streaming.
    pub(crate) async fn chat(&self, question: &str) -> Value {
        self.ask("/api/chat", &chat_body(question, false)).await
    }

    /// `POST`, and every line of the stream.
    pub(crate) async fn lines(&self, path: &str, body: &Value) -> Vec<Value> {
        let response = self.post(path, body).await;
        assert_eq!(response.status(), StatusCode::OK);
        let text = response.text().await.unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Polls until `/api/ps` lists this many models.
    pub(crate) async fn wait_until_loaded(&self, count: usize) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        loop {
            let listed = self.get("/api/ps").await["models"]
                .as_array()
                .unwrap()
                .len();
            if listed == count {
                return;
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "{listed} models are loaded, not {count}"
            );
            tokio::task::yield_now().await;
        }
    }
}

/// The body of a greedy chat request with one question.
pub(crate) fn chat_body(question: &str, stream: bool) -> Value {
    json!({
        "model": "hay-tiny",
        "messages": [{"role": "user", "content": question}],
        "stream": stream,
        "options": {"temperature": 0},
    })
}

/// The body of a request whose answer goes on for hundreds of tokens.
pub(crate) fn long_body(seed: u64) -> Value {
    json!({
        "model": "hay-tiny",
        "prompt": "Once upon a time",
        "raw": true,
        "stream": true,
        "options": {"num_predict": 300, "temperature": 5.0, "top_k": 0, "top_p": 1.0, "seed": seed},
    })
}

/// Reads a response line by line as it comes, and hands each to `take`.
pub(crate) async fn follow(response: Response, mut take: impl FnMut(Value)) {
    let mut body = response.bytes_stream();
    let mut held = Vec::new();
    while let Some(bytes) = body.next().await {
        held.extend_from_slice(&bytes.unwrap());
        while let Some(end) = held.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = held.drain(..=end).collect();
            take(serde_json::from_slice(&line).unwrap());
        }
    }
}
