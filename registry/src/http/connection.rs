//! What is known of each open connection, so that idle ones can make room and stuck ones end.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::sync::Notify;

/// Who has just come or has just been answered is given so long to ask before it is taken to be
/// idle enough to make room.
pub(super) const LEAST_IDLE: Duration = Duration::from_millis(500);
/// While all are busy, or not idle for long enough yet, this often is looked again.
const LOOK_PAUSE: Duration = Duration::from_millis(100);
/// Connections beyond the limit that are taken in all the same, for health checks alone.
const SPARE: usize = 32;

/// A connection as the others see it.
#[derive(Debug)]
pub(super) struct Connection {
    /// Whether it came when all places were taken: it may ask for nothing but health.
    is_spare: bool,
    opened: Instant,
    /// Requests whose answer is not yet handed over whole.
    running: AtomicUsize,
    /// Those of them whose answer the client has to take before there is more to do.
    sending: AtomicUsize,
    /// Steps forward: requests begun and pieces of answers handed over.
    steps: AtomicU64,
    /// When it last became idle, in milliseconds since it was opened.
    idle_since: AtomicU64,
    is_displaced: AtomicBool,
    displaced: Notify,
}

impl Connection {
    fn new(is_spare: bool) -> Self {
        Self {
            is_spare,
            opened: Instant::now(),
            running: AtomicUsize::new(0),
            sending: AtomicUsize::new(0),
            steps: AtomicU64::new(0),
            idle_since: AtomicU64::new(0),
            is_displaced: AtomicBool::new(false),
            displaced: Notify::new(),
        }
    }

    /// Whether it may ask for nothing but health.
    pub(super) fn is_spare(&self) -> bool {
        self.is_spare
    }

    /// Waits until it has to make room for another one.
    pub(super) async fn displaced(&self) {
        self.displaced.notified().await;
    }

    fn displace(&self) {
        self.is_displaced.store(true, Ordering::Relaxed);
        self.displaced.notify_one();
    }

    fn is_displaced(&self) -> bool {
        self.is_displaced.load(Ordering::Relaxed)
    }

    /// How long it has been idle; `None` when it is not, or is to go already.
    fn idle_millis(&self) -> Option<u64> {
        let is_idle = self.running.load(Ordering::Relaxed) == 0;
        (is_idle && !self.is_displaced())
            .then(|| millis(self.opened).saturating_sub(self.idle_since.load(Ordering::Relaxed)))
    }

    /// Where it stands: a number that changes with every step forward, and whether it should
    /// make steps, because it is sending or has nothing to do.
    pub(super) fn standing(&self) -> Standing {
        let running = self.running.load(Ordering::Relaxed);
        let sending = self.sending.load(Ordering::Relaxed);
        Standing {
            steps: self.steps.load(Ordering::Relaxed),
            // A request that runs without an answer yet may take its time: a commit, an upload.
            is_ours_to_wait: running > sending,
        }
    }

    /// A request begins.
    pub(super) fn begin(self: &Arc<Self>) -> Running {
        self.running.fetch_add(1, Ordering::Relaxed);
        self.steps.fetch_add(1, Ordering::Relaxed);
        Running {
            connection: Arc::clone(self),
            is_sending: false,
        }
    }
}

/// Where a connection stands, see [`Connection::standing`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    steps: u64,
    is_ours_to_wait: bool,
}

impl Standing {
    /// Whether nothing went forward since `earlier`, and nothing here is to blame.
    pub(super) fn is_stuck_since(self, earlier: Self) -> bool {
        self == earlier && !self.is_ours_to_wait
    }
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// A request that runs, until its answer is handed over whole or given up.
#[derive(Debug)]
pub(super) struct Running {
    connection: Arc<Connection>,
    is_sending: bool,
}

impl Running {
    /// The answer begins: the body of it, which ends the request when it is dropped.
    pub(super) fn answered(mut self, body: Body) -> Body {
        self.set_sending(true);
        Body::new(Answer {
            body,
            running: self,
        })
    }

