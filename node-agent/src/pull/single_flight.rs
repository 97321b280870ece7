//! SingleFlight: one download per digest, however many callers wait for it.
//!
//! A flight is a task of its own: it goes on when every caller has left. It is taken off the board
//! before its outcome is told, so whoever asks after that looks at the disk first and finds the blob
//! there. A flight that dies without an outcome closes its channel, and the callers are told.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use artifact::Digest;
use artifact::client::partial::Progress;
use tokio::sync::{Notify, watch};
use tracing::Instrument;

use crate::error::Error;
use crate::pull::fetch::Fetched;

/// How far a download has come.
#[derive(Clone, Debug)]
pub(crate) enum Phase {
    /// Bytes are coming.
    Fetching,
    /// All bytes are here; the digest is being checked and the file synced.
    Verifying,
    /// The blob is in the cache, or it is not.
    Ended(Result<Fetched, Arc<Error>>),
}

/// What a flight tells: the bytes that are here, often, and its phase, seldom. Only the flight holds
/// it, so that its end closes the channel.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    completed: Arc<AtomicU64>,
    phase: watch::Sender<Phase>,
    halting: watch::Receiver<bool>,
}

impl Report {
    fn new(halting: watch::Receiver<bool>) -> Self {
        Self {
            completed: Arc::default(),
            phase: watch::Sender::new(Phase::Fetching),
            halting,
        }
    }

    /// Waits until the agent ends: the flight is to keep what it has, and to land.
    pub(crate) async fn halted(&self) {
        let mut halting = self.halting.clone();
        if halting.wait_for(|halting| *halting).await.is_err() {
            // The board is gone, and nobody is left to say it.
            std::future::pending::<()>().await;
        }
    }

    /// Bytes that are here, those of an earlier run included.
    pub(crate) fn set_completed(&self, bytes: u64) {
        self.completed.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn set_phase(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }
}

impl Progress for Report {
    fn written(&self, bytes: Range<u64>) {
        self.completed
            .fetch_add(bytes.end - bytes.start, Ordering::Relaxed);
    }

    fn forgotten(&self, bytes: u64) {
        self.completed.fetch_sub(bytes, Ordering::Relaxed);
    }

    // Whoever waits for a download waits for all of it.
    fn chunk_is_whole(&self, _chunk: usize) {}
}

/// A place in a flight.
#[derive(Clone, Debug)]
pub(crate) struct Seat {
    completed: Arc<AtomicU64>,
    phase: watch::Receiver<Phase>,
    /// Whether this caller began the flight.
    pub(crate) is_first: bool,
}

impl Seat {
    /// Bytes that are here, those of an earlier run included.
    pub(crate) fn completed(&self) -> u64 {
        self.completed.load(Ordering::Relaxed)
    }

    /// The phase as it is now.
    pub(crate) fn phase(&self) -> Phase {
        self.phase.borrow().clone()
    }

    /// Waits for the outcome.
    pub(crate) async fn outcome(&mut self) -> Result<Fetched, Error> {
        let ended = self
            .phase
            .wait_for(|phase| matches!(phase, Phase::Ended(_)))
            .await
            .map(|phase| phase.clone());
        match ended {
            Ok(Phase::Ended(outcome)) => outcome.map_err(Error::Shared),
            Ok(Phase::Fetching | Phase::Verifying) | Err(_) => Err(Error::Interrupted {
                what: "the download".to_owned(),
            }),
        }
    }
}

/// The board of flights.
#[derive(Clone, Debug, Default)]
pub(crate) struct SingleFlight(Arc<Board>);

#[derive(Debug, Default)]
struct Board {
    flights: Mutex<HashMap<Digest, Seat>>,
    /// Turns true when the agent ends.
    halting: watch::Sender<bool>,
    /// Told of each flight that is over.
    landed: Notify,
}

impl SingleFlight {
    /// Joins the flight for a digest, or begins it with `start`.
    pub(crate) fn join<F>(&self, digest: Digest, start: impl FnOnce(Report) -> F) -> Seat
    where
        F: Future<Output = Result<Fetched, Error>> + Send + 'static,
    {
        let mut flights = self.lock();
        if let Some(seat) = flights.get(&digest) {
            return seat.clone();
        }
        let report = Report::new(self.0.halting.subscribe());
        let seat = Seat {
            completed: Arc::clone(&report.completed),
            phase: report.phase.subscribe(),
            is_first: false,
        };
        flights.insert(digest, seat.clone());
        let landing = Landing {
            flights: self.clone(),
            digest,
        };
        let flight = start(report.clone());
        let flight = async move {
            let outcome = flight.await.map_err(Arc::new);
            drop(landing);
            report.set_phase(Phase::Ended(outcome));
        };
        // Part of the trace of the caller who began it.
        tokio::spawn(flight.in_current_span());
        Seat {
            is_first: true,
            ..seat
        }
    }

