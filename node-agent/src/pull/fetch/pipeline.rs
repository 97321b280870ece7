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

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use artifact::{Digest, Digester};
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::cache::ingest::Ingest;
use crate::cache::ingest::map::ChunkState;
use crate::error::Error;
use crate::pull::single_flight::Report;

/// Pieces that may wait for the writer, each at most what one read of a socket gives.
const QUEUE_PIECES: usize = 16;
/// Bytes that the hasher reads at a time: they stay in the processor's cache.
const HASH_BYTES: usize = 256 * 1024;
/// Bytes written between two syncs.
const SYNC_BYTES: u64 = 64 * 1024 * 1024;

/// What the writer is told.
enum Message {
    Piece(u64, Bytes),
    /// Forget what is known of chunks that are not whole, and answer where the first one begins.
    Restart(oneshot::Sender<u64>),
}

/// Takes the bytes of one connection.
#[derive(Clone)]
pub(super) struct Sink {
    sender: mpsc::Sender<Message>,
    received: Arc<AtomicU64>,
}

impl Sink {
    /// Hands over bytes of the blob; waits while the writer is behind.
    pub(super) async fn put(&self, offset: u64, bytes: Bytes) -> Result<(), Error> {
        self.received
            .fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let sent = self.sender.send(Message::Piece(offset, bytes)).await;
        sent.map_err(|_| stopped())
    }
}

fn stopped() -> Error {
    Error::Interrupted {
        what: "the writer of the download".to_owned(),
    }
}

/// What the threads share.
struct Shared {
    ingest: Arc<Ingest>,
    progress: Mutex<Progress>,
    changed: Condvar,
}

