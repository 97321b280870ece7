//! Loaded models: each is loaded once however many ask, kept while it is used and a while longer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use artifact::client::AgentClient;
use artifact::{Digest, Reference};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use super::Model;
use super::agent_lease::AgentLease;
use super::keep_alive::KeepAlive;
use crate::engine::Engine;
use crate::engine::protocol::{Failure, LoadRequest};
use crate::error::Error;

/// How models are loaded.
#[derive(Debug, Clone)]
pub(crate) struct LoadPolicy {
    /// Stay loaded this long after the last request, unless the request says otherwise.
    pub(crate) keep_alive: Duration,
    /// Requests decoded together, per model.
    pub(crate) num_parallel: u32,
    /// Positions per request, unless the model or the request says otherwise.
    pub(crate) context_length: Option<u32>,
    /// Requests that may wait, per model.
    pub(crate) max_queue: usize,
    /// Threads to compute with.
    pub(crate) threads: u32,
    /// Models loaded at once.
    pub(crate) max_loaded_models: usize,
}

/// Positions per request when nobody says.
const DEFAULT_CONTEXT: u32 = 4096;

/// What a request wants of a load.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wish {
    /// Positions of the context.
    pub(crate) num_ctx: Option<u32>,
    /// Layers on a GPU.
    pub(crate) num_gpu: Option<u32>,
    /// How long to stay loaded afterwards.
    pub(crate) keep_alive: Option<KeepAlive>,
}

/// A model with its engine.
#[derive(Debug)]
pub(crate) struct Running {
    /// The engine.
    pub(crate) engine: Engine,
    /// One of the places for loaded models, given back when the last user lets go.
    _place: OwnedSemaphorePermit,
    /// What keeps the model on the node.
    _kept: Option<AgentLease>,
}

type LoadState = Option<Result<Arc<Running>, Failure>>;

/// One entry of the table: a model that is loaded, or being loaded.
#[derive(Debug)]
struct Resident {
    model: Model,
    context_length: u32,
    load: watch::Receiver<LoadState>,
    /// Places for requests under way and waiting.
    places: Arc<Semaphore>,
    usage: Mutex<Usage>,
}

#[derive(Debug, Clone, Copy)]
struct Usage {
    in_use: usize,
    keep_alive: KeepAlive,
    /// When it may go; none while it is used, or forever.
    expires: Option<Instant>,
}

impl Resident {
    fn usage(&self) -> MutexGuard<'_, Usage> {
        // Held only for plain reads and writes, which cannot leave it half-changed.
        self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self) -> Option<Arc<Running>> {
        match &*self.load.borrow() {
            Some(Ok(running)) => Some(Arc::clone(running)),
            Some(Err(_)) | None => None,
        }
    }

    /// Whether it can serve a request that wants `context` positions.
    fn serves(&self, context: u32) -> bool {
        let alive = match &*self.load.borrow() {
            None => true,
            Some(Ok(running)) => !running.engine.is_dead(),
            Some(Err(_)) => false,
        };
        alive && context <= self.context_length
    }
}

/// A loaded model as `/api/ps` shows it.
#[derive(Debug, Clone)]
pub(crate) struct Status {
    /// The model.
    pub(crate) model: Model,
    /// Bytes of the weights.
    pub(crate) size: u64,
    /// Positions per request.
    pub(crate) context_length: u32,
    /// How long it stays if nobody asks; none: forever.
    pub(crate) remaining: Option<Duration>,
}

/// The table of loaded models.
#[derive(Debug)]
pub(crate) struct LoadedModels {
    policy: LoadPolicy,
    /// Who keeps the files.
    agent: Option<AgentClient>,
    table: Mutex<HashMap<Digest, Arc<Resident>>>,
    /// Places for loaded models.
    places: Arc<Semaphore>,
    /// Counts whenever something became idle, or its expiry changed. Who waits for it subscribes
    /// before looking at the table, so that nothing is missed in between.
    changed: watch::Sender<u64>,
}

/// The right to use a loaded model. The model stays while one exists.
#[derive(Debug)]
pub(crate) struct Lease {
    /// The engine and template.
    pub(crate) running: Arc<Running>,
    _user: User,
    _place: OwnedSemaphorePermit,
}

/// Counts as a user of a resident for as long as it lives.
#[derive(Debug)]
struct User {
    resident: Arc<Resident>,
    key: Digest,
    models: Arc<LoadedModels>,
}

