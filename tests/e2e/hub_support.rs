//! What the stories of `/hf` share: a registry with models in it, and the Python library.

use std::path::Path;
use std::process::Command;

use artifact::gguf::builder::GgufBuilder;
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};
use tests::{Finished, Server, fixture, hayloft, project_root, run};

use crate::registry_support::{Api, descriptor};

/// The bundled model.
pub(crate) const MODEL: &str = "hay-tiny-q8_0.gguf";

/// A GGUF file of another size for every name.
pub(crate) fn small_model(name: &str) -> Vec<u8> {
    GgufBuilder::tiny_llama(name).build()
}

/// A vision projector.
pub(crate) fn projector() -> Vec<u8> {
    let clip = GgufBuilder::new().kv("general.architecture", "clip");
    clip.build()
}

/// A registry and its `/hf`.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) api: Api,
}

impl Hub {
    pub(crate) fn start() -> Self {
        Self { api: Api::start() }
    }

    pub(crate) fn on(server: Server) -> Self {
        let api = Api::on(server);
        Self { api }
    }

    /// What `HF_ENDPOINT` is set to.
    pub(crate) fn endpoint(&self) -> String {
        format!("{}/hf", self.api.server.url())
    }

    pub(crate) fn request(&self, method: reqwest::Method, path: &str) -> RequestBuilder {
        let url = format!("{}/{path}", self.endpoint());
        self.api.client.request(method, url)
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        let request = self.request(reqwest::Method::GET, path);
        request.send().await.unwrap()
    }

    pub(crate) async fn head(&self, path: &str) -> Response {
        let request = self.request(reqwest::Method::HEAD, path);
        request.send().await.unwrap()
    }

    pub(crate) async fn json(&self, path: &str) -> Value {
        let response = self.get(path).await;
        assert_eq!(response.status(), 200, "{path}");
        response.json().await.unwrap()
    }

    pub(crate) async fn post(&self, path: &str, body: String) -> Response {
        let request = self.request(reqwest::Method::POST, path);
        let request = request.header("content-type", "application/json");
        request.body(body).send().await.unwrap()
    }

    /// Pushes the bundled model as `hayloft push` does.
    pub(crate) fn push(&self, name: &str) {
        let reference = format!("{}/{name}", self.api.server.address());
        let model = fixture(MODEL);
        let _ = hayloft(&["push", model.to_str().unwrap(), &reference]).succeeded();
    }

    /// Pushes a manifest whose layers are these: media type, content, path if it says so.
    pub(crate) async fn push_layers(
        &self,
        repository: &str,
        tag: &str,
        config: &str,
        layers: &[(&str, &[u8], Option<&str>)],
    ) {
        let _ = self.api.push_blob(repository, b"{}").await;
        let mut described = Vec::new();
        for (media_type, content, path) in layers {
            let _ = self.api.push_blob(repository, content).await;
            let mut layer = descriptor(media_type, content);
            if let Some(path) = path {
                layer["annotations"] = json!({ "org.cncf.model.filepath": path });
            }
            described.push(layer);
        }
        let media_type = if config.contains("docker.container") {
            "application/vnd.docker.distribution.manifest.v2+json"
        } else {
            crate::registry_support::OCI_MANIFEST
        };
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": descriptor(config, b"{}"),
            "layers": described,
        });
        let response = self.api.put_manifest(repository, tag, &manifest).await;
        assert_eq!(response.status(), 201, "{:?}", response.text().await);
    }
}

/// A story of `tests/python/hub_client.py`, with a home of its own.
pub(crate) fn python(endpoint: &str, home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(project_root().join(".venv/bin/python"));
    command
        .arg(project_root().join("tests/python/hub_client.py"))
        .args(arguments);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("HF_") || text.to_lowercase().ends_with("_proxy") {
            command.env_remove(&name);
        }
    }
    command
        .env("HF_ENDPOINT", endpoint)
        .env("HF_HOME", home)
        .env("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        .env("HF_HUB_DISABLE_TELEMETRY", "1");
    command
}

/// What such a story printed last.
#[track_caller]
pub(crate) fn told(finished: Finished) -> Value {
    let said = finished.succeeded();
    let last = said.lines().last().unwrap_or_default();
    serde_json::from_str(last).unwrap_or_else(|_| panic!("no JSON: {said}"))
}

/// Runs a story that must succeed.
#[track_caller]
pub(crate) fn story(endpoint: &str, home: &Path, arguments: &[&str]) -> Value {
    told(run(&mut python(endpoint, home, arguments)))
}
