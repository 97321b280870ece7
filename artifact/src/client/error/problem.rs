//! Problem: why a place could not be reached, told apart for people.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use url::Url;

use crate::client::transport::{Unfollowed, Untrusted};

/// Why a request got no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The name of the host cannot be resolved.
    Name {
        /// The host.
        host: String,
    },
    /// Nothing listens there.
    Nobody,
    /// No connection in the time allowed.
    Silent,
    /// A certificate of an issuer whom nobody here trusts.
    Untrusted {
        /// The issuer.
        issuer: String,
    },
    /// A certificate that is wrong otherwise, or TLS that fails.
    Tls {
        /// What is wrong.
        reason: String,
    },
    /// A proxy does not make the connection.
    Tunnel {
        /// What it said.
        reason: &'static str,
    },
    /// A redirect that is not followed.
    Redirect {
        /// Where to.
        to: String,
        /// Why not.
        reason: &'static str,
    },
    /// The connection broke.
    Broken {
        /// What the system or the protocol says.
        reason: String,
    },
}

impl Problem {
    /// Tells it from the chain of causes.
    pub(super) fn of(error: &reqwest::Error, url: &Url) -> Self {
        let mut cause: Option<&(dyn StdError + 'static)> = error.source();
        let mut found = if error.is_timeout() {
            Self::Silent
        } else {
            Self::broken(error)
        };
        while let Some(current) = cause {
            if let Some(problem) = Self::told_by(current, url) {
                found = problem;
            }
            cause = current.source();
        }
        found
    }

    /// A connection that broke, in the words of the innermost cause.
    pub(super) fn broken(error: &reqwest::Error) -> Self {
        let mut cause: &(dyn StdError + 'static) = error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        Self::Broken {
            reason: cause.to_string(),
        }
    }

    /// What one error of the chain says; the innermost that says something decides.
    fn told_by(error: &(dyn StdError + 'static), url: &Url) -> Option<Self> {
        if let Some(unfollowed) = error.downcast_ref::<Unfollowed>() {
            return Some(Self::Redirect {
                to: unfollowed.to.clone(),
                reason: unfollowed.reason,
            });
        }
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return Some(Self::of_tls(tls));
        }
        if let Some(io) = error.downcast_ref::<io::Error>() {
            // What it wraps is not its source: that would be one step further.
            if let Some(inner) = io.get_ref() {
                return Self::told_by(inner, url);
            }
            return match io.kind() {
                io::ErrorKind::ConnectionRefused => Some(Self::Nobody),
                io::ErrorKind::TimedOut => Some(Self::Silent),
                _ => None,
            };
        }
        // These types are hyper-util's own, and only their texts can be seen.
        match error.to_string().as_str() {
            "dns error" | "error resolving for socks proxy" => Some(Self::Name {
                host: url.host_str().unwrap_or_default().to_owned(),
            }),
            "tunnel error: proxy authorization required" => Some(Self::Tunnel {
                reason: "it wants a name and a password (407)",
            }),
            "tunnel error: unsuccessful" => Some(Self::Tunnel {
                reason: "it refuses to connect there",
            }),
            "tunnel error: unexpected end of file" => Some(Self::Tunnel {
                reason: "it closed the connection",
            }),
            "error connecting to socks proxy" => Some(Self::Tunnel {
                reason: "it cannot be reached, or refuses to connect there",
            }),
            _ => None,
        }
    }

    fn of_tls(error: &rustls::Error) -> Self {
        if let rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other)) = error
            && let Some(untrusted) = other.0.downcast_ref::<Untrusted>()
        {
            return Self::Untrusted {
                issuer: untrusted.issuer.clone(),
            };
        }
        Self::Tls {
            reason: error.to_string(),
        }
    }

    /// Whether it may go away by itself in a moment.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Untrusted { .. }
            | Self::Tls { .. }
            | Self::Tunnel { .. }
            | Self::Redirect { .. } => false,
            Self::Name { .. } | Self::Nobody | Self::Silent | Self::Broken { .. } => true,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name { host } => write!(
                f,
                "the name {host} cannot be resolved: check its spelling, and the DNS of this machine"
            ),
            Self::Nobody => f.write_str("nothing listens there (connection refused)"),
            Self::Silent => f.write_str("it did not answer in time"),
            Self::Untrusted { issuer } => write!(
                f,
                "its certificate is issued by {issuer}, whom this machine does not trust: if you do, \
                 give that authority's certificate with --ca-file or SSL_CERT_FILE"
            ),
            Self::Tls { reason } => f.write_str(reason),
            Self::Tunnel { reason } => write!(f, "the proxy: {reason}"),
            Self::Redirect { to, reason } => {
                write!(f, "it redirects to {to}, which is not followed: {reason}")
            }
            Self::Broken { reason } => write!(f, "the connection broke off ({reason})"),
        }
    }
}