    /// The downloads that are under way, by digest, with the bytes that are here.
    pub(crate) fn under_way(&self) -> Vec<(Digest, u64)> {
        let flights = self.lock();
        let seats = flights.iter();
        let mut under_way: Vec<_> = seats
            .map(|(digest, seat)| (*digest, seat.completed()))
            .collect();
        under_way.sort_unstable();
        under_way
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, Seat>> {
        let flights = &self.0.flights;
        flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has all flights keep what they have and land, those included that begin from now on, and
    /// waits until none is left.
    pub(crate) async fn halt(&self) {
        self.0.halting.send_replace(true);
        // The notice of a landing between the look and the wait is kept for the wait.
        while !self.lock().is_empty() {
            self.0.landed.notified().await;
        }
    }
}

/// Takes the flight off the board, also when its task panics or the runtime goes down.
struct Landing {
    flights: SingleFlight,
    digest: Digest,
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.flights.lock().remove(&self.digest);
        self.flights.0.landed.notify_one();
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use artifact::Digest;
    use tokio::sync::Notify;

    use crate::error::Error;
    use crate::pull::fetch::Fetched;
    use crate::pull::single_flight::SingleFlight;

    #[tokio::test]
    async fn all_who_ask_while_it_lasts_share_one_flight() {
        let flights = SingleFlight::default();
        let started = Arc::new(AtomicUsize::new(0));
        let land = Arc::new(Notify::new());
        let digest = Digest::sha256(b"blob");
        let mut seats: Vec<_> = (0..10)
            .map(|_| {
                let (started, land) = (Arc::clone(&started), Arc::clone(&land));
                flights.join(digest, |_| async move {
                    started.fetch_add(1, Ordering::SeqCst);
                    land.notified().await;
                    Ok(Fetched {
                        bytes: 7,
                        note: None,
                    })
                })
            })
            .collect();
        assert_eq!(seats.iter().filter(|seat| seat.is_first).count(), 1);
        land.notify_one();
        for seat in &mut seats {
            assert_eq!(seat.outcome().await.unwrap().bytes, 7);
        }
        assert_eq!(started.load(Ordering::SeqCst), 1);
        let mut later = flights.join(digest, |_| async { Ok(Fetched::default()) });
        assert_eq!(later.outcome().await.unwrap().bytes, 0);
    }

    #[tokio::test]
    async fn when_the_agent_ends_flights_land_and_are_waited_for() {
        let flights = SingleFlight::default();
        let mut seats = [b"a", b"b"].map(|blob| {
            flights.join(Digest::sha256(blob), |report| async move {
                report.halted().await;
                Err(Error::Interrupted {
                    what: "it".to_owned(),
                })
            })
        });
        flights.halt().await;
        for seat in &mut seats {
            assert!(seat.outcome().await.is_err());
        }
    }

    #[tokio::test]
    async fn a_flight_that_panics_leaves_nobody_waiting() {
        let flights = SingleFlight::default();
        let digest = Digest::sha256(b"blob");
        let mut seat = flights.join(digest, |_| async { panic!("lost") });
        let error = seat.outcome().await.unwrap_err();
        assert!(matches!(error, Error::Interrupted { .. }));
        assert!(flights.lock().is_empty());
    }
}
