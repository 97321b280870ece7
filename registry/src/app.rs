//! The composition root: configuration, stores, services, tasks and server, from top to bottom.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::sync::mpsc;

use crate::config::{self, Config};
use crate::error::Error;
use crate::http::front::{Front, Listeners};
use crate::index_state::{self, IndexState};
use crate::metrics::Metrics;
use crate::mirror::Mirror;
use crate::service::Registry;
use crate::service::chunk_maps::ChunkMaps;
use crate::service::collect::report::{CollectEvent, CollectSummary};
use crate::service::collect::{CollectOptions, Collector};
use crate::service::events::Outlet;
use crate::service::fsck::FsckOptions;
use crate::service::fsck::report::{FsckEvent, FsckSummary};
use crate::service::gate::Gates;
use crate::storage::{self, Closing};
use crate::store::key::DataFolder;
use crate::tasks;

/// Runs a registry on `listeners` until `shutdown` completes.
///
/// # Errors
/// When the data folder cannot be used, or is in use by another process. Errors of single
/// requests are answered and logged.
pub async fn serve(
    config: Config,
    listeners: impl Into<Listeners>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    run(config, listeners.into(), Box::pin(shutdown)).await
}

/// Collects once in a storage that no registry runs on; `on_event` is told how it goes.
///
/// # Errors
/// [`Error::InUse`] when a registry runs there, and any of a collection.
pub async fn collect(
    config: Config,
    options: CollectOptions,
    on_event: impl FnMut(CollectEvent),
) -> Result<CollectSummary, Error> {
    told(|outlet| run_collection(config, options, outlet), on_event).await
}

/// Checks a storage that no registry runs on; `on_event` is told how it goes.
///
/// # Errors
/// [`Error::InUse`] when a registry runs there, and any of a check.
pub async fn fsck(
    config: Config,
    options: FsckOptions,
    on_event: impl FnMut(FsckEvent),
) -> Result<FsckSummary, Error> {
    told(|outlet| run_fsck(config, options, outlet), on_event).await
}

// Below the doors: futures that are boxed are compiled here, once. Generic ones, and even plain
// `async fn`s, are compiled again in whatever crate awaits them, with all that they await.

fn run(
    config: Config,
    listeners: Listeners,
    shutdown: BoxFuture<'static, ()>,
) -> BoxFuture<'static, Result<(), Error>> {
    Box::pin(async move {
        let front = Front::open(&config)?;
        let metrics = front.metrics().clone();
        let opened = Opened::open(&config, metrics.clone()).await?;
        let registry = &opened.registry;
        let mut running = tasks::Running::default();
        running.push(tasks::start_settling(Arc::clone(registry)));
        running.push(tasks::start_mirror(
            Arc::clone(registry),
            config.upload_expiry,
        ));
        running.push(tasks::start_counting(Arc::clone(registry), metrics.clone()));
        if !config.read_only {
            running.push(tasks::start_mapping(Arc::clone(registry)));
            let expiry = config.upload_expiry;
            running.push(tasks::start_sweeper(Arc::clone(registry), expiry, metrics));
            if let Some(interval) = config.collection.interval {
                running.push(tasks::start_collector(Arc::clone(registry), interval));
            }
        }
        let served = front.serve(Arc::clone(registry), listeners, shutdown).await;
        drop(running);
        opened.close().await?;
        served
    })
}

fn run_collection(
    config: Config,
    options: CollectOptions,
    outlet: Outlet<CollectEvent>,
) -> BoxFuture<'static, Result<CollectSummary, Error>> {
    Box::pin(async move {
        let opened = Opened::open(&config, Metrics::new()).await?;
        let outcome = opened.registry.collect(options, &outlet).await;
        opened.close().await?;
        outcome
    })
}

fn run_fsck(
    config: Config,
    options: FsckOptions,
    outlet: Outlet<FsckEvent>,
) -> BoxFuture<'static, Result<FsckSummary, Error>> {
    Box::pin(async move {
        let opened = Opened::open(&config, Metrics::new()).await?;
        let outcome = opened.registry.fsck(options, &outlet).await;
        opened.close().await?;
        outcome
    })
}

/// Does work and hands its events on.
async fn told<E, T, W: Future<Output = T>>(
    work: impl FnOnce(Outlet<E>) -> W,
    mut on_event: impl FnMut(E),
) -> T {
    let (sender, mut receiver) = mpsc::channel(64);
    let listen = async {
        while let Some(event) = receiver.recv().await {
            on_event(event);
        }
    };
    let (outcome, ()) = tokio::join!(work(Outlet::to(sender)), listen);
    outcome
}

/// A registry with its storage open, and nothing in front of it yet.
struct Opened {
    registry: Arc<Registry>,
    state: IndexState,
    closing: Closing,
    _lock: fs::File,
}

impl Opened {
    async fn open(config: &Config, metrics: Metrics) -> Result<Self, Error> {
        let chunk_maps = ChunkMaps::new(config.chunk_maps, metrics.clone());
        let collector = Collector::new(config, metrics)?;
        let folder = DataFolder::new(&config.data);
        let held = lock(&folder)?;
        let mut stores = storage::open(config, &folder).await?;
        let closing = stores.closing();
        let (index, state) = index_state::open(config, &folder, &stores.records).await?;
        let registry = Registry::new(stores, index, config.max_blob_bytes);
        let gates = Gates::new(config.gguf.clone());
        let mirror = Arc::new(Mirror::open(&mirror_of(config), &folder)?);
        let registry = registry.with_collector(collector).with_gates(gates);
        let registry = registry.with_chunk_maps(chunk_maps);
        let registry = Arc::new(registry.with_mirror(Arc::clone(&mirror)));
        mirror.belongs_to(&registry);
        Ok(Self {
            registry,
            state,
            closing,
            _lock: held,
        })
    }

    /// Lets nothing change any more, and marks the index as whole if it is.
    async fn close(self) -> Result<(), Error> {
        let followed = self.registry.close().await;
        let closed = self.state.close(followed).await;
        self.closing.close().await;
        closed
    }
}

/// What is mirrored; a registry that changes nothing fetches nothing.
fn mirror_of(config: &Config) -> config::Mirror {
    config::Mirror {
        offline: config.mirror.offline || config.read_only,
        ..config.mirror.clone()
    }
}

/// Takes the lock of the data folder, which is created if absent. Dropping the file releases it.
pub(crate) fn lock(folder: &DataFolder) -> Result<fs::File, Error> {
    let root = folder.root();
    fs::create_dir_all(root).map_err(Error::storage("create", root))?;
    let path = folder.lock();
    let file = fs::File::create(&path).map_err(Error::storage("create", &path))?;
    let operation = rustix::fs::FlockOperation::NonBlockingLockExclusive;
    match rustix::fs::flock(&file, operation) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(in_use(root)),
        Err(error) => Err(Error::storage("lock", path)(error.into())),
    }
}

fn in_use(root: &Path) -> Error {
    Error::InUse {
        path: root.to_owned(),
    }
}
