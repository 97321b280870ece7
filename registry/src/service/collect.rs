//! Collection: what nobody refers to goes, while pushes and pulls go on.
//!
//! A run first looks over everything (`survey`) and *marks* what it finds unreferenced with the
//! time when that was first seen. Whatever touches it (a push, a HEAD, a mount, a manifest that
//! names it, a lease) takes the mark away (`touch`). What has been marked for the whole grace time
//! is then removed (`sweep`), one by one, after everything was checked again under the locks that
//! those who would need it hold too. Marks live in the index alone: a rebuilt index has none, and
//! everything gets its whole grace time again.
//!
//! Whenever something is in doubt, nothing is removed: a listing or the index that fails, records
//! that could not be read, a clock that jumped, a share of all blobs that nobody would mean.

pub(crate) mod guard;
mod maps;
pub(crate) mod report;
mod standing;
mod survey;
mod sweep;
#[cfg(test)]
#[expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may stop at the first surprise, and tells how many orders it has run"
)]
mod tests;
pub(crate) mod touch;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use artifact::Digest;
use jiff::Timestamp;

use crate::config::{Collection, Config};
use crate::error::Error;
use crate::metrics::Metrics;
use crate::metrics::labels::CollectionOutcome;
use crate::service::Registry;
use crate::service::events::Outlet;
use crate::service::retention::Retention;
use crate::store::index::DAMAGED_RECORDS;
use crate::store::{IndexLock, LockKey};
use guard::{Sight, Uptime, is_plausible, is_steady};
use report::{CollectEvent, CollectSummary};
use survey::Survey;

/// Entries of the index that are looked at together: memory stays flat, however many there are.
const PAGE: usize = 500;

/// Note in the index: when the last run was.
const SEEN: &str = "collection.seen";
/// Note in the index: marks from before this time count from this time.
const WAITS_SINCE: &str = "collection.waits-since";

/// What a registry's collections go by.
#[derive(Debug)]
pub(crate) struct Collector {
    settings: Collection,
    retention: Retention,
    is_read_only: bool,
    metrics: Metrics,
    uptime: Uptime,
    /// The last run of this process.
    last: Mutex<Option<Sight>>,
}

impl Default for Collector {
    fn default() -> Self {
        Self {
            settings: Collection::default(),
            retention: Retention::default(),
            is_read_only: false,
            metrics: Metrics::new(),
            uptime: Uptime::of_this_machine(),
            last: Mutex::default(),
        }
    }
}

impl Collector {
    /// Takes what concerns collection from the configuration.
    ///
    /// # Errors
    /// [`Error::RetentionRule`].
    pub(crate) fn new(config: &Config, metrics: Metrics) -> Result<Self, Error> {
        Ok(Self {
            settings: config.collection,
            retention: Retention::new(&config.retention)?,
            is_read_only: config.read_only,
            metrics,
            ..Self::default()
        })
    }

    /// The same with another count of the time that has passed.
    #[cfg(test)]
    fn with_uptime(self, uptime: Uptime) -> Self {
        Self { uptime, ..self }
    }
}

/// What one run is asked to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CollectOptions {
    /// Only say what would go.
    pub dry_run: bool,
    /// Remove also more than the configured share of all blobs.
    pub force: bool,
    /// Another grace time than the configured one.
    pub grace: Option<Duration>,
}

/// What one run goes by.
#[derive(Debug)]
struct Run<'r> {
    registry: &'r Registry,
    options: CollectOptions,
    grace: Duration,
    /// The time that ages are counted to: the start of the run, so that they are never too old.
    now: Timestamp,
    /// Marks from before count from here.
    waits_since: Timestamp,
    outlet: &'r Outlet<CollectEvent>,
}

impl Registry {
    /// Whether nothing may be changed.
    pub(crate) fn is_read_only(&self) -> bool {
        self.collector.is_read_only
    }

    /// Collects once, or only looks; tells how it goes, its end or failure last.
    ///
    /// # Errors
    /// Any; what was removed until then is gone by right, and the next run goes on.
    pub(crate) async fn collect(
        &self,
        options: CollectOptions,
        outlet: &Outlet<CollectEvent>,
    ) -> Result<CollectSummary, Error> {
        let mut survey = Survey::default();
        let outcome = self.run_collection(options, outlet, &mut survey).await;
        let summary = survey.summary();
        if !options.dry_run {
            let label = match &outcome {
                Ok(()) => CollectionOutcome::Completed,
                Err(Error::TooMuch { .. }) => CollectionOutcome::HeldBack,
                Err(_) => CollectionOutcome::Aborted,
            };
            // Also what a run removed that was given up.
            let metrics = &self.collector.metrics;
            metrics.collected(label, summary.contents, summary.bytes);
        }
        outlet
            .tell(match &outcome {
                Ok(()) => CollectEvent::Done { summary },
                Err(error) => CollectEvent::Failed {
                    message: error.chain(),
                },
            })
            .await;
        outcome.map(|()| summary)
    }

