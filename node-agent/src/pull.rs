//! Puller: a reference in, a verified and visible model out.
//!
//! ```text
//! resolve ─► plan ─► room on the disk ─► fetch, one flight per blob ─► publish
//! ```

mod fetch;
mod keep;
mod offer;
mod plan;
mod resolve;
mod single_flight;
mod told;

use std::sync::Arc;
use std::time::{Duration, Instant};

use artifact::agent_api::{Download, EnsureRequest, ModelEntry, PlannedBlob, PullEvent};
use artifact::client::{Credentials, Origin, RetryPolicy, Sources, Transport, TransportOptions};
use artifact::reference::InvalidReference;
use artifact::{Digest, Manifest, ModelName, Reference};
use tokio::sync::Semaphore;

use crate::cache::{NodeCache, Reservation, views};
use crate::error::Error;
use crate::metrics::Ensured;
pub use fetch::{Bandwidth, BandwidthWindow, InvalidWindow};
use fetch::{Fetched, Hosts, Job, Manners, Pace, Place};
use keep::Kept;
use offer::offered;
use plan::Plan;
use resolve::Resolved;
use single_flight::SingleFlight;
use told::Told;

/// Time between two progress events of one blob.
const PROGRESS_PERIOD: Duration = Duration::from_millis(250);

/// How models are pulled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullOptions {
    /// Most connections to one host for one blob; how many it gets depends on what they bring.
    /// Default 16.
    pub connections: usize,
    /// Blobs that are downloaded at a time; more wait for their turn, so that memory stays
    /// bounded. Default 4.
    pub downloads: usize,
    /// Bytes a second that all downloads may take together.
    pub bandwidth: Bandwidth,
    /// How places are reached.
    pub transport: TransportOptions,
    /// Where names lead.
    pub sources: Sources,
    /// How often a request is tried again.
    pub retry: RetryPolicy,
    /// Who asks.
    pub credentials: Credentials,
}

impl Default for PullOptions {
    fn default() -> Self {
        Self {
            connections: 16,
            bandwidth: Bandwidth::default(),
            downloads: 4,
            transport: TransportOptions::default(),
            sources: Sources::default(),
            retry: RetryPolicy::default(),
            credentials: Credentials::Anonymous,
        }
    }
}

/// Pulls models into one cache. A clone shares its downloads.
#[derive(Clone, Debug)]
pub struct Puller {
    cache: NodeCache,
    transport: Transport,
    flights: SingleFlight,
    turns: Arc<Semaphore>,
    manners: Manners,
    options: Arc<PullOptions>,
}

/// A model that is in the cache now.
#[derive(Clone, Debug, PartialEq)]
pub struct Pulled {
    /// The model.
    pub model: ModelEntry,
    /// Bytes that came over the network for this request.
    pub fetched: u64,
    /// Bytes that were on the node already.
    pub reused: u64,
    /// What a person should know although all is well.
    pub note: Option<String>,
}

impl Puller {
    /// A puller into `cache`.
    #[must_use]
    pub fn new(cache: NodeCache, options: PullOptions) -> Self {
        Self {
            transport: Transport::new(options.transport.clone()),
            flights: SingleFlight::default(),
            turns: Arc::new(Semaphore::new(options.downloads.max(1))),
            manners: Manners {
                connections: options.connections.max(1),
                retry: options.retry,
                hosts: Hosts::default(),
                pace: Pace::new(options.bandwidth.clone()),
                metrics: cache.metrics().clone(),
            },
            cache,
            options: Arc::new(options),
        }
    }

    /// The cache that it pulls into.
    #[must_use]
    pub fn cache(&self) -> &NodeCache {
        &self.cache
    }

    /// Ends all downloads; what they have is kept, on the disk, when this returns.
    pub(crate) async fn halt(&self) {
        self.flights.halt().await;
    }

    /// Sees to it that a model is in the cache. `on_event` is told how it goes, [`PullEvent::Ready`]
    /// included; a failure is only returned. A reference with a digest that is here needs no
    /// network; one with a tag is resolved first, and served from the cache when its registry
    /// cannot be reached.
    ///
    /// # Errors
    /// Any of the crate's errors. What was fetched is kept for the next try, unless it was wrong.
    pub async fn ensure(
        &self,
        request: &EnsureRequest,
        on_event: &mut (dyn FnMut(&PullEvent) + Send),
    ) -> Result<Pulled, Error> {
        let began = Instant::now();
        let mut ensured = Ensured::Hit;
        let mut tell = |event: &PullEvent| {
            if let PullEvent::Resolved { blobs, .. } = event
                && blobs.iter().any(|blob| !blob.cached)
            {
                ensured = Ensured::Miss;
            }
            on_event(event);
        };
        let outcome = self.pull_any(request, &mut tell).await;
        if outcome.is_err() {
            ensured = Ensured::Failed;
        }
        self.cache.metrics().ensured(ensured, began.elapsed());
        let pulled = outcome?;
        on_event(&PullEvent::Ready {
            model: Box::new(pulled.model.clone()),
            fetched: pulled.fetched,
            reused: pulled.reused,
            note: pulled.note.clone(),
        });
        Ok(pulled)
    }

