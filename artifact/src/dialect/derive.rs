//! Derivation: the manifest of a model in another dialect than it was pushed in.
//!
//! A pure function: the same source gives the same bytes, whoever derives. The weights, projectors
//! and licences keep their digests; what the other dialect says elsewhere or in another form
//! becomes small new documents.

use crate::dialect::model::{Carried, Model, Parts};
use crate::dialect::write::{About, Document, descriptor_of, retyped, text_document};
use crate::dialect::{Dialect, Role, docker, modelpack, ollama};
use crate::digest::Digest;
use crate::manifest::{Descriptor, Manifest};
use crate::modelfile;

/// A model to derive from.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// Its manifest.
    pub manifest: &'a Manifest,
    /// The digest that the manifest is known by.
    pub digest: Digest,
    /// What its small blobs and the header of its weights say.
    pub parts: &'a Parts,
}

/// A model in another dialect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Derived {
    /// The new documents, the config last: all that has to be stored before the manifest.
    pub documents: Vec<Document>,
    /// The layers, new and carried.
    pub layers: Vec<Descriptor>,
    /// The manifest.
    pub manifest: Document,
}

impl Derived {
    /// The digests of every blob that the manifest names.
    pub fn blobs(&self) -> impl Iterator<Item = Digest> + '_ {
        let config = self.documents.last().map(|config| config.digest);
        let layers = self.layers.iter().map(|layer| layer.digest);
        layers.chain(config)
    }
}

/// Why a model cannot be written in a dialect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Inexpressible {
    /// Not a model, or none that can be written.
    #[error("there is no such dialect to write")]
    NoDialect,
    /// No layer is a GGUF file as it is.
    #[error(
        "the model has no layer that is a GGUF file as it is: archives and other formats cannot be carried over"
    )]
    NoWeights,
    /// Ollama runs one file.
    #[error(
        "the model has {parts} files of weights, and Ollama takes one: merge them, or name one in the manifest"
    )]
    Split {
        /// How many.
        parts: usize,
    },
    /// Ollama knows one algorithm.
    #[error("{digest} is no SHA-256 digest, and Ollama knows no other")]
    Algorithm {
        /// The digest.
        digest: Box<Digest>,
    },
    /// A text that the other dialect needs could not be read.
    #[error(
        "the layer {digest} ({role:?}) cannot be read, is too large or is not what its type says"
    )]
    Unreadable {
        /// What the layer is.
        role: Role,
        /// The layer.
        digest: Digest,
    },
    /// A text that no Modelfile can hold.
    #[error("its texts cannot stand in a Modelfile")]
    Modelfile {
        /// Why.
        #[source]
        source: modelfile::Error,
    },
}

/// Writes the model in another dialect. What that has no place for is left out: a Go template in
/// Docker Model's, a README in Ollama's.
///
/// # Errors
/// What the dialect cannot express.
pub fn derive(source: Source<'_>, dialect: Dialect) -> Result<Derived, Inexpressible> {
    let model = Model::read(source.manifest, source.parts)?;
    let about = About {
        subject: Some(Descriptor {
            media_type: source.manifest.media_type().to_owned(),
            digest: source.digest,
            size: source.manifest.raw().len() as u64,
            artifact_type: None,
            annotations: std::collections::BTreeMap::new(),
            is_foreign: false,
        }),
        annotations: source.manifest.annotations(),
    };
    match dialect {
        Dialect::Ollama => ollama::write(&model),
        Dialect::ModelPack => modelpack::write(&model, &about),
        Dialect::Docker => Ok(docker::write(&model, &about)),
        Dialect::Other => Err(Inexpressible::NoDialect),
    }
}

/// The layers of a manifest that is being written, and those of them that are new.
#[derive(Debug, Default)]
pub(super) struct Layers {
    pub(super) layers: Vec<Descriptor>,
    pub(super) documents: Vec<Document>,
}

impl Layers {
    /// Layers that only change their type.
    pub(super) fn carry(&mut self, layers: &[Descriptor], media_type: &str) {
        self.layers
            .extend(layers.iter().map(|layer| retyped(layer, media_type)));
    }

    /// A new layer.
    pub(super) fn add(&mut self, document: Document) {
        self.layers.push(descriptor_of(&document));
        self.documents.push(document);
    }

    /// A text, in the layer that it has or in a new one.
    pub(super) fn add_text(&mut self, carried: &Carried, media_type: &'static str) {
        match carried {
            Carried::Layer(layer, _) => self.carry(std::slice::from_ref(layer), media_type),
            Carried::Text(text) => self.add(text_document(media_type, text)),
        }
    }

    /// With config and manifest.
    pub(super) fn finish(self, (config, manifest): (Document, Document)) -> Derived {
        let mut documents = self.documents;
        documents.push(config);
        Derived {
            documents,
            layers: self.layers,
            manifest,
        }
    }
}

#[cfg(test)]
mod tests;
