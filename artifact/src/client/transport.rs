//! Transport: the HTTP clients that every call to a registry shares, built when first needed.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use oci_distribution::client::{ClientConfig, ClientProtocol};
use reqwest::redirect::{Attempt, Policy};

use crate::client::error::Error;

/// Most redirects that are followed.
const MAX_REDIRECTS: usize = 5;
const USER_AGENT: &str = concat!("hayloft/", env!("CARGO_PKG_VERSION"));

/// How long a registry may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// To accept a connection. Default 10 s.
    pub connect: Duration,
    /// To send the next bytes. There is no limit on a transfer as a whole. Default 30 s.
    pub stall: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            stall: Duration::from_secs(30),
        }
    }
}

/// HTTP clients with their connections; a clone shares them.
#[derive(Clone, Default)]
pub struct Transport(Arc<Shared>);

#[derive(Default)]
struct Shared {
    timeouts: Timeouts,
    remote: OnceLock<reqwest::Client>,
    loopback: OnceLock<reqwest::Client>,
    oci_tls: OnceLock<oci_distribution::Client>,
    oci_plain: OnceLock<oci_distribution::Client>,
    oci_loopback: OnceLock<oci_distribution::Client>,
    oci_loopback_tls: OnceLock<oci_distribution::Client>,
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transport")
            .field("timeouts", &self.0.timeouts)
            .finish_non_exhaustive()
    }
}

impl Transport {
    /// A transport with no connection yet.
    #[must_use]
    pub fn with_timeouts(timeouts: Timeouts) -> Self {
        Self(Arc::new(Shared {
            timeouts,
            ..Shared::default()
        }))
    }

    /// How long a registry may take.
    #[must_use]
    pub fn timeouts(&self) -> Timeouts {
        self.0.timeouts
    }

    /// The client for a place that is known by its URL.
    pub(crate) fn http_for(&self, url: &url::Url) -> Result<reqwest::Client, Error> {
        self.http(is_loopback(url))
    }

    /// The client for blobs and manifests. HTTP/1.1 alone: one connection for each range uses the
    /// link better than the flow-control windows of one HTTP/2 connection.
    pub(crate) fn http(&self, is_loopback: bool) -> Result<reqwest::Client, Error> {
        let cell = if is_loopback {
            &self.0.loopback
        } else {
            &self.0.remote
        };
        if let Some(client) = cell.get() {
            return Ok(client.clone());
        }
        let builder = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .http1_only()
            .connect_timeout(self.0.timeouts.connect)
            .redirect(Policy::custom(follow));
        // A proxy cannot reach this machine's own loopback.
        let builder = if is_loopback {
            builder.no_proxy()
        } else {
            builder
        };
        let client = builder.build().map_err(|source| Error::Setup { source })?;
        Ok(cell.get_or_init(|| client).clone())
    }

    /// The client for the token handshake.
    pub(crate) fn oci(
        &self,
        is_plain: bool,
        is_loopback: bool,
    ) -> Result<oci_distribution::Client, Error> {
        let (cell, protocol) = match (is_plain, is_loopback) {
            (true, true) => (&self.0.oci_loopback, ClientProtocol::Http),
            (true, false) => (&self.0.oci_plain, ClientProtocol::Http),
            (false, true) => (&self.0.oci_loopback_tls, ClientProtocol::Https),
            (false, false) => (&self.0.oci_tls, ClientProtocol::Https),
        };
        if let Some(client) = cell.get() {
            return Ok(client.clone());
        }
        let mut config = ClientConfig {
            protocol,
            connect_timeout: Some(self.0.timeouts.connect),
            read_timeout: Some(self.0.timeouts.stall),
            user_agent: USER_AGENT,
            ..ClientConfig::default()
        };
        if is_loopback {
            // The only way here to turn off a proxy from the environment: name one, for no host.
            config.http_proxy = Some("http://127.0.0.1:9".to_owned());
            config.no_proxy = Some("*,localhost,127.0.0.0/8,::1".to_owned());
        }
        // `Client::new` would fall back to defaults, and so drop proxies and certificates.
        let client =
            oci_distribution::Client::try_from(config).map_err(|error| Error::Handshake {
                registry: String::from("any registry"),
                reason: error.to_string(),
            })?;
        Ok(cell.get_or_init(|| client).clone())
    }
}

/// Follows a few redirects, never from TLS to plain text, never onto addresses that only this
/// machine or its hypervisor serves unless the chain began there. reqwest itself drops the
/// `Authorization` header when the host changes.
fn follow(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    if attempt.previous().len() > MAX_REDIRECTS {
        return attempt.error("too many redirects");
    }
    let from = attempt.previous().last();
    let was_tls = from.is_some_and(|url| url.scheme() == "https");
    if was_tls && attempt.url().scheme() != "https" {
        return attempt.error("redirected from https to http");
    }
    let was_inward = from.is_some_and(points_inward);
    if points_inward(attempt.url()) && !was_inward {
        return attempt.error("redirected to a loopback or link-local address");
    }
    attempt.follow()
}

/// Whether a URL is of this machine itself.
fn is_loopback(url: &url::Url) -> bool {
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
    use crate::client::transport::points_inward;

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