    /// The references that a model of this name may have here: several for a bare name.
    pub(crate) fn references_of(&self, name: &ModelName) -> Result<Vec<Reference>, Error> {
        let candidates = self.options.sources.candidates(name);
        let candidates = candidates.map_err(|source| Error::BadRequest {
            reason: source.to_string(),
        })?;
        Ok(candidates
            .iter()
            .map(|name| name.reference().clone())
            .collect())
    }

    /// The blobs that are being downloaded.
    pub(crate) fn downloads(&self) -> Vec<Download> {
        let under_way = self.flights.under_way().into_iter();
        under_way
            .map(|(digest, completed)| Download { digest, completed })
            .collect()
    }

    /// A bare name may mean several models: the first one that there is.
    async fn pull_any(
        &self,
        request: &EnsureRequest,
        on_event: &mut (dyn FnMut(&PullEvent) + Send),
    ) -> Result<Pulled, Error> {
        let invalid = |source: InvalidReference| Error::BadRequest {
            reason: source.to_string(),
        };
        let name = match &request.name {
            Some(name) => ModelName::parse(name).map_err(invalid)?,
            None => ModelName::from(request.reference.clone()),
        };
        let names = self.options.sources.candidates(&name).map_err(invalid)?;
        let mut last = None;
        for name in names {
            match self.pull(&name, request.plain_http, on_event).await {
                Err(Error::Registry(error)) if error.is_absent() => last = Some(error),
                outcome => return outcome,
            }
        }
        Err(Error::Registry(last.unwrap_or_else(|| {
            artifact::client::Error::ManifestUnknown {
                reference: Box::new(name.reference().clone()),
            }
        })))
    }

    async fn pull(
        &self,
        name: &ModelName,
        plain_http: bool,
        on_event: &mut (dyn FnMut(&PullEvent) + Send),
    ) -> Result<Pulled, Error> {
        let reference = name.reference();
        let cached = self.cached(reference).await?;
        if reference.digest().is_some()
            && let Some(model) = cached
        {
            return self.warm(model, None).await;
        }
        on_event(&PullEvent::Resolving {
            reference: reference.clone(),
        });
        let origins = self.origins(name, plain_http).await?;
        let known = cached.as_ref().map(|model| model.digest);
        match (self.resolve(reference, origins, known).await, cached) {
            (Ok(None), Some(model)) => self.warm(model, None).await,
            (Ok(None), None) => Err(Error::NotCached {
                reference: Box::new(reference.clone()),
            }),
            (Ok(Some(resolved)), Some(model)) if model.digest == resolved.digest => {
                self.warm(model, None).await
            }
            (Ok(Some(resolved)), _) => self.fetch_model(reference, resolved, on_event).await,
            (Err(Error::Registry(error)), Some(model)) if error.is_unreachable() => {
                let note = format!("served from the cache as it is: {error}");
                tracing::warn!(%reference, %error, "the origin cannot be asked; the cache serves");
                self.warm(model, Some(note)).await
            }
            (Err(error), _) => Err(error),
        }
    }

    async fn cached(&self, reference: &Reference) -> Result<Option<ModelEntry>, Error> {
        let reference = reference.clone();
        self.cache
            .blocking(move |cache| {
                let found = cache.find(&reference)?;
                // Noted at once, so that it is not the next to be evicted while its origin is asked.
                if found.is_some() {
                    cache.touch(&reference);
                }
                Ok(found)
            })
            .await
    }

    async fn warm(&self, model: ModelEntry, note: Option<String>) -> Result<Pulled, Error> {
        let touched = model.reference.clone();
        self.cache
            .blocking(move |cache| {
                cache.touch(&touched);
                Ok(())
            })
            .await?;
        Ok(Pulled {
            fetched: 0,
            reused: model.size,
            note,
            model,
        })
    }

    async fn fetch_model(
        &self,
        reference: &Reference,
        resolved: Resolved,
        on_event: &mut (dyn FnMut(&PullEvent) + Send),
    ) -> Result<Pulled, Error> {
        let Resolved {
            manifest,
            digest,
            documents,
            origins,
        } = resolved;
        let named: Vec<Digest> = manifest
            .blobs()
            .map(|blob| blob.digest)
            .chain([digest])
            .collect();
        let _lease = self.cache.lease(named);
        self.cache
            .blocking(move |cache| {
                for (digest, bytes) in &documents {
                    cache.store_document(digest, bytes)?;
                }
                Ok(())
            })
            .await?;
        let (plan, manifest, _room) = self.plan(reference, digest, manifest).await?;
        on_event(&PullEvent::Resolved {
            digest,
            blobs: plan.blobs().to_vec(),
        });
        let fetched = self
            .fetch_missing(&origins, &manifest, digest, &plan, on_event)
            .await?;
        let model = self.publish(reference, digest, manifest).await?;
        Ok(Pulled {
            model,
            fetched: fetched.bytes,
            reused: plan.total_bytes().saturating_sub(fetched.bytes),
            note: fetched.note,
        })
    }

