//! AgentClient: calls the node agent, over HTTP or over its Unix socket.
//!
//! The addresses are `http://HOST:PORT`, `HOST:PORT` and `unix:///path/to/agent.sock`.

use std::time::Duration;

use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;
use tokio_util::codec::{FramedRead, LinesCodec, LinesCodecError};
use tokio_util::io::StreamReader;
use url::Url;

use crate::agent_api::{
    AgentError, AgentErrorCode, AgentStatus, ENSURE_PATH, EnsureRequest, LEASE_PATH, LEASES_PATH,
    LeaseEntry, LeaseGiven, LeaseList, LeaseRequest, MODEL_PATH, MODELS_PATH, ModelEntry,
    ModelList, PIN_PATH, PinRequest, PullEvent, STATUS_PATH,
};
use crate::client::error::Error;
use crate::reference::Reference;

/// Where an agent listens unless told otherwise.
pub const DEFAULT_AGENT: &str = "http://127.0.0.1:5001";
/// Longest line of events: a manifest of the largest size, told as JSON.
const MAX_EVENT_BYTES: usize = 16 * 1024 * 1024;
/// Largest answer that is read whole, in bytes.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;
/// How long to wait for the agent to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Calls one node agent.
#[derive(Clone, Debug)]
pub struct AgentClient {
    http: reqwest::Client,
    base: Url,
    address: String,
}

