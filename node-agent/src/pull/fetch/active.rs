//! Active: a request that is under way, as those see it who wait for it.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::{AbortHandle, Id};
use tokio::time::Instant;

/// Bytes that make a request worth it, though it failed; a quarter of a small one is enough.
const PROGRESS_BYTES: u64 = 1024 * 1024;
/// A request that takes longer than this, and that is slow beside the others, gets a rival.
const PATIENCE: Duration = Duration::from_secs(1);
/// How much slower than the others it must be.
const SLOW: f64 = 3.0;

/// How far a request has come, told by the request itself.
#[derive(Debug, Default)]
pub(super) struct Track {
    position: AtomicU64,
    is_held: AtomicBool,
}

impl Track {
    /// Begins at a byte.
    pub(super) fn at(position: u64) -> Self {
        Self {
            position: AtomicU64::new(position),
            is_held: AtomicBool::new(false),
        }
    }

    /// Bytes have come, and it waits for this node: for the disk, or for its turn.
    pub(super) fn hold(&self) {
        self.is_held.store(true, Ordering::Relaxed);
    }

    /// All before `position` is put, and it waits for the other side again.
    pub(super) fn go_on(&self, position: u64) {
        self.position.store(position, Ordering::Relaxed);
        self.is_held.store(false, Ordering::Relaxed);
    }
}

/// A request that is under way.
#[derive(Debug)]
pub(super) struct Active {
    /// None for chunks that are copied on this node.
    pub(super) lane: Option<usize>,
    /// Its bytes; of copies only their count.
    pub(super) range: Range<u64>,
    pub(super) began: Instant,
    /// The request for the same bytes.
    pub(super) rival: Option<Id>,
    track: Arc<Track>,
    /// The position when it was looked at last.
    seen: u64,
    /// When the last bytes came.
    moved: Instant,
    abort: AbortHandle,
}

impl Active {
    pub(super) fn new(
        lane: Option<usize>,
        range: Range<u64>,
        track: Arc<Track>,
        abort: AbortHandle,
    ) -> Self {
        Self {
            lane,
            seen: range.start,
            range,
            began: Instant::now(),
            rival: None,
            track,
            moved: Instant::now(),
            abort,
        }
    }

    pub(super) fn id(&self) -> Id {
        self.abort.id()
    }

    /// Where the next bytes belong: all before them were put.
    pub(super) fn position(&self) -> u64 {
        self.track.position.load(Ordering::Relaxed)
    }

    /// Bytes that came since it was looked at last.
    pub(super) fn new_bytes(&mut self) -> u64 {
        let position = self.position();
        let came = position.saturating_sub(self.seen);
        if came > 0 {
            self.seen = position;
            self.moved = Instant::now();
        }
        came
    }

    /// Bytes a second since it began.
    pub(super) fn rate(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a rate, not a count")]
        let bytes = self.position().saturating_sub(self.range.start) as f64;
        bytes / self.began.elapsed().as_secs_f64().max(0.001)
    }

    /// Whether it brought enough not to count as a failure after one.
    pub(super) fn was_worth_it(&self) -> bool {
        let asked = self.range.end - self.range.start;
        let came = self.position().saturating_sub(self.range.start);
        came >= PROGRESS_BYTES.min(asked.div_ceil(4))
    }

    /// Whether it is much slower than requests `usually` are, or stands still, by the other side's
    /// fault, and has no rival yet.
    pub(super) fn is_straggler(&self, usually: f64) -> bool {
        let is_held = self.track.is_held.load(Ordering::Relaxed);
        let is_candidate = self.lane.is_some() && self.rival.is_none() && !is_held;
        let is_young = self.began.elapsed() < PATIENCE;
        let stands_still = self.moved.elapsed() > PATIENCE * 2;
        is_candidate && !is_young && (self.rate() * SLOW < usually || stands_still)
    }

    /// Ends it: its bytes have come by another way.
    pub(super) fn abort(&self) {
        self.abort.abort();
    }
}
