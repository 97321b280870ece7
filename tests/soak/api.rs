//! Requests to the registry under test, which may be killed at any moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use reqwest::{Method, RequestBuilder};
use tokio::sync::Notify;

/// What the workers of one round share.
#[derive(Debug, Default)]
pub(crate) struct Round {
    answered: AtomicU64,
    kill_after: u64,
    due: Notify,
    is_over: AtomicBool,
}

impl Round {
    /// A round that is due to end when so many requests have been answered.
    pub(crate) fn new(kill_after: u64) -> Self {
        Self {
            kill_after,
            ..Self::default()
        }
    }

    /// Returns when the registry is to be killed.
    pub(crate) async fn is_due(&self) {
        self.due.notified().await;
    }

    /// From now on a missing answer is no surprise.
    pub(crate) fn end(&self) {
        self.is_over.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }

    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Ordering::SeqCst)
    }

    fn count(&self) {
        if self.answered.fetch_add(1, Ordering::SeqCst) + 1 == self.kill_after {
            self.due.notify_one();
        }
    }
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Bytes,
    location: Option<String>,
    offset: Option<usize>,
}

impl Answer {
    /// The path of the upload session, without the host: that changes with every restart.
    pub(crate) fn session(&self) -> Option<String> {
        let location = self.location.as_deref()?;
        let rest = location.strip_prefix("http://").unwrap_or(location);
        rest.find('/').map(|at| rest[at..].to_owned())
    }

    /// Where an upload session stands.
    pub(crate) fn offset(&self) -> Option<usize> {
        self.offset
    }

    /// Status and body, for a history.
    pub(crate) fn told(&self) -> String {
        let text = String::from_utf8_lossy(&self.body[..self.body.len().min(200)]);
        format!("{} {text}", self.status)
    }
}

/// A client of one running registry.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    client: reqwest::Client,
    base: String,
    round: Arc<Round>,
}

impl Api {
    pub(crate) fn new(base: String, round: Arc<Round>) -> Self {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self {
            client,
            base,
            round,
        }
    }

    /// The round it belongs to.
    pub(crate) fn round(&self) -> &Round {
        &self.round
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base))
    }

    pub(crate) async fn get(&self, path: &str) -> Option<Answer> {
        self.send(self.request(Method::GET, path)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Option<Answer> {
        self.send(self.request(Method::DELETE, path)).await
    }

    /// The answer, or `None` when the connection broke before all of it came.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Option<Answer> {
        let response = request.send().await.ok()?;
        let status = response.status().as_u16();
        let header = |name: &str| {
            let value = response.headers().get(name)?;
            Some(value.to_str().ok()?.to_owned())
        };
        let location = header("location");
        let offset = header("upload-offset").and_then(|text| text.parse().ok());
        let body = response.bytes().await.ok()?;
        self.round.count();
        Some(Answer {
            status,
            body,
            location,
            offset,
        })
    }
}
