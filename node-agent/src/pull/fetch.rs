//! Fetches one blob into the cache: from other blobs of this node and from every origin that has it,
//! chunk by chunk where its chunk map is known, else by plain ranges, else in one stream; written in
//! place, verified as it comes, the hash of the whole kept in step.
//!
//! ```text
//! transfer  what is missing, and who brings it ──► attempt  one request ──► Sink of the pipeline
//!    ├─ lane    one place and how it does            └─ pace  the bandwidth of the node
//!    └─ limit   how many connections it gets
//! ```

mod active;
mod attempt;
mod hosts;
mod lane;
mod limit;
mod pace;
mod transfer;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use artifact::ChunkMap;
use artifact::Digest;
use artifact::client::fetch::Mode;
use artifact::client::partial::{ChunkState, Division, PartFile, Pipeline};
use futures::future::BoxFuture;
use tokio::sync::Notify;

use crate::cache::NodeCache;
use crate::cache::ingest::{Ingest, stopped};
use crate::cache::maps::{self, LocalChunk};
use crate::error::Error;
use crate::metrics::{Source, Verified};
use crate::pull::single_flight::{Phase, Report};
use active::Track;
use attempt::Attempt;
pub(crate) use hosts::Hosts;
pub(crate) use lane::Place;
pub(crate) use pace::Pace;
pub use pace::{Bandwidth, BandwidthWindow, InvalidWindow};
pub(crate) use transfer::Manners;
use transfer::{End, Transfer};

/// Bytes that one request asks for, unless one chunk has more.
const REQUEST_BYTES: u64 = 16 << 20;

/// What is to be fetched, and how.
pub(crate) struct Job {
    pub(crate) cache: NodeCache,
    pub(crate) digest: Digest,
    /// Bytes of the blob.
    pub(crate) size: u64,
    /// Where it is, in the order of preference; at least one.
    pub(crate) places: Vec<Place>,
    pub(crate) manners: Manners,
    /// Asks the origins for the chunk map; it is asked for only when that can help.
    pub(crate) map: BoxFuture<'static, Option<Arc<ChunkMap>>>,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fetched {
    /// Bytes that came over the network.
    pub(crate) bytes: u64,
    /// What a person should know although all is well.
    pub(crate) note: Option<String>,
}

/// Fetches a blob, verifies it and makes it visible.
pub(crate) async fn fetch(job: Job, report: Report) -> Result<Fetched, Error> {
    let Job {
        cache,
        digest,
        size,
        places,
        manners,
        map,
    } = job;
    let mut fetch = Fetch {
        cache,
        digest,
        size,
        places,
        manners,
        report,
        fetched: Fetched::default(),
    };
    let mut map = Some(map);
    let mut is_map_wrong = false;
    let mut rounds = rounds(&fetch.places);
    loop {
        // Between the question of the caller and this flight, an earlier one may have landed.
        let is_here = fetch
            .cache
            .blocking(move |cache| cache.has_blob(&digest, size));
        if is_here.await? {
            return Ok(fetch.fetched);
        }
        let (ingest, states) = fetch.open(map.take(), is_map_wrong).await?;
        let is_mapped = ingest.part().division().map().is_some();
        match fetch.run(&ingest, states).await? {
            Some(finished) if finished == digest => {
                fetch.cache.blocking(move |_| ingest.commit()).await?;
                if is_map_wrong {
                    fetch.cache.metrics().verify_failed(Verified::Map);
                    fetch.fetched.note = Some(format!(
                        "the chunk map that is offered for {digest} is wrong; the blob was verified as a whole"
                    ));
                }
                return Ok(fetch.fetched);
            }
            Some(finished) => {
                tracing::warn!(blob.digest = %digest, actual = %finished, "the bytes are wrong and thrown away");
                fetch.cache.metrics().verify_failed(Verified::Blob);
                // Every chunk was as its map says: then the map is of other bytes.
                is_map_wrong = is_map_wrong || is_mapped;
                fetch.cache.blocking(move |_| ingest.discard()).await?;
                fetch.places = rounds.pop_front().ok_or_else(|| Error::Corrupt {
                    expected: Box::new(digest),
                    actual: Box::new(finished),
                })?;
            }
            None => {
                tracing::warn!(blob.digest = %digest, "its chunk map is wrong and given up: it is verified as a whole");
                is_map_wrong = true;
            }
        }
    }
}

/// Who is asked once more when the bytes of all together were wrong: each place alone, since one of
/// them lied, or the only one again.
fn rounds(places: &[Place]) -> VecDeque<Vec<Place>> {
    places.iter().map(|place| vec![place.clone()]).collect()
}

struct Fetch {
    cache: NodeCache,
    digest: Digest,
    size: u64,
    places: Vec<Place>,
    manners: Manners,
    report: Report,
    fetched: Fetched,
}

impl Fetch {
    /// Opens what is here of the blob, divided by its chunk map if there is one that can be
    /// trusted.
    async fn open(
        &self,
        map: Option<BoxFuture<'static, Option<Arc<ChunkMap>>>>,
        is_map_wrong: bool,
    ) -> Result<(Ingest, Vec<ChunkState>), Error> {
        let (digest, size) = (self.digest, self.size);
        let opening = self
            .cache
            .blocking(move |cache| Ingest::open(cache, digest, size));
        let (ingest, states) = opening.await?;
        let is_mapped = ingest.part().division().map().is_some();
        let division = if is_map_wrong && is_mapped {
            Some(Division::even(size))
        } else if is_map_wrong || is_mapped || !maps::is_mapped(size) {
            None
        } else {
            match map {
                Some(map) => map.await.map(Division::Mapped),
                None => None,
            }
        };
        match division {
            Some(division) => {
                let divide = move |_: &NodeCache| ingest.divide(&states, division);
                self.cache.blocking(divide).await
            }
            None => Ok((ingest, states)),
        }
    }

