//! Pipeline: what happens to the bytes of a blob as they arrive, on three threads.
//!
//! ```text
//! connections ──Sink──► writer ──► file ──► hasher   follows the unbroken beginning, out of the
//!               bounded    │                          page cache
//!               queue      └─ marks ──────► syncer   fdatasync now and then, then the marks of what
//!                                                     was written before it
//! ```
//!
//! So the digest is known right after the last byte, the last sync has little left to do, and a
//! killed pull goes on from what it had. The queue is short: a slow disk slows the connections.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::client::partial::{ChunkState, Fault, PartFile};
use crate::digest::{Digest, Digester};

/// Pieces that may wait for the writer, each at most what one read of a socket gives.
const QUEUE_PIECES: usize = 16;
/// Bytes that the hasher reads at a time: they stay in the processor's cache.
const HASH_BYTES: usize = 256 * 1024;
/// Bytes written between two syncs.
const SYNC_BYTES: u64 = 64 * 1024 * 1024;

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
    /// So many of them count no more: their chunks were not whole when the download started over.
    fn forgotten(&self, bytes: u64);
    /// All bytes of a chunk can be read.
    fn chunk_is_whole(&self, chunk: usize);
}

/// What the writer is told.
#[derive(Debug)]
enum Message {
    Piece(u64, Bytes),
    /// Forget what is known of chunks that are not whole, and answer where the first one begins.
    Restart(oneshot::Sender<u64>),
}

/// Takes the bytes of one connection.
#[derive(Clone, Debug)]
pub struct Sink {
    sender: mpsc::Sender<Message>,
    received: Arc<AtomicU64>,
}

impl Sink {
    /// Hands over bytes of the blob; waits while the writer is behind.
    ///
    /// # Errors
    /// [`Error::Stopped`] when the writer has ended; [`Pipeline::abandon`] says why.
    pub async fn put(&self, offset: u64, bytes: Bytes) -> Result<(), Error> {
        self.received
            .fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let sent = self.sender.send(Message::Piece(offset, bytes)).await;
        sent.map_err(|_| Error::Stopped)
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
    /// Bytes of each chunk that is not whole yet.
    filled: Vec<u64>,
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
}

/// The threads of one download.
#[derive(Debug)]
pub struct Pipeline {
    sink: Option<Sink>,
    shared: Arc<Shared>,
    received: Arc<AtomicU64>,
    writer: JoinHandle<Result<(), Error>>,
    hasher: JoinHandle<Result<Option<Digest>, Error>>,
    syncer: JoinHandle<Result<(), Error>>,
}

impl Pipeline {
    /// Starts the threads over what is here already.
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
                write(&writing, receiver, progress.as_ref())
            }),
            hasher: tokio::task::spawn_blocking(move || hash(&hashing)),
            syncer: tokio::task::spawn_blocking(move || sync(&syncing)),
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

    /// After the connections have ended: what they left half done is forgotten. Gives the first
    /// byte that is missing.
    ///
    /// # Errors
    /// [`Error::Stopped`] when the writer has ended.
    pub async fn restart(&mut self) -> Result<u64, Error> {
        let (answer, start) = oneshot::channel();
        let sender = &self.sink().sender;
        sender
            .send(Message::Restart(answer))
            .await
            .map_err(|_| Error::Stopped)?;
        start.await.map_err(|_| Error::Stopped)
    }

    /// After everything was put: waits for the threads and gives the digest of what is on disk.
    ///
    /// # Errors
    /// When the disk failed, or a chunk is missing.
    pub async fn finish(mut self) -> Result<Digest, Error> {
        self.sink = None;
        joined((&mut self.writer).await)?;
        let digest = joined((&mut self.hasher).await)?;
        joined((&mut self.syncer).await)?;
        digest.ok_or(Error::Stopped)
    }

    /// After a failure: stops the threads. Gives their own failure, if it was that, and whether no
    /// chunk is here.
    pub async fn abandon(mut self) -> (Option<Error>, bool) {
        self.sink = None;
        let writer = joined((&mut self.writer).await);
        let hasher = joined((&mut self.hasher).await);
        let syncer = joined((&mut self.syncer).await);
        let own = writer.err().or(hasher.err()).or(syncer.err());
        let is_absent = |state: &ChunkState| *state == ChunkState::Absent;
        let is_empty = self.shared.lock().chunks.iter().all(is_absent);
        (own, is_empty)
    }
}

impl Drop for Pipeline {
    /// Also when the download is dropped in the middle, no thread may wait for ever.
    fn drop(&mut self) {
        self.sink = None;
        self.shared.lock().is_over = true;
        self.shared.changed.notify_all();
    }
}

fn joined<T>(ended: Result<Result<T, Error>, tokio::task::JoinError>) -> Result<T, Error> {
    ended.unwrap_or(Err(Error::Stopped))
}