    /// Brings in what is missing. A registry keeps it meanwhile, if it can.
    async fn fetch_missing(
        &self,
        origins: &[Origin],
        manifest: &Manifest,
        digest: Digest,
        plan: &Plan,
        on_event: &mut (dyn FnMut(&PullEvent) + Send),
    ) -> Result<Fetched, Error> {
        let missing: Vec<Digest> = plan.missing().map(|blob| blob.digest).collect();
        if missing.is_empty() {
            return Ok(Fetched::default());
        }
        let registry = origins.first().and_then(Origin::registry);
        let kept = match registry {
            Some(registry) => {
                Some(Kept::take(registry, missing.into_iter().chain([digest]).collect()).await)
            }
            None => None,
        };
        let mut all = Fetched::default();
        for blob in plan.missing() {
            let fetched = self
                .fetch_blob(origins, manifest, digest, blob, on_event)
                .await?;
            all.bytes += fetched.bytes;
            all.note = all.note.or(fetched.note);
        }
        if let Some(kept) = kept {
            kept.end().await;
        }
        Ok(all)
    }

    /// Where a blob can be had: those origins that know where theirs is.
    fn places(
        origins: &[Origin],
        manifest: &Manifest,
        blob: &PlannedBlob,
    ) -> Result<Vec<Place>, Error> {
        let named = manifest.blobs().find(|named| named.digest == blob.digest);
        let named = named.ok_or(Error::Interrupted {
            what: "a download of a blob that its manifest does not name".to_owned(),
        })?;
        let mut places = Vec::new();
        let mut failure = None;
        for origin in origins {
            let url = &origin.at().url;
            let host = url.host_str().unwrap_or_default();
            match origin.blob(named, manifest, RetryPolicy::once()) {
                Ok(source) => places.push(Place {
                    host: url
                        .port()
                        .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")),
                    source,
                }),
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            Some(error) if places.is_empty() => Err(Error::Registry(error)),
            _ => Ok(places),
        }
    }

    /// What is missing; room for it; and the manifest stored, so that a pull that is cut off goes
    /// on by digest.
    async fn plan(
        &self,
        reference: &Reference,
        digest: Digest,
        manifest: Manifest,
    ) -> Result<(Plan, Manifest, Reservation), Error> {
        let reference = reference.clone();
        self.cache
            .blocking(move |cache| {
                let plan = Plan::make(&reference, &manifest, |digest, size| {
                    cache.has_blob(digest, size)
                })?;
                let missing: Vec<_> = plan.missing().map(|b| (b.digest, b.size)).collect();
                let reservation = cache.reserve(&reference, &missing)?;
                cache.store_document(&digest, manifest.raw())?;
                Ok((plan, manifest, reservation))
            })
            .await
    }

    /// Brings one blob in, or waits for whoever does, and tells its progress.
    async fn fetch_blob(
        &self,
        origins: &[Origin],
        manifest: &Manifest,
        digest: Digest,
        blob: &PlannedBlob,
        on_event: &mut (dyn FnMut(&PullEvent) + Send),
    ) -> Result<Fetched, Error> {
        let job = Job {
            cache: self.cache.clone(),
            digest: blob.digest,
            size: blob.size,
            places: Self::places(origins, manifest, blob)?,
            manners: self.manners.clone(),
            map: Box::pin(offered(origins.to_vec(), digest, blob.digest, blob.size)),
        };
        let turns = Arc::clone(&self.turns);
        let mut seat = self.flights.join(blob.digest, |report| async move {
            let _turn = turns.acquire_owned().await;
            let _counted = job.cache.metrics().downloading();
            fetch::fetch(job, report).await
        });
        let mut period = tokio::time::interval(PROGRESS_PERIOD);
        let mut told = Told::default();
        let outcome = loop {
            let watched = seat.clone();
            tokio::select! {
                outcome = seat.outcome() => break outcome,
                _ = period.tick() => told.tell(blob, &watched, on_event),
            }
        };
        let fetched = outcome?;
        on_event(&PullEvent::Progress {
            digest: blob.digest,
            completed: blob.size,
            total: blob.size,
        });
        told.verifying(blob, on_event);
        // Who only waited has fetched nothing.
        Ok(if seat.is_first {
            fetched
        } else {
            Fetched::default()
        })
    }

    async fn publish(
        &self,
        reference: &Reference,
        digest: Digest,
        manifest: Manifest,
    ) -> Result<ModelEntry, Error> {
        let reference = reference.clone();
        self.cache
            .blocking(move |cache| {
                views::publish(cache, &reference, &digest, &manifest)?;
                cache.touch(&reference);
                cache.find(&reference)?.ok_or_else(|| Error::NotCached {
                    reference: Box::new(reference.clone()),
                })
            })
            .await
    }
}
