//! Reading answers of strangers: bodies within bounds, error texts, headers.

use std::time::Duration;

use reqwest::Response;
use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use serde::de::DeserializeOwned;
use url::Url;

use crate::client::error::Error;

/// Longest part of an answer's text that an error quotes, in characters.
const MAX_QUOTED: usize = 300;
/// Longest wait that a server may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// The body of an answer, or [`Error::TooLong`] once it is over the limit.
pub(crate) async fn read_bounded(mut answer: Response, limit: usize) -> Result<Vec<u8>, Error> {
    let url = shown(answer.url());
    let mut body = Vec::new();
    loop {
        let chunk = answer
            .chunk()
            .await
            .map_err(|source| Error::broken(&url, source))?;
        let Some(chunk) = chunk else {
            return Ok(body);
        };
        if body.len() + chunk.len() > limit {
            return Err(Error::TooLong {
                url,
                limit: limit as u64,
            });
        }
        body.extend_from_slice(&chunk);
    }
}

/// The body of an answer as JSON of a form that is known.
pub(crate) async fn json<T: DeserializeOwned>(answer: Response, limit: usize) -> Result<T, Error> {
    let url = shown(answer.url());
    let is_page = content_type(answer.headers()).is_some_and(|kind| kind == "text/html");
    let body = read_bounded(answer, limit).await?;
    serde_json::from_slice(&body).map_err(|error| {
        if is_page || looks_like_a_page(&body) {
            Error::WebPage { url }
        } else {
            Error::Answer {
                url,
                reason: error.to_string(),
            }
        }
    })
}

/// Whether a body is a web page, such as proxies and log-in portals answer anything with.
pub(crate) fn looks_like_a_page(body: &[u8]) -> bool {
    let begin = body.trim_ascii_start();
    let starts = |text: &[u8]| {
        begin
            .get(..text.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(text))
    };
    starts(b"<!doctype html") || starts(b"<html")
}

/// Whether an answer says that it is a proxy's own: squid marks those, and others that follow
/// RFC 9209 do.
pub(crate) fn is_of_proxy(headers: &HeaderMap) -> bool {
    headers.contains_key("x-squid-error")
        || headers
            .get("proxy-status")
            .is_some_and(|value| value.to_str().is_ok_and(|text| text.contains("error=")))
}

/// A URL for messages: without its query, which may carry a signature.
pub(crate) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.to_string()
}

/// The media type without its parameters.
pub(crate) fn content_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next()?.trim().to_owned())
}

/// A header that is one number.
pub(crate) fn header_number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

/// What an error answer says: the messages of its OCI envelope, else its text, shortened and free
/// of control characters.
pub(crate) fn quoted(body: &[u8]) -> String {
    let text = match serde_json::from_slice::<LenientBody>(body) {
        Ok(body) => body
            .errors
            .iter()
            .map(|entry| match entry.message.as_str() {
                "" => entry.code.clone(),
                message => message.to_owned(),
            })
            .collect::<Vec<_>>()
            .join("; "),
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    };
    let clean = text
        .trim()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c });
    clean.take(MAX_QUOTED).collect()
}

/// `Retry-After`: whole seconds or a date; nonsense counts as absent.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match value.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let then = jiff::fmt::rfc2822::parse(value).ok()?.timestamp();
            let wait = then.duration_since(jiff::Timestamp::now());
            // One that is over already means now.
            Duration::try_from(wait).unwrap_or_default()
        }
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

/// The envelope of the distribution-spec with codes that other registries made up.
#[derive(serde::Deserialize)]
struct LenientBody {
    errors: Vec<LenientEntry>,
}

#[derive(serde::Deserialize)]
struct LenientEntry {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use reqwest::header::{HeaderMap, HeaderValue, RETRY_AFTER};

    use crate::client::answer::{quoted, retry_after};

    #[test]
    fn error_answers_are_quoted_short_and_clean() {
        let body = br#"{"errors":[{"code":"BLOB_UNKNOWN","message":"gone\u001b[31m"}]}"#;
        assert_eq!(quoted(body), "gone [31m");
        assert_eq!(quoted(&vec![b'x'; 10_000]).len(), 300);
    }

    #[test]
    fn a_wait_of_ten_years_is_cut_to_a_minute() {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, HeaderValue::from_static("315360000"));
        assert_eq!(retry_after(&headers), Some(Duration::from_secs(60)));
        headers.insert(RETRY_AFTER, HeaderValue::from_static("-1"));
        assert_eq!(retry_after(&headers), None);
        let past = HeaderValue::from_static("Wed, 21 Oct 2015 07:28:00 GMT");
        headers.insert(RETRY_AFTER, past);
        assert_eq!(retry_after(&headers), Some(Duration::ZERO));
    }
}
