//! A model as no dialect in particular has it: what a manifest and its small documents say.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::dialect::{Dialect, Inexpressible, ModelFacts, Role, role_of};
use crate::digest::Digest;
use crate::gguf::Header;
use crate::manifest::{Descriptor, Manifest};
use crate::modelfile::{self, Instruction, Modelfile};

/// Largest text that is read to be carried over into another dialect, in bytes.
pub const MAX_TEXT_BYTES: usize = modelfile::MAX_BYTES;

/// What of a model has to be read before another dialect can be written: small texts, and the
/// header of the weights. The weights themselves are never looked at.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    /// Contents of [`texts_of`], as far as they were to be had and had at most
    /// [`MAX_TEXT_BYTES`].
    pub texts: BTreeMap<Digest, Vec<u8>>,
    /// The header of [`weights_of`]; absent when that is no GGUF file.
    pub header: Option<Header>,
}

/// The small blobs to read before another dialect is written: the config, and every text.
pub fn texts_of(manifest: &Manifest) -> impl Iterator<Item = &Descriptor> {
    let is_text = |role: Role| {
        matches!(
            role,
            Role::Modelfile
                | Role::Template
                | Role::ChatTemplate
                | Role::System
                | Role::Params
                | Role::Messages
        )
    };
    let layers = manifest
        .layers()
        .iter()
        .filter(move |layer| is_text(role_of(layer)));
    manifest.config().into_iter().chain(layers)
}

/// The weights whose header describes the model: the first ones.
#[must_use]
pub fn weights_of(manifest: &Manifest) -> Option<&Descriptor> {
    let mut layers = manifest.layers().iter();
    layers.find(|layer| role_of(layer) == Role::Model)
}

/// A text that lies in a layer already, or one that has to become a layer.
#[derive(Clone, Debug)]
pub(super) enum Carried {
    /// A layer, with its text where that was read.
    Layer(Descriptor, Option<String>),
    /// A text out of another document.
    Text(String),
}

impl Carried {
    /// The text, if it is known.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Layer(_, text) => text.as_deref(),
            Self::Text(text) => Some(text),
        }
    }
}

/// What a model consists of.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    pub(super) weights: Vec<Descriptor>,
    pub(super) projectors: Vec<Descriptor>,
    pub(super) adapters: Vec<Descriptor>,
    /// Go template.
    pub(super) template: Option<String>,
    /// Jinja template beside the one in the weights.
    pub(super) chat_template: Option<Carried>,
    pub(super) system: Option<String>,
    pub(super) params: Map<String, Value>,
    /// Role and content.
    pub(super) messages: Vec<(modelfile::Role, String)>,
    pub(super) licenses: Vec<Carried>,
    /// Names of Ollama's built-in renderer and parser, and the version it has to have.
    pub(super) renderer: Option<String>,
    pub(super) parser: Option<String>,
    pub(super) requires: Option<String>,
    pub(super) facts: ModelFacts,
    /// Scalars of the GGUF header, as texts.
    pub(super) metadata: BTreeMap<String, String>,
    /// The Jinja template in the weights.
    pub(super) own_template: Option<String>,
}

impl Model {
    /// Reads a manifest in any dialect, with its parts.
    pub(super) fn read(manifest: &Manifest, parts: &Parts) -> Result<Self, Inexpressible> {
        let mut model = Self::default();
        let config = manifest
            .config()
            .and_then(|config| parts.texts.get(&config.digest))
            .and_then(|json| serde_json::from_slice(json).ok())
            .unwrap_or(Value::Null);
        model.read_config(Dialect::of(manifest), &config);
        if let Some(header) = &parts.header {
            model.read_header(header);
        }
        for layer in manifest.layers() {
            model.add(layer, parts)?;
        }
        if model.weights.is_empty() {
            return Err(Inexpressible::NoWeights);
        }
        Ok(model)
    }

    fn add(&mut self, layer: &Descriptor, parts: &Parts) -> Result<(), Inexpressible> {
        let text = parts
            .texts
            .get(&layer.digest)
            .and_then(|bytes| String::from_utf8(bytes.clone()).ok());
        let role = role_of(layer);
        let needed = |text: Option<String>| {
            text.ok_or(Inexpressible::Unreadable {
                role,
                digest: layer.digest,
            })
        };
        match role {
            Role::Model => self.weights.push(layer.clone()),
            Role::Projector => self.projectors.push(layer.clone()),
            Role::Adapter => self.adapters.push(layer.clone()),
            Role::License => self.licenses.push(Carried::Layer(layer.clone(), text)),
            Role::ChatTemplate => self.chat_template = Some(Carried::Layer(layer.clone(), text)),
            Role::Template => self.template = Some(needed(text)?),
            Role::System => self.system = Some(needed(text)?),
            Role::Params => self.params = json(&needed(text)?, layer)?,
            Role::Messages => self.read_messages(&json::<Vec<Value>>(&needed(text)?, layer)?),
            // A Modelfile that cannot be read says nothing; the weights can be run all the same.
            Role::Modelfile => {
                let modelfile = text.and_then(|text| Modelfile::parse(text.as_bytes()).ok());
                if let Some(modelfile) = modelfile {
                    self.read_modelfile(&modelfile);
                }
            }
            Role::Config | Role::Other => {}
        }
        Ok(())
    }

