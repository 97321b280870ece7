//! The runtime's Ollama API as the verbs `run`, `show` and `ps` use it.

use anyhow::{Context, Result, anyhow, bail};
use futures::StreamExt;
use serde_json::{Value, json};

use crate::report::NotFound;

/// Longest line of an answer, in bytes; a line is a token or an error.
const MAX_LINE_BYTES: usize = 8 * 1024 * 1024;

/// Speaks to one runtime.
pub(crate) struct RuntimeClient {
    base: String,
    http: reqwest::Client,
}

impl RuntimeClient {
    /// `base` is `http://HOST:PORT`.
    pub(crate) fn new(base: String) -> Self {
        Self {
            base,
            http: reqwest::Client::new(),
        }
    }

    /// The loaded models.
    pub(crate) async fn loaded(&self) -> Result<Value> {
        let url = format!("{}/api/ps", self.base);
        let answer = self
            .http
            .get(url)
            .send()
            .await
            .with_context(|| self.unreachable())?;
        Ok(checked(answer).await?.json().await?)
    }

    /// What a model is.
    pub(crate) async fn show(&self, model: &str) -> Result<Value> {
        let answer = self.post("/api/show", &json!({ "model": model })).await?;
        Ok(answer.json().await?)
    }

    /// Pulls a model; `each` gets every progress object.
    pub(crate) async fn pull(
        &self,
        model: &str,
        insecure: bool,
        each: impl FnMut(Value) -> Result<()>,
    ) -> Result<()> {
        let request = json!({ "model": model, "insecure": insecure });
        self.stream("/api/pull", &request, each).await
    }

    /// Posts `request` and gives every object of the answer to `each`.
    pub(crate) async fn stream(
        &self,
        path: &str,
        request: &Value,
        mut each: impl FnMut(Value) -> Result<()>,
    ) -> Result<()> {
        let mut bytes = self.post(path, request).await?.bytes_stream();
        let mut pending = Vec::new();
        while let Some(piece) = bytes.next().await {
            pending.extend_from_slice(&piece.context("the runtime broke off its answer")?);
            while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = pending.drain(..=end).collect();
                each(read_line(&line)?)?;
            }
            if pending.len() > MAX_LINE_BYTES {
                bail!("the runtime sent a line of over {MAX_LINE_BYTES} bytes");
            }
        }
        if !pending.is_empty() {
            each(read_line(&pending)?)?;
        }
        Ok(())
    }

    async fn post(&self, path: &str, request: &Value) -> Result<reqwest::Response> {
        let url = format!("{}{path}", self.base);
        let answer = self
            .http
            .post(url)
            .json(request)
            .send()
            .await
            .with_context(|| self.unreachable())?;
        checked(answer).await
    }

    fn unreachable(&self) -> String {
        format!(
            "no runtime answers at {}: start one with `hayloft serve`",
            self.base
        )
    }
}

/// A line of an answer; an `error` member is an error.
fn read_line(line: &[u8]) -> Result<Value> {
    let value: Value =
        serde_json::from_slice(line).context("the runtime sent something that is not JSON")?;
    match value.get("error").and_then(Value::as_str) {
        Some(message) => Err(anyhow!("{message}")),
        None => Ok(value),
    }
}

async fn checked(answer: reqwest::Response) -> Result<reqwest::Response> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let body: Value = answer.json().await.unwrap_or_default();
    let message = body
        .get("error")
        .and_then(Value::as_str)
        .map_or_else(|| format!("the runtime answered {status}"), str::to_owned);
    if status == reqwest::StatusCode::NOT_FOUND {
        return Err(NotFound(message).into());
    }
    bail!(message)
}
