//! The models this runtime can serve, and those it has loaded.

mod agent_lease;
pub(crate) mod catalog;
pub(crate) mod defaults;
pub(crate) mod facts;
pub(crate) mod keep_alive;
pub(crate) mod loaded;

use std::path::PathBuf;
use std::sync::Arc;

use artifact::agent_api::ModelEntry;
use artifact::dialect::Role;

use self::defaults::Defaults;
use self::facts::Facts;
use crate::chat::template::ChatTemplate;
use crate::error::Error;

/// One model on this node with all that is needed to serve it.
#[derive(Debug, Clone)]
pub(crate) struct Model {
    /// Its entry in the cache.
    pub(crate) entry: ModelEntry,
    /// Where its weights lie.
    pub(crate) path: PathBuf,
    /// What its GGUF header says.
    pub(crate) facts: Arc<Facts>,
    /// What its small layers say: parameters, system text, template.
    pub(crate) defaults: Arc<Defaults>,
    /// Its chat template ready to be rendered, or ChatML; or why it cannot be used, which only
    /// matters to requests that need it.
    pub(crate) template: Arc<Result<ChatTemplate, String>>,
}

impl Model {
    /// Its full name, tag included.
    pub(crate) fn name(&self) -> String {
        self.entry.reference.to_string()
    }

    /// The digest of its manifest in hexadecimal, as Ollama lists it.
    pub(crate) fn digest_hex(&self) -> String {
        self.entry.digest.hex().to_string()
    }

    /// The digest of its weights: what is loaded once, however many names it has.
    pub(crate) fn weights(&self) -> Result<artifact::Digest, Error> {
        self.entry
            .blob(Role::Model)
            .map(|blob| blob.digest)
            .ok_or_else(|| Error::Load {
                name: self.name(),
                reason: "its manifest names no GGUF file".to_owned(),
            })
    }

    /// The Jinja source of its chat template, if there is one.
    pub(crate) fn chat_template(&self) -> Option<&str> {
        chat_template(&self.facts, &self.defaults)
    }
}

/// The model's own layer goes over what its GGUF file brings.
fn chat_template<'model>(facts: &'model Facts, defaults: &'model Defaults) -> Option<&'model str> {
    defaults
        .chat_template
        .as_deref()
        .or(facts.chat_template.as_deref())
}
