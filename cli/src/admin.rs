//! Work on a running registry's storage over its own API: a POST that is answered with events.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use artifact::client::registry::scheme::is_plain;
use artifact::error_code::ErrorBody;
use futures::StreamExt;
use reqwest::StatusCode;
use serde::de::DeserializeOwned;
use url::Url;

use crate::args::storage::TargetArgs;
use crate::endpoint;
use crate::report::{Denied, Interrupted};

/// How long the registry may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// Longest event; the registry's own are far shorter.
const MAX_LINE: usize = 1024 * 1024;

/// The API of a running registry.
#[derive(Debug)]
pub(crate) struct Admin {
    base: Url,
    http: reqwest::Client,
}

impl Admin {
    /// The registry that the arguments name, if they name one.
    pub(crate) async fn of(target: &TargetArgs) -> Result<Option<Self>> {
        match &target.registry {
            Some(registry) => Self::at(registry, target.plain_http).await.map(Some),
            None => Ok(None),
        }
    }

    /// The registry at an address: a host, `HOST:PORT` or a URL.
    pub(crate) async fn at(registry: &str, plain_http: bool) -> Result<Self> {
        let base = base_url(registry, plain_http)
            .await
            .with_context(|| format!("registry {registry}"))?;
        let builder = reqwest::Client::builder().connect_timeout(CONNECT);
        // A proxy cannot reach this machine's own loopback.
        let builder = if is_loopback(&base) {
            builder.no_proxy()
        } else {
            builder
        };
        let http = builder.build().context("cannot build the HTTP client")?;
        Ok(Self { base, http })
    }

    /// Asks for `work` and hands its events on until the registry has told all of them.
    pub(crate) async fn run<E: DeserializeOwned>(
        &self,
        work: &str,
        query: &[(&str, String)],
        mut on_event: impl FnMut(E) -> Result<()>,
    ) -> Result<()> {
        let mut url = self.url(work)?;
        url.query_pairs_mut().extend_pairs(query);
        let answer = self.ask(self.http.post(url)).await?;
        let mut pieces = answer.bytes_stream();
        let mut line = Vec::new();
        while let Some(piece) = pieces.next().await {
            let piece = piece.context("the registry broke off")?;
            for byte in piece {
                if byte != b'\n' {
                    line.push(byte);
                } else {
                    let event = serde_json::from_slice(&line);
                    on_event(event.context("the registry told something unknown")?)?;
                    line.clear();
                }
            }
            if line.len() > MAX_LINE {
                bail!("the registry tells a line without an end");
            }
        }
        Ok(())
    }

    /// Asks how something stands.
    pub(crate) async fn get<T: DeserializeOwned>(&self, what: &str) -> Result<T> {
        let answer = self.ask(self.http.get(self.url(what)?)).await?;
        answer
            .json()
            .await
            .context("the registry told something unknown")
    }

    fn url(&self, path: &str) -> Result<Url> {
        Ok(self.base.join(&format!("v2/_hayloft/{path}"))?)
    }

    /// Sends a request, with the login that is stored, and gives an answer that is no refusal.
    async fn ask(&self, mut request: reqwest::RequestBuilder) -> Result<reqwest::Response> {
        if let Some((name, password)) = self.login().await? {
            request = request.basic_auth(name, Some(password));
        }
        let answer = request.send().await.context("asking the registry")?;
        if !answer.status().is_success() {
            let status = answer.status();
            let body = answer.bytes().await.unwrap_or_default();
            let told = serde_json::from_slice::<ErrorBody>(&body).ok();
            let told = told.and_then(|body| body.errors.into_iter().next());
            let told = told.map(|error| error.message);
            if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
                let reason = told.unwrap_or_else(|| status.to_string());
                let registry = self.registry();
                return Err(Denied { registry, reason }.into());
            }
            match told {
                Some(message) => bail!("the registry refuses: {message}"),
                None => bail!("the registry answers {status}"),
            }
        }
        Ok(answer)
    }

    /// `host[:port]`, as logins are stored for it.
    fn registry(&self) -> String {
        let host = self.base.host_str().unwrap_or_default();
        match self.base.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        }
    }

    /// The login that is stored for the registry; without one the request is nobody's.
    async fn login(&self) -> Result<Option<(String, String)>> {
        let logins = endpoint::stored_logins();
        Ok(logins.name_and_password(&self.registry()).await?)
    }
}

/// Loopback hosts are spoken to as they answer, all others by HTTPS, as everywhere else.
async fn base_url(registry: &str, plain_http: bool) -> Result<Url> {
    if registry.starts_with("http://") || registry.starts_with("https://") {
        let url = Url::parse(registry)?;
        if !url.username().is_empty() || url.password().is_some() {
            bail!("an address on a command line carries no login");
        }
        return Ok(url);
    }
    let plain = Url::parse(&format!("http://{registry}/"))?;
    if plain_http || (is_loopback(&plain) && is_plain(registry).await) {
        return Ok(plain);
    }
    Ok(Url::parse(&format!("https://{registry}/"))?)
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// Does `work` until Ctrl-C.
pub(crate) async fn until_interrupted<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        outcome = work => outcome,
        _ = tokio::signal::ctrl_c() => Err(Interrupted.into()),
    }
}

/// Adds what to do about a storage that a registry runs on.
pub(crate) fn advise_registry(error: anyhow::Error) -> anyhow::Error {
    let is_in_use = error
        .downcast_ref::<registry::Error>()
        .is_some_and(|error| matches!(error, registry::Error::InUse { .. }));
    if is_in_use {
        error.context("a registry runs on this storage: name it with --registry HOST:PORT")
    } else {
        error
    }
}