impl AgentClient {
    /// A client for the agent at `address`: `http://HOST:PORT`, `HOST:PORT` or
    /// `unix:///path/to/agent.sock`. Nothing is sent yet.
    ///
    /// # Errors
    /// [`Error::Address`] when `address` is none of these.
    pub fn open(address: &str) -> Result<Self, Error> {
        let fault = |reason: &'static str| Error::Address {
            address: address.to_owned(),
            reason,
        };
        // A proxy from the environment must never stand between a node and its own agent.
        let builder = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT);
        let (builder, base) = if let Some(path) = address.strip_prefix("unix://") {
            if !path.starts_with('/') {
                return Err(fault("the path of a Unix socket starts with /"));
            }
            (builder.unix_socket(path), "http://agent".to_owned())
        } else if address.contains("://") {
            (builder, address.to_owned())
        } else {
            (builder, format!("http://{address}"))
        };
        let base = Url::parse(&base).map_err(|_| fault("it is not a URL"))?;
        if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none() {
            return Err(fault("write it as http://HOST:PORT or unix:///PATH"));
        }
        let http = builder.build().map_err(|source| Error::Setup { source })?;
        Ok(Self {
            http,
            base,
            address: address.to_owned(),
        })
    }

    /// The address given to [`AgentClient::open`].
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Whether the agent answers that it can do its job.
    ///
    /// # Errors
    /// [`Error::AgentUnreachable`] when nothing answers.
    pub async fn is_ready(&self) -> Result<bool, Error> {
        let answer = self.send(self.request(Method::GET, "/readyz")?).await?;
        Ok(answer.status().is_success())
    }

    /// What the agent is doing.
    ///
    /// # Errors
    /// As [`AgentClient::list`].
    pub async fn status(&self) -> Result<AgentStatus, Error> {
        let answer = self.send(self.request(Method::GET, STATUS_PATH)?).await?;
        self.read(answer).await
    }

    /// The same, with the reason when it cannot.
    ///
    /// # Errors
    /// [`Error::AgentUnreachable`]; [`Error::Agent`] with the reason; [`Error::AgentAnswer`] when
    /// somebody else answers.
    pub async fn check_ready(&self) -> Result<(), Error> {
        let answer = self.send(self.request(Method::GET, "/readyz")?).await?;
        if !answer.status().is_success() {
            return Err(self.fault(answer).await);
        }
        match self.body(answer).await?.as_slice() {
            b"ready" => Ok(()),
            _ => Err(self.unreadable("another program listens there".to_owned())),
        }
    }

    /// The models on the node, by name.
    ///
    /// # Errors
    /// [`Error::AgentUnreachable`], or [`Error::Agent`] with what the agent answered.
    pub async fn list(&self) -> Result<Vec<ModelEntry>, Error> {
        let answer = self.send(self.request(Method::GET, MODELS_PATH)?).await?;
        let list: ModelList = self.read(answer).await?;
        Ok(list.models)
    }

    /// One model, or nothing when the node does not have it.
    ///
    /// # Errors
    /// As [`AgentClient::list`].
    pub async fn get(&self, reference: &Reference) -> Result<Option<ModelEntry>, Error> {
        let request = self
            .request(Method::GET, MODEL_PATH)?
            .query(&[("reference", reference.to_string())]);
        let answer = self.send(request).await?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        self.read(answer).await.map(Some)
    }

    /// Asks for a model to be on the node and follows the pull. The stream ends after
    /// [`PullEvent::Ready`] or [`PullEvent::Failed`]; dropping it does not stop the pull.
    ///
    /// # Errors
    /// As [`AgentClient::list`]; the stream gives the same when the connection breaks.
    pub async fn ensure(
        &self,
        request: &EnsureRequest,
    ) -> Result<BoxStream<'static, Result<PullEvent, Error>>, Error> {
        let answer = self
            .send(self.request(Method::POST, ENSURE_PATH)?.json(request))
            .await?;
        if !answer.status().is_success() {
            return Err(self.fault(answer).await);
        }
        Ok(events(self.address.clone(), answer.bytes_stream()).boxed())
    }

    /// [`AgentClient::ensure`] to its end, with each event told to `on_event`.
    ///
    /// # Errors
    /// As [`AgentClient::ensure`]; [`Error::Agent`] when the pull failed.
    pub async fn pull(
        &self,
        request: &EnsureRequest,
        mut on_event: impl FnMut(&PullEvent),
    ) -> Result<ModelEntry, Error> {
        let mut events = self.ensure(request).await?;
        while let Some(event) = events.try_next().await? {
            on_event(&event);
            match event {
                PullEvent::Ready { model, .. } => return Ok(*model),
                PullEvent::Failed { error } => return Err(Error::Agent { error }),
                _ => {}
            }
        }
        Err(Error::AgentCut {
            address: self.address.clone(),
        })
    }

    /// Takes a model out of the cache. Blobs that another model names stay.
    ///
    /// # Errors
    /// As [`AgentClient::list`]: `not_found` when it is not there, `conflict` while it is pinned or
    /// in use.
    pub async fn remove(&self, reference: &Reference) -> Result<(), Error> {
        let request = self
            .request(Method::DELETE, MODEL_PATH)?
            .query(&[("reference", reference.to_string())]);
        self.send_for_nothing(request).await
    }

    /// The same, although it may be in use: whoever has it open keeps what is open.
    ///
    /// # Errors
    /// As [`AgentClient::list`]: `not_found` when it is not there, `conflict` while it is pinned.
    pub async fn remove_by_force(&self, reference: &Reference) -> Result<(), Error> {
        let request = self.request(Method::DELETE, MODEL_PATH)?.query(&[
            ("reference", reference.to_string().as_str()),
            ("force", "true"),
        ]);
        self.send_for_nothing(request).await
    }

    /// Keeps a model on the node for a while; again with the same identifier, for longer.
    ///
    /// # Errors
    /// As [`AgentClient::list`]: `not_found` when the model is not there.
    pub async fn put_lease(&self, id: &str, lease: &LeaseRequest) -> Result<LeaseGiven, Error> {
        let path = LEASE_PATH.replace("{id}", id);
        let answer = self
            .send(self.request(Method::PUT, &path)?.json(lease))
            .await?;
        self.read(answer).await
    }

    /// Ends a lease before its time.
    ///
    /// # Errors
    /// As [`AgentClient::list`]: `not_found` when there is none.
    pub async fn end_lease(&self, id: &str) -> Result<(), Error> {
        let path = LEASE_PATH.replace("{id}", id);
        self.send_for_nothing(self.request(Method::DELETE, &path)?)
            .await
    }

    /// The leases that are held, by identifier.
    ///
    /// # Errors
    /// As [`AgentClient::list`].
    pub async fn leases(&self) -> Result<Vec<LeaseEntry>, Error> {
        let answer = self.send(self.request(Method::GET, LEASES_PATH)?).await?;
        let list: LeaseList = self.read(answer).await?;
        Ok(list.leases)
    }

    async fn send_for_nothing(&self, request: RequestBuilder) -> Result<(), Error> {
        let answer = self.send(request).await?;
        if answer.status().is_success() {
            return Ok(());
        }
        Err(self.fault(answer).await)
    }

    /// Pins a model, so that it is never removed, or lets it go.
    ///
    /// # Errors
    /// As [`AgentClient::list`].
    pub async fn pin(&self, reference: &Reference, pinned: bool) -> Result<ModelEntry, Error> {
        let body = PinRequest {
            reference: reference.clone(),
            pinned,
        };
        let request = self.request(Method::POST, PIN_PATH)?.json(&body);
        let answer = self.send(request).await?;
        self.read(answer).await
    }

    fn request(&self, method: Method, path: &str) -> Result<RequestBuilder, Error> {
        let url = self.base.join(path).map_err(|_| Error::Address {
            address: self.address.clone(),
            reason: "it is not a URL that paths can be added to",
        })?;
        Ok(self.http.request(method, url))
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, Error> {
        request
            .headers(crate::trace::headers())
            .send()
            .await
            .map_err(|source| Error::AgentUnreachable {
                address: self.address.clone(),
                source,
            })
    }

    async fn read<T: DeserializeOwned>(&self, answer: Response) -> Result<T, Error> {
        if !answer.status().is_success() {
            return Err(self.fault(answer).await);
        }
        let body = self.body(answer).await?;
        serde_json::from_slice(&body).map_err(|error| self.unreadable(error.to_string()))
    }

    /// The error in an answer that is not a success.
    async fn fault(&self, answer: Response) -> Error {
        let status = answer.status();
        let body = match self.body(answer).await {
            Ok(body) => body,
            Err(error) => return error,
        };
        match serde_json::from_slice::<AgentError>(&body) {
            Ok(error) => Error::Agent { error },
            Err(_) => self.unreadable(format!("status {status} without an explanation")),
        }
    }

    async fn body(&self, mut answer: Response) -> Result<Vec<u8>, Error> {
        let mut body = Vec::new();
        loop {
            let chunk = answer.chunk().await.map_err(|_| Error::AgentCut {
                address: self.address.clone(),
            })?;
            let Some(chunk) = chunk else {
                return Ok(body);
            };
            if body.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(self.unreadable(format!("more than {MAX_ANSWER_BYTES} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
    }

    fn unreadable(&self, reason: String) -> Error {
        Error::AgentAnswer {
            address: self.address.clone(),
            reason,
        }
    }
}

/// Lines of JSON as events; ends after the first error.
fn events(
    address: String,
    bytes: impl Stream<Item = reqwest::Result<bytes::Bytes>> + Send + 'static,
) -> impl Stream<Item = Result<PullEvent, Error>> + Send + 'static {
    let reader = StreamReader::new(bytes.map_err(std::io::Error::other));
    let lines = FramedRead::new(
        Box::pin(reader),
        LinesCodec::new_with_max_length(MAX_EVENT_BYTES),
    );
    lines
        .filter(|line| std::future::ready(!line.as_ref().is_ok_and(String::is_empty)))
        .map(move |line| match line {
            Ok(line) => serde_json::from_str(&line).map_err(|error| Error::AgentAnswer {
                address: address.clone(),
                reason: error.to_string(),
            }),
            Err(LinesCodecError::MaxLineLengthExceeded) => Err(Error::AgentAnswer {
                address: address.clone(),
                reason: format!("a line of more than {MAX_EVENT_BYTES} bytes"),
            }),
            Err(LinesCodecError::Io(_)) => Err(Error::AgentCut {
                address: address.clone(),
            }),
        })
        .scan(false, |failed, event| {
            let item = (!*failed).then_some(event);
            *failed |= item.as_ref().is_some_and(Result::is_err);
            std::future::ready(item)
        })
}

/// Whether the agent said that it does not have what was asked for.
#[must_use]
pub fn is_not_found(error: &Error) -> bool {
    matches!(error, Error::Agent { error } if error.code == AgentErrorCode::NotFound)
}