    /// Tells whether the next piece of the answer is being waited for here.
    fn set_sending(&mut self, is_sending: bool) {
        if is_sending == self.is_sending {
            return;
        }
        self.is_sending = is_sending;
        if is_sending {
            self.connection.sending.fetch_add(1, Ordering::Relaxed);
        } else {
            self.connection.sending.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.set_sending(false);
        let connection = &self.connection;
        let now = millis(connection.opened);
        connection.idle_since.store(now, Ordering::Relaxed);
        connection.running.fetch_sub(1, Ordering::Relaxed);
        connection.steps.fetch_add(1, Ordering::Relaxed);
    }
}

/// The body of an answer; each piece that the connection takes is a step forward.
#[derive(Debug)]
struct Answer {
    body: Body,
    running: Running,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let running = &mut self.running;
        running.connection.steps.fetch_add(1, Ordering::Relaxed);
        let polled = Pin::new(&mut self.body).poll_frame(context);
        // That the storage is slow is not the client's fault.
        self.running.set_sending(polled.is_ready());
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The open connections, and how many there may be.
#[derive(Clone, Debug)]
pub(super) struct Places(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limit: usize,
    least_idle: u64,
    open: Mutex<Vec<Arc<Connection>>>,
    left: Notify,
}

impl Places {
    /// None taken of `limit`; a connection makes room when it has been idle for `least_idle`.
    pub(super) fn new(limit: usize, least_idle: Duration) -> Self {
        Self(Arc::new(Shared {
            limit,
            least_idle: u64::try_from(least_idle.as_millis()).unwrap_or(u64::MAX),
            open: Mutex::default(),
            left: Notify::new(),
        }))
    }

    /// Waits until there is a place, even if only a spare one.
    pub(super) async fn free(&self) {
        loop {
            let left = self.0.left.notified();
            if self.open().len() < self.0.limit + SPARE || self.has_idle() {
                return;
            }
            // Time too makes room: others become idle enough.
            let _ = tokio::time::timeout(LOOK_PAUSE, left).await;
        }
    }

    /// How long a connection has been idle, if it has been for long enough to make room.
    fn idle_enough(&self, connection: &Connection) -> Option<u64> {
        let idle = connection.idle_millis()?;
        (idle >= self.0.least_idle).then_some(idle)
    }

    /// Takes a place, if need be that of the connection that has been idle for the longest time.
    /// When none is idle it is a spare one.
    pub(super) fn take(&self) -> Place {
        let mut open = self.open();
        // Those that are on their way out have left their places already.
        let is_full = open.len() >= self.0.limit && {
            let going = |connection: &Arc<Connection>| connection.is_displaced();
            open.iter().filter(|other| !going(other)).count() >= self.0.limit
        };
        let idlest = open
            .iter()
            .filter(|_| is_full)
            .filter_map(|connection| Some((self.idle_enough(connection)?, connection)))
            .max_by_key(|(idle, _)| *idle);
        if let Some((_, idlest)) = idlest {
            idlest.displace();
        }
        let is_spare = is_full && idlest.is_none();
        let has_displaced = idlest.is_some();
        let connection = Arc::new(Connection::new(is_spare));
        open.push(Arc::clone(&connection));
        Place {
            places: self.clone(),
            connection,
            has_displaced,
        }
    }

    fn has_idle(&self) -> bool {
        self.open()
            .iter()
            .any(|connection| self.idle_enough(connection).is_some())
    }

    fn open(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Connection>>> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of one connection; dropping it leaves it.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
    pub(super) connection: Arc<Connection>,
    /// Whether another connection had to go for this one.
    pub(super) has_displaced: bool,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.places.open();
        let found = open
            .iter()
            .position(|other| Arc::ptr_eq(other, &self.connection));
        if let Some(at) = found {
            open.swap_remove(at);
        }
        drop(open);
        self.places.0.left.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::body::Body;

    use crate::http::connection::Places;

    #[tokio::test]
    async fn the_connection_that_was_idle_longest_makes_room_and_busy_ones_stay() {
        let places = Places::new(2, Duration::ZERO);
        let (first, second) = (places.take(), places.take());
        let busy = first.connection.begin();
        let third = places.take();
        assert!(third.has_displaced && !third.connection.is_spare());
        second.connection.displaced().await;
        drop(second);
        let also_busy = third.connection.begin();
        let spare = places.take();
        assert!(spare.connection.is_spare() && !spare.has_displaced);
        drop((busy, also_busy));
    }

    #[tokio::test]
    async fn a_connection_is_stuck_when_its_client_takes_nothing_not_when_we_are_slow() {
        let place = Places::new(1, Duration::ZERO).take();
        let connection = &place.connection;
        let running = connection.begin();
        let working = connection.standing();
        assert!(!connection.standing().is_stuck_since(working));
        let body = running.answered(Body::from("answer"));
        let sending = connection.standing();
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(connection.standing().is_stuck_since(sending));
        let _ = axum::body::to_bytes(body, 100).await;
        assert!(!connection.standing().is_stuck_since(sending));
    }
}
