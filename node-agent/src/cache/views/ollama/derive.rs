//! Derives what the Ollama view shows of a model: its own manifest, or one made from its layers, its
//! Modelfile and the header of its weights.

use std::collections::BTreeMap;

use artifact::dialect::{
    self, Dialect, Document, ModelFacts, Role, chat_format_of, ollama_manifest,
};
use artifact::gguf::Header;
use artifact::manifest::Descriptor;
use artifact::media_type::ollama;
use artifact::modelfile::{self, Modelfile};
use artifact::{Algorithm, Digest, Manifest, Reference};
use serde_json::{Value, json};

use crate::cache::NodeCache;
use crate::cache::views::ollama::{Shown, path_of};
use crate::error::Error;

/// Largest chat template or license text that is carried over.
const MAX_TEXT_BYTES: usize = 1024 * 1024;

/// What the view will show; nothing when Ollama cannot run or name the model.
pub(in crate::cache) fn derive(
    cache: &NodeCache,
    reference: &Reference,
    digest: &Digest,
    manifest: &Manifest,
) -> Result<Option<Shown>, Error> {
    let is_sha256 = |digest: &Digest| digest.algorithm() == Algorithm::Sha256;
    let weights = manifest
        .layers()
        .iter()
        .filter(|layer| dialect::role_of(layer) == Role::Model);
    // A split model would need a merge, and other algorithms are unknown to Ollama.
    if path_of(cache, reference).is_none()
        || weights.count() != 1
        || !manifest.blobs().all(|blob| is_sha256(&blob.digest))
    {
        return Ok(None);
    }
    if Dialect::of(manifest) == Dialect::Ollama && is_sha256(digest) {
        return Ok(Some(Shown {
            manifest: *digest,
            blobs: manifest.blobs().map(|blob| blob.digest).collect(),
        }));
    }
    let mut builder = Builder::default();
    for layer in manifest.layers() {
        builder.add(cache, layer)?;
    }
    let (layers, documents) = builder.finish();
    let facts = builder.header.as_ref().map(ModelFacts::from);
    let (config, derived) = ollama_manifest(&layers, &facts.unwrap_or_default());
    for document in documents.iter().chain([&config, &derived]) {
        cache.store_document(&document.digest, &document.bytes)?;
    }
    let blobs = layers
        .iter()
        .map(|layer| layer.digest)
        .chain([config.digest])
        .collect();
    Ok(Some(Shown {
        manifest: derived.digest,
        blobs,
    }))
}

/// Collects layers in Ollama's terms.
#[derive(Default)]
struct Builder {
    layers: Vec<Descriptor>,
    header: Option<Header>,
    modelfile: Option<Modelfile>,
    chat_template: Option<String>,
}

impl Builder {
    fn add(&mut self, cache: &NodeCache, layer: &Descriptor) -> Result<(), Error> {
        let role = dialect::role_of(layer);
        match role {
            Role::Model => {
                // A file that is no GGUF is shown all the same: Ollama says what is wrong with it.
                let file = cache.open_blob(&layer.digest)?;
                self.header =
                    file.and_then(|mut file| Header::read(&mut file, Some(layer.size)).ok());
            }
            Role::Modelfile => {
                let text = cache.read_blob(&layer.digest, modelfile::MAX_BYTES)?;
                self.modelfile = text.and_then(|text| Modelfile::parse(&text).ok());
            }
            Role::ChatTemplate => {
                let text = cache.read_blob(&layer.digest, MAX_TEXT_BYTES)?;
                self.chat_template = text.and_then(|text| String::from_utf8(text).ok());
            }
            _ => {}
        }
        if let Some(media_type) = media_type_of(role) {
            self.layers.push(Descriptor {
                media_type: media_type.to_owned(),
                annotations: BTreeMap::new(),
                artifact_type: None,
                ..layer.clone()
            });
        }
        Ok(())
    }

    /// The layers, and those of them that are new documents.
    fn finish(&self) -> (Vec<Descriptor>, Vec<Document>) {
        let mut documents = match &self.modelfile {
            Some(modelfile) => modelfile_documents(modelfile),
            None => Vec::new(),
        };
        let has_template = self
            .layers
            .iter()
            .any(|layer| layer.media_type == ollama::TEMPLATE)
            || documents
                .iter()
                .any(|document| document.media_type == ollama::TEMPLATE);
        if !has_template {
            let has_params = documents
                .iter()
                .any(|document| document.media_type == ollama::PARAMS);
            documents.extend(self.chat_documents(has_params));
        }
        let mut layers = self.layers.clone();
        layers.extend(documents.iter().map(descriptor_of));
        (layers, documents)
    }

    /// A Go template for the chat format of the model's own Jinja template.
    fn chat_documents(&self, has_params: bool) -> Vec<Document> {
        let jinja = self
            .chat_template
            .as_deref()
            .or_else(|| self.header.as_ref()?.chat_template());
        let Some(format) = jinja.and_then(chat_format_of) else {
            return Vec::new();
        };
        let mut documents = vec![text_document(ollama::TEMPLATE, format.template)];
        if !has_params {
            documents.push(json_document(
                ollama::PARAMS,
                &json!({ "stop": format.stop }),
            ));
        }
        documents
    }
}

fn media_type_of(role: Role) -> Option<&'static str> {
    match role {
        Role::Model => Some(ollama::MODEL),
        Role::Projector => Some(ollama::PROJECTOR),
        Role::Adapter => Some(ollama::ADAPTER),
        Role::Template => Some(ollama::TEMPLATE),
        Role::System => Some(ollama::SYSTEM),
        Role::Params => Some(ollama::PARAMS),
        Role::Messages => Some(ollama::MESSAGES),
        Role::License => Some(ollama::LICENSE),
        Role::Config | Role::Modelfile | Role::ChatTemplate | Role::Other => None,
    }
}

fn modelfile_documents(modelfile: &Modelfile) -> Vec<Document> {
    let mut documents = Vec::new();
    documents.extend(
        modelfile
            .template()
            .map(|text| text_document(ollama::TEMPLATE, text)),
    );
    documents.extend(
        modelfile
            .system()
            .map(|text| text_document(ollama::SYSTEM, text)),
    );
    let parameters = modelfile.parameters();
    if !parameters.is_empty() {
        documents.push(json_document(ollama::PARAMS, &Value::Object(parameters)));
    }
    let messages: Vec<_> = modelfile
        .messages()
        .map(|(role, content)| json!({ "role": role.as_str(), "content": content }))
        .collect();
    if !messages.is_empty() {
        documents.push(json_document(ollama::MESSAGES, &Value::Array(messages)));
    }
    documents.extend(
        modelfile
            .licenses()
            .map(|text| text_document(ollama::LICENSE, text)),
    );
    documents
}

fn text_document(media_type: &'static str, text: &str) -> Document {
    let bytes = text.as_bytes().to_vec();
    Document {
        digest: Digest::sha256(&bytes),
        bytes,
        media_type,
    }
}

fn json_document(media_type: &'static str, value: &Value) -> Document {
    text_document(media_type, &value.to_string())
}

fn descriptor_of(document: &Document) -> Descriptor {
    Descriptor {
        media_type: document.media_type.to_owned(),
        digest: document.digest,
        size: document.bytes.len() as u64,
        artifact_type: None,
        annotations: BTreeMap::new(),
        is_foreign: false,
    }
}