    fn read_modelfile(&mut self, modelfile: &Modelfile) {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        self.template = owned(modelfile.template()).or(self.template.take());
        self.system = owned(modelfile.system()).or(self.system.take());
        self.params.extend(modelfile.parameters());
        let messages = modelfile.messages();
        self.messages
            .extend(messages.map(|(role, content)| (role, content.to_owned())));
        let licenses = modelfile.licenses();
        self.licenses
            .extend(licenses.map(|text| Carried::Text(text.to_owned())));
        for instruction in modelfile.instructions() {
            let (place, text) = match instruction {
                Instruction::Renderer(text) => (&mut self.renderer, text),
                Instruction::Parser(text) => (&mut self.parser, text),
                Instruction::Requires(text) => (&mut self.requires, text),
                _ => continue,
            };
            *place = Some(text.clone());
        }
    }

    fn read_messages(&mut self, messages: &[Value]) {
        use modelfile::Role as Speaker;
        for message in messages {
            let speaker = [Speaker::System, Speaker::User, Speaker::Assistant]
                .into_iter()
                .find(|speaker| message["role"] == speaker.as_str());
            if let (Some(speaker), Some(content)) = (speaker, message["content"].as_str()) {
                self.messages.push((speaker, content.to_owned()));
            }
        }
    }

    /// What the config of a dialect says beside its layers. The header knows better, where there
    /// is one.
    fn read_config(&mut self, dialect: Dialect, config: &Value) {
        let text = |value: &Value| {
            let text = value.as_str().filter(|text| !text.is_empty());
            text.map(str::to_owned)
        };
        match dialect {
            Dialect::ModelPack => {
                let inner = &config["config"];
                self.facts.architecture = text(&inner["architecture"]);
                self.facts.parameter_size = text(&inner["paramSize"]);
                self.facts.quantisation = text(&inner["quantization"]);
                self.facts.name = text(&config["descriptor"]["name"]);
            }
            Dialect::Ollama => {
                self.facts.architecture = text(&config["model_family"]);
                self.facts.parameter_size = text(&config["model_type"]);
                self.facts.quantisation = text(&config["file_type"]);
                self.renderer = text(&config["renderer"]);
                self.parser = text(&config["parser"]);
                self.requires = text(&config["requires"]);
            }
            Dialect::Docker => {
                let inner = &config["config"];
                self.facts.architecture = text(&inner["architecture"]);
                self.facts.parameter_size = text(&inner["parameters"]);
                self.facts.quantisation = text(&inner["quantization"]);
                if let Some(size) = inner["context_size"].as_u64() {
                    self.params.insert("num_ctx".to_owned(), size.into());
                }
            }
            Dialect::Other => {}
        }
    }

    fn read_header(&mut self, header: &Header) {
        /// Longer ones are texts, not facts: templates, licences.
        const MAX_FACT_BYTES: usize = 256;
        /// A config is no place for a file's whole metadata.
        const MAX_FACTS: usize = 256;
        self.facts = ModelFacts::from(header);
        self.own_template = header.chat_template().map(str::to_owned);
        for (key, value) in header.metadata().iter() {
            if value.as_array().is_some() || self.metadata.len() >= MAX_FACTS {
                continue;
            }
            let text = match value.to_json() {
                Value::String(text) => text,
                number => number.to_string(),
            };
            if text.len() <= MAX_FACT_BYTES {
                self.metadata.insert(key.to_owned(), text);
            }
        }
    }

    /// The Jinja template, wherever it stands.
    pub(super) fn jinja(&self) -> Option<&str> {
        let beside = self.chat_template.as_ref().and_then(Carried::text);
        beside.or(self.own_template.as_deref())
    }
}

fn json<T: serde::de::DeserializeOwned>(
    text: &str,
    layer: &Descriptor,
) -> Result<T, Inexpressible> {
    serde_json::from_str(text).map_err(|_| Inexpressible::Unreadable {
        role: role_of(layer),
        digest: layer.digest,
    })
}
