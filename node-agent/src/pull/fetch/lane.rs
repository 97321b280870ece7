//! Lane: one place that a blob is fetched from, and how it does.

use std::time::Duration;

use artifact::client::{self, BlobSource, RetryPolicy};
use tokio::time::Instant;

use crate::pull::fetch::hosts::Hosts;
use crate::pull::fetch::limit::Limit;

/// Wrong chunks after which a place is not asked again while there are others.
const MOST_WRONG: usize = 3;

/// A place to have a blob from.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// Its host and port.
    pub(crate) host: String,
    /// The blob there.
    pub(crate) source: BlobSource,
}

/// What a place is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Service {
    /// Nothing came from it yet; it is asked for one thing at a time.
    Unknown,
    /// It serves ranges.
    Ranges,
    /// It serves whole blobs only.
    Whole,
    /// It is not asked again.
    None,
}

/// One place during one download.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) place: Place,
    pub(super) service: Service,
    /// Requests that are under way.
    pub(super) busy: usize,
    pub(super) limit: Limit,
    /// Failures in a row of requests that brought little or nothing.
    failures: usize,
    /// When it failed last.
    failed_at: Option<Instant>,
    wrong: usize,
    pub(super) last_error: Option<client::Error>,
}

impl Lane {
    pub(super) fn new(place: Place, connections: usize) -> Self {
        Self {
            place,
            service: Service::Unknown,
            busy: 0,
            limit: Limit::new(connections),
            failures: 0,
            failed_at: None,
            wrong: 0,
            last_error: None,
        }
    }

    /// Whether it may be asked for a range at some time.
    pub(super) fn is_usable(&self) -> bool {
        matches!(self.service, Service::Unknown | Service::Ranges)
    }

    /// Whether it may be asked for another range now.
    pub(super) fn is_free(&self, hosts: &Hosts) -> bool {
        let slots = match self.service {
            // The first request finds out whether ranges work and does the token handshake.
            Service::Unknown => 1,
            Service::Ranges => self.limit.now(),
            Service::Whole | Service::None => 0,
        };
        self.busy < slots && hosts.may_be_asked(&self.place.host, Instant::now())
    }

    /// Whether all its connections are in use.
    pub(super) fn is_busy(&self) -> bool {
        self.busy >= self.limit.now()
    }

    /// Bytes have come from it.
    pub(super) fn came(&mut self, bytes: u64) {
        if bytes == 0 {
            return;
        }
        self.limit.came(bytes);
        if self.service == Service::Unknown {
            self.service = Service::Ranges;
        }
    }

    /// A request that was sent at `began` failed. A host that may do better later is left alone for
    /// a while.
    pub(super) fn failed(
        &mut self,
        error: client::Error,
        began: Instant,
        was_worth_it: bool,
        retry: &RetryPolicy,
        hosts: &Hosts,
    ) {
        if error.is_ranges_unsupported() {
            tracing::info!(host = %self.place.host, %error, "the origin serves no ranges");
            self.service = Service::Whole;
            return;
        }
        // Requests that were under way when the last one failed tell nothing new.
        let is_new = self.failed_at.is_none_or(|failed| began >= failed);
        if was_worth_it {
            self.failures = 0;
            if error.is_retryable() && error.retry_after().is_none() {
                // A connection that broke after a while says nothing of the host.
                self.last_error = Some(error);
                return;
            }
        }
        if is_new {
            self.failures += 1;
            self.failed_at = Some(Instant::now());
            self.limit.failed();
        }
        if !error.is_retryable() || self.failures >= retry.attempts {
            self.service = Service::None;
        } else if is_new {
            let wait = delay(retry, self.failures);
            let wait = error.retry_after().map_or(wait, |asked| asked.max(wait));
            hosts.back_off(&self.place.host, Instant::now() + wait);
            tracing::debug!(
                host = %self.place.host,
                wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
                %error,
                "the origin is left alone after a failure",
            );
        }
        self.last_error = Some(error);
    }

    /// Chunks that it brought were wrong.
    pub(super) fn was_wrong(&mut self, chunks: usize, has_others: bool) {
        self.wrong += chunks;
        if self.wrong >= MOST_WRONG && has_others {
            tracing::warn!(host = %self.place.host, "it sends wrong chunks and is not asked again");
            self.service = Service::None;
        }
    }
}

/// The wait before the next try, with jitter.
fn delay(retry: &RetryPolicy, failures: usize) -> Duration {
    let mut delays = retry.delays();
    delays
        .nth(failures.saturating_sub(1))
        .unwrap_or(retry.max_delay)
}
