//! A sled that failed is replaced by a new one.
//!
//! sled gives up for good when it cannot write, on a full disk for instance, though the disk may
//! have room again a minute later. All it held follows from the records. So the next change fills
//! a new index in the other of two folders, while the old one goes on answering reads, and the new
//! one takes its place. Marks and intents are lost with the old one, as in every rebuild:
//! collection waits its grace time again, and what was left half-way is among the records too.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use futures::FutureExt;
use futures::future::BoxFuture;
use sled::Db;
use tokio::sync::RwLock;

use crate::error::{Error, is_full};
use crate::store::index::Answer;
use crate::store::sled::SledIndex;

/// Makes and fills an index in an empty folder.
type Fill = dyn Fn(PathBuf) -> BoxFuture<'static, Result<SledIndex, Error>> + Send + Sync;

/// The sled in use, which may change.
#[derive(Debug)]
pub(super) struct Current {
    db: ArcSwap<Db>,
    /// How often it was replaced. Held shared by each change, and alone while that is done.
    times: RwLock<usize>,
    remake: Option<Remake>,
}

/// How a failed one is replaced.
struct Remake {
    /// Used in turn.
    folders: [PathBuf; 2],
    fill: Box<Fill>,
}

impl fmt::Debug for Remake {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Remake in {:?}", self.folders)
    }
}

impl Current {
    /// One that stays as it is, whatever happens to it.
    pub(super) fn new(db: Db) -> Self {
        Self {
            db: ArcSwap::from_pointee(db),
            times: RwLock::new(0),
            remake: None,
        }
    }

    /// The sled in use now.
    pub(super) fn db(&self) -> arc_swap::Guard<Arc<Db>> {
        self.db.load()
    }

    /// Whether it is the one that was opened first.
    pub(super) async fn is_first(&self) -> bool {
        *self.times.read().await == 0
    }

    async fn replace(&self, remake: &Remake, seen: usize, failure: &Error) -> Result<(), Error> {
        let mut times = self.times.write().await;
        if *times != seen {
            return Ok(());
        }
        tracing::warn!(
            error = failure.chain(),
            "the metadata index failed and is made anew from the records"
        );
        let [used, free] = [seen % 2, (seen + 1) % 2].map(|turn| remake.folders[turn].clone());
        let filled = (remake.fill)(free).await?;
        let failed = self.db.swap(filled.current.db.load_full());
        *times += 1;
        drop(times);
        tokio::task::spawn_blocking(move || {
            // It tries to write once more when it goes.
            drop(failed);
            // Best effort: the folder is emptied before it is used again.
            let _ = std::fs::remove_dir_all(used);
        });
        Ok(())
    }
}

impl SledIndex {
    /// Lets `fill` make the index anew, in `other` and in `folder` in turn, when sled fails.
    pub(crate) fn remade_by(
        self,
        folder: PathBuf,
        other: PathBuf,
        fill: impl Fn(PathBuf) -> BoxFuture<'static, Result<Self, Error>> + Send + Sync + 'static,
    ) -> Self {
        let remake = Remake {
            folders: [folder, other],
            fill: Box::new(fill),
        };
        let current = Current {
            db: ArcSwap::new(self.current.db.load_full()),
            times: RwLock::new(0),
            remake: Some(remake),
        };
        Self {
            current: Arc::new(current),
            locks: self.locks,
        }
    }

    /// Makes a change; once more in a new sled if this one has failed.
    pub(super) fn change<'a>(
        &'a self,
        change: impl Fn(&Self) -> Result<(), Error> + Send + 'a,
    ) -> Answer<'a, ()> {
        async move {
            let times = self.current.times.read().await;
            let seen = *times;
            let Err(failure) = change(self) else {
                return Ok(());
            };
            drop(times);
            match &self.current.remake {
                Some(remake) if is_of_sled(&failure) => {
                    self.current.replace(remake, seen, &failure).await?;
                }
                _ => return Err(failure),
            }
            let _times = self.current.times.read().await;
            change(self)
        }
        .boxed()
    }
}

/// What sled reports, as ours; a full disk becomes [`Error::StorageFull`].
pub(super) fn failed(source: sled::Error) -> Error {
    match &source {
        sled::Error::Io(error) if is_full(error) => Error::full(source),
        _ => Error::index(source),
    }
}

/// Whether it is sled that failed, not what was found in it.
fn is_of_sled(error: &Error) -> bool {
    match error {
        Error::Index { source } | Error::StorageFull { source } => source.is::<sled::Error>(),
        _ => false,
    }
}
