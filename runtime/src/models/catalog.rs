//! Catalog: which models are on this node, by name. Asks the agent; without one, or when it does
//! not answer, reads the cache folder itself.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use artifact::agent_api::{EnsureRequest, ModelEntry, PullEvent};
use artifact::client::AgentClient;
use artifact::dialect::Role;
use artifact::{CacheLayout, Digest, ModelName, Reference};
use futures::stream::BoxStream;

use super::Model;
use super::defaults::Defaults;
use super::facts::Facts;
use crate::chat::template::ChatTemplate;
use crate::error::Error;

/// Models whose facts are remembered; beyond that all are read again.
const MAX_KNOWN: usize = 1024;

/// What was read of one model's files.
#[derive(Debug, Clone)]
struct Known {
    facts: Arc<Facts>,
    defaults: Arc<Defaults>,
    template: Arc<Result<ChatTemplate, String>>,
}

/// The models of the node.
#[derive(Debug)]
pub(crate) struct Catalog {
    agent: Option<AgentClient>,
    layout: CacheLayout,
    /// What was read of each blob and manifest: these never change under their digest.
    read: Mutex<HashMap<Digest, Known>>,
}

impl Catalog {
    /// The models that the agent at `agent` lists, else those below `layout`.
    pub(crate) fn open(agent: Option<&str>, layout: CacheLayout) -> Result<Self, Error> {
        Ok(Self {
            agent: agent.map(AgentClient::open).transpose()?,
            layout,
            read: Mutex::default(),
        })
    }

    /// The agent that it asks, if there is one.
    pub(crate) fn agent(&self) -> Option<&AgentClient> {
        self.agent.as_ref()
    }

    /// Every model with a GGUF file, by name.
    pub(crate) async fn list(&self) -> Result<Vec<ModelEntry>, Error> {
        let mut entries = match &self.agent {
            None => self.list_folder().await?,
            Some(agent) => match agent.list().await {
                Ok(entries) => entries,
                Err(error) => {
                    tracing::warn!(%error, "the node agent does not answer, reading the cache folder");
                    self.list_folder().await?
                }
            },
        };
        entries.retain(|entry| entry.blob(Role::Model).is_some());
        Ok(entries)
    }

    /// The one model that `name` means.
    pub(crate) async fn find(&self, name: &str) -> Result<Model, Error> {
        let entry = choose(name, self.list().await?)?;
        self.read(entry).await
    }

    /// Reads what is needed to serve a model: once per manifest.
    pub(crate) async fn read(&self, entry: ModelEntry) -> Result<Model, Error> {
        let weights = entry.blob(Role::Model).map(|blob| blob.digest);
        let Some(weights) = weights else {
            return Err(Error::Load {
                name: entry.reference.to_string(),
                reason: "its manifest names no GGUF file".to_owned(),
            });
        };
        let path = self.path_of(&entry, &weights);
        let known = self.known().get(&entry.digest).cloned();
        let known = match known {
            Some(known) => known,
            None => self.read_files(&entry, path.clone()).await?,
        };
        Ok(Model {
            entry,
            path,
            facts: known.facts,
            defaults: known.defaults,
            template: known.template,
        })
    }

    /// Where llama.cpp opens a model: its blob, or in the plain view the first of several parts,
    /// beside which it looks for the others by their names.
    fn path_of(&self, entry: &ModelEntry, weights: &Digest) -> PathBuf {
        let parts = entry.blobs.iter().filter(|blob| blob.role == Role::Model);
        let first = entry.blob(Role::Model);
        match first.and_then(|blob| blob.file_name.as_deref()) {
            Some(name) if parts.count() > 1 => {
                self.layout.plain_view_of(&entry.reference).join(name)
            }
            _ => self.layout.blob(weights),
        }
    }

    /// Asks the agent for a model, and follows the pull.
    pub(crate) async fn pull(
        &self,
        name: &ModelName,
        plain_http: bool,
    ) -> Result<BoxStream<'static, Result<PullEvent, artifact::client::Error>>, Error> {
        let agent = self.agent.as_ref().ok_or(Error::NoAgent)?;
        let request = EnsureRequest {
            plain_http,
            ..EnsureRequest::from(name)
        };
        Ok(agent.ensure(&request).await?)
    }

    /// Takes a model out of the cache, by the agent.
    pub(crate) async fn remove(&self, name: &str) -> Result<ModelEntry, Error> {
        let entry = choose(name, self.list().await?)?;
        let agent = self.agent.as_ref().ok_or(Error::NoAgent)?;
        // As with Ollama, a model can be removed while it is loaded: what is mapped stays.
        agent.remove_by_force(&entry.reference).await?;
        Ok(entry)
    }

    /// Whether the models can be listed at all.
    pub(crate) async fn is_ready(&self) -> bool {
        match &self.agent {
            Some(agent) => agent.is_ready().await.unwrap_or(false),
            None => self.list_folder().await.is_ok(),
        }
    }

    async fn list_folder(&self) -> Result<Vec<ModelEntry>, Error> {
        let layout = self.layout.clone();
        blocking(move || {
            artifact::catalog::list(&layout, |fault| {
                tracing::warn!(error = %fault, "a model in the cache is left out");
            })
            .map_err(Error::Catalog)
        })
        .await
    }

    async fn read_files(
        &self,
        entry: &ModelEntry,
        path: std::path::PathBuf,
    ) -> Result<Known, Error> {
        let layout = self.layout.clone();
        let digest = entry.digest;
        let entry = entry.clone();
        let read = blocking(move || {
            let facts = Facts::read(&path, &entry.reference.to_string())?;
            let defaults = Defaults::read(&layout, &entry)?;
            let template = match super::chat_template(&facts, &defaults) {
                Some(source) => ChatTemplate::parse(source),
                None => ChatTemplate::fallback(),
            };
            Ok(Known {
                facts: Arc::new(facts),
                defaults: Arc::new(defaults),
                template: Arc::new(template.map_err(|fault| fault.to_string())),
            })
        })
        .await?;
        let mut known = self.known();
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(digest, read.clone());
        Ok(read)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Digest, Known>> {
        // Held only across map operations, which cannot leave it half-changed.
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs file reading off the async threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| {
            Err(Error::Internal {
                reason: error.to_string(),
            })
        })
}

