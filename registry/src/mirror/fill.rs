//! Fill: a blob of an upstream on its way into the storage, and into every client that asks for it
//! meanwhile.
//!
//! There is one fill for a digest, however many ask. It belongs to nobody: clients come and go, and
//! it goes on. Its bytes lie in a file of their own until the digest of the whole was found right;
//! readers get them out of that file as they come, but the last ones only after that, so that no
//! client ever has a whole blob that is wrong.

mod download;
pub(crate) mod files;
mod read;
mod schedule;

use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use artifact::Digest;
use artifact::client::partial::{ChunkState, PartFile, Progress};
use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::Error;
use crate::service::mirrored::status::FillStatus;
use files::FillNote;
use schedule::Schedule;

pub(crate) use download::{Candidate, download};
pub(crate) use read::FillContent;

/// Bytes of one request to an upstream at most, so that what a reader waits for is not far behind.
const RUN_BYTES: u64 = 16 << 20;
/// Readers hear of so many new bytes at once.
const HEARD_BYTES: u64 = 256 << 10;

/// How a fill stands.
#[derive(Clone, Debug)]
pub(crate) enum Phase {
    /// Bytes are coming, or will be.
    Filling,
    /// The digest is right, and the blob is in the storage.
    Done,
    /// It ended without the blob. What has come stays for the next try, unless it was wrong.
    Failed(Arc<Error>),
}

/// What readers watch: a phase, and a number that changes whenever there is more to read.
#[derive(Clone, Debug)]
struct News {
    phase: Phase,
    /// Whether its beginning was looked at and may come in.
    is_vetted: bool,
    version: u64,
}

/// A blob on its way in.
#[derive(Debug)]
pub(crate) struct Fill {
    note: FillNote,
    part: Arc<PartFile>,
    schedule: Mutex<Schedule>,
    news: watch::Sender<News>,
    /// Bytes that are here, those of earlier runs included.
    completed: AtomicU64,
    /// Bytes that came from upstreams in this run.
    fetched: AtomicU64,
    /// Bytes since readers were told last.
    unheard: AtomicU64,
    readers: AtomicUsize,
    began: Instant,
}

impl Fill {
    /// Over what is here already.
    pub(crate) fn new(note: FillNote, part: PartFile, states: &[ChunkState]) -> Self {
        let here: Vec<bool> = states
            .iter()
            .map(|state| *state != ChunkState::Absent)
            .collect();
        // A fill is divided evenly; its first chunk is as long as the others.
        let chunk_bytes = part.division().range(0).end.max(1);
        let longest = usize::try_from(RUN_BYTES / chunk_bytes).unwrap_or(1);
        let schedule = Schedule::new(part.size(), chunk_bytes, longest, &here);
        Self {
            note,
            completed: AtomicU64::new(part.present_bytes(states)),
            part: Arc::new(part),
            schedule: Mutex::new(schedule),
            news: watch::Sender::new(News {
                phase: Phase::Filling,
                is_vetted: false,
                version: 0,
            }),
            fetched: AtomicU64::new(0),
            unheard: AtomicU64::new(0),
            readers: AtomicUsize::new(0),
            began: Instant::now(),
        }
    }

    /// What is filled.
    pub(crate) fn note(&self) -> &FillNote {
        &self.note
    }

    /// The digest that the bytes must have.
    pub(crate) fn digest(&self) -> Digest {
        self.note.digest
    }

    /// Bytes of the whole.
    pub(crate) fn size(&self) -> u64 {
        self.note.size
    }

    /// Bytes that are here.
    pub(crate) fn completed(&self) -> u64 {
        self.completed.load(Ordering::Relaxed)
    }

    /// How it stands, for people.
    pub(crate) fn status(&self) -> FillStatus {
        let fetched = self.fetched.load(Ordering::Relaxed);
        let milliseconds = self.began.elapsed().as_millis().max(1);
        let rate = u128::from(fetched) * 1000 / milliseconds;
        FillStatus {
            digest: self.note.digest.to_string(),
            repository: self.note.repository.clone(),
            total: self.note.size,
            completed: self.completed(),
            rate: u64::try_from(rate).unwrap_or(u64::MAX),
            readers: self.readers.load(Ordering::Relaxed),
        }
    }

    /// Ends it, for everybody who reads or waits.
    pub(crate) fn end(&self, phase: Phase) {
        self.news.send_modify(|news| {
            news.phase = phase;
            news.version += 1;
        });
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(&self) -> Result<(), Arc<Error>> {
        let mut news = self.news.subscribe();
        loop {
            match news.borrow_and_update().phase.clone() {
                Phase::Done => return Ok(()),
                Phase::Failed(error) => return Err(error),
                Phase::Filling => {}
            }
            // The sender is a part of this fill, which is borrowed here.
            let _ = news.changed().await;
        }
    }

    /// Its beginning may come in.
    pub(crate) fn vetted(&self) {
        self.news.send_modify(|news| {
            news.is_vetted = true;
            news.version += 1;
        });
    }

    /// Waits until its beginning was looked at.
    pub(crate) async fn looked_at(&self) -> Result<(), Arc<Error>> {
        let mut news = self.news.subscribe();
        loop {
            let now = news.borrow_and_update().clone();
            match now.phase {
                Phase::Failed(error) => return Err(error),
                Phase::Done => return Ok(()),
                Phase::Filling if now.is_vetted => return Ok(()),
                Phase::Filling => {}
            }
            // As above.
            let _ = news.changed().await;
        }
    }

    /// Waits until bytes from `offset` on can be read without a gap, and gives where they end; the
    /// caller counts as waiting for them, so that they are fetched next.
    pub(crate) async fn readable(&self, offset: u64) -> Result<u64, Arc<Error>> {
        let mut news = self.news.subscribe();
        let mut waiting = None;
        loop {
            let phase = news.borrow_and_update().phase.clone();
            let until = self.schedule().readable_until(offset);
            if until > offset {
                return Ok(until);
            }
            if let Phase::Failed(error) = phase {
                return Err(error);
            }
            if waiting.is_none() {
                self.schedule().wait_for(offset);
                waiting = Some(Waiting { fill: self, offset });
            }
            // As above.
            let _ = news.changed().await;
        }
    }

    /// Bytes that can be read. May block.
    pub(crate) fn read(&self, range: Range<u64>) -> Result<Bytes, Error> {
        let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let mut piece = vec![0; length];
        let read = self.part.read_at(range.start, &mut piece);
        read.map(|()| Bytes::from(piece)).map_err(Error::fill_file)
    }

    fn schedule(&self) -> MutexGuard<'_, Schedule> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self) {
        self.unheard.store(0, Ordering::Relaxed);
        self.news.send_modify(|news| news.version += 1);
    }
}

/// That a reader waits for a byte.
struct Waiting<'a> {
    fill: &'a Fill,
    offset: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.fill.schedule().waited_for(self.offset);
    }
}

impl Progress for Fill {
    fn written(&self, bytes: Range<u64>) {
        let length = bytes.end - bytes.start;
        self.completed.fetch_add(length, Ordering::Relaxed);
        self.schedule().grew(&bytes);
        if self.unheard.fetch_add(length, Ordering::Relaxed) + length >= HEARD_BYTES {
            self.tell();
        }
    }

    fn forgotten(&self, bytes: u64) {
        self.completed.fetch_sub(bytes, Ordering::Relaxed);
        self.schedule().give_back();
    }

    fn chunk_is_whole(&self, chunk: usize) {
        self.schedule().arrived(chunk);
        self.tell();
    }
}
