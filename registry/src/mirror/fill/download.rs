//! The download behind a fill: a few connections to the upstream whose turn it is, and to the next
//! one when that fails.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use artifact::client::fetch::Mode;
use artifact::client::partial::{ChunkState, Finished, Pipeline, Sink};
use artifact::client::{self, BlobSource};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tracing::Instrument;

use crate::error::Error;
use crate::mirror::fill::Fill;
use crate::mirror::upstream::Upstream;

/// A place to have a blob from.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    /// Whose it is, to be told how it went.
    pub(crate) upstream: Arc<Upstream>,
    /// The blob there.
    pub(crate) source: BlobSource,
}

/// Why the connections of a download ended early.
enum End {
    /// The upstream gives whole blobs only.
    RangesIgnored(usize),
    /// No upstream is left, or the disk failed.
    Failed(Error),
}

/// Brings in what is missing of a fill, and gives the digest and the chunk map of the whole.
///
/// # Errors
/// The last failure, when each of the candidates has failed since the last byte came; or the
/// disk's.
pub(crate) async fn download(
    fill: &Arc<Fill>,
    states: Vec<ChunkState>,
    candidates: Vec<Candidate>,
    connections: usize,
) -> Result<Finished, Error> {
    let progress = Arc::<Fill>::clone(fill);
    let pipeline = Pipeline::start(Arc::clone(&fill.part), states, progress);
    let download = Arc::new(Download {
        fill: Arc::clone(fill),
        candidates,
        turn: Mutex::new(Turn::default()),
        received: AtomicU64::new(0),
    });
    let outcome = match download.by_ranges(&pipeline.sink(), connections).await {
        Err(End::RangesIgnored(candidate)) => whole(&download, candidate, &pipeline).await,
        Err(End::Failed(error)) => Err(error),
        Ok(()) => Ok(()),
    };
    let Err(error) = outcome else {
        return pipeline.finish().await.map_err(Error::fill_pipeline);
    };
    let (own, _) = pipeline.abandon().await;
    fill.schedule().give_back();
    Err(own.map_or(error, Error::fill_pipeline))
}

/// One stream of the whole blob, of which what is here already is thrown away.
async fn whole(
    download: &Arc<Download>,
    candidate: usize,
    pipeline: &Pipeline,
) -> Result<(), Error> {
    let start = pipeline
        .first_missing()
        .await
        .map_err(Error::fill_pipeline)?;
    let sink = pipeline.sink();
    let source = &download.candidates[candidate].source;
    tracing::info!(blob.digest = %source.digest(), "the upstream serves no ranges");
    let fill = &download.fill;
    // So that readers may have the beginnings of chunks here too.
    while fill.schedule().take().is_some() {}
    let mut reader = source.reader(start..source.size(), Mode::Whole);
    while let Some((offset, bytes)) = reader.next().await.map_err(Error::upstream)? {
        download.put(&sink, offset, bytes).await?;
    }
    Ok(())
}

/// What the connections share.
struct Download {
    fill: Arc<Fill>,
    candidates: Vec<Candidate>,
    turn: Mutex<Turn>,
    received: AtomicU64,
}

/// Whose turn it is.
#[derive(Default)]
struct Turn {
    candidate: usize,
    /// Candidates that failed in a row.
    failed: usize,
    /// What had come when the last one failed.
    received: u64,
}

impl Download {
    async fn by_ranges(self: &Arc<Self>, sink: &Sink, connections: usize) -> Result<(), End> {
        let mut tasks = JoinSet::new();
        let spawn = |tasks: &mut JoinSet<_>, first_bytes| {
            let (download, sink) = (Arc::clone(self), sink.clone());
            let work = async move { download.work(&sink, first_bytes).await };
            tasks.spawn(work.in_current_span());
        };
        // The first request finds out whether ranges work and does the token handshake; the others
        // begin when its first bytes are here.
        let (first_bytes, started) = oneshot::channel();
        spawn(&mut tasks, Some(first_bytes));
        if started.await.is_ok() {
            for _ in 1..connections {
                spawn(&mut tasks, None);
            }
        }
        while let Some(ended) = tasks.join_next().await {
            let outcome = ended.unwrap_or_else(|error| Err(End::Failed(Error::Task(error))));
            if outcome.is_err() {
                // None of the others may put a piece after this.
                tasks.shutdown().await;
                return outcome;
            }
        }
        Ok(())
    }

    /// One connection: takes runs until none is left.
    async fn work(
        &self,
        sink: &Sink,
        mut first_bytes: Option<oneshot::Sender<()>>,
    ) -> Result<(), End> {
        loop {
            let Some(run) = self.fill.schedule().take() else {
                return Ok(());
            };
            self.fetch(run, sink, &mut first_bytes).await?;
        }
    }

    /// Brings in a run, from one upstream after the other if it must be.
    async fn fetch(
        &self,
        mut run: Range<u64>,
        sink: &Sink,
        first_bytes: &mut Option<oneshot::Sender<()>>,
    ) -> Result<(), End> {
        loop {
            let candidate = self.turn().candidate;
            let Candidate { source, upstream } = &self.candidates[candidate];
            let mut reader = source.reader(run.clone(), Mode::Ranges);
            let failure = loop {
                match reader.next().await {
                    Ok(Some((offset, bytes))) => {
                        run.start = offset + bytes.len() as u64;
                        let put = self.put(sink, offset, bytes).await;
                        put.map_err(End::Failed)?;
                        if let Some(first_bytes) = first_bytes.take() {
                            // Nobody waits when there is only one connection.
                            let _ = first_bytes.send(());
                        }
                    }
                    Ok(None) => {
                        upstream.succeeded();
                        return Ok(());
                    }
                    Err(error) => break error,
                }
            };
            self.pass_on(candidate, failure)?;
        }
    }

    async fn put(&self, sink: &Sink, offset: u64, bytes: bytes::Bytes) -> Result<(), Error> {
        let length = bytes.len() as u64;
        self.received.fetch_add(length, Ordering::Relaxed);
        self.fill.fetched.fetch_add(length, Ordering::Relaxed);
        let put = sink.put(offset, bytes).await;
        put.map_err(Error::fill_pipeline)
    }

    /// After a failure: whose turn it is next, unless everybody failed since the last byte came.
    fn pass_on(&self, candidate: usize, failure: client::Error) -> Result<(), End> {
        let upstream = &self.candidates[candidate].upstream;
        let mut turn = self.turn();
        if turn.candidate != candidate {
            // Another connection has passed the turn on already.
            return Ok(());
        }
        let received = self.received.load(Ordering::Relaxed);
        if received > turn.received {
            turn.failed = 0;
        }
        turn.received = received;
        turn.failed += 1;
        let is_last = turn.failed >= self.candidates.len();
        if failure.is_ranges_unsupported() {
            if is_last {
                return Err(End::RangesIgnored(candidate));
            }
        } else {
            upstream.failed(&failure);
        }
        if is_last {
            return Err(End::Failed(Error::upstream(failure)));
        }
        turn.candidate = (candidate + 1) % self.candidates.len();
        let next = &self.candidates[turn.candidate].upstream;
        tracing::warn!(
            blob.digest = %self.fill.digest(),
            from = %upstream.at(),
            to = %next.at(),
            error = %failure,
            "a fill goes on at the next upstream",
        );
        Ok(())
    }

    fn turn(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
