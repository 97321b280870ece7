//! Writing manifests: the same inputs always give the same bytes, hence the same digest.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::digest::Digest;
use crate::gguf::Header;
use crate::manifest::Descriptor;
use crate::media_type::hayloft;

/// A small blob that Hayloft made: its bytes, digest and media type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The exact bytes.
    pub bytes: Vec<u8>,
    /// Their SHA-256 digest.
    pub digest: Digest,
    /// Their media type.
    pub media_type: &'static str,
}

/// What a GGUF header says of a model, as far as the configs of the dialects carry it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelFacts {
    /// `general.architecture`, such as `llama`.
    pub architecture: Option<String>,
    /// Parameters as a person writes them, such as `7.6B`.
    pub parameter_size: Option<String>,
    /// Quantisation, such as `Q4_K_M`.
    pub quantisation: Option<String>,
    /// `general.name`.
    pub name: Option<String>,
    /// Context length in tokens.
    pub context_length: Option<u64>,
    /// Embedding length.
    pub embedding_length: Option<u64>,
}

impl From<&Header> for ModelFacts {
    fn from(header: &Header) -> Self {
        Self {
            architecture: header.architecture().map(str::to_owned),
            parameter_size: header.parameter_size(),
            quantisation: header.quantisation().map(str::to_owned),
            name: header.name().map(str::to_owned),
            context_length: header.context_length(),
            embedding_length: header.embedding_length(),
        }
    }
}

/// What a manifest says beside its layers.
#[derive(Clone, Debug)]
pub(super) struct About<'a> {
    /// The manifest it was derived from.
    pub(super) subject: Option<Descriptor>,
    /// What it is annotated with, which holds for the model in any dialect.
    pub(super) annotations: &'a BTreeMap<String, String>,
}

/// A manifest; what it says is in one order always.
pub(super) fn manifest(
    media_type: &'static str,
    artifact_type: Option<&str>,
    config: &Document,
    layers: &[Descriptor],
    about: Option<&About<'_>>,
) -> Document {
    let mut manifest = Map::new();
    manifest.insert("schemaVersion".to_owned(), json!(2));
    insert(&mut manifest, "mediaType", Some(media_type));
    insert(&mut manifest, "artifactType", artifact_type);
    let config = descriptor_json(&descriptor_of(config));
    manifest.insert("config".to_owned(), config);
    let layers = layers.iter().map(descriptor_json).collect();
    manifest.insert("layers".to_owned(), layers);
    let mut annotations = about.map_or_else(BTreeMap::new, |about| about.annotations.clone());
    if let Some(subject) = about.and_then(|about| about.subject.as_ref()) {
        manifest.insert("subject".to_owned(), descriptor_json(subject));
        let digest = subject.digest.to_string();
        annotations.insert(hayloft::DERIVED_FROM.to_owned(), digest);
    }
    if !annotations.is_empty() {
        manifest.insert("annotations".to_owned(), json!(annotations));
    }
    json_document(media_type, &Value::Object(manifest))
}

/// A document of this text.
pub(super) fn text_document(media_type: &'static str, text: &str) -> Document {
    let bytes = text.as_bytes().to_vec();
    Document {
        digest: Digest::sha256(&bytes),
        bytes,
        media_type,
    }
}

/// A document of this JSON.
pub(super) fn json_document(media_type: &'static str, value: &Value) -> Document {
    text_document(media_type, &value.to_string())
}

/// What names a document.
pub(super) fn descriptor_of(document: &Document) -> Descriptor {
    Descriptor {
        media_type: document.media_type.to_owned(),
        digest: document.digest,
        size: document.bytes.len() as u64,
        artifact_type: None,
        annotations: BTreeMap::new(),
        is_foreign: false,
    }
}

/// The same content under another type.
pub(super) fn retyped(layer: &Descriptor, media_type: &str) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        artifact_type: None,
        ..layer.clone()
    }
}

/// Sets a member that has a value.
pub(super) fn insert(object: &mut Map<String, Value>, key: &str, value: Option<&str>) {
    if let Some(value) = value {
        object.insert(key.to_owned(), json!(value));
    }
}

fn descriptor_json(descriptor: &Descriptor) -> Value {
    let mut object = Map::new();
    object.insert("mediaType".to_owned(), json!(descriptor.media_type));
    object.insert("digest".to_owned(), json!(descriptor.digest));
    object.insert("size".to_owned(), json!(descriptor.size));
    if !descriptor.annotations.is_empty() {
        object.insert("annotations".to_owned(), json!(descriptor.annotations));
    }
    Value::Object(object)
}
