//! When a blob download is answered with the address of the content in the bucket: 307, so that
//! the bytes do not pass through the registry. Some clients cannot follow; those get the bytes.

use std::time::Duration;

use artifact::{Digest, Repository};
use axum::response::{IntoResponse, Response};
use http::header::HeaderName;
use http::request::Parts;
use http::{HeaderValue, StatusCode, Version, header};
use url::Url;

use crate::error::Error;
use crate::http::range::{self, Requested};
use crate::http::{CONTENT_DIGEST, State, base_url, header_text, insert};

/// A client that does not want to be sent elsewhere says `Hayloft-Redirect: no`.
const REDIRECT: HeaderName = HeaderName::from_static("hayloft-redirect");
/// Content below this size comes faster from here than from a second address.
const SMALLEST: u64 = 1024 * 1024;
/// How long an address is good. A download that takes longer is not cut off by that; one that
/// starts again asks the registry again.
const VALID: Duration = Duration::from_secs(15 * 60);
/// Addresses are made for the client that asked, and expire.
const NOT_TO_BE_KEPT: HeaderValue = HeaderValue::from_static("no-store");
/// Programs that follow no redirect at all, by the first word of their User-Agent up to the slash.
///
/// Wget before 1.12 and busybox's wget repeat no `Range`; Python's http.client and urllib3 without
/// a pool manager follow nothing and say so by these names only when nothing else was set.
const NEVER_FOLLOW: [&str; 2] = ["Python-http.client", "BusyBox"];
/// Programs that expect content, not another redirect, when they are sent to the same host name.
///
/// Ollama resolves redirects itself: one to another host name it takes as the address of the
/// content, one to the same host name it follows and then wants a `Location` from the answer,
/// which no bucket gives.
const ONLY_TO_OTHER_HOSTS: [&str; 1] = ["ollama"];

/// The redirect, if this request may be answered by one.
pub(super) async fn answer(
    state: &State,
    parts: &Parts,
    repository: &Repository,
    digest: &Digest,
) -> Result<Option<Response>, Error> {
    if !state.setup.redirect || !may_follow(parts) {
        return Ok(None);
    }
    let registry = &state.registry;
    let signed = registry
        .signed_url(repository, digest, SMALLEST, VALID)
        .await?;
    let Some((url, size)) = signed else {
        return Ok(None);
    };
    let range = header_text(&parts.headers, &header::RANGE);
    if matches!(range::requested(range, size), Requested::Unsatisfiable) {
        return Ok(None);
    }
    if !reaches(parts, &base_url(state, parts), &url) {
        return Ok(None);
    }
    let mut response = StatusCode::TEMPORARY_REDIRECT.into_response();
    insert(&mut response, header::LOCATION, url.as_str());
    insert(&mut response, CONTENT_DIGEST, &digest.to_string());
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, NOT_TO_BE_KEPT);
    Ok(Some(response))
}

/// Whether the client follows redirects, as far as its request tells.
fn may_follow(parts: &Parts) -> bool {
    let refuses =
        header_text(&parts.headers, &REDIRECT).is_some_and(|text| text.eq_ignore_ascii_case("no"));
    parts.version > Version::HTTP_10 && !refuses && !is_one_of(parts, &NEVER_FOLLOW)
}

/// Whether the client that made this request to `base` can use `url`.
fn reaches(parts: &Parts, base: &str, url: &Url) -> bool {
    let base = Url::parse(base).ok();
    let is_secure = base.as_ref().is_some_and(|base| base.scheme() == "https");
    if is_secure && url.scheme() != "https" {
        // Browsers and careful clients refuse to leave TLS, and they are right.
        return false;
    }
    let is_same_host = base.is_some_and(|base| base.host_str() == url.host_str());
    // Most clients keep credentials for another port of the same host; S3 refuses a signed address
    // that comes with credentials as well.
    let keeps_credentials = parts.headers.contains_key(header::AUTHORIZATION);
    !(is_same_host && (keeps_credentials || is_one_of(parts, &ONLY_TO_OTHER_HOSTS)))
}

fn is_one_of(parts: &Parts, programs: &[&str]) -> bool {
    let agent = header_text(&parts.headers, &header::USER_AGENT).unwrap_or_default();
    let program = agent.split(['/', ' ']).next().unwrap_or_default();
    programs.contains(&program)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use http::request::Parts;
    use http::{Request, Version};
    use url::Url;

    use crate::http::redirect::{may_follow, reaches};

    fn request(headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::get("/v2/a/blobs/x");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn clients_that_cannot_follow_are_not_sent_away() {
        assert!(may_follow(&request(&[])));
        assert!(may_follow(&request(&[("user-agent", "curl/8.1")])));
        assert!(!may_follow(&request(&[("hayloft-redirect", "No")])));
        assert!(!may_follow(&request(&[("user-agent", "BusyBox/1.0")])));
        let mut old = request(&[]);
        old.version = Version::HTTP_10;
        assert!(!may_follow(&old));
    }

    #[test]
    fn nobody_is_sent_out_of_tls_nor_with_credentials_to_the_bucket() {
        let plain = Url::parse("http://s3.test:7070/b/x").unwrap();
        let secure = Url::parse("https://s3.test/b/x").unwrap();
        let login = request(&[("authorization", "Basic eA==")]);
        let ollama = request(&[("user-agent", "ollama/0.9.6 (amd64 linux) Go/go1.24")]);
        let anyone = request(&[]);
        assert!(reaches(&anyone, "http://hub.test", &plain));
        assert!(reaches(&anyone, "https://hub.test", &secure));
        assert!(!reaches(&anyone, "https://hub.test", &plain));
        assert!(reaches(&login, "http://hub.test:5000", &plain));
        assert!(!reaches(&login, "http://s3.test:5000", &plain));
        assert!(reaches(&ollama, "http://hub.test:5000", &plain));
        assert!(!reaches(&ollama, "http://s3.test:5000", &plain));
        assert!(reaches(&anyone, "", &plain));
    }
}