/// The entry that `name` means: its full name, or the end of exactly one, on whole path segments.
fn choose(name: &str, entries: Vec<ModelEntry>) -> Result<ModelEntry, Error> {
    let called = ModelName::parse(name).map_err(|source| Error::InvalidName {
        name: name.to_owned(),
        source,
    })?;
    let wanted = called.reference();
    if let Some(exact) = entries.iter().find(|entry| entry.reference == *wanted) {
        return Ok(exact.clone());
    }
    // Names in the cache are in lower case, but for their tags.
    let folded = called.folded();
    let mut matching: Vec<ModelEntry> = entries
        .into_iter()
        .filter(|entry| ends_in(&entry.reference, &folded))
        .collect();
    if matching.len() > 1 {
        return Err(Error::AmbiguousModel {
            name: name.to_owned(),
            candidates: matching
                .iter()
                .map(|entry| entry.reference.to_string())
                .collect(),
        });
    }
    matching.pop().ok_or_else(|| Error::UnknownModel {
        name: name.to_owned(),
    })
}

/// Whether `reference` ends in `name`, a `latest` added where it has no tag.
fn ends_in(reference: &Reference, name: &str) -> bool {
    let full = reference.to_string();
    let last = name.rsplit('/').next().unwrap_or(name);
    let with_tag = if last.contains([':', '@']) {
        name.to_owned()
    } else {
        format!("{name}:latest")
    };
    full.strip_suffix(&with_tag)
        .is_some_and(|front| front.is_empty() || front.ends_with('/'))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use artifact::agent_api::ModelEntry;
    use artifact::{Digest, Reference};

    use super::choose;

    fn entries(names: &[&str]) -> Vec<ModelEntry> {
        names
            .iter()
            .map(|name| ModelEntry {
                reference: Reference::parse(name).unwrap(),
                digest: Digest::sha256(name.as_bytes()),
                size: 0,
                pulled_at: String::new(),
                last_used: None,
                pinned: false,
                blobs: Vec::new(),
            })
            .collect()
    }

    fn chosen(name: &str, names: &[&str]) -> Result<String, String> {
        choose(name, entries(names))
            .map(|entry| entry.reference.to_string())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_name_may_be_shortened_from_the_front() {
        let names = [
            "127.0.0.1:5000/demo/hay-tiny:latest",
            "h.example/a/other:v1",
        ];
        for short in [
            "hay-tiny",
            "hay-tiny:latest",
            "demo/hay-tiny",
            "127.0.0.1:5000/demo/hay-tiny",
        ] {
            assert_eq!(chosen(short, &names).unwrap(), names[0], "{short}");
        }
        assert_eq!(chosen("other:v1", &names).unwrap(), names[1]);
    }

    #[test]
    fn a_name_is_shortened_only_between_segments_and_keeps_its_tag() {
        let names = ["127.0.0.1:5000/demo/hay-tiny:latest"];
        for unknown in ["tiny", "hay-tiny:v2", "o/hay-tiny"] {
            assert_eq!(
                chosen(unknown, &names).unwrap_err(),
                format!("model '{unknown}' not found")
            );
        }
    }

    #[test]
    fn an_ambiguous_name_lists_what_it_may_mean() {
        let names = ["h.example/a/m:latest", "h.example/b/m:latest"];
        let error = chosen("m", &names).unwrap_err();
        assert!(error.contains("h.example/a/m:latest or h.example/b/m:latest"));
        assert_eq!(chosen("b/m", &names).unwrap(), names[1]);
    }

    #[test]
    fn a_full_name_wins_over_a_longer_one_that_ends_in_it() {
        let names = ["a.example/m:latest", "b.example/a.example/m:latest"];
        assert_eq!(chosen("a.example/m", &names).unwrap(), names[0]);
    }

    #[test]
    fn a_name_that_breaks_the_rules_is_refused() {
        assert!(
            chosen("../etc", &[])
                .unwrap_err()
                .contains("invalid model name")
        );
    }
}
