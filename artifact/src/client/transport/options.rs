//! TransportOptions: how places are reached: times, a proxy, authorities beside the system's.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use url::Url;

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

/// How places are reached. This machine itself is never reached through a proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TransportOptions {
    /// How long they may take.
    pub timeouts: Timeouts,
    /// The proxy for all of them. Without it, that of the environment: `HTTP_PROXY` (not in CGI),
    /// `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`, in upper or lower case.
    pub proxy: Option<ProxyOptions>,
    /// Files with certificates of authorities in PEM, trusted beside those of the system (or, if
    /// they are set, those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name).
    pub ca_files: Vec<PathBuf>,
}

impl From<Timeouts> for TransportOptions {
    fn from(timeouts: Timeouts) -> Self {
        Self {
            timeouts,
            ..Self::default()
        }
    }
}

/// A proxy, and what is reached without it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyOptions {
    /// The proxy.
    pub url: ProxyUrl,
    /// Hosts, domains and networks that are reached directly, separated by commas, in the form of
    /// `NO_PROXY`.
    pub no_proxy: String,
}

/// Why a text is not the URL of a proxy. The message does not repeat it: it may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "that is not the URL of a proxy: write http://, https://, socks5:// or socks5h://HOST:PORT"
)]
pub struct InvalidProxy;

/// The URL of an HTTP, HTTPS or SOCKS5 proxy; what is shown of it holds no credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyUrl(Url);

impl ProxyUrl {
    /// Whether it holds a name or a password, which belong into a file or the environment.
    #[must_use]
    pub fn has_credentials(&self) -> bool {
        !self.0.username().is_empty() || self.0.password().is_some()
    }

    /// All of it, credentials included: for the client alone.
    pub(super) fn secret(&self) -> &str {
        self.0.as_str()
    }
}

impl FromStr for ProxyUrl {
    type Err = InvalidProxy;

    fn from_str(text: &str) -> Result<Self, InvalidProxy> {
        let url = Url::parse(text).map_err(|_| InvalidProxy)?;
        let is_known = matches!(url.scheme(), "http" | "https" | "socks5" | "socks5h");
        if is_known && url.host_str().is_some() {
            Ok(Self(url))
        } else {
            Err(InvalidProxy)
        }
    }
}

impl fmt::Display for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.0.host_str().unwrap_or_default();
        match self.0.port_or_known_default() {
            Some(port) => write!(f, "{}://{host}:{port}", self.0.scheme()),
            None => write!(f, "{}://{host}", self.0.scheme()),
        }
    }
}

impl fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed expectation is a failed test")]
mod tests {
    use crate::client::transport::ProxyUrl;

    #[test]
    fn a_proxy_shows_without_its_password() {
        let proxy: ProxyUrl = "http://me:geheim@proxy.example:3128".parse().unwrap();
        assert!(proxy.has_credentials());
        assert_eq!(format!("{proxy} {proxy:?}").matches("geheim").count(), 0);
        assert_eq!(proxy.to_string(), "http://proxy.example:3128");
        assert!(
            !"socks5h://p:1080"
                .parse::<ProxyUrl>()
                .unwrap()
                .has_credentials()
        );
        for text in ["", "proxy:3128", "ftp://x", "http://"] {
            assert!(text.parse::<ProxyUrl>().is_err(), "{text}");
        }
    }
}
