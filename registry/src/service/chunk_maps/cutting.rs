//! Cutting: the map of an upload is made while its bytes stream in, on a thread of its own beside the
//! one that hashes them for the digest: BLAKE3 is done long before SHA-256, so nobody waits for it.
//!
//! A cutting that is dropped here loses nothing but time: its blob is read when its map is asked for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use artifact::Digest;
use artifact::chunk_map::{ChunkMap, Cutter, MIN_MAPPED_BYTES};
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use uuid::Uuid;

/// Uploads that are cut at once: each may keep a header of up to 64 MiB while that comes in, and later
/// what it looks ahead, up to 24 MiB. Whatever is beyond goes without.
const AT_ONCE: usize = 16;
/// Uploads between two of their requests whose cuttings are held.
const HELD: usize = AT_ONCE / 2;
/// Pieces of a body that may wait for the thread.
const QUEUED_PIECES: usize = 8;

/// The cutting of one upload.
#[derive(Debug)]
pub(crate) struct Cutting {
    /// Bytes that came by.
    seen: u64,
    stage: Stage,
    places: Arc<Semaphore>,
}

#[derive(Debug)]
enum Stage {
    /// Too little for a map: it waits here, so that no thread is started for what stays small.
    Small(Vec<u8>),
    /// With the thread that cuts.
    Cut(Running),
    /// No place was free, or the thread has gone.
    GivenUp,
}

#[derive(Debug)]
struct Running {
    sender: mpsc::Sender<Message>,
    _place: OwnedSemaphorePermit,
}

#[derive(Debug)]
enum Message {
    /// The next bytes.
    Bytes(Bytes),
    /// There are no more: the map is wanted.
    Finish(Digest, oneshot::Sender<Option<ChunkMap>>),
}

impl Cutting {
    /// Takes the next bytes; waits while the thread is behind.
    pub(crate) async fn push(&mut self, bytes: &Bytes) {
        self.seen += bytes.len() as u64;
        let (running, next) = match &mut self.stage {
            Stage::GivenUp => return,
            Stage::Cut(running) => (running, bytes.clone()),
            Stage::Small(start) => {
                start.extend_from_slice(bytes);
                if self.seen < MIN_MAPPED_BYTES {
                    return;
                }
                let start = Bytes::from(std::mem::take(start));
                self.stage = start_thread(&self.places).map_or(Stage::GivenUp, Stage::Cut);
                let Stage::Cut(running) = &mut self.stage else {
                    return;
                };
                (running, start)
            }
        };
        if running.sender.send(Message::Bytes(next)).await.is_err() {
            self.stage = Stage::GivenUp;
        }
    }

    /// The upload has ended and has this digest, if that is found right: its map.
    pub(crate) async fn finish(self, digest: Digest) -> Option<ChunkMap> {
        let Stage::Cut(running) = self.stage else {
            return None;
        };
        let (answer, map) = oneshot::channel();
        let asked = Message::Finish(digest, answer);
        running.sender.send(asked).await.ok()?;
        map.await.ok().flatten()
    }
}

/// Not one of the runtime's: an upload that waits for its cutting holds one of those already, and they
/// are limited in number.
fn start_thread(places: &Arc<Semaphore>) -> Option<Running> {
    let place = Arc::clone(places).try_acquire_owned().ok()?;
    let (sender, receiver) = mpsc::channel(QUEUED_PIECES);
    let thread = std::thread::Builder::new().name("upload-cutter".to_owned());
    if let Err(error) = thread.spawn(move || cut(receiver)) {
        tracing::warn!(%error, "an upload is not cut");
        return None;
    }
    Some(Running {
        sender,
        _place: place,
    })
}

/// The cutting thread: ends with its upload.
fn cut(mut receiver: mpsc::Receiver<Message>) {
    let mut cutter = Cutter::new();
    while let Some(message) = receiver.blocking_recv() {
        match message {
            Message::Bytes(bytes) => cutter.update(&bytes),
            Message::Finish(digest, answer) => {
                // Who asked may have gone with its client.
                let _ = answer.send(cutter.finish(digest));
                return;
            }
        }
    }
}

/// The cuttings of all uploads.
#[derive(Debug)]
pub(crate) struct Cuttings {
    places: Arc<Semaphore>,
    held: Mutex<Held>,
}

/// Those of uploads between two requests.
#[derive(Debug, Default)]
struct Held {
    cuttings: HashMap<Uuid, (u64, Cutting)>,
    /// Counts up, so that the oldest is known.
    next: u64,
}

