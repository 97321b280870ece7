//! Redirects: which ones are followed. reqwest itself drops the `Authorization` header as soon as
//! scheme, host or port change.

use std::fmt;
use std::net::IpAddr;

use reqwest::redirect::{Action, Attempt};
use url::Url;

/// Most redirects that are followed.
const MAX_REDIRECTS: usize = 5;

/// A redirect that is not followed.
#[derive(Debug)]
pub(crate) struct Unfollowed {
    /// Where to, without the query, which may carry a signature.
    pub(crate) to: String,
    /// Why not.
    pub(crate) reason: &'static str,
}

impl fmt::Display for Unfollowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "redirected to {}: {}", self.to, self.reason)
    }
}

impl std::error::Error for Unfollowed {}

/// Follows a few redirects, never from TLS to plain text, never onto addresses that only this
/// machine or its hypervisor serves unless the chain began there.
pub(super) fn follow(attempt: Attempt<'_>) -> Action {
    let from = attempt.previous().last();
    let reason = if attempt.previous().len() > MAX_REDIRECTS {
        "that is one redirect too many"
    } else if from.is_some_and(|url| url.scheme() == "https") && attempt.url().scheme() != "https" {
        "that is from https to http"
    } else if points_inward(attempt.url()) && !from.is_some_and(points_inward) {
        "that is an address of this machine itself"
    } else {
        return attempt.follow();
    };
    let to = crate::client::answer::shown(attempt.url());
    attempt.error(Unfollowed { to, reason })
}

/// Whether a URL is of this machine itself.
pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        None => false,
    }
}

fn points_inward(url: &url::Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(address)) => is_inward(IpAddr::V4(address)),
        Some(url::Host::Ipv6(address)) => is_inward(IpAddr::V6(address)),
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        None => true,
    }
}

fn is_inward(address: IpAddr) -> bool {
    let address = match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    };
    match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local() || v4.is_unspecified(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unicast_link_local() || v6.is_unspecified(),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use crate::client::transport::redirect::points_inward;

    #[test]
    fn addresses_of_this_machine_are_known_in_every_spelling() {
        for url in [
            "http://127.0.0.1/",
            "http://0x7f.1/",
            "http://[::ffff:169.254.169.254]/",
            "http://169.254.169.254/latest",
            "http://localhost:5000/",
            "http://[::1]/",
        ] {
            assert!(points_inward(&url.parse().unwrap()), "{url}");
        }
        assert!(!points_inward(&"https://cdn.example/".parse().unwrap()));
        assert!(!points_inward(&"http://10.1.2.3/".parse().unwrap()));
    }
}
