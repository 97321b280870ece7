//! Config and the composition root: cache, puller, API, two listeners, shutdown.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use artifact::Reference;
use artifact::agent_api::{EnsureRequest, ModelEntry, PullEvent};
use artifact::catalog::timestamp;
use axum::serve::ListenerExt;
use futures::future::BoxFuture;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::cache::{DiskOptions, NodeCache};
use crate::error::Error;
use crate::http::{Api, router};
use crate::keeper;
use crate::preload::{self, Board, PreloadOptions};
use crate::pull::{PullOptions, Puller};
use crate::repair;
use crate::scrub;
use crate::socket::Socket;

/// How long connections and downloads may take to end: less than the 30 s that Kubernetes gives.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(20);

/// What an agent needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The cache folder; made if need be.
    pub root: PathBuf,
    /// The Unix socket. Default `agent.sock` in the cache folder.
    pub socket: Option<PathBuf>,
    /// How models are pulled.
    pub pull: PullOptions,
    /// How the disk is kept.
    pub disk: DiskOptions,
    /// What is kept here in any case.
    pub preload: Option<PreloadOptions>,
}

impl Config {
    /// The defaults for a cache below `root`.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            socket: None,
            pull: PullOptions::default(),
            disk: DiskOptions::default(),
            preload: None,
        }
    }
}

/// Serves the agent's API on `listener` and on the Unix socket until `shutdown` is done. Downloads
/// that are under way then are cut off; the next run goes on with what they had.
///
/// # Errors
/// [`Error::Locked`] when another agent uses the folder; [`Error::Listen`]; [`Error::Storage`] when
/// the folder cannot be used.
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
        let node = LocalNode::open(config.clone()).await?;
        let (stop, stopping) = watch::channel(false);
        let preload = config
            .preload
            .clone()
            .map(|options| (Board::new(&options.file), options));
        let routes = router(Api {
            puller: node.puller.clone(),
            started_at: timestamp(SystemTime::now()),
            preload: preload.as_ref().map(|(board, _)| board.clone()),
            stopping: stopping.clone(),
        });
        let socket = bind_socket(&config, &node.puller)?;
        // Dropped with this future, and its tasks with it.
        let mut background = JoinSet::new();
        background.spawn(keeper::keep(node.puller.cache().clone()));
        background.spawn(repair::run(node.puller.clone()));
        if config.disk.scrub_rate > 0 {
            let cache = node.puller.cache().clone();
            background.spawn(scrub::run(cache, config.disk.scrub_rate));
        }
        if let Some((board, options)) = preload {
            background.spawn(preload::keep(node.puller.clone(), options, board));
        }
        tracing::info!(root = %config.root.display(), "the node agent serves");
        let stopped = |mut stopping: watch::Receiver<bool>| async move {
            // An error means that the sender is gone, which is a reason to stop as well.
            let _ = stopping.wait_for(|stopping| *stopping).await;
        };
        // Events are small and come one by one: none may wait until the one before is acknowledged.
        let listener = listener.tap_io(|connection| drop(connection.set_nodelay(true)));
        let http =
            axum::serve(listener, routes.clone()).with_graceful_shutdown(stopped(stopping.clone()));
        let local = async {
            match socket {
                Some(socket) => {
                    axum::serve(socket, routes)
                        .with_graceful_shutdown(stopped(stopping.clone()))
                        .await
                }
                None => Ok(()),
            }
        };
        let serving = async { tokio::try_join!(http.into_future(), local).map(drop) };
        tokio::pin!(serving);
        let served = tokio::select! {
            served = &mut serving => served,
            () = shutdown => {
                stop.send_replace(true);
                end(serving, &node.puller).await
            }
        };
        served.map_err(|source| Error::Listen {
            address: "the agent's addresses".to_owned(),
            source,
        })
    })
}

/// Lets answers end and downloads put what they have on the disk, for a time.
async fn end(serving: impl Future<Output = io::Result<()>>, puller: &Puller) -> io::Result<()> {
    let ending = async { tokio::join!(serving, puller.halt()) };
    match tokio::time::timeout(SHUTDOWN_GRACE, ending).await {
        Ok((served, ())) => served,
        Err(_) => {
            tracing::warn!("some connections or downloads did not end in time and are cut off");
            Ok(())
        }
    }
}

/// Binds the Unix socket. A socket that was asked for must work; the default one may fail where the
/// path is too long for the system, since there is TCP as well.
fn bind_socket(config: &Config, puller: &Puller) -> Result<Option<Socket>, Error> {
    let asked = config.socket.clone();
    let path = asked
        .clone()
        .unwrap_or_else(|| puller.cache().layout().socket());
    match Socket::bind(path.clone(), puller.cache().clone()) {
        Ok(listener) => Ok(Some(listener)),
        Err(source) if asked.is_some() => Err(Error::Listen {
            address: path.display().to_string(),
            source,
        }),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "there is no Unix socket");
            Ok(None)
        }
    }
}

/// A node's cache used by this process itself, without an agent.
#[derive(Clone, Debug)]
pub struct LocalNode {
    puller: Puller,
}

impl LocalNode {
    /// Opens the cache and holds its lock.
    ///
    /// # Errors
    /// [`Error::Locked`] when an agent runs on the folder: ask that agent instead;
    /// [`Error::Storage`] when the folder cannot be used.
    pub async fn open(config: Config) -> Result<Self, Error> {
        let (root, disk) = (config.root.clone(), config.disk.clone());
        let opened = tokio::task::spawn_blocking(move || NodeCache::open(&root, disk)).await;
        let cache = opened.unwrap_or_else(|panic| {
            Err(Error::Interrupted {
                what: format!("opening the cache ({panic})"),
            })
        })?;
        Ok(Self {
            puller: Puller::new(cache, config.pull),
        })
    }

    /// Sees to it that a model is in the cache; `on_event` is told how it goes.
    ///
    /// # Errors
    /// As [`Puller::ensure`].
    pub async fn ensure(
        &self,
        request: &EnsureRequest,
        on_event: &mut (dyn FnMut(&PullEvent) + Send),
    ) -> Result<ModelEntry, Error> {
        Ok(self.puller.ensure(request, on_event).await?.model)
    }

    /// The models, by name.
    ///
    /// # Errors
    /// As [`NodeCache::list`].
    pub async fn list(&self) -> Result<Vec<ModelEntry>, Error> {
        self.puller.cache().blocking(|cache| cache.list()).await
    }

    /// The model of that name, if it is here.
    ///
    /// # Errors
    /// As [`NodeCache::find`].
    pub async fn find(&self, reference: &Reference) -> Result<Option<ModelEntry>, Error> {
        let reference = reference.clone();
        self.puller
            .cache()
            .blocking(move |cache| cache.find(&reference))
            .await
    }

    /// Takes a model out of the cache.
    ///
    /// # Errors
    /// As [`NodeCache::remove`].
    pub async fn remove(&self, reference: &Reference, force: bool) -> Result<(), Error> {
        let reference = reference.clone();
        self.puller
            .cache()
            .blocking(move |cache| cache.remove(&reference, force))
            .await
    }

    /// Pins a model, or lets it go.
    ///
    /// # Errors
    /// As [`NodeCache::set_pinned`].
    pub async fn pin(&self, reference: &Reference, pinned: bool) -> Result<ModelEntry, Error> {
        let reference = reference.clone();
        self.puller
            .cache()
            .blocking(move |cache| cache.set_pinned(&reference, pinned))
            .await
    }
}
