//! Pipeline: what happens to the bytes of a blob as they arrive, on three threads.
//!
//! ```text
//! connections ──Sink──► writer ──► file ──► hasher   follows the unbroken beginning, out of the
//!               bounded    │                          page cache
//!               queue      └─ marks ──────► syncer   fdatasync now and then, then the marks of what
//!                                                     was written before it
//! ```
//!
//! The bytes of a chunk are written in their order, each once, by whichever connection brings them
//! first; so the writer knows the hash of what is in the file when the chunk is whole, and where a
//! chunk map says what it should be, a wrong chunk never counts as here. The digest of all is known
//! right after the last byte, the last sync has little left to do, and a killed pull goes on from
//! what it had. The queue is short: a slow disk slows the connections.

mod behind;
mod writer;

use std::collections::BTreeSet;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::chunk_map::ChunkMap;
use crate::client::partial::{ChunkState, Fault, PartFile, lies_alike, shares_blocks};
use crate::digest::Digest;
use writer::Message;

/// Pieces that may wait for the writer, each at most what one read of a socket gives.
const QUEUE_PIECES: usize = 16;
/// Bytes that are read of another file at a time.
const COPY_BYTES: usize = 512 * 1024;

/// Why a pipeline gives no digest.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] Fault),
    /// One of its threads ended before its time, or the pipeline was given up.
    #[error("the writer of the download ended before its time")]
    Stopped,
}

/// Is told how far the blob has come, from the writer's thread.
pub trait Progress: Send + Sync + std::fmt::Debug {
    /// These bytes, all of one chunk, are in the file.
    fn written(&self, bytes: Range<u64>);
    /// So many of them count no more: their chunk was whole and wrong.
    fn forgotten(&self, bytes: u64);
    /// All bytes of a chunk can be read, and are right as far as can be told.
    fn chunk_is_whole(&self, chunk: usize);
}

/// What has become of a range that was put.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// What of it is still missing, by chunk.
    pub missing: Vec<Range<u64>>,
    /// The chunks of it that were whole and wrong since the last time that somebody asked.
    pub wrong: Vec<usize>,
}

/// The outcome of a download that is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// The digest of what is on the disk.
    pub digest: Digest,
    /// Its chunk map: the one that it came by, or the one that was made on the way.
    pub map: Option<Arc<ChunkMap>>,
}

/// Takes the bytes of one connection.
#[derive(Clone, Debug)]
pub struct Sink {
    sender: mpsc::Sender<Message>,
    received: Arc<AtomicU64>,
}

impl Sink {
    /// Hands over bytes of the blob that came over the network; waits while the writer is behind.
    ///
    /// # Errors
    /// [`Error::Stopped`] when the writer has ended; [`Pipeline::abandon`] says why.
    pub async fn put(&self, offset: u64, bytes: Bytes) -> Result<(), Error> {
        self.received
            .fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.send(Message::Piece(offset, bytes)).await
    }

    /// Brings a whole chunk, the bytes `range` of the blob, out of another file, from byte `from`
    /// of it. What cannot be read there, or has another hash, is as good as not brought:
    /// [`Sink::settle`] tells.
    ///
    /// # Errors
    /// As [`Sink::put`].
    pub async fn copy(
        &self,
        chunk: usize,
        range: Range<u64>,
        source: Arc<File>,
        from: u64,
    ) -> Result<(), Error> {
        if shares_blocks(&source) && lies_alike(from, range.start) {
            let message = Message::Copy {
                chunk,
                source,
                from,
            };
            return self.send(message).await;
        }
        // Read here, beside the writer, who has enough to do.
        let mut at = range.start;
        while at < range.end {
            let length = usize::try_from(range.end - at).unwrap_or(usize::MAX);
            let (file, place) = (Arc::clone(&source), from + (at - range.start));
            let read = tokio::task::spawn_blocking(move || {
                let mut bytes = vec![0; length.min(COPY_BYTES)];
                file.read_exact_at(&mut bytes, place).map(|()| bytes)
            });
            let bytes = match read.await {
                Ok(Ok(bytes)) => bytes,
                Ok(Err(error)) => {
                    tracing::warn!(%error, chunk, "a chunk could not be read on this node");
                    return Ok(());
                }
                Err(_) => return Err(Error::Stopped),
            };
            let next = at + bytes.len() as u64;
            self.send(Message::Piece(at, bytes.into())).await?;
            at = next;
        }
        Ok(())
    }

    /// Waits until all that was put before is written, and tells what has become of `range`.
    ///
    /// # Errors
    /// As [`Sink::put`].
    pub async fn settle(&self, range: Range<u64>) -> Result<Settled, Error> {
        let (answer, settled) = oneshot::channel();
        self.send(Message::Settle(range, answer)).await?;
        settled.await.map_err(|_| Error::Stopped)
    }