impl Drop for User {
    fn drop(&mut self) {
        let has_failed = matches!(&*self.resident.load.borrow(), Some(Err(_)));
        {
            let mut usage = self.resident.usage();
            usage.in_use = usage.in_use.saturating_sub(1);
            if usage.in_use == 0 {
                // What could not be loaded is tried anew by the next request.
                usage.expires = if has_failed {
                    Some(Instant::now())
                } else {
                    expiry(usage.keep_alive)
                };
            }
        }
        self.models.remove_expired(&self.key);
        self.models.note_change();
    }
}

impl LoadedModels {
    /// An empty table. What is loaded is leased from `agent`.
    pub(crate) fn new(policy: LoadPolicy, agent: Option<AgentClient>) -> Self {
        Self {
            places: Arc::new(Semaphore::new(policy.max_loaded_models.max(1))),
            policy,
            agent,
            table: Mutex::default(),
            changed: watch::Sender::new(0),
        }
    }

    /// Gives the right to use a model; loads it when it is not loaded. The load itself does not
    /// stop when the caller leaves.
    pub(crate) async fn acquire(
        self: &Arc<Self>,
        model: &Model,
        wish: Wish,
    ) -> Result<Lease, Error> {
        let key = model.weights()?;
        let (resident, user) = self.enter(key, model, wish);
        let place = Arc::clone(&resident.places)
            .try_acquire_owned()
            .map_err(|_full| Error::Overloaded)?;
        let mut load = resident.load.clone();
        let state = load
            .wait_for(Option::is_some)
            .await
            .map_err(|_gone| Error::Stopping)?
            .clone();
        match state {
            Some(Ok(running)) => Ok(Lease {
                running,
                _user: user,
                _place: place,
            }),
            Some(Err(failure)) => Err(load_error(&model.name(), failure)),
            None => Err(Error::Stopping),
        }
    }

    /// Unloads a model: at once if nobody uses it, else after its last request.
    pub(crate) fn unload(&self, weights: &Digest) {
        if let Some(resident) = self.table().get(weights) {
            let mut usage = resident.usage();
            usage.keep_alive = KeepAlive::For(Duration::ZERO);
            if usage.in_use == 0 {
                usage.expires = expiry(usage.keep_alive);
            }
        }
        self.remove_expired(weights);
    }

    /// What is loaded, the one that stays longest first.
    pub(crate) fn status(&self) -> Vec<Status> {
        let now = Instant::now();
        let mut all: Vec<Status> = self
            .table()
            .values()
            .filter_map(|resident| {
                let running = resident.running()?;
                let usage = *resident.usage();
                let keep = match usage.keep_alive {
                    KeepAlive::For(duration) => Some(duration),
                    KeepAlive::Forever => None,
                };
                Some(Status {
                    model: resident.model.clone(),
                    size: running.engine.loaded().size,
                    context_length: running.engine.loaded().context_length,
                    remaining: usage
                        .expires
                        .map(|at| at.saturating_duration_since(now))
                        .or(keep),
                })
            })
            .collect();
        all.sort_by_key(|status| std::cmp::Reverse(status.remaining.unwrap_or(Duration::MAX)));
        all
    }

