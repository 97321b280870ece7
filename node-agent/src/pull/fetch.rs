//! Fetches one blob from an origin into the cache: plain ranges over a few connections, written in
//! place, the whole verified in step.
//!
//! The origin is the only source yet, and [`spans`] the only plan; both meet the pipeline in
//! [`Sink`], so that chunk maps and peers can be put beside them.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use artifact::client::fetch::Mode;
use artifact::client::partial::{ChunkState, PartFile, Pipeline, Sink};
use artifact::client::{self, BlobSource};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tracing::Instrument;

use crate::cache::NodeCache;
use crate::cache::ingest::{Ingest, stopped};
use crate::error::Error;
use crate::pull::single_flight::{Phase, Report};

/// Chunks that one request asks for at most.
const CHUNKS_PER_REQUEST: u64 = 4;
/// How often a blob is fetched whole before its origin counts as corrupt.
const WHOLE_ATTEMPTS: usize = 2;

/// Fetches a blob, verifies it and makes it visible. Gives the bytes that came over the network.
pub(crate) async fn fetch(
    cache: NodeCache,
    source: BlobSource,
    connections: usize,
    report: Report,
) -> Result<u64, Error> {
    let (digest, size) = (source.digest(), source.size());
    let mut fetched = 0;
    let mut actual = digest;
    for _ in 0..WHOLE_ATTEMPTS {
        // Between the question of the caller and this flight, an earlier one may have landed.
        if cache
            .blocking(move |cache| cache.has_blob(&digest, size))
            .await?
        {
            return Ok(fetched);
        }
        let (ingest, states) = cache
            .blocking(move |cache| Ingest::open(cache, digest, size))
            .await?;
        let part = ingest.part();
        let spans = spans(part, &states);
        report.set_completed(part.present_bytes(&states));
        report.set_phase(Phase::Fetching);
        let progress = Arc::new(report.clone());
        let mut pipeline = Pipeline::start(Arc::clone(part), states, progress);
        let outcome = download(&source, spans, &mut pipeline, connections).await;
        fetched += pipeline.received();
        if let Err(error) = outcome {
            let (own, is_empty) = pipeline.abandon().await;
            let error = own.map_or(error, |own| ingest.broken(own));
            if is_empty {
                // Not worth resuming, and its disk space may be wanted elsewhere.
                cache.blocking(move |_| ingest.discard()).await?;
            }
            return Err(error);
        }
        report.set_phase(Phase::Verifying);
        let finished = pipeline.finish().await;
        actual = finished.map_err(|error| ingest.broken(error))?;
        if actual == digest {
            cache.blocking(move |_| ingest.commit()).await?;
            return Ok(fetched);
        }
        tracing::warn!(blob.digest = %digest, %actual, "the bytes are wrong and thrown away");
        cache.blocking(move |_| ingest.discard()).await?;
    }
    Err(Error::Corrupt {
        expected: Box::new(digest),
        actual: Box::new(actual),
    })
}

/// The runs of absent chunks, cut to requests.
fn spans(part: &PartFile, states: &[ChunkState]) -> VecDeque<Range<u64>> {
    let longest = part.chunk_bytes().saturating_mul(CHUNKS_PER_REQUEST);
    let mut spans: VecDeque<Range<u64>> = VecDeque::new();
    for (chunk, state) in states.iter().enumerate() {
        if *state != ChunkState::Absent {
            continue;
        }
        let range = part.chunk_range(chunk);
        match spans.back_mut() {
            Some(last) if last.end == range.start && range.end - last.start <= longest => {
                last.end = range.end;
            }
            _ => spans.push_back(range),
        }
    }
    spans
}

/// Brings all spans in: by ranges if the origin serves them, else in one stream.
async fn download(
    source: &BlobSource,
    spans: VecDeque<Range<u64>>,
    pipeline: &mut Pipeline,
    connections: usize,
) -> Result<(), Error> {
    match by_ranges(source, spans, pipeline.sink(), connections).await {
        Err(Error::Registry(error)) if error.is_ranges_unsupported() => {
            tracing::info!(blob.digest = %source.digest(), %error, "the origin serves no ranges");
        }
        outcome => return outcome,
    }
    let start = pipeline.restart().await.map_err(|_| stopped())?;
    let reader = source.reader(start..source.size(), Mode::Whole);
    pump(reader, &pipeline.sink(), None).await
}

async fn by_ranges(
    source: &BlobSource,
    spans: VecDeque<Range<u64>>,
    sink: Sink,
    connections: usize,
) -> Result<(), Error> {
    let workers = connections.clamp(1, spans.len().max(1));
    let queue = Arc::new(Mutex::new(spans));
    let mut tasks = JoinSet::new();
    // The first request finds out whether ranges work and does the token handshake; the others
    // begin when its first bytes are here.
    let (first_bytes, started) = oneshot::channel();
    let first = work(
        source.clone(),
        Arc::clone(&queue),
        sink.clone(),
        Some(first_bytes),
    );
    tasks.spawn(first.in_current_span());
    if workers > 1 && started.await.is_ok() {
        for _ in 1..workers {
            let next = work(source.clone(), Arc::clone(&queue), sink.clone(), None);
            tasks.spawn(next.in_current_span());
        }
    }
    while let Some(ended) = tasks.join_next().await {
        let outcome = ended.unwrap_or_else(|_| {
            Err(Error::Interrupted {
                what: "a connection of the download".to_owned(),
            })
        });
        if outcome.is_err() {
            // The first failure ends the others, and none of them may put a piece after this.
            tasks.shutdown().await;
            return outcome;
        }
    }
    Ok(())
}

/// One connection: takes spans until none is left.
async fn work(
    source: BlobSource,
    queue: Arc<Mutex<VecDeque<Range<u64>>>>,
    sink: Sink,
    mut first_bytes: Option<oneshot::Sender<()>>,
) -> Result<(), Error> {
    loop {
        let span = queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front();
        let Some(span) = span else {
            return Ok(());
        };
        let reader = source.reader(span, Mode::Ranges);
        pump(reader, &sink, first_bytes.take()).await?;
    }
}

async fn pump(
    mut reader: client::RangeReader,
    sink: &Sink,
    mut first_bytes: Option<oneshot::Sender<()>>,
) -> Result<(), Error> {
    while let Some((offset, bytes)) = reader.next().await? {
        if let Some(first_bytes) = first_bytes.take() {
            // Nobody waits when there is only one connection.
            let _ = first_bytes.send(());
        }
        sink.put(offset, bytes).await.map_err(|_| stopped())?;
    }
    Ok(())
}