struct Progress {
    chunks: Vec<ChunkState>,
    /// Bytes of each chunk that is not whole yet.
    filled: Vec<u64>,
    /// Bytes of whole chunks that no sync has covered.
    unsynced: u64,
    /// Nothing more will be written.
    is_over: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `ready` gives something.
    fn wait<T>(&self, mut ready: impl FnMut(&Progress) -> Option<T>) -> T {
        let mut progress = self.lock();
        loop {
            if let Some(found) = ready(&progress) {
                return found;
            }
            progress = self
                .changed
                .wait(progress)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// The threads of one download.
pub(super) struct Pipeline {
    sink: Option<Sink>,
    shared: Arc<Shared>,
    received: Arc<AtomicU64>,
    writer: JoinHandle<Result<(), Error>>,
    hasher: JoinHandle<Result<Option<Digest>, Error>>,
    syncer: JoinHandle<Result<(), Error>>,
}

impl Pipeline {
    /// Starts the threads over what is here already.
    pub(super) fn start(ingest: Arc<Ingest>, chunks: Vec<ChunkState>, report: Report) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE_PIECES);
        let shared = Arc::new(Shared {
            progress: Mutex::new(Progress {
                filled: vec![0; chunks.len()],
                chunks,
                unsynced: 0,
                is_over: false,
            }),
            changed: Condvar::new(),
            ingest,
        });
        let received = Arc::new(AtomicU64::new(0));
        let [writing, hashing, syncing] = [(); 3].map(|()| Arc::clone(&shared));
        Self {
            sink: Some(Sink {
                sender,
                received: Arc::clone(&received),
            }),
            writer: tokio::task::spawn_blocking(move || write(&writing, receiver, &report)),
            hasher: tokio::task::spawn_blocking(move || hash(&hashing)),
            syncer: tokio::task::spawn_blocking(move || sync(&syncing)),
            shared,
            received,
        }
    }

    /// Where connections put their bytes.
    pub(super) fn sink(&self) -> Sink {
        self.sink.clone().unwrap_or_else(|| Sink {
            // A pipeline that has ended takes nothing: its queue has no reader.
            sender: mpsc::channel(1).0,
            received: Arc::clone(&self.received),
        })
    }

    /// Bytes that came over the network.
    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// After the connections have ended: what they left half done is forgotten. Gives the first
    /// byte that is missing.
    pub(super) async fn restart(&mut self) -> Result<u64, Error> {
        let (answer, start) = oneshot::channel();
        let sender = &self.sink().sender;
        sender
            .send(Message::Restart(answer))
            .await
            .map_err(|_| stopped())?;
        start.await.map_err(|_| stopped())
    }

    /// After everything was put: waits for the threads and gives the digest of what is on disk.
    pub(super) async fn finish(mut self) -> Result<Digest, Error> {
        self.sink = None;
        joined((&mut self.writer).await)?;
        let digest = joined((&mut self.hasher).await)?;
        joined((&mut self.syncer).await)?;
        digest.ok_or_else(stopped)
    }

    /// After a failure: stops the threads. Gives their own failure, if it was that, and whether no
    /// chunk is here.
    pub(super) async fn abandon(mut self) -> (Option<Error>, bool) {
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
    ended.unwrap_or_else(|_| Err(stopped()))
}

/// The writer: puts pieces in their place and notes chunks that became whole.
fn write(
    shared: &Shared,
    mut receiver: mpsc::Receiver<Message>,
    report: &Report,
) -> Result<(), Error> {
    let outcome = (|| {
        while let Some(message) = receiver.blocking_recv() {
            match message {
                Message::Piece(offset, bytes) => write_piece(shared, offset, &bytes, report)?,
                Message::Restart(answer) => {
                    // A pull that has gone meanwhile needs no answer.
                    let _ = answer.send(restart(shared, report));
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
fn write_piece(shared: &Shared, offset: u64, bytes: &[u8], report: &Report) -> Result<(), Error> {
    let ingest = &shared.ingest;
    let end = offset + bytes.len() as u64;
    let mut at = offset;
    while at < end {
        let chunk = usize::try_from(at / ingest.chunk_bytes()).unwrap_or(usize::MAX);
        let range = ingest.chunk_range(chunk);
        let until = end.min(range.end);
        let part = slice(bytes, at - offset, until - offset);
        let is_whole = shared
            .lock()
            .chunks
            .get(chunk)
            .is_none_or(|s| *s != ChunkState::Absent);
        if !is_whole && !part.is_empty() {
            ingest.write_at(at, part)?;
            let whole = range.end - range.start;
            note_written(shared, chunk, until - at, whole)?;
            report.add_completed(until - at);
        }
        at = until.max(at + 1);
    }
    Ok(())
}

fn slice(bytes: &[u8], from: u64, to: u64) -> &[u8] {
    let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
    bytes.get(index(from)..index(to)).unwrap_or_default()
}

fn note_written(shared: &Shared, chunk: usize, bytes: u64, whole: u64) -> Result<(), Error> {
    let mut progress = shared.lock();
    progress.filled[chunk] += bytes;
    if progress.filled[chunk] < whole {
        return Ok(());
    }
    progress.chunks[chunk] = ChunkState::Written;
    progress.unsynced += whole;
    drop(progress);
    shared.changed.notify_all();
    shared.ingest.mark(chunk, ChunkState::Written)
}

fn restart(shared: &Shared, report: &Report) -> u64 {
    let mut progress = shared.lock();
    let lost: u64 = progress
        .chunks
        .iter()
        .zip(&progress.filled)
        .filter(|(state, _)| **state == ChunkState::Absent)
        .map(|(_, filled)| filled)
        .sum();
    report.set_completed(report.completed().saturating_sub(lost));
    progress.filled.fill(0);
    let first = progress
        .chunks
        .iter()
        .position(|state| *state == ChunkState::Absent);
    first.map_or(shared.ingest.size(), |chunk| {
        shared.ingest.chunk_range(chunk).start
    })
}

/// The hasher: follows the unbroken beginning of the blob. Gives nothing when the download ended
/// before it was whole.
fn hash(shared: &Shared) -> Result<Option<Digest>, Error> {
    let ingest = &shared.ingest;
    let mut digester = Digester::new(ingest.digest().algorithm());
    let mut buffer = vec![0; HASH_BYTES];
    for chunk in 0..ingest.chunk_count() {
        let is_here = shared.wait(|progress| match progress.chunks[chunk] {
            ChunkState::Absent => progress.is_over.then_some(false),
            ChunkState::Written | ChunkState::Synced => Some(true),
        });
        if !is_here {
            return Ok(None);
        }
        let range = ingest.chunk_range(chunk);
        let mut at = range.start;
        while at < range.end {
            let left = usize::try_from(range.end - at).unwrap_or(usize::MAX);
            let piece = &mut buffer[..left.min(HASH_BYTES)];
            ingest.read_at(at, piece)?;
            digester.update(piece);
            at += piece.len() as u64;
        }
    }
    Ok(Some(digester.finish()))
}

/// The syncer: each time enough has come, makes it durable, and only then says so in the map.
fn sync(shared: &Shared) -> Result<(), Error> {
    loop {
        let is_over = shared.wait(|progress| {
            let is_due = progress.unsynced >= SYNC_BYTES;
            (is_due || progress.is_over).then_some(progress.is_over)
        });
        // Taken before the sync: what is written while it runs is not covered by it.
        let covered = take_unsynced(&mut shared.lock());
        if !covered.is_empty() {
            shared.ingest.sync_data()?;
            for chunk in &covered {
                shared.ingest.mark(*chunk, ChunkState::Synced)?;
            }
            shared.ingest.sync_map()?;
        }
        if is_over {
            return Ok(());
        }
    }
}

fn take_unsynced(progress: &mut Progress) -> Vec<usize> {
    progress.unsynced = 0;
    let mut covered = Vec::new();
    for (chunk, state) in progress.chunks.iter_mut().enumerate() {
        if *state == ChunkState::Written {
            *state = ChunkState::Synced;
            covered.push(chunk);
        }
    }
    covered
}