    /// Unloads what has been idle long enough, for ever.
    pub(crate) async fn expire(&self) {
        let mut changes = self.changed.subscribe();
        loop {
            changes.mark_unchanged();
            let next = self
                .table()
                .values()
                .filter_map(|resident| resident.usage().expires)
                .min();
            let until_next = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = until_next => {}
                changed = changes.changed() => if changed.is_err() {
                    return;
                },
            }
            let keys: Vec<Digest> = self.table().keys().copied().collect();
            for key in keys {
                self.remove_expired(&key);
            }
        }
    }

    /// Stops all engines after their current step. Answers under way end in an error.
    pub(crate) fn stop(&self) {
        for (_key, resident) in self.table().drain() {
            if let Some(running) = resident.running() {
                running.engine.stop();
            }
        }
    }

    fn note_change(&self) {
        self.changed
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    fn table(&self) -> MutexGuard<'_, HashMap<Digest, Arc<Resident>>> {
        // Held only across map operations, which cannot leave it half-changed.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds or makes the entry, and counts the caller as its user before anybody can remove it.
    fn enter(self: &Arc<Self>, key: Digest, model: &Model, wish: Wish) -> (Arc<Resident>, User) {
        let context = self.context_for(model, wish);
        let mut table = self.table();
        let resident = match table.get(&key) {
            Some(resident) if resident.serves(context) => Arc::clone(resident),
            // It failed, or its context is too short: the old engine ends with its last request.
            Some(_) | None => {
                let resident = self.start_load(model, context, wish.num_gpu);
                table.insert(key, Arc::clone(&resident));
                resident
            }
        };
        {
            let mut usage = resident.usage();
            usage.in_use += 1;
            usage.expires = None;
            usage.keep_alive = wish
                .keep_alive
                .unwrap_or_else(|| self.policy.keep_alive.into());
        }
        let user = User {
            resident: Arc::clone(&resident),
            key,
            models: Arc::clone(self),
        };
        (resident, user)
    }

    /// The context a model is loaded with: the request's wish (or the model's own, which the caller
    /// has merged into it), else the server's, and never more than the model was made for.
    fn context_for(&self, model: &Model, wish: Wish) -> u32 {
        let wanted = wish
            .num_ctx
            .or(self.policy.context_length)
            .unwrap_or(DEFAULT_CONTEXT);
        let trained = model.facts.context_length.filter(|length| *length > 0);
        trained.map_or(wanted, |trained| {
            wanted.min(u32::try_from(trained).unwrap_or(u32::MAX))
        })
    }

    fn start_load(
        self: &Arc<Self>,
        model: &Model,
        context_length: u32,
        gpu_layers: Option<u32>,
    ) -> Arc<Resident> {
        let (report, load) = watch::channel(None);
        let places = usize::try_from(self.policy.num_parallel).unwrap_or(1) + self.policy.max_queue;
        let request = LoadRequest {
            path: model.path.clone(),
            context_length,
            sequences: self.policy.num_parallel,
            threads: self.policy.threads,
            gpu_layers,
        };
        let models = Arc::clone(self);
        let (name, reference) = (model.name(), model.entry.reference.clone());
        // Detached on purpose: the load goes on when the request that began it is dropped.
        tokio::spawn(async move {
            let result = models.load(request, &reference).await;
            match &result {
                Ok(_) => tracing::info!(model = name, "model loaded"),
                Err(failure) => tracing::error!(model = name, ?failure, "model not loaded"),
            }
            report.send_replace(Some(result));
            models.note_change();
        });
        Arc::new(Resident {
            model: model.clone(),
            context_length,
            load,
            places: Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS))),
            usage: Mutex::new(Usage {
                in_use: 0,
                keep_alive: self.policy.keep_alive.into(),
                expires: None,
            }),
        })
    }

    async fn load(
        &self,
        request: LoadRequest,
        reference: &Reference,
    ) -> Result<Arc<Running>, Failure> {
        let place = self.take_place().await?;
        let kept = self.agent.as_ref();
        let kept = kept.map(|agent| AgentLease::take(agent, reference));
        let engine = Engine::load(request).await?;
        Ok(Arc::new(Running {
            engine,
            _place: place,
            _kept: kept,
        }))
    }

    /// A place for one more loaded model; idle ones make way, the one that would go first first.
    async fn take_place(&self) -> Result<OwnedSemaphorePermit, Failure> {
        let mut changes = self.changed.subscribe();
        loop {
            changes.mark_unchanged();
            if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
                return Ok(place);
            }
            self.evict_one();
            tokio::select! {
                place = Arc::clone(&self.places).acquire_owned() => {
                    return place.map_err(|_closed| Failure::Stopping);
                }
                changed = changes.changed() => changed.map_err(|_closed| Failure::Stopping)?,
            }
        }
    }

    fn evict_one(&self) {
        let mut table = self.table();
        let idle = table
            .iter()
            .filter(|(_key, resident)| resident.running().is_some())
            .filter(|(_key, resident)| resident.usage().in_use == 0)
            .min_by_key(|(_key, resident)| {
                let expires = resident.usage().expires;
                (expires.is_none(), expires)
            })
            .map(|(key, _resident)| *key);
        if let Some(key) = idle {
            table.remove(&key);
        }
    }

    fn remove_expired(&self, key: &Digest) {
        let now = Instant::now();
        let mut table = self.table();
        let is_over = table.get(key).is_some_and(|resident| {
            let usage = resident.usage();
            usage.in_use == 0 && usage.expires.is_some_and(|at| at <= now)
        });
        if is_over {
            table.remove(key);
        }
    }
}

fn expiry(keep_alive: KeepAlive) -> Option<Instant> {
    match keep_alive {
        KeepAlive::For(duration) => Instant::now().checked_add(duration),
        KeepAlive::Forever => None,
    }
}

fn load_error(name: &str, failure: Failure) -> Error {
    let reason = match failure {
        Failure::Engine(reason) | Failure::Format(reason) => reason,
        Failure::PromptTooLong { .. } => "the engine answered out of turn".to_owned(),
        Failure::Stopping => return Error::Stopping,
    };
    Error::Load {
        name: name.to_owned(),
        reason,
    }
}