    async fn run_collection(
        &self,
        options: CollectOptions,
        outlet: &Outlet<CollectEvent>,
        survey: &mut Survey,
    ) -> Result<(), Error> {
        let mut turn = self.take_turn(options).await?;
        let run = self.begin_run(options, outlet).await?;
        outlet
            .tell(CollectEvent::Began {
                dry_run: options.dry_run,
                grace_seconds: run.grace.as_secs(),
                now: run.now,
            })
            .await;
        run.survey(survey, turn.as_deref_mut()).await?;
        let Some(turn) = turn.as_deref_mut() else {
            return Ok(());
        };
        if !options.force {
            survey.require_share(self.collector.settings.max_percent)?;
        }
        run.sweep(survey, turn).await
    }

    /// The lock of the one collector. A dry run changes nothing, so it needs none.
    async fn take_turn(
        &self,
        options: CollectOptions,
    ) -> Result<Option<Box<dyn IndexLock>>, Error> {
        if options.dry_run {
            return Ok(None);
        }
        if self.collector.is_read_only {
            return Err(Error::ReadOnly);
        }
        let turn = self.index.try_lock(LockKey::Collection).await?;
        turn.map(Some).ok_or(Error::CollectionRuns)
    }

    /// Sees to it that the index can be believed, and that the clock can.
    async fn begin_run<'r>(
        &'r self,
        options: CollectOptions,
        outlet: &'r Outlet<CollectEvent>,
    ) -> Result<Run<'r>, Error> {
        if let Some(damaged) = self.index.noted(DAMAGED_RECORDS).await?
            && damaged != "0"
        {
            // What such a record names would look unreferenced.
            return Err(Error::RecordsDamaged { damaged });
        }
        if !options.dry_run {
            self.settle_all().await?;
        }
        let now = self.index.now().await?;
        Ok(Run {
            registry: self,
            options,
            grace: options.grace.unwrap_or(self.collector.settings.grace),
            now,
            waits_since: self.waits_since(now, options.dry_run).await?,
            outlet,
        })
    }

    /// Since when marks count. It is now when the clock cannot be believed: then nobody knows how
    /// old a mark is, and every wait begins anew.
    async fn waits_since(&self, now: Timestamp, dry_run: bool) -> Result<Timestamp, Error> {
        let sight = Sight {
            clock: now,
            uptime: self.collector.uptime.now(),
        };
        let before = {
            let mut last = self
                .collector
                .last
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let before = *last;
            if !dry_run {
                *last = Some(sight);
            }
            before
        };
        let seen = self.noted_time(SEEN).await?;
        let noted = self.noted_time(WAITS_SINCE).await?;
        let is_believed = before.is_none_or(|before| is_steady(before, sight))
            && seen.is_none_or(|seen| is_plausible(seen, now))
            && noted.is_none_or(|noted| noted <= now);
        if !dry_run {
            self.index.note(SEEN, &now.to_string()).await?;
        }
        if is_believed {
            return Ok(noted.unwrap_or(Timestamp::MIN));
        }
        tracing::warn!(%now, ?seen, "the clock jumped: every grace time begins anew");
        if !dry_run {
            self.index.note(WAITS_SINCE, &now.to_string()).await?;
        }
        Ok(now)
    }

    async fn noted_time(&self, name: &str) -> Result<Option<Timestamp>, Error> {
        let noted = self.index.noted(name).await?;
        // What cannot be read was not written by us: as good as absent.
        Ok(noted.and_then(|text| text.parse().ok()))
    }
}

impl Run<'_> {
    /// Whether something marked at `since` has waited for `wait`.
    fn is_over(&self, since: Timestamp, wait: Duration) -> bool {
        self.end_of(since, wait) <= self.now
    }

    /// When the wait of something marked at `since` is over.
    fn end_of(&self, since: Timestamp, wait: Duration) -> Timestamp {
        let from = since.max(self.waits_since);
        from.checked_add(wait).unwrap_or(Timestamp::MAX)
    }

    /// When the last lease on the content ends, if it has not ended.
    async fn leased_until(&self, digest: &Digest) -> Result<Option<Timestamp>, Error> {
        let until = self.registry.index.leased_until(digest).await?;
        Ok(until.filter(|until| *until > self.now))
    }
}
