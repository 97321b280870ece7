//! Read: the maps of blobs that came in without, made one after the other by a read of each blob,
//! slowly enough for the disk to serve others meanwhile.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use artifact::chunk_map::{ChunkMap, Cutter};
use artifact::{Digest, Digester};
use futures::TryStreamExt;
use tokio::sync::Notify;

use crate::error::Error;
use crate::metrics::labels::MapSource;
use crate::service::Registry;
use crate::service::dialects::Recent;
use crate::service::pace::Pace;

/// Bytes read in a second at most.
const RATE: u64 = 256 << 20;
/// Blobs that may wait; one beyond is asked for again with its referrers.
const WAITING: usize = 1000;
/// Blobs without a map that are remembered, in each of two generations.
const REMEMBERED: usize = 10_000;

/// What is to be expected of the map of a blob that has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outlook {
    /// It will be made.
    Asked,
    /// The blob was read, and can have none: it passes a limit.
    Unmapped,
    /// The blob was read, and is not what its digest says.
    Corrupt,
}

/// Blobs whose maps were asked for.
#[derive(Debug)]
pub(super) struct Wanted {
    /// The one that is being read comes first.
    queue: Mutex<VecDeque<Digest>>,
    /// Rung when something was added there.
    added: Notify,
    /// Blobs that were read in vain.
    in_vain: Recent<Digest, Outlook>,
}

impl Default for Wanted {
    fn default() -> Self {
        Self {
            queue: Mutex::default(),
            added: Notify::new(),
            in_vain: Recent::new(REMEMBERED),
        }
    }
}

impl Wanted {
    /// Asks for the map of a blob.
    pub(super) fn ask(&self, blob: Digest) -> Outlook {
        if let Some(outlook) = self.in_vain.get(&blob) {
            return outlook;
        }
        let mut queue = self.queue();
        if queue.len() < WAITING && !queue.contains(&blob) {
            queue.push_back(blob);
            self.added.notify_one();
        }
        Outlook::Asked
    }

    async fn first(&self) -> Digest {
        loop {
            let first = self.queue().front().copied();
            match first {
                Some(blob) => return blob,
                None => self.added.notified().await,
            }
        }
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<Digest>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registry {
    /// Makes the maps that were asked for, as long as it is polled. A read that is dropped half-way
    /// leaves nothing.
    pub(crate) async fn make_wanted_maps(&self) {
        loop {
            let wanted = &self.chunk_maps.wanted;
            let blob = wanted.first().await;
            match self.make_map(&blob).await {
                Ok(None) => {}
                Ok(Some(outlook)) => {
                    tracing::warn!(blob.digest = %blob, ?outlook, "a blob has no chunk map");
                    wanted.in_vain.insert(blob, outlook, 1);
                }
                Err(error) => {
                    tracing::warn!(blob.digest = %blob, error = error.chain(), "a chunk map cannot be made");
                }
            }
            wanted.queue().pop_front();
        }
    }

    /// Reads a blob and keeps its map; gives why there is none.
    async fn make_map(&self, blob: &Digest) -> Result<Option<Outlook>, Error> {
        let Some(open) = self.blobs.open(blob).await? else {
            return Ok(None);
        };
        let size = open.size;
        if self.kept_map(blob, size).await?.is_some() {
            // Another replica was faster, or a push.
            return Ok(None);
        }
        self.chunk_maps.metrics.blob_read_for_map();
        let pace = Pace::new(Some(RATE), 0);
        let mut pieces = open.stream().await?;
        let mut reading = (Digester::new(blob.algorithm()), Cutter::new());
        let mut read = 0;
        while let Some(piece) = pieces.try_next().await? {
            read += piece.len() as u64;
            reading = elsewhere(move || {
                reading.0.update(&piece);
                reading.1.update(&piece);
                reading
            })
            .await?;
            pace.keep(read).await;
        }
        let of = *blob;
        let (actual, map) = elsewhere(move || (reading.0.finish(), reading.1.finish(of))).await?;
        if actual != *blob {
            return Ok(Some(Outlook::Corrupt));
        }
        let Some(map) = map else {
            return Ok(Some(Outlook::Unmapped));
        };
        self.keep_made_map(&map).await?;
        Ok(None)
    }

    /// Keeps a map beside its blob, if that is still there.
    async fn keep_made_map(&self, map: &ChunkMap) -> Result<(), Error> {
        let blob = map.blob();
        let _lock = self.lock_content(&blob).await?;
        if self.blobs.stat(&blob).await? == Some(map.size()) {
            self.keep_map(map, MapSource::Read).await;
        }
        Ok(())
    }
}

/// Work of some milliseconds, where it keeps no request waiting.
async fn elsewhere<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(Error::Task)
}
