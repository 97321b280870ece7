//! Probe: one question to a place, and what its answer says of who is there.

use jiff::Timestamp;
use reqwest::StatusCode;
use reqwest::header::{DATE, HeaderMap, WWW_AUTHENTICATE};
use url::Url;

use crate::client::answer::{content_type, is_of_proxy, looks_like_a_page, quoted, shown};
use crate::client::error::Error;
use crate::client::transport::Transport;

/// Most bytes of the answer that are looked at.
const MAX_BYTES: usize = 64 * 1024;

/// What a place answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probed {
    /// The status.
    pub status: u16,
    /// What time it is there, by the answer's `Date`.
    pub date: Option<Timestamp>,
    /// Whether it is a web page.
    pub is_page: bool,
    /// Whether it asks for a login.
    pub wants_login: bool,
    /// Whether it says that it is a registry.
    pub is_registry: bool,
}

/// Asks `url` without a login.
///
/// # Errors
/// Those of any request that gets no answer; [`Error::Proxy`] when a proxy answers in its place.
pub async fn probe(transport: &Transport, url: &Url) -> Result<Probed, Error> {
    let request = transport
        .http_for(url)?
        .get(url.clone())
        .timeout(transport.timeouts().stall);
    let sent = request.send().await;
    let mut answer = sent.map_err(|source| transport.fault(url, source))?;
    let (status, headers) = (answer.status(), answer.headers().clone());
    let mut body = Vec::new();
    while body.len() < MAX_BYTES {
        let chunk = answer.chunk().await;
        match chunk.map_err(|source| Error::broken(&shown(url), source))? {
            Some(chunk) => body.extend_from_slice(&chunk),
            None => break,
        }
    }
    let of_proxy = transport.answer_of_proxy(url, status, is_of_proxy(&headers), &quoted(&body));
    if let Some(error) = of_proxy {
        return Err(error);
    }
    let is_page = content_type(&headers).is_some_and(|kind| kind == "text/html");
    Ok(Probed {
        status: status.as_u16(),
        date: date_of(&headers),
        is_page: is_page || looks_like_a_page(&body),
        wants_login: status == StatusCode::UNAUTHORIZED,
        is_registry: headers.contains_key("docker-distribution-api-version")
            || headers.contains_key(WWW_AUTHENTICATE)
            || status == StatusCode::OK
                && serde_json::from_slice::<serde_json::Value>(&body).is_ok(),
    })
}

fn date_of(headers: &HeaderMap) -> Option<Timestamp> {
    let date = headers.get(DATE)?.to_str().ok()?;
    Some(jiff::fmt::rfc2822::parse(date).ok()?.timestamp())
}
