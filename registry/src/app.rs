//! The composition root: configuration, stores, services, tasks and server, from top to bottom.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use tokio::net::TcpListener;

use crate::config::Config;
use crate::error::Error;
use crate::http;
use crate::index_state;
use crate::metrics::Metrics;
use crate::service::Registry;
use crate::service::collect::Collector;
use crate::storage;
use crate::store::key::DataFolder;
use crate::tasks;

/// Runs a registry on `listener` until `shutdown` completes.
///
/// # Errors
/// When the data folder cannot be used, or is in use by another process. Errors of single
/// requests are answered and logged.
pub async fn serve(
    config: Config,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    let folder = DataFolder::new(&config.data);
    let _lock = lock(&folder)?;
    let mut stores = storage::open(&config, &folder).await?;
    let closing = stores.closing();
    let (index, state) = index_state::open_checked(&folder, &stores.records).await?;
    let metrics = Metrics::new();
    let collector = Collector::new(&config, metrics.clone())?;
    let registry = Registry::new(
        stores.blobs,
        stores.uploads,
        stores.records,
        index,
        config.max_blob_bytes,
    );
    let registry = Arc::new(registry.with_collector(collector));
    let sweeper = tasks::start_sweeper(Arc::clone(&registry), config.upload_expiry);
    let settling = tasks::start_settling(Arc::clone(&registry));
    let interval = config.collection.interval.filter(|_| !config.read_only);
    let collecting = interval.map(|time| tasks::start_collector(Arc::clone(&registry), time));
    let router = http::router(
        Arc::clone(&registry),
        config.external_url,
        config.redirect,
        metrics.clone(),
    );
    let served = http::server::serve(router, listener, shutdown).await;
    sweeper.abort();
    settling.abort();
    if let Some(collecting) = collecting {
        collecting.abort();
    }
    if registry.close().await {
        state.close(&folder).await?;
    }
    closing.close().await;
    served
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
