//! Transport: the HTTP clients that every call to a registry shares, built when first needed.

mod issuer;
mod options;
mod redirect;
mod tls;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use hyper_util::client::proxy::matcher::Matcher;
use oci_distribution::client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol};
use reqwest::redirect::Policy;
use reqwest::{NoProxy, Proxy, StatusCode};
use url::Url;

use crate::client::error::{Error, Problem};
pub use options::{InvalidProxy, ProxyOptions, ProxyUrl, Timeouts, TransportOptions};
pub(crate) use redirect::Unfollowed;
pub(crate) use tls::Untrusted;

const USER_AGENT: &str = concat!("hayloft/", env!("CARGO_PKG_VERSION"));

/// HTTP clients with their connections; a clone shares them.
#[derive(Clone, Default)]
pub struct Transport(Arc<Shared>);

#[derive(Default)]
struct Shared {
    options: TransportOptions,
    proxies: OnceLock<Matcher>,
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
            .field("options", &self.0.options)
            .finish_non_exhaustive()
    }
}

impl Transport {
    /// A transport with no connection yet.
    #[must_use]
    pub fn new(options: TransportOptions) -> Self {
        Self(Arc::new(Shared {
            options,
            ..Shared::default()
        }))
    }

    /// A transport with the proxies of the environment and the authorities of the system.
    #[must_use]
    pub fn with_timeouts(timeouts: Timeouts) -> Self {
        Self::new(timeouts.into())
    }

    /// Whether its files can be read and its proxy be used, before anything depends on it.
    ///
    /// # Errors
    /// [`Error::Authority`], [`Error::Tls`] and [`Error::Setup`].
    pub fn check(&self) -> Result<(), Error> {
        self.http(false).map(|_| ())
    }

    /// How long a registry may take.
    #[must_use]
    pub fn timeouts(&self) -> Timeouts {
        self.0.options.timeouts
    }

    /// The client for a place that is known by its URL.
    pub(crate) fn http_for(&self, url: &Url) -> Result<reqwest::Client, Error> {
        self.http(redirect::is_loopback(url))
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
        let certificates = tls::read(&self.0.options.ca_files)?;
        let mut builder = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .http1_only()
            .tls_backend_preconfigured(tls::config(certificates)?)
            .connect_timeout(self.0.options.timeouts.connect)
            .redirect(Policy::custom(redirect::follow));
        if is_loopback {
            // A proxy cannot reach this machine's own loopback.
            builder = builder.no_proxy();
        } else if let Some(proxy) = &self.0.options.proxy {
            let through = Proxy::all(proxy.url.secret()).map_err(|source| Error::Setup {
                source: source.without_url(),
            })?;
            builder = builder.proxy(through.no_proxy(NoProxy::from_string(&proxy.no_proxy)));
        }
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
            connect_timeout: Some(self.0.options.timeouts.connect),
            read_timeout: Some(self.0.options.timeouts.stall),
            user_agent: USER_AGENT,
            ..ClientConfig::default()
        };
        config.extra_root_certificates = oci_certificates(&self.0.options.ca_files)?;
        if is_loopback {
            // The only way here to turn off a proxy from the environment: name one, for no host.
            config.http_proxy = Some("http://127.0.0.1:9".to_owned());
            config.no_proxy = Some("*,localhost,127.0.0.0/8,::1".to_owned());
        } else if let Some(proxy) = &self.0.options.proxy {
            config.http_proxy = Some(proxy.url.secret().to_owned());
            config.https_proxy = Some(proxy.url.secret().to_owned());
            config.no_proxy = Some(proxy.no_proxy.clone());
        }
        // `Client::new` would fall back to defaults, and so drop proxies and certificates.
        let client =
            oci_distribution::Client::try_from(config).map_err(|error| Error::Handshake {
                registry: String::from("any registry"),
                reason: error.to_string(),
            })?;
        Ok(cell.get_or_init(|| client).clone())
    }

    /// The proxy that stands between here and a URL, without its credentials.
    #[must_use]
    pub fn proxy_for(&self, url: &Url) -> Option<String> {
        if redirect::is_loopback(url) {
            return None;
        }
        let matcher = self.0.proxies.get_or_init(|| match &self.0.options.proxy {
            Some(proxy) => Matcher::builder()
                .all(proxy.url.secret().to_owned())
                .no(proxy.no_proxy.clone())
                .build(),
            None => Matcher::from_env(),
        });
        let found = matcher.intercept(&url.as_str().parse().ok()?)?;
        let proxy = found.uri();
        let host = proxy.host()?;
        Some(match proxy.port_u16() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        })
    }

    /// What became of a request to `url` that got no answer.
    pub(crate) fn fault(&self, url: &Url, source: reqwest::Error) -> Error {
        let error = Error::transport(url, source);
        let Error::Transport {
            url: shown,
            problem,
            cause,
        } = error
        else {
            return error;
        };
        let Some(proxy) = self.proxy_for(url) else {
            return Error::Transport {
                url: shown,
                problem,
                cause,
            };
        };
        let reason = match problem {
            Problem::Tunnel { reason } => reason,
            // Behind a proxy, the only name that is looked up here is that of the proxy.
            Problem::Name { .. } => "its name cannot be resolved",
            Problem::Nobody => "nothing listens there",
            Problem::Silent => "it does not accept a connection in time",
            problem => {
                return Error::Transport {
                    url: shown,
                    problem,
                    cause,
                };
            }
        };
        Error::Proxy {
            proxy,
            url: shown,
            reason: reason.to_owned(),
            is_refusal: matches!(problem, Problem::Tunnel { .. }),
        }
    }

    /// An answer that is a proxy's own and not that of the place that was asked.
    pub(crate) fn answer_of_proxy(
        &self,
        url: &Url,
        status: StatusCode,
        is_marked: bool,
        detail: &str,
    ) -> Option<Error> {
        let is_its_own = status == StatusCode::PROXY_AUTHENTICATION_REQUIRED || is_marked;
        if !is_its_own || url.scheme() != "http" {
            return None;
        }
        let wants = match status {
            StatusCode::PROXY_AUTHENTICATION_REQUIRED => ": it wants a name and a password",
            _ => "",
        };
        Some(Error::Proxy {
            proxy: self.proxy_for(url)?,
            url: crate::client::answer::shown(url),
            reason: if detail.is_empty() {
                format!("it answered {status}{wants}")
            } else {
                format!("it answered {status}{wants}: {detail}")
            },
            is_refusal: status.is_client_error(),
        })
    }
}

/// Whether a list in the form of `NO_PROXY` excepts a host, as the clients here read it.
#[must_use]
pub fn is_excepted(no_proxy: &str, host: &str) -> bool {
    let matcher = Matcher::builder()
        .all("http://proxy.invalid:3128")
        .no(no_proxy)
        .build();
    format!("http://{host}/")
        .parse()
        .is_ok_and(|url| matcher.intercept(&url).is_none())
}

/// The certificates of the files, for the client of the token handshake.
fn oci_certificates(files: &[PathBuf]) -> Result<Vec<Certificate>, Error> {
    let certificates = tls::read(files)?;
    let certificates = certificates.into_iter().map(|der| Certificate {
        encoding: CertificateEncoding::Der,
        data: der.to_vec(),
    });
    Ok(certificates.collect())
}
