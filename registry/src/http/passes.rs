//! Passes: addresses of blobs that need no login, for clients that fetch the parts of a blob
//! without one.
//!
//! Ollama asks for a blob once, reads `Location` from the answer, and fetches ranges of that address
//! without any header of its own. So where a login is needed, the answer to somebody who may read
//! the blob carries an address with an expiring signature over repository, digest and expiry. It
//! opens that blob for reading and nothing else, to whoever has it, until it expires.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use artifact::{Digest, Repository};
use aws_lc_rs::hmac;
use http::request::Parts;
use http::{Method, header};

use crate::http::access::Identity;
use crate::http::error::Failure;
use crate::http::query::Query;
use crate::http::{State, blob_path};
use crate::service::passes::KEY_BYTES;

/// The query parameter with the time of expiry, in seconds since 1970.
const EXPIRES: &str = "expires";
/// The query parameter with the signature, in hexadecimal digits.
const SIGNATURE: &str = "signature";
/// 400 GB over a line of 50 Mbit/s take 18 hours; Ollama asks for an address once for all of it.
const LIFE: Duration = Duration::from_secs(24 * 3600);

/// Signs addresses of blobs and knows its own again.
pub(super) struct Passes(hmac::Key);

impl fmt::Debug for Passes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Passes(hidden)")
    }
}

impl Passes {
    /// With this key.
    pub(super) fn new(key: &[u8; KEY_BYTES]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// The address of a blob that is good until `expires`.
    fn address(&self, repository: &Repository, digest: &Digest, expires: u64) -> String {
        let signature = hmac::sign(&self.0, &signed_text(repository, digest, expires));
        let signature = hex::encode(signature);
        let path = blob_path(repository, digest);
        format!("{path}?{EXPIRES}={expires}&{SIGNATURE}={signature}")
    }

    /// Whether this signature was made here for this blob, and has not expired at `now`.
    fn opens(&self, repository: &Repository, digest: &Digest, query: &Query, now: u64) -> bool {
        let expires = query.get(EXPIRES).and_then(|text| text.parse().ok());
        let signature = query.get(SIGNATURE).and_then(|text| hex::decode(text).ok());
        let (Some(expires), Some(signature)) = (expires, signature) else {
            return false;
        };
        let text = signed_text(repository, digest, expires);
        now < expires && hmac::verify(&self.0, &text, &signature).is_ok()
    }
}

/// Neither a name nor a digest contains a line break, so no two blobs share a text.
fn signed_text(repository: &Repository, digest: &Digest, expires: u64) -> Vec<u8> {
    format!("hayloft blob\n{repository}\n{digest}\n{expires}").into_bytes()
}

/// Whether the request bears a pass, and nothing else: credentials are looked at first.
pub(super) fn is_borne(parts: &Parts) -> bool {
    let has_signature = || Query::parse(&parts.uri).get(SIGNATURE).is_some();
    !parts.headers.contains_key(header::AUTHORIZATION) && has_signature()
}

/// Whether the request's pass opens the blob. `false` for a request without one, which has to
/// prove who it is.
pub(super) fn admit(
    state: &State,
    parts: &Parts,
    repository: &Repository,
    digest: &Digest,
) -> Result<bool, Failure> {
    let is_read = matches!(parts.method, Method::GET | Method::HEAD);
    let Some(passes) = state.setup.passes.as_ref().filter(|_| is_read) else {
        return Ok(false);
    };
    if !is_borne(parts) {
        return Ok(false);
    }
    if passes.opens(repository, digest, &Query::parse(&parts.uri), now()) {
        return Ok(true);
    }
    Err(Failure::Unauthorized(state.setup.policy.challenge()))
}

/// Where the ranges of a blob are to be had by whoever was just let in.
pub(super) fn place(
    state: &State,
    parts: &Parts,
    identity: Option<&Identity>,
    repository: &Repository,
    digest: &Digest,
) -> String {
    match (&state.setup.passes, identity) {
        (Some(passes), Some(Identity::User(_))) => {
            passes.address(repository, digest, now().saturating_add(LIFE.as_secs()))
        }
        // A pass gives no longer pass.
        (Some(_), None) => parts.uri.path_and_query().map_or_else(
            || blob_path(repository, digest),
            |address| address.as_str().to_owned(),
        ),
        _ => blob_path(repository, digest),
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use artifact::{Digest, Repository};
    use http::Uri;

    use crate::http::passes::Passes;
    use crate::http::query::Query;

    #[test]
    fn a_pass_opens_one_blob_until_it_expires() {
        let name = |text: &str| Repository::parse(text).unwrap();
        let (digest, other) = (Digest::sha256(b"a"), Digest::sha256(b"b"));
        let passes = Passes::new(&[7; 32]);
        let address: Uri = passes
            .address(&name("team/a"), &digest, 1000)
            .parse()
            .unwrap();
        let query = Query::parse(&address);
        assert!(passes.opens(&name("team/a"), &digest, &query, 999));
        assert!(!passes.opens(&name("team/a"), &digest, &query, 1000));
        assert!(!passes.opens(&name("team/a"), &other, &query, 999));
        assert!(!passes.opens(&name("team/b"), &digest, &query, 999));
        assert!(!Passes::new(&[8; 32]).opens(&name("team/a"), &digest, &query, 999));
        let later = address.to_string().replace("expires=1000", "expires=2000");
        let later = Query::parse(&later.parse().unwrap());
        assert!(!passes.opens(&name("team/a"), &digest, &later, 999));
        for none in ["/x", "/x?expires=2000", "/x?expires=2000&signature=zz"] {
            let query = Query::parse(&none.parse().unwrap());
            assert!(
                !passes.opens(&name("team/a"), &digest, &query, 999),
                "{none}"
            );
        }
    }
}
