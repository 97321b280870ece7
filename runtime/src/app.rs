//! Config and the composition root: catalog, loaded models, API, shutdown.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use artifact::CacheLayout;
use futures::future::BoxFuture;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::api;
use crate::error::Error;
use crate::models::catalog::Catalog;
use crate::models::loaded::{LoadPolicy, LoadedModels};

/// llama.cpp's own bound on sequences is 256; this many already decode slower than they are read.
const MAX_PARALLEL: usize = 64;

/// How long clients that were cut off may take to read that they were.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What the runtime is started with.
#[derive(Debug, Clone)]
pub struct Config {
    /// Address of the node agent, as in `http://127.0.0.1:5001` or `unix:///path`. Without one the
    /// models in the cache folder are served, and none can be pulled or deleted.
    pub agent: Option<String>,
    /// Root of the node's cache; only read.
    pub cache: PathBuf,
    /// How long a model stays loaded after its last request. Default: 5 minutes.
    pub keep_alive: Duration,
    /// Requests that one model answers at the same time. Default: 4.
    pub num_parallel: usize,
    /// Positions per request; none: the model's own `num_ctx`, else 4096, and never more than the
    /// model was made for.
    pub context_length: Option<u32>,
    /// Requests that may wait for one model before others are turned away. Default: 512.
    pub max_queue: usize,
    /// Threads to compute with; none: as many as the CPU quota and affinity allow.
    pub threads: Option<usize>,
    /// Models loaded at the same time. Default: 3.
    pub max_loaded_models: usize,
    /// Origins beside this machine's own that browsers may call from.
    pub origins: Vec<String>,
    /// How long requests under way may take to end after shutdown was asked for. Default: 10 s.
    pub shutdown_grace: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            agent: None,
            cache: PathBuf::from("cache"),
            keep_alive: Duration::from_secs(300),
            num_parallel: 4,
            context_length: None,
            max_queue: 512,
            threads: None,
            max_loaded_models: 3,
            origins: Vec::new(),
            shutdown_grace: Duration::from_secs(10),
        }
    }
}

impl Config {
    fn load_policy(&self) -> LoadPolicy {
        let available = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = self.threads.unwrap_or(available).max(1);
        let num_parallel = self.num_parallel.clamp(1, MAX_PARALLEL);
        LoadPolicy {
            keep_alive: self.keep_alive,
            num_parallel: u32::try_from(num_parallel).unwrap_or(1),
            context_length: self.context_length,
            max_queue: self.max_queue,
            threads: u32::try_from(threads).unwrap_or(1),
            max_loaded_models: self.max_loaded_models,
        }
    }
}

/// What the handlers share.
#[derive(Debug)]
pub(crate) struct Runtime {
    /// The models of the node.
    pub(crate) catalog: Catalog,
    /// Those that are loaded.
    pub(crate) loaded: Arc<LoadedModels>,
}

/// Serves both APIs on `listener` until `shutdown` completes; then takes no more connections, and
/// gives requests under way [`Config::shutdown_grace`] to end.
///
/// # Errors
/// [`Error::Agent`] when the agent's address cannot be used, [`Error::Serve`] when the listener
/// fails.
pub async fn serve(
    config: Config,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    run(config, listener, Box::pin(shutdown)).await
}

/// Boxed, so that it is compiled here, once: a generic future is compiled again, with all that it
/// awaits, in the crate that calls it.
fn run(
    config: Config,
    listener: TcpListener,
    shutdown: BoxFuture<'static, ()>,
) -> BoxFuture<'static, Result<(), Error>> {
    Box::pin(async move {
        let catalog = Catalog::open(config.agent.as_deref(), CacheLayout::new(&config.cache))?;
        let loaded = Arc::new(LoadedModels::new(
            config.load_policy(),
            catalog.agent().cloned(),
        ));
        let expiring = tokio::spawn({
            let loaded = Arc::clone(&loaded);
            async move { loaded.expire().await }
        });
        let runtime = Arc::new(Runtime {
            catalog,
            loaded: Arc::clone(&loaded),
        });
        let is_local = listener
            .local_addr()
            .is_ok_and(|address| address.ip().is_loopback());
        let router = api::router(runtime, &config.origins, is_local);

        let stopping = CancellationToken::new();
        let server = axum::serve(listener, router).with_graceful_shutdown({
            let stopping = stopping.clone();
            async move {
                shutdown.await;
                stopping.cancel();
            }
        });
        let mut server = server.into_future();
        let grace = async {
            stopping.cancelled().await;
            tokio::time::sleep(config.shutdown_grace).await;
        };
        let result = tokio::select! {
            result = &mut server => result.map_err(Error::Serve),
            () = grace => {
                tracing::warn!("requests under way did not end in time and are cut off");
                loaded.stop();
                // Their clients are told so; nobody is waited for who does not read it.
                match tokio::time::timeout(LAST_WORDS, server).await {
                    Ok(result) => result.map_err(Error::Serve),
                    Err(_elapsed) => Ok(()),
                }
            }
        };
        expiring.abort();
        loaded.stop();
        result
    })
}
