//! Upstream: one address that repositories are mirrored from, and how it has been doing.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use artifact::client::{self, Origin, OriginUrl, RegistryOptions, Transport};
use jiff::Timestamp;
use tokio::time::Instant;

use crate::error::Error;
use crate::service::mirrored::status::UpstreamStatus;

/// An upstream that failed is left alone for this long, then for twice as long, and so on.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest time.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Repositories whose connections and tokens are kept.
const MOST_ORIGINS: usize = 1024;

/// One address.
#[derive(Debug)]
pub(crate) struct Upstream {
    at: OriginUrl,
    health: Mutex<Health>,
    origins: Mutex<HashMap<String, Origin>>,
    requests: AtomicU64,
}

#[derive(Clone, Debug, Default)]
struct Health {
    /// Failures in a row.
    failures: u32,
    /// It is left alone until then.
    until: Option<Instant>,
    last_error: Option<String>,
    last_success: Option<Timestamp>,
}

impl Upstream {
    /// Nothing is known of it yet.
    pub(crate) fn new(at: OriginUrl) -> Self {
        Self {
            at,
            health: Mutex::default(),
            origins: Mutex::default(),
            requests: AtomicU64::new(0),
        }
    }

    /// Where it is.
    pub(crate) fn at(&self) -> &OriginUrl {
        &self.at
    }

    /// Its repository of this name.
    pub(crate) async fn origin(
        &self,
        transport: &Transport,
        name: &str,
        options: &RegistryOptions,
    ) -> Result<Origin, Error> {
        if let Some(origin) = self.origins().get(name) {
            return Ok(origin.clone());
        }
        let opened = Origin::open(transport, &self.at, name, options).await;
        let origin = opened.map_err(Error::upstream)?;
        let mut origins = self.origins();
        if origins.len() >= MOST_ORIGINS {
            origins.clear();
        }
        Ok(origins.entry(name.to_owned()).or_insert(origin).clone())
    }

    /// Counts a question.
    pub(crate) fn asked(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// How long it is left alone for, zero if it may be asked.
    pub(crate) fn pause(&self) -> Duration {
        let until = self.health().until;
        until.map_or(Duration::ZERO, |until| {
            until.saturating_duration_since(Instant::now())
        })
    }

    /// It answered as it should, be it that there is no such thing.
    pub(crate) fn succeeded(&self) {
        let mut health = self.health();
        if health.failures > 0 {
            tracing::info!(upstream = %self.at, "the upstream answers again");
        }
        *health = Health {
            last_success: Some(Timestamp::now()),
            ..Health::default()
        };
    }

    /// It failed. A refusal of one repository says nothing about the others; being unreachable,
    /// busy or broken does.
    pub(crate) fn failed(&self, error: &client::Error) {
        if !error.is_unreachable() {
            return;
        }
        let mut health = self.health();
        let factor = 1_u32.checked_shl(health.failures).unwrap_or(u32::MAX);
        let pause = FIRST_PAUSE.saturating_mul(factor).min(LONGEST_PAUSE);
        let pause = error.retry_after().map_or(pause, |asked| asked.max(pause));
        health.failures = (health.failures + 1).min(16);
        health.until = Some(Instant::now() + pause);
        health.last_error = Some(client::chain(error));
    }

    /// How it has been doing; the caller knows the prefix.
    pub(crate) fn status(&self, prefix: &str) -> UpstreamStatus {
        let health = self.health().clone();
        UpstreamStatus {
            prefix: prefix.to_owned(),
            origin: self.at.to_string(),
            healthy: health.failures == 0,
            failures: health.failures,
            pause_seconds: self.pause().as_secs(),
            last_error: health.last_error,
            last_success: health.last_success.map(|at| at.to_string()),
            requests: self.requests.load(Ordering::Relaxed),
        }
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn origins(&self) -> MutexGuard<'_, HashMap<String, Origin>> {
        self.origins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