    async fn send(&self, message: Message) -> Result<(), Error> {
        self.sender.send(message).await.map_err(|_| Error::Stopped)
    }
}

/// What the threads share.
#[derive(Debug)]
struct Shared {
    part: Arc<PartFile>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    chunks: Vec<ChunkState>,
    /// Bytes of each chunk that is not whole yet, from its start.
    filled: Vec<u64>,
    /// Chunks that were whole and wrong.
    wrong: BTreeSet<usize>,
    /// Bytes of whole chunks that no sync has covered.
    unsynced: u64,
    /// Nothing more will be written.
    is_over: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `ready` gives something.
    fn wait<T>(&self, mut ready: impl FnMut(&State) -> Option<T>) -> T {
        let mut state = self.lock();
        loop {
            if let Some(found) = ready(&state) {
                return found;
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Says that nothing more will be written.
    fn end(&self) {
        self.lock().is_over = true;
        self.changed.notify_all();
    }
}

/// The threads of one download.
#[derive(Debug)]
pub struct Pipeline {
    sink: Option<Sink>,
    shared: Arc<Shared>,
    received: Arc<AtomicU64>,
    writer: JoinHandle<Result<(), Error>>,
    hasher: JoinHandle<Result<Option<Finished>, Error>>,
    syncer: JoinHandle<Result<(), Error>>,
}

impl Pipeline {
    /// Starts the threads over what is here already. A blob that comes without a chunk map gets
    /// one on the way.
    #[must_use]
    pub fn start(
        part: Arc<PartFile>,
        chunks: Vec<ChunkState>,
        progress: Arc<dyn Progress>,
    ) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE_PIECES);
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                filled: vec![0; chunks.len()],
                chunks,
                wrong: BTreeSet::new(),
                unsynced: 0,
                is_over: false,
            }),
            changed: Condvar::new(),
            part,
        });
        let received = Arc::new(AtomicU64::new(0));
        let [writing, hashing, syncing] = [(); 3].map(|()| Arc::clone(&shared));
        Self {
            sink: Some(Sink {
                sender,
                received: Arc::clone(&received),
            }),
            writer: tokio::task::spawn_blocking(move || {
                writer::write(&writing, receiver, progress.as_ref())
            }),
            hasher: tokio::task::spawn_blocking(move || behind::hash(&hashing)),
            syncer: tokio::task::spawn_blocking(move || behind::sync(&syncing)),
            shared,
            received,
        }
    }

    /// Where connections put their bytes.
    #[must_use]
    pub fn sink(&self) -> Sink {
        self.sink.clone().unwrap_or_else(|| Sink {
            // A pipeline that has ended takes nothing: its queue has no reader.
            sender: mpsc::channel(1).0,
            received: Arc::clone(&self.received),
        })
    }

    /// Bytes that came over the network.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Waits until all that was put is written, and gives the first byte that is missing; the size
    /// of the blob when none is.
    ///
    /// # Errors
    /// [`Error::Stopped`] when the writer has ended.
    pub async fn first_missing(&self) -> Result<u64, Error> {
        let size = self.shared.part.size();
        let settled = self.sink().settle(0..size).await?;
        Ok(settled.missing.first().map_or(size, |range| range.start))
    }

    /// After everything was put: waits for the threads and gives the digest of what is on disk.
    ///
    /// # Errors
    /// When the disk failed, or a chunk is missing.
    pub async fn finish(mut self) -> Result<Finished, Error> {
        self.sink = None;
        joined((&mut self.writer).await)?;
        let finished = joined((&mut self.hasher).await)?;
        joined((&mut self.syncer).await)?;
        finished.ok_or(Error::Stopped)
    }

    /// After a failure: stops the threads. Gives their own failure, if it was that, and how far
    /// each chunk has come.
    pub async fn abandon(mut self) -> (Option<Error>, Vec<ChunkState>) {
        self.sink = None;
        let writer = joined((&mut self.writer).await);
        let hasher = joined((&mut self.hasher).await);
        let syncer = joined((&mut self.syncer).await);
        let own = writer.err().or(hasher.err()).or(syncer.err());
        let chunks = std::mem::take(&mut self.shared.lock().chunks);
        (own, chunks)
    }
}

impl Drop for Pipeline {
    /// Also when the download is dropped in the middle, no thread may wait for ever.
    fn drop(&mut self) {
        self.sink = None;
        self.shared.end();
    }
}

fn joined<T>(ended: Result<Result<T, Error>, tokio::task::JoinError>) -> Result<T, Error> {
    ended.unwrap_or(Err(Error::Stopped))
}
