//! Transfer: all requests for one blob. What is missing waits in a queue; whichever place is free
//! takes the next run of it; what fails, or turns out wrong, is put back.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use artifact::client::RetryPolicy;
use artifact::client::fetch::Mode;
use artifact::client::partial::{Settled, Sink};
use tokio::sync::Notify;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};
use tracing::Instrument;

use crate::cache::ingest::stopped;
use crate::cache::maps::LocalChunk;
use crate::error::Error;
use crate::metrics::{Metrics, Verified};
use crate::pull::fetch::active::{Active, Track};
use crate::pull::fetch::attempt::{Attempt, Outcome};
use crate::pull::fetch::hosts::Hosts;
use crate::pull::fetch::lane::{Lane, Place, Service};
use crate::pull::fetch::pace::Pace;

/// How often the transfer looks around without a reason.
const TICK: Duration = Duration::from_millis(100);
/// Times that a chunk may be wrong before its hash is taken to be.
const MOST_WRONG: usize = 2;

/// What every transfer of this node shares.
#[derive(Clone, Debug)]
pub(crate) struct Manners {
    /// Most connections to one host for one blob.
    pub(crate) connections: usize,
    /// How often a host that fails is asked again.
    pub(crate) retry: RetryPolicy,
    pub(crate) hosts: Hosts,
    pub(crate) pace: Pace,
    pub(crate) metrics: Metrics,
}

/// Why a transfer ended early.
#[derive(Debug)]
pub(super) enum End {
    /// Chunks have other hashes than the map says, from wherever they come.
    MapIsWrong,
    Failed(Error),
}

/// Something to be fetched, and by whom rather not.
#[derive(Debug)]
struct Wanted {
    range: Range<u64>,
    not_from: Option<usize>,
}

/// All requests for one blob.
#[derive(Debug)]
pub(super) struct Transfer {
    manners: Manners,
    lanes: Vec<Lane>,
    queue: VecDeque<Wanted>,
    active: HashMap<Id, Active>,
    tasks: JoinSet<Outcome>,
    sink: Sink,
    /// How often each chunk was wrong.
    wrong: HashMap<usize, usize>,
    /// Bytes a second of the requests that have ended well, the last ones above all.
    usual: f64,
    /// Bytes that were copied on this node.
    copied: u64,
    began: Arc<Notify>,
}

impl Transfer {
    /// From these places, in the order of preference, into `sink`.
    pub(super) fn new(manners: Manners, places: Vec<Place>, sink: Sink) -> Self {
        let connections = manners.connections;
        let lanes = places
            .into_iter()
            .map(|place| Lane::new(place, connections));
        Self {
            lanes: lanes.collect(),
            queue: VecDeque::new(),
            active: HashMap::new(),
            tasks: JoinSet::new(),
            sink,
            wrong: HashMap::new(),
            usual: 0.0,
            copied: 0,
            began: Arc::default(),
            manners,
        }
    }

    /// Adds what is to be fetched.
    pub(super) fn want(&mut self, ranges: impl IntoIterator<Item = Range<u64>>) {
        self.queue.extend(ranges.into_iter().map(|range| Wanted {
            range,
            not_from: None,
        }));
    }

    /// Adds chunks that lie on this node, with the bytes of each. What cannot be had from there is
    /// fetched.
    pub(super) fn copy(&mut self, chunks: Vec<(LocalChunk, Range<u64>)>) {
        let sink = self.sink.clone();
        let bytes = chunks
            .iter()
            .map(|(_, range)| range.end - range.start)
            .sum();
        let work = async move {
            let ranges: Vec<_> = chunks.iter().map(|(_, range)| range.clone()).collect();
            for (local, range) in chunks {
                let copied = sink.copy(local.chunk, range, local.source, local.from);
                copied.await.ok()?;
            }
            let mut all = Settled::default();
            for range in ranges {
                let settled = sink.settle(range).await.ok()?;
                all.missing.extend(settled.missing);
                all.wrong.extend(settled.wrong);
            }
            Some((all, None))
        };
        let abort = self.tasks.spawn(work.in_current_span());
        self.enlist(Active::new(None, 0..bytes, Arc::default(), abort));
    }

