//! The state of the index in PostgreSQL.
//!
//! The database follows every change and outlives every crash, so it is believed as long as it is
//! the one that the marker beside the records tells of: filled by the same rebuild, and no further
//! back than when the marker was written. Otherwise (an older copy was put back, it was emptied,
//! it is another one) it is compared with the records before it is used. That is safe beside
//! replicas that run, and one does it while others that start wait.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::config::Secret;
use crate::error::Error;
use crate::index_state::marker::{Kind, Marker};
use crate::index_state::reconcile::reconcile;
use crate::index_state::{ReindexProgress, ReindexSummary};
use crate::store::MetadataIndex;
use crate::store::postgres::PostgresIndex;
use crate::store::records::Records;

/// A database that is not up yet when the registry starts is waited for this long.
const PATIENCE: Duration = Duration::from_secs(15);
/// Pause between two tries to reach it.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// Pause between two looks at a database that is in order.
const WATCH_PAUSE: Duration = Duration::from_secs(10);
/// The marker is written again when the database has changed and this much time has passed: an
/// older copy is noticed unless everything it lacks is younger.
const MARKER_PAUSE: Duration = Duration::from_secs(30);

/// The index in use, watched while the registry runs.
#[derive(Debug)]
pub(crate) struct DatabaseState {
    watch: Arc<Watch>,
    task: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Watch {
    index: PostgresIndex,
    records: Records,
    replica: Uuid,
    read_only: bool,
}

/// Opens the index, and compares it with the records when there is any doubt.
pub(super) async fn open(
    url: &Secret,
    records: &Records,
    read_only: bool,
) -> Result<(Arc<dyn MetadataIndex>, DatabaseState), Error> {
    let watch = Arc::new(Watch {
        index: connect(url).await?,
        records: records.clone(),
        replica: Uuid::new_v4(),
        read_only,
    });
    watch.begin().await?;
    let index: Arc<dyn MetadataIndex> = Arc::new(watch.index.clone());
    let state = DatabaseState {
        task: Some(tokio::spawn(Arc::clone(&watch).run())),
        watch,
    };
    Ok((index, state))
}

/// Compares database and records, whatever the marker says, also while registries run.
pub(super) async fn reindex(
    url: &Secret,
    records: &Records,
    progress: &mut (dyn FnMut(ReindexProgress) + Send),
) -> Result<ReindexSummary, Error> {
    let watch = Watch {
        index: connect(url).await?,
        records: records.clone(),
        replica: Uuid::new_v4(),
        read_only: false,
    };
    let summary = watch.rebuild(false, progress).await?;
    watch.index.close().await;
    Ok(summary.unwrap_or_default())
}

async fn connect(url: &Secret) -> Result<PostgresIndex, Error> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match PostgresIndex::connect(url).await {
            Err(error @ Error::IndexUnavailable { .. }) if Instant::now() < deadline => {
                tracing::warn!(%error, "waiting for the database");
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            connected => return connected,
        }
    }
}

impl DatabaseState {
    /// Leaves a marker that says how far the database has come, or, when a change was not
    /// `followed`, that it must be compared.
    pub(super) async fn close(mut self, followed: bool) -> Result<(), Error> {
        if let Some(task) = self.task.take() {
            task.abort();
            // An abort is how it ends.
            let _ = task.await;
        }
        let watch = &self.watch;
        let written = match watch.index.inspect().await {
            Ok(_) => watch.write_marker(followed).await,
            // Where the database is away, the marker stays as it is: further back, and true.
            Err(error) if followed => {
                tracing::warn!(%error, "cannot see how far the database has come");
                Ok(())
            }
            Err(_) => watch.write_marker(false).await,
        };
        if let Err(error) = watch.index.report_end(watch.replica).await {
            tracing::debug!(%error, "cannot tell the database that this replica ends");
        }
        watch.index.close().await;
        written
    }
}

impl Drop for DatabaseState {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Watch {
    async fn begin(&self) -> Result<(), Error> {
        if self.is_believed().await? {
            self.index.trust().await?;
        } else if let Some(summary) = self.rebuild(true, &mut |_| {}).await? {
            summary.log("compared the database with the records");
        }
        self.report_alive().await;
        Ok(())
    }