impl Default for Cuttings {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(AT_ONCE)),
            held: Mutex::default(),
        }
    }
}

impl Cuttings {
    /// The cutting of a session that stands at `offset`: a new one at the start, else the one that has
    /// seen everything up to there, if it is here.
    pub(crate) fn enter(&self, id: Uuid, offset: u64) -> Option<Cutting> {
        let held = self.held().cuttings.remove(&id);
        if offset == 0 {
            return Some(Cutting {
                seen: 0,
                stage: Stage::Small(Vec::new()),
                places: Arc::clone(&self.places),
            });
        }
        let held = held.map(|(_, cutting)| cutting);
        held.filter(|cutting| cutting.seen == offset)
    }

    /// Keeps the cutting of a session that goes on with another request; the oldest makes room.
    pub(crate) fn keep(&self, id: Uuid, cutting: Cutting) {
        if matches!(cutting.stage, Stage::GivenUp) {
            return;
        }
        let mut held = self.held();
        if held.cuttings.len() >= HELD
            && let Some(oldest) = held.oldest()
        {
            held.cuttings.remove(&oldest);
        }
        let turn = held.next;
        held.next += 1;
        held.cuttings.insert(id, (turn, cutting));
    }

    /// Forgets the cutting of a session that has ended.
    pub(crate) fn forget(&self, id: Uuid) {
        self.held().cuttings.remove(&id);
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        // Whatever a panicking thread left there, each cutting still says what it has seen.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn oldest(&self) -> Option<Uuid> {
        let turns = self.cuttings.iter().map(|(id, (turn, _))| (turn, id));
        turns.min().map(|(_, id)| *id)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use artifact::Digest;
    use artifact::chunk_map::Cutter;
    use bytes::Bytes;
    use uuid::Uuid;

    use crate::service::chunk_maps::cutting::{AT_ONCE, Cuttings, HELD};
    use crate::store::blob_conformance::noise;

    #[tokio::test]
    async fn an_upload_in_several_requests_has_the_map_of_the_whole() {
        let content = noise(5_000_000, 1);
        let digest = Digest::sha256(&content);
        let mut cutter = Cutter::new();
        cutter.update(&content);
        let wanted = cutter.finish(digest);
        assert!(wanted.is_some());

        let (cuttings, id) = (Cuttings::default(), Uuid::new_v4());
        let mut cutting = cuttings.enter(id, 0).unwrap();
        for piece in content[..700_000].chunks(70_000) {
            cutting.push(&Bytes::copy_from_slice(piece)).await;
        }
        cuttings.keep(id, cutting);
        let mut cutting = cuttings.enter(id, 700_000).unwrap();
        cutting.push(&content.slice(700_000..4_000_000)).await;
        cuttings.keep(id, cutting);
        let mut cutting = cuttings.enter(id, 4_000_000).unwrap();
        cutting.push(&content.slice(4_000_000..)).await;
        assert_eq!(cutting.finish(digest).await, wanted);
    }

    #[tokio::test]
    async fn what_was_not_seen_whole_has_no_map() {
        let (cuttings, id) = (Cuttings::default(), Uuid::new_v4());
        let mut cutting = cuttings.enter(id, 0).unwrap();
        cutting.push(&noise(2_000_000, 2)).await;
        cuttings.keep(id, cutting);
        assert!(cuttings.enter(id, 1_000_000).is_none());
        assert!(cuttings.enter(id, 2_000_000).is_none());
        let small = cuttings.enter(id, 0).unwrap();
        assert_eq!(small.finish(Digest::sha256(b"")).await, None);
    }

    #[tokio::test]
    async fn uploads_beyond_the_limit_go_without_and_idle_ones_make_room() {
        let cuttings = Cuttings::default();
        let content = noise(1_500_000, 3);
        let digest = Digest::sha256(&content);
        let mut running = Vec::new();
        for _ in 0..=AT_ONCE {
            let mut cutting = cuttings.enter(Uuid::new_v4(), 0).unwrap();
            cutting.push(&content).await;
            running.push(cutting);
        }
        assert_eq!(running.pop().unwrap().finish(digest).await, None);
        let ids: Vec<_> = running.iter().map(|_| Uuid::new_v4()).collect();
        for (id, cutting) in ids.iter().zip(running) {
            cuttings.keep(*id, cutting);
        }
        let size = content.len() as u64;
        assert!(cuttings.enter(ids[AT_ONCE - HELD - 1], size).is_none());
        let kept = cuttings.enter(ids[AT_ONCE - HELD], size).unwrap();
        assert!(kept.finish(digest).await.is_some());
    }
}
