//! Mirror: what a registry knows of its upstreams. What it does with them is in
//! [`crate::service::mirrored`]; nothing here reads or writes the registry's own content.
//!
//! ```text
//! routes ──► upstream (health) ──► artifact::client::Origin
//! freshness   which tags were asked for when, and what came of it
//! fills       blobs on their way in, one fill for a digest
//! usage       when a mirrored blob was used last
//! ```

pub(crate) mod fill;
pub(crate) mod fills;
pub(crate) mod freshness;
pub(crate) mod routes;
pub(crate) mod upstream;
pub(crate) mod usage;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use artifact::client::{Credentials, Origin, OriginKind, RegistryOptions, Transport};
use artifact::{Digest, Repository, Tag};
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use tokio::time::Instant;
use tracing::Instrument;

use crate::config;
use crate::error::Error;
use crate::service::Registry;
use crate::store::key::DataFolder;
use fills::Fills;
use freshness::{Freshness, Generations, Name};
use routes::{Route, Routes};
use upstream::Upstream;
use usage::Usage;

/// Lists of tags that are remembered; one may have thousands.
const MOST_LISTS: usize = 256;

/// What came of a question about a manifest.
#[derive(Clone, Debug)]
pub(crate) enum Asked {
    /// It is held as the upstream has it now.
    Here,
    /// No upstream has it.
    Absent,
}

/// Tags of a repository, and when they were listed.
type Listed = (Instant, Arc<Vec<Tag>>);

/// A question that several requests may wait for.
pub(crate) type Question = Shared<BoxFuture<'static, Result<Asked, Arc<Error>>>>;

/// The mirror of a registry.
#[derive(Debug)]
pub(crate) struct Mirror {
    pub(crate) settings: config::Mirror,
    pub(crate) routes: Routes,
    pub(crate) freshness: Freshness,
    pub(crate) fills: Fills,
    pub(crate) usage: Usage,
    transport: Transport,
    questions: Mutex<HashMap<Name, Question>>,
    /// How requests spelled the names of repositories that have upper case in them.
    spellings: Mutex<Generations<Repository, String>>,
    /// What upstreams listed as the tags of repositories, and when.
    listed: Mutex<Generations<Repository, Listed>>,
    /// When an upstream was asked for what refers to a manifest.
    referred: Mutex<Generations<(Repository, Digest), Instant>>,
    /// Whose mirror it is, for work that outlives a request.
    registry: OnceLock<Weak<Registry>>,
}

impl Mirror {
    /// As configured; its files lie in the data folder.
    pub(crate) fn open(settings: &config::Mirror, data: &DataFolder) -> Result<Self, Error> {
        Ok(Self {
            routes: Routes::new(&settings.upstreams),
            freshness: Freshness::default(),
            fills: Fills::open(data)?,
            usage: Usage::open(data.mirror_usage()),
            transport: Transport::new(settings.transport.clone()),
            questions: Mutex::default(),
            spellings: Mutex::default(),
            listed: Mutex::new(Generations::of(MOST_LISTS)),
            referred: Mutex::default(),
            registry: OnceLock::new(),
            settings: settings.clone(),
        })
    }

    /// Tells whose mirror it is.
    pub(crate) fn belongs_to(&self, registry: &Arc<Registry>) {
        // Told once, when the registry is put together.
        let _ = self.registry.set(Arc::downgrade(registry));
    }

    /// The registry, unless it is closing.
    pub(crate) fn registry(&self) -> Result<Arc<Registry>, Error> {
        let registry = self.registry.get().and_then(Weak::upgrade);
        registry.ok_or(Error::Closing)
    }

    /// Notes how a request spelled a repository.
    pub(crate) fn note_spelling(&self, repository: &Repository, spelled: &str) {
        if self.routes.of(repository).is_some() {
            locked(&self.spellings).insert(repository.clone(), spelled.to_owned());
        }
    }

    /// What an upstream listed as the tags of a repository within `time`.
    pub(crate) fn listed(&self, repository: &Repository, time: Duration) -> Option<Arc<Vec<Tag>>> {
        let (at, tags) = locked(&self.listed).get(repository)?;
        (at.elapsed() < time).then_some(tags)
    }

    /// Notes what an upstream lists.
    pub(crate) fn note_listed(&self, repository: &Repository, tags: Arc<Vec<Tag>>) {
        locked(&self.listed).insert(repository.clone(), (Instant::now(), tags));
    }

    /// Whether it is `time` ago that somebody asked what refers to a manifest; whoever is told so
    /// asks now.
    pub(crate) fn is_due(&self, repository: &Repository, subject: &Digest, time: Duration) -> bool {
        let mut referred = locked(&self.referred);
        let name = (repository.clone(), *subject);
        let is_due = referred.get(&name).is_none_or(|at| at.elapsed() >= time);
        if is_due {
            referred.insert(name, Instant::now());
        }
        is_due
    }

    /// A mirrored repository at one of its upstreams.
    pub(crate) async fn origin(
        &self,
        route: &Route,
        upstream: &Upstream,
        repository: &Repository,
    ) -> Result<Origin, Error> {
        let spelled = locked(&self.spellings).get(repository);
        let spelled = spelled.unwrap_or_else(|| repository.as_str().to_owned());
        let name = route.name_at_upstream(&spelled).unwrap_or(&spelled);
        let options = RegistryOptions {
            plain_http: false,
            credentials: match upstream.at().kind {
                OriginKind::Oci => self.settings.credentials.clone(),
                OriginKind::HuggingFace => {
                    let hub = self.settings.hub.as_ref();
                    let is_meant =
                        |hub: &&config::HubLogin| hub.at.url.origin() == upstream.at().url.origin();
                    let login = hub.filter(is_meant);
                    login.map_or(Credentials::Anonymous, |hub| hub.credentials.clone())
                }
                // The library knows its users by keys that are no business of a mirror.
                OriginKind::Ollama => Credentials::Anonymous,
            },
        };
        upstream.origin(&self.transport, name, &options).await
    }

    /// The question about `name`: the one that is being asked, or else a new one.
    pub(crate) fn question<W>(self: &Arc<Self>, name: &Name, ask: impl FnOnce() -> W) -> Question
    where
        W: Future<Output = Result<Asked, Error>> + Send + 'static,
    {
        let mut questions = self.questions();
        if let Some(question) = questions.get(name) {
            return question.clone();
        }
        let work = ask();
        let asking = Asking {
            mirror: Arc::clone(self),
            name: name.clone(),
        };
        // A task of its own: the answer is of use to the next one, too, when this client leaves.
        let task = tokio::spawn(
            async move {
                let _asking = asking;
                work.await
            }
            .in_current_span(),
        );
        let question = async move {
            let answered = task.await.map_err(Error::Task);
            answered.flatten().map_err(Arc::new)
        };
        let question = question.boxed().shared();
        questions.insert(name.clone(), question.clone());
        question
    }

    fn questions(&self) -> MutexGuard<'_, HashMap<Name, Question>> {
        locked(&self.questions)
    }
}

/// Nothing is ever half done under these locks.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// That a question is being asked. When it ends, in whatever way, the next one is asked anew.
struct Asking {
    mirror: Arc<Mirror>,
    name: Name,
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.mirror.questions().remove(&self.name);
    }
}