    /// Brings everything in by ranges. Gives `false` when nobody serves ranges and somebody the
    /// whole: then that is left to do.
    pub(super) async fn by_ranges(&mut self) -> Result<bool, End> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let began = Arc::clone(&self.began);
        loop {
            self.assign();
            if self.active.is_empty() {
                if self.queue.is_empty() {
                    return Ok(true);
                }
                if !self.lanes.iter().any(Lane::is_usable) {
                    return self.give_up();
                }
            }
            tokio::select! {
                Some(ended) = self.tasks.join_next_with_id() => self.ended(ended)?,
                () = began.notified() => self.count(),
                _ = tick.tick() => {
                    self.count();
                    self.look();
                }
            }
        }
    }

    /// Bytes that came from other blobs of this node.
    pub(super) fn copied(&self) -> u64 {
        self.copied
    }

    /// The place that serves the whole blob, if that is what is left.
    pub(super) fn whole(&self) -> Option<&Place> {
        let mut lanes = self.lanes.iter();
        let lane = lanes.find(|lane| lane.service == Service::Whole)?;
        Some(&lane.place)
    }

    fn give_up(&mut self) -> Result<bool, End> {
        if self.whole().is_some() {
            return Ok(false);
        }
        let errors = self.lanes.iter_mut();
        let error = errors.filter_map(|lane| lane.last_error.take()).last();
        Err(match error {
            Some(error) => End::Failed(Error::Registry(error)),
            // Every place was sent away for wrong chunks.
            None => End::MapIsWrong,
        })
    }

    /// Gives the next runs to those places that are free.
    fn assign(&mut self) {
        let usable = self.lanes.iter().filter(|lane| lane.is_usable()).count();
        for number in 0..self.lanes.len() {
            while self.lanes[number].is_free(&self.manners.hosts) {
                let may = |wanted: &Wanted| usable < 2 || wanted.not_from != Some(number);
                let Some(place) = self.queue.iter().position(may) else {
                    break;
                };
                let Some(wanted) = self.queue.remove(place) else {
                    break;
                };
                self.request(number, wanted.range.clone(), wanted.range);
            }
        }
    }

    /// Asks a place for `range`, and sees in the end to all of `settles`.
    fn request(&mut self, number: usize, range: Range<u64>, settles: Range<u64>) -> Id {
        let lane = &mut self.lanes[number];
        lane.busy += 1;
        let track = Arc::new(Track::at(range.start));
        let attempt = Attempt {
            source: lane.place.source.clone(),
            range: range.clone(),
            settles,
            mode: Mode::Ranges,
            sink: self.sink.clone(),
            pace: self.manners.pace.clone(),
            track: Arc::clone(&track),
            began: Arc::clone(&self.began),
        };
        let abort = self.tasks.spawn(attempt.run().in_current_span());
        self.enlist(Active::new(Some(number), range, track, abort))
    }

    fn enlist(&mut self, active: Active) -> Id {
        let id = active.id();
        self.active.insert(id, active);
        id
    }

    /// Tells the lanes what has come.
    fn count(&mut self) {
        for active in self.active.values_mut() {
            let came = active.new_bytes();
            if let Some(lane) = active.lane {
                self.lanes[lane].came(came);
            }
        }
    }

    /// Looks whether there should be more connections, and whether somebody falls behind.
    fn look(&mut self) {
        for lane in &mut self.lanes {
            let is_busy = lane.is_busy() && !self.queue.is_empty();
            lane.limit.look(is_busy, Instant::now());
        }
        let mut slow = self.active.values();
        let slow = slow.find(|active| active.is_straggler(self.usual));
        if let Some(slow) = slow.map(Active::id).filter(|_| self.queue.is_empty()) {
            self.rival(slow);
        }
    }

    /// Asks for the rest of it once more, elsewhere if there is an elsewhere. The bytes of
    /// whichever comes first count.
    fn rival(&mut self, slow: Id) {
        let Some(active) = self.active.get(&slow) else {
            return;
        };
        let rest = active.position()..active.range.end;
        let own = active.lane;
        let free = |number: &usize| self.lanes[*number].is_free(&self.manners.hosts);
        let mut places: Vec<usize> = (0..self.lanes.len()).filter(free).collect();
        places.sort_by_key(|number| Some(*number) == own);
        let Some(number) = places.first().copied().filter(|_| !rest.is_empty()) else {
            return;
        };
        tracing::debug!(
            from = rest.start,
            to = rest.end,
            "a slow request gets a rival"
        );
        let settles = active.range.clone();
        let rival = self.request(number, rest, settles);
        for (one, other) in [(slow, rival), (rival, slow)] {
            if let Some(active) = self.active.get_mut(&one) {
                active.rival = Some(other);
            }
        }
    }

    /// A request has ended.
    fn ended(&mut self, ended: Result<(Id, Outcome), JoinError>) -> Result<(), End> {
        self.count();
        let (id, outcome) = match ended {
            Ok((id, outcome)) => (id, Ok(outcome)),
            Err(error) => (error.id(), Err(error)),
        };
        // One that lost against its rival is not there any more.
        let Some(active) = self.active.remove(&id) else {
            return Ok(());
        };
        let outcome = outcome.map_err(|_| {
            End::Failed(Error::Interrupted {
                what: "a connection of the download".to_owned(),
            })
        })?;
        let (settled, failure) = outcome.ok_or_else(|| End::Failed(stopped()))?;
        let Some(lane) = active.lane else {
            let failed: u64 = settled
                .missing
                .iter()
                .map(|range| range.end - range.start)
                .sum();
            self.copied = active.range.end.saturating_sub(failed);
            self.put_back(settled.missing, None);
            return Ok(());
        };
        self.lanes[lane].busy -= 1;
        let has_failed = failure.is_some();
        if let Some(error) = failure {
            let Manners { retry, hosts, .. } = &self.manners;
            let was_worth_it = active.was_worth_it();
            self.lanes[lane].failed(error, active.began, was_worth_it, retry, hosts);
        } else {
            self.usual = if self.usual > 0.0 {
                self.usual.midpoint(active.rate())
            } else {
                active.rate()
            };
        }
        let has_wrong = !settled.wrong.is_empty();
        self.blame(lane, &settled.wrong)?;
        let is_left_to_rival = self.part(&active, has_failed);
        if !is_left_to_rival {
            let not_from = (has_failed || has_wrong).then_some(lane);
            self.put_back(settled.missing, not_from);
        }
        Ok(())
    }

    /// Of two requests for the same bytes one has ended: when it failed, the other one goes on,
    /// and its bytes are left to it; else that one has lost. Whether they are left to it.
    fn part(&mut self, active: &Active, has_failed: bool) -> bool {
        let Some(rival) = active.rival else {
            return false;
        };
        if has_failed {
            let other = self.active.get_mut(&rival);
            return other.map(|other| other.rival = None).is_some();
        }
        if let Some(loser) = self.active.remove(&rival) {
            loser.abort();
            if let Some(lane) = loser.lane {
                self.lanes[lane].busy -= 1;
            }
        }
        false
    }

    /// A place has sent wrong chunks, or the map is wrong: who sends it again decides.
    fn blame(&mut self, lane: usize, wrong: &[usize]) -> Result<(), End> {
        let has_others = self.lanes.iter().filter(|lane| lane.is_usable()).count() > 1;
        self.lanes[lane].was_wrong(wrong.len(), has_others);
        for chunk in wrong {
            let host = &self.lanes[lane].place.host;
            tracing::warn!(chunk, %host, "a chunk has another hash than its map says");
            self.manners.metrics.verify_failed(Verified::Chunk);
            let times = self.wrong.entry(*chunk).or_default();
            *times += 1;
            if *times >= MOST_WRONG {
                return Err(End::MapIsWrong);
            }
        }
        Ok(())
    }

    fn put_back(&mut self, missing: Vec<Range<u64>>, not_from: Option<usize>) {
        for range in missing.into_iter().rev() {
            self.queue.push_front(Wanted { range, not_from });
        }
    }
}