    /// Whether the database is the one that the marker tells of, and no further back.
    async fn is_believed(&self) -> Result<bool, Error> {
        let marker = Marker::read(&self.records).await?;
        let state = self.index.state().await?;
        Ok(marker.vouches_for(Kind::Postgres)
            && state.registry == Some(marker.registry)
            && state.generation == Some(marker.generation.cast_signed())
            && state.changes >= marker.changes)
    }

    /// Compares database and records, one replica at a time; with `if_doubtful` not when another
    /// one has just done it.
    async fn rebuild(
        &self,
        if_doubtful: bool,
        progress: &mut (dyn FnMut(ReindexProgress) + Send),
    ) -> Result<Option<ReindexSummary>, Error> {
        self.index.migrate().await?;
        let turn = self.index.rebuilding().await?;
        if if_doubtful && self.is_believed().await? {
            self.index.trust().await?;
            turn.finish().await;
            return Ok(None);
        }
        let before = Marker::read(&self.records).await?;
        self.index.claim(before.registry).await?;
        let summary = reconcile(&self.records, &self.index, progress).await?;
        let known = self.index.state().await?;
        let latest = known.generation.map_or(0, i64::cast_unsigned);
        let newest = Marker {
            generation: before.generation.max(latest),
            ..before
        };
        let marker = newest.next(Kind::Postgres);
        self.index.begin(marker.generation).await?;
        let trusted = self.index.trust().await?;
        let marker = Marker {
            is_whole: true,
            changes: trusted.changes,
            ..marker
        };
        if !self.read_only {
            marker.write(&self.records).await?;
        }
        turn.finish().await;
        Ok(Some(summary))
    }

    /// Looks at the database again and again: tells it that this process runs, notes how far it
    /// has come, and puts it in order when it is not what it was.
    async fn run(self: Arc<Self>) {
        let mut failing = false;
        // When the marker was written last, and which number of changes it had.
        let mut written = (Instant::now(), 0);
        loop {
            let looked = self.look(&mut written).await;
            match &looked {
                // Once, not every ten seconds of a long outage.
                Err(error) if !failing => tracing::error!(%error, "the database is away"),
                Ok(()) if failing => tracing::info!("the database is back"),
                _ => {}
            }
            failing = looked.is_err();
            let pause = if failing { RETRY_PAUSE } else { WATCH_PAUSE };
            let _ = tokio::time::timeout(pause, self.index.doubted()).await;
        }
    }

    async fn look(&self, written: &mut (Instant, i64)) -> Result<(), Error> {
        let looked = self.index.inspect().await;
        if self.index.is_doubtful() {
            // First how far it had come, which nobody but this process may know.
            self.write_marker(true).await?;
            if let Some(summary) = self.rebuild(true, &mut |_| {}).await? {
                summary.log("compared the database with the records");
            }
            return Ok(());
        }
        let state = looked?;
        self.report_alive().await;
        if written.0.elapsed() >= MARKER_PAUSE && written.1 != state.changes {
            self.write_marker(true).await?;
            *written = (Instant::now(), state.changes);
        }
        Ok(())
    }

    /// Notes how far the database has come. Whoever rebuilt it last has written the rest.
    async fn write_marker(&self, is_whole: bool) -> Result<(), Error> {
        if self.read_only {
            return Ok(());
        }
        let marker = Marker::read(&self.records).await?;
        let known = self.index.known().filter(|known| {
            // Of another rebuild the numbers say nothing.
            known.generation == Some(marker.generation.cast_signed())
        });
        let marker = Marker {
            changes: known.map_or(marker.changes, |known| known.changes.max(marker.changes)),
            is_whole: is_whole && marker.is_whole,
            ..marker
        };
        marker.write(&self.records).await
    }

    async fn report_alive(&self) {
        let Some(registry) = self.index.known().and_then(|known| known.registry) else {
            return;
        };
        // On a read-only database this fails for as long as it is read-only.
        if let Err(error) = self.index.report_alive(self.replica, registry).await {
            tracing::debug!(%error, "cannot tell the database that this replica runs");
        }
    }
}
