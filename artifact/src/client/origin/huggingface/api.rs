//! Requests to Hugging Face: the token that goes to its own host alone, and what its errors mean.

use std::fmt;
use std::time::Duration;

use reqwest::header::{ACCEPT_ENCODING, HeaderMap};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use url::Url;

use crate::client::answer::{is_of_proxy, quoted, read_bounded, retry_after, shown};
use crate::client::error::Error;
use crate::client::origin::OriginUrl;
use crate::client::registry::Credentials;
use crate::client::transport::Transport;

/// Most bytes of an error answer that are read.
const MAX_ERROR_BYTES: usize = 64 * 1024;

/// A place that speaks Hugging Face's API, and who asks. A clone shares connections.
#[derive(Clone)]
pub(crate) struct Api {
    http: reqwest::Client,
    at: OriginUrl,
    credentials: Credentials,
    transport: Transport,
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api")
            .field("at", &self.at)
            .field("credentials", &self.credentials)
            .finish_non_exhaustive()
    }
}

impl Api {
    pub(super) fn new(
        transport: &Transport,
        at: &OriginUrl,
        credentials: &Credentials,
    ) -> Result<Self, Error> {
        Ok(Self {
            http: transport.http_for(&at.url)?,
            at: at.clone(),
            credentials: credentials.clone(),
            transport: transport.clone(),
        })
    }

    /// How long it may send nothing.
    pub(crate) fn stall(&self) -> Duration {
        self.transport.timeouts().stall
    }

    /// How it is reached.
    pub(crate) fn transport(&self) -> &Transport {
        &self.transport
    }

    /// The place, for messages.
    pub(super) fn place(&self) -> String {
        self.at.host()
    }

    /// A URL below the base; each part of the path is escaped by itself.
    pub(super) fn url<'a>(&self, path: impl IntoIterator<Item = &'a str>) -> Result<Url, Error> {
        let mut url = self.at.url.clone();
        url.path_segments_mut()
            .map_err(|()| Error::Url {
                url: self.at.to_string(),
                reason: "it cannot be a base",
            })?
            .pop_if_empty()
            .extend(path);
        Ok(url)
    }

    /// A request, without a token yet.
    pub(crate) fn request(&self, method: Method, url: Url) -> RequestBuilder {
        self.http.request(method, url)
    }

    /// Sends, with the token if the request goes to the host that it is for. On a redirect to any
    /// other host, port or scheme it is left behind.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<Response, Error> {
        let (http, request) = request.build_split();
        let request = request.map_err(|source| Error::transport(&self.at.url, source))?;
        let url = request.url().clone();
        let mut builder = RequestBuilder::from_parts(http, request);
        if url.origin() == self.at.url.origin()
            && let Some(token) = self.token().await?
        {
            builder = builder.bearer_auth(token);
        }
        builder
            .headers(crate::trace::headers())
            .send()
            .await
            .map_err(|source| self.transport.fault(&url, source))
    }

    /// An answer to a GET that is read whole, so that it may take as long as a stall in all.
    pub(super) async fn get(&self, url: Url, repository: &str) -> Result<Response, Error> {
        let request = self.request(Method::GET, url).timeout(self.stall());
        let request = request.header(ACCEPT_ENCODING, "identity");
        let answer = self.send(request).await?;
        if answer.status() == StatusCode::OK {
            return Ok(answer);
        }
        Err(self.fault(answer, repository).await)
    }

    async fn token(&self) -> Result<Option<String>, Error> {
        match &self.credentials {
            Credentials::Token(token) => Ok(Some(token.clone())),
            other => {
                let login = other.name_and_password(&self.place()).await?;
                Ok(login.map(|(_, password)| password))
            }
        }
    }

    /// An answer with an unexpected status, as an error.
    pub(crate) async fn fault(&self, answer: Response, repository: &str) -> Error {
        let status = answer.status();
        let url = answer.url().clone();
        let retry_after = retry_after(answer.headers());
        let code = header(answer.headers(), "x-error-code");
        let said = header(answer.headers(), "x-error-message");
        let is_own = url.origin() == self.at.url.origin();
        let is_marked = is_of_proxy(answer.headers());
        let body = read_bounded(answer, MAX_ERROR_BYTES).await;
        if let Some(error) = self
            .transport
            .answer_of_proxy(&url, status, is_marked, &said)
        {
            return error;
        }
        let absent = |what: String, hint| Error::Absent {
            what,
            place: self.place(),
            hint,
        };
        let named = || format!("repository {repository}");
        match (code.as_str(), status) {
            ("GatedRepo", _) if is_own => self.denied(
                repository,
                format!(
                    "it is gated: accept its terms at {}{repository} and give a token (HF_TOKEN)",
                    self.at.url
                ),
            ),
            // For a stranger, a private repository looks like one that does not exist.
            (_, StatusCode::UNAUTHORIZED) if is_own => self.denied(
                repository,
                "there is no such repository, or it is private: check the name, or give a token \
                 (HF_TOKEN) that may read it"
                    .to_owned(),
            ),
            (_, StatusCode::FORBIDDEN) if is_own => self.denied(repository, said),
            ("RevisionNotFound", StatusCode::NOT_FOUND) => absent(
                format!("that revision of {repository}"),
                "check the tag: a branch, a commit or a quantisation",
            ),
            ("EntryNotFound", StatusCode::NOT_FOUND) => absent(
                format!("{} of {repository}", url.path()),
                "the file was removed there",
            ),
            (_, StatusCode::NOT_FOUND) if is_own => absent(named(), "check the name"),
            _ => Error::Status {
                url: shown(&url),
                status,
                detail: if said.is_empty() {
                    quoted(&body.unwrap_or_default())
                } else {
                    quoted(said.as_bytes())
                },
                retry_after,
            },
        }
    }

    fn denied(&self, repository: &str, reason: String) -> Error {
        Error::Denied {
            registry: self.place(),
            repository: repository.to_owned(),
            reason,
        }
    }
}

fn header(headers: &HeaderMap, name: &str) -> String {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default().chars().take(200).collect()
}