    /// Brings in what is missing and gives the digest of all; nothing when the chunk map is wrong.
    async fn run(
        &mut self,
        ingest: &Ingest,
        states: Vec<ChunkState>,
    ) -> Result<Option<Digest>, Error> {
        let part = ingest.part();
        self.report.set_completed(part.present_bytes(&states));
        self.report.set_phase(Phase::Fetching);
        let local = self.local(part, &states).await;
        let spans = spans(part, |chunk| {
            states.get(chunk) == Some(&ChunkState::Absent)
                && local
                    .binary_search_by_key(&chunk, |local| local.chunk)
                    .is_err()
        });
        let progress = Arc::new(self.report.clone());
        let pipeline = Pipeline::start(Arc::clone(part), states, progress);
        let mut transfer =
            Transfer::new(self.manners.clone(), self.places.clone(), pipeline.sink());
        transfer.want(spans);
        if !local.is_empty() {
            let with_range = |local: LocalChunk| {
                let range = part.division().range(local.chunk);
                (local, range)
            };
            transfer.copy(local.into_iter().map(with_range).collect());
        }
        let outcome = tokio::select! {
            outcome = async {
                match transfer.by_ranges().await {
                    Ok(true) => Ok(()),
                    Ok(false) => self.whole(&transfer, &pipeline).await,
                    Err(end) => Err(end),
                }
            } => outcome,
            () = self.report.halted() => Err(End::Failed(stopped())),
        };
        // None of its connections may put a piece after this.
        let copied = transfer.copied();
        drop(transfer);
        let received = pipeline.received();
        self.fetched.bytes += received;
        let metrics = self.cache.metrics();
        metrics.fetched(Source::Origin, received);
        metrics.fetched(Source::Local, copied);
        match outcome {
            Ok(()) => {
                self.report.set_phase(Phase::Verifying);
                let finished = pipeline.finish().await;
                let finished = finished.map_err(|error| ingest.broken(error))?;
                self.keep_map(finished.map).await;
                Ok(Some(finished.digest))
            }
            Err(end) => self.abandon(ingest, pipeline, end).await,
        }
    }

    /// After a failure: what is here stays for the next time.
    async fn abandon(
        &self,
        ingest: &Ingest,
        pipeline: Pipeline,
        end: End,
    ) -> Result<Option<Digest>, Error> {
        let (own, states) = pipeline.abandon().await;
        if let Some(own) = own {
            return Err(ingest.broken(own));
        }
        let error = match end {
            End::MapIsWrong => return Ok(None),
            End::Failed(error) => error,
        };
        if states.iter().all(|state| *state == ChunkState::Absent) {
            // Not worth resuming, and its disk space may be wanted elsewhere.
            let digest = self.digest;
            self.cache
                .blocking(move |cache| Ingest::discard_of(cache, &digest))
                .await?;
        }
        Err(error)
    }

    /// One stream of the whole blob, of which what is here already is dropped.
    async fn whole(&self, transfer: &Transfer, pipeline: &Pipeline) -> Result<(), End> {
        let Some(place) = transfer.whole() else {
            return Ok(());
        };
        let stopped = || End::Failed(stopped());
        let start = pipeline.first_missing().await.map_err(|_| stopped())?;
        let attempt = Attempt {
            source: place.source.with_retry(self.manners.retry),
            range: start..self.size,
            settles: 0..self.size,
            mode: Mode::Whole,
            sink: pipeline.sink(),
            pace: self.manners.pace.clone(),
            track: Arc::new(Track::at(start)),
            began: Arc::new(Notify::new()),
        };
        let (settled, failure) = attempt.run().await.ok_or_else(stopped)?;
        match failure {
            Some(error) => Err(End::Failed(Error::Registry(error))),
            None if !settled.wrong.is_empty() => Err(End::MapIsWrong),
            None => Ok(()),
        }
    }

    /// Missing chunks that other blobs of this node have. That none can be found is no failure.
    async fn local(&self, part: &Arc<PartFile>, states: &[ChunkState]) -> Vec<LocalChunk> {
        let Some(map) = part.division().map().map(Arc::clone) else {
            return Vec::new();
        };
        let states = states.to_vec();
        let found = self.cache.blocking(move |cache| {
            cache.local_chunks(&map, |chunk| states.get(chunk) == Some(&ChunkState::Absent))
        });
        found.await.unwrap_or_else(|error| {
            tracing::warn!(%error, "the chunks of this node cannot be used");
            Vec::new()
        })
    }

    /// Keeps the map for pulls of other versions.
    async fn keep_map(&self, map: Option<Arc<ChunkMap>>) {
        let Some(map) = map else {
            return;
        };
        let kept = self.cache.blocking(move |cache| cache.keep_map(&map)).await;
        if let Err(error) = kept {
            tracing::warn!(blob.digest = %self.digest, %error, "its chunk map is not kept");
        }
    }
}

/// The runs of chunks that are to be fetched, cut to requests.
fn spans(part: &PartFile, is_wanted: impl Fn(usize) -> bool) -> Vec<Range<u64>> {
    let division = part.division();
    let mut spans: Vec<Range<u64>> = Vec::new();
    for chunk in (0..division.count()).filter(|chunk| is_wanted(*chunk)) {
        let range = division.range(chunk);
        match spans.last_mut() {
            Some(last) if last.end == range.start && range.end - last.start <= REQUEST_BYTES => {
                last.end = range.end;
            }
            _ => spans.push(range),
        }
    }
    spans
}