/// The writer: puts pieces in their place and notes chunks that became whole.
fn write(
    shared: &Shared,
    mut receiver: mpsc::Receiver<Message>,
    progress: &dyn Progress,
) -> Result<(), Error> {
    let outcome = (|| {
        while let Some(message) = receiver.blocking_recv() {
            match message {
                Message::Piece(offset, bytes) => write_piece(shared, offset, &bytes, progress)?,
                Message::Restart(answer) => {
                    // A pull that has gone meanwhile needs no answer.
                    let _ = answer.send(restart(shared, progress));
                }
            }
        }
        Ok(())
    })();
    shared.lock().is_over = true;
    shared.changed.notify_all();
    outcome
}

/// A piece may lie across chunks; parts of chunks that are whole already are dropped.
fn write_piece(
    shared: &Shared,
    offset: u64,
    bytes: &[u8],
    progress: &dyn Progress,
) -> Result<(), Error> {
    let part_file = &shared.part;
    let end = offset + bytes.len() as u64;
    let mut at = offset;
    while at < end {
        let chunk = usize::try_from(at / part_file.chunk_bytes()).unwrap_or(usize::MAX);
        let range = part_file.chunk_range(chunk);
        let until = end.min(range.end);
        let part = slice(bytes, at - offset, until - offset);
        let is_whole = shared
            .lock()
            .chunks
            .get(chunk)
            .is_none_or(|s| *s != ChunkState::Absent);
        if !is_whole && !part.is_empty() {
            part_file.write_at(at, part)?;
            let whole = range.end - range.start;
            progress.written(at..until);
            if note_written(shared, chunk, until - at, whole)? {
                progress.chunk_is_whole(chunk);
            }
        }
        at = until.max(at + 1);
    }
    Ok(())
}

fn slice(bytes: &[u8], from: u64, to: u64) -> &[u8] {
    let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
    bytes.get(index(from)..index(to)).unwrap_or_default()
}

/// Counts bytes of a chunk; `true` when it became whole by them.
fn note_written(shared: &Shared, chunk: usize, bytes: u64, whole: u64) -> Result<bool, Error> {
    let mut state = shared.lock();
    state.filled[chunk] += bytes;
    if state.filled[chunk] < whole {
        return Ok(false);
    }
    state.chunks[chunk] = ChunkState::Written;
    state.unsynced += whole;
    drop(state);
    shared.changed.notify_all();
    shared.part.mark(chunk, ChunkState::Written)?;
    Ok(true)
}

fn restart(shared: &Shared, progress: &dyn Progress) -> u64 {
    let mut state = shared.lock();
    let lost: u64 = state
        .chunks
        .iter()
        .zip(&state.filled)
        .filter(|(state, _)| **state == ChunkState::Absent)
        .map(|(_, filled)| filled)
        .sum();
    progress.forgotten(lost);
    state.filled.fill(0);
    let first = state
        .chunks
        .iter()
        .position(|state| *state == ChunkState::Absent);
    first.map_or(shared.part.size(), |chunk| {
        shared.part.chunk_range(chunk).start
    })
}

/// The hasher: follows the unbroken beginning of the blob. Gives nothing when the download ended
/// before it was whole.
fn hash(shared: &Shared) -> Result<Option<Digest>, Error> {
    let part_file = &shared.part;
    let mut digester = Digester::new(part_file.digest().algorithm());
    let mut buffer = vec![0; HASH_BYTES];
    for chunk in 0..part_file.chunk_count() {
        let is_here = shared.wait(|state| match state.chunks[chunk] {
            ChunkState::Absent => state.is_over.then_some(false),
            ChunkState::Written | ChunkState::Synced => Some(true),
        });
        if !is_here {
            return Ok(None);
        }
        let range = part_file.chunk_range(chunk);
        let mut at = range.start;
        while at < range.end {
            let left = usize::try_from(range.end - at).unwrap_or(usize::MAX);
            let piece = &mut buffer[..left.min(HASH_BYTES)];
            part_file.read_at(at, piece)?;
            digester.update(piece);
            at += piece.len() as u64;
        }
    }
    Ok(Some(digester.finish()))
}

/// The syncer: each time enough has come, makes it durable, and only then says so in the map.
fn sync(shared: &Shared) -> Result<(), Error> {
    loop {
        let is_over = shared.wait(|state| {
            let is_due = state.unsynced >= SYNC_BYTES;
            (is_due || state.is_over).then_some(state.is_over)
        });
        // Taken before the sync: what is written while it runs is not covered by it.
        let covered = take_unsynced(&mut shared.lock());
        if !covered.is_empty() {
            shared.part.sync_data()?;
            for chunk in &covered {
                shared.part.mark(*chunk, ChunkState::Synced)?;
            }
            shared.part.sync_map()?;
        }
        if is_over {
            return Ok(());
        }
    }
}

fn take_unsynced(state: &mut State) -> Vec<usize> {
    state.unsynced = 0;
    let mut covered = Vec::new();
    for (chunk, state) in state.chunks.iter_mut().enumerate() {
        if *state == ChunkState::Written {
            *state = ChunkState::Synced;
            covered.push(chunk);
        }
    }
    covered
}
