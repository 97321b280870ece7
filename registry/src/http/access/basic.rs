//! HTTP's Basic scheme (RFC 7617): how a name and a password travel.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::{HeaderMap, HeaderValue, header};

use crate::http::access::hub_token;

/// Longest password that is looked at, in bytes; bcrypt reads the first 72.
const MAX_PASSWORD: usize = 1024;

/// Some clients leave the padding away.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What a request says about who sends it.
#[derive(PartialEq, Eq)]
pub(super) enum Sent {
    /// Nothing.
    Nothing,
    /// A name and a password.
    Login(String, String),
    /// Something that cannot be read, or another scheme.
    Unreadable,
}

/// Reads the `Authorization` header.
pub(super) fn read(headers: &HeaderMap) -> Sent {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (first, second) = (values.next(), values.next());
    match (first, second) {
        (None, _) => Sent::Nothing,
        (Some(value), None) => login(value).map_or(Sent::Unreadable, |(name, password)| {
            Sent::Login(name, password)
        }),
        // Two logins in one request: whoever is in front of us may have believed the other one.
        (Some(_), Some(_)) => Sent::Unreadable,
    }
}

fn login(value: &HeaderValue) -> Option<(String, String)> {
    let (scheme, encoded) = value.to_str().ok()?.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return hub_token::login(encoded).filter(|(_, password)| password.len() <= MAX_PASSWORD);
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(BASE64.decode(encoded.trim()).ok()?).ok()?;
    let (name, password) = decoded.split_once(':')?;
    (!name.is_empty() && password.len() <= MAX_PASSWORD)
        .then(|| (name.to_owned(), password.to_owned()))
}

/// The challenge that docker, podman, helm and the others answer with a stored login.
pub(super) fn challenge() -> HeaderValue {
    HeaderValue::from_static(r#"Basic realm="Hayloft", charset="UTF-8""#)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use http::{HeaderMap, header};

    use crate::http::access::basic::{Sent, read};

    fn sent(value: &str) -> Sent {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        read(&headers)
    }

    #[test]
    fn a_login_is_read_in_every_spelling_and_nothing_else_passes_for_one() {
        let login = |name: &str, password: &str| Sent::Login(name.into(), password.into());
        assert!(sent("Basic YTpi") == login("a", "b"));
        assert!(sent("basic YTpiOmM=") == login("a", "b:c"));
        assert!(sent("BASIC YTpiOmM") == login("a", "b:c"));
        assert!(sent("Basic YTo=") == login("a", ""));
        assert!(sent("Bearer hf_613a62") == login("a", "b"));
        for bad in [
            "Basic",
            "Basic ",
            "Basic YQ==",
            "Basic Omi=",
            "Bearer x",
            "Basic %%",
            "YTpi",
        ] {
            assert!(sent(bad) == Sent::Unreadable, "{bad}");
        }
        assert!(read(&HeaderMap::new()) == Sent::Nothing);
    }

    #[test]
    fn two_logins_in_one_request_are_none() {
        let mut headers = HeaderMap::new();
        headers.append(header::AUTHORIZATION, "Basic YTpi".parse().unwrap());
        headers.append(header::AUTHORIZATION, "Basic YzpkCg==".parse().unwrap());
        assert!(read(&headers) == Sent::Unreadable);
    }
}
