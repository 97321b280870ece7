//! Place: where the bytes of a blob are asked for, and where they turned out to be.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response, StatusCode};
use url::Url;

use crate::client::error::Error;
use crate::client::origin::Api;
use crate::client::registry::{Operation, RegistryClient};
use crate::client::transport::Transport;
use crate::digest::Digest;

/// One file at Hugging Face.
#[derive(Clone, Debug)]
pub(crate) struct WebFile {
    api: Api,
    url: Url,
    repository: String,
}

impl WebFile {
    /// The file at `url`, which belongs to `repository`.
    pub(crate) fn new(api: Api, url: Url, repository: String) -> Self {
        Self {
            api,
            url,
            repository,
        }
    }
}

/// Where a blob is asked for. A clone shares what was learned on the way.
#[derive(Clone, Debug)]
pub(super) struct Place {
    kind: Kind,
    /// Another host that the last answer came from after a redirect, by a URL that needs no token.
    /// Asking it directly saves a request for each range, and origins count those.
    direct: Arc<Mutex<Option<Url>>>,
}

#[derive(Clone, Debug)]
enum Kind {
    Registry(RegistryClient),
    Web(WebFile),
}

impl From<RegistryClient> for Place {
    fn from(registry: RegistryClient) -> Self {
        Self {
            kind: Kind::Registry(registry),
            direct: Arc::default(),
        }
    }
}

impl From<WebFile> for Place {
    fn from(file: WebFile) -> Self {
        Self {
            kind: Kind::Web(file),
            direct: Arc::default(),
        }
    }
}

impl Place {
    /// How long it may send nothing.
    pub(super) fn stall(&self) -> Duration {
        match &self.kind {
            Kind::Registry(registry) => registry.transport().timeouts().stall,
            Kind::Web(file) => file.api.stall(),
        }
    }

    fn transport(&self) -> &Transport {
        match &self.kind {
            Kind::Registry(registry) => registry.transport(),
            Kind::Web(file) => file.api.transport(),
        }
    }

    /// Asks for a blob; `with` adds what the request needs beside its address.
    pub(super) async fn get(
        &self,
        digest: &Digest,
        with: impl Fn(RequestBuilder) -> RequestBuilder + Send + Sync,
    ) -> Result<Response, Error> {
        if let Some(url) = self.direct() {
            let request = with(self.request(url.clone()));
            match request.send().await {
                // The URL has run out; the origin gives another one.
                Ok(answer) if is_expired(answer.status()) => self.remember(None),
                Ok(answer) => return Ok(answer),
                Err(source) => {
                    self.remember(None);
                    return Err(self.transport().fault(&url, source));
                }
            }
        }
        let url = self.url(digest)?;
        let build = || with(self.request(url.clone()));
        let answer = match &self.kind {
            Kind::Registry(registry) => registry.send(Operation::Pull, build).await?,
            Kind::Web(file) => file.api.send(build()).await?,
        };
        if answer.status().is_success() && answer.url().origin() != url.origin() {
            self.remember(Some(answer.url().clone()));
        }
        Ok(answer)
    }

    /// An answer with an unexpected status, as an error.
    pub(super) async fn fault(&self, answer: Response) -> Error {
        match &self.kind {
            Kind::Registry(registry) => registry.fault(answer).await,
            Kind::Web(file) => file.api.fault(answer, &file.repository).await,
        }
    }

    fn url(&self, digest: &Digest) -> Result<Url, Error> {
        match &self.kind {
            Kind::Registry(registry) => registry.url(&format!("blobs/{digest}")),
            Kind::Web(file) => Ok(file.url.clone()),
        }
    }

    fn request(&self, url: Url) -> RequestBuilder {
        match &self.kind {
            Kind::Registry(registry) => registry.request(Method::GET, url),
            Kind::Web(file) => file.api.request(Method::GET, url),
        }
    }

    fn direct(&self) -> Option<Url> {
        let direct = self.direct.lock().unwrap_or_else(PoisonError::into_inner);
        direct.clone()
    }

    fn remember(&self, url: Option<Url>) {
        *self.direct.lock().unwrap_or_else(PoisonError::into_inner) = url;
    }
}

/// Whether a signed URL that was good once has run out: hosts say so in many ways.
fn is_expired(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BAD_REQUEST
            | StatusCode::UNAUTHORIZED
            | StatusCode::FORBIDDEN
            | StatusCode::NOT_FOUND
            | StatusCode::GONE
    )
}
