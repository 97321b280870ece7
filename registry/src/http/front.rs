//! The front of a registry: from its configuration to a server that answers.

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::error::Error;
use crate::http::access::{Accounts, OpenPolicy, Policy};
use crate::http::passes::Passes;
use crate::http::server::{self, Options};
use crate::http::tls::Tls;
use crate::http::{Setup, State, operator_router, router};
use crate::metrics::Metrics;
use crate::service::Registry;

/// Where a registry is reached.
#[derive(Debug)]
pub struct Listeners {
    /// The API.
    pub api: TcpListener,
    /// Metrics and health without a login and without TLS, for an address that only the operator
    /// reaches.
    pub metrics: Option<TcpListener>,
}

impl From<TcpListener> for Listeners {
    fn from(api: TcpListener) -> Self {
        Self { api, metrics: None }
    }
}

/// Everything that a registry needs to speak HTTP, read and checked before its storage is touched.
#[derive(Debug)]
pub(crate) struct Front {
    setup: Setup,
    options: Options,
}

impl Front {
    /// Reads accounts, certificate and key.
    ///
    /// # Errors
    /// [`Error::Htpasswd`], [`Error::Certificate`], and [`Error::Storage`] for a file that cannot
    /// be read.
    pub(crate) fn open(config: &Config) -> Result<Self, Error> {
        let policy: Arc<dyn Policy> = match &config.htpasswd {
            Some(path) => Arc::new(Accounts::open(path.clone(), config.reload.clone())?),
            None => Arc::new(OpenPolicy),
        };
        let tls = match &config.tls {
            Some(files) => Some(Tls::open(files.clone(), config.reload.clone())?),
            None => None,
        };
        let metrics = Metrics::new();
        let closing = CancellationToken::new();
        Ok(Self {
            setup: Setup {
                policy,
                passes: None,
                external_url: config.external_url.clone(),
                redirect: config.redirect,
                is_tls: tls.is_some(),
                read_only: config.read_only,
                body_idle: config.limits.body_idle,
                closing: closing.clone(),
                metrics: metrics.clone(),
            },
            options: Options {
                limits: config.limits,
                tls,
                grace: config.shutdown_grace,
                closing,
                metrics,
            },
        })
    }

    /// Where everything is counted.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.options.metrics
    }

    /// Answers until `shutdown` completes and running requests have finished.
    pub(crate) async fn serve(
        self,
        registry: Arc<Registry>,
        listeners: Listeners,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), Error> {
        let mut setup = self.setup;
        if setup.policy.wants_logins() {
            setup.passes = Some(Passes::new(&registry.pass_key().await?));
        }
        let state = State::new(registry, setup);
        let operator = listeners.metrics.map(|listener| {
            let options = Options {
                tls: None,
                ..self.options.clone()
            };
            let router = operator_router(state.clone());
            server::serve(router, listener, options, std::future::pending())
        });
        // Until the last request is done: how a shutdown goes is worth watching.
        let serving = server::serve(router(state), listeners.api, self.options, shutdown);
        match operator {
            None => serving.await,
            Some(operator) => tokio::select! {
                served = serving => served,
                served = operator => served,
            },
        }
    }
}
