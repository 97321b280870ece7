//! Writing manifests: the same inputs always give the same bytes, hence the same digest.

use serde_json::{Map, Value, json};

use crate::digest::Digest;
use crate::gguf::Header;
use crate::manifest::Descriptor;
use crate::media_type::{self, modelpack, ollama};

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

impl Document {
    fn json(media_type: &'static str, value: &Value) -> Self {
        let bytes = value.to_string().into_bytes();
        Self {
            digest: Digest::sha256(&bytes),
            bytes,
            media_type,
        }
    }

    fn descriptor(&self) -> Value {
        json!({
            "mediaType": self.media_type,
            "digest": self.digest,
            "size": self.bytes.len(),
        })
    }
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

/// Config and manifest of a model in ModelPack form. `layers` carry their file names in the
/// annotation [`modelpack::FILEPATH`]; none of them is compressed, so each digest is its diff id.
#[must_use]
pub fn modelpack_manifest(layers: &[Descriptor], facts: &ModelFacts) -> (Document, Document) {
    let mut config = Map::new();
    insert(&mut config, "architecture", facts.architecture.as_deref());
    config.insert("format".to_owned(), json!("gguf"));
    insert(&mut config, "paramSize", facts.parameter_size.as_deref());
    insert(&mut config, "quantization", facts.quantisation.as_deref());
    let mut descriptor = Map::new();
    insert(&mut descriptor, "name", facts.name.as_deref());
    let diff_ids: Vec<_> = layers.iter().map(|layer| layer.digest).collect();
    let config = Document::json(
        modelpack::CONFIG,
        &json!({
            "descriptor": descriptor,
            "modelfs": { "type": "layers", "diffIds": diff_ids },
            "config": config,
        }),
    );
    let manifest = Document::json(
        media_type::OCI_MANIFEST,
        &json!({
            "schemaVersion": 2,
            "mediaType": media_type::OCI_MANIFEST,
            "artifactType": modelpack::ARTIFACT,
            "config": config.descriptor(),
            "layers": layers.iter().map(descriptor_json).collect::<Vec<_>>(),
        }),
    );
    (config, manifest)
}

/// Config and manifest of a model in Ollama's form, as `ollama create` would write them. `layers`
/// carry Ollama's media types already.
#[must_use]
pub fn ollama_manifest(layers: &[Descriptor], facts: &ModelFacts) -> (Document, Document) {
    let family = facts.architecture.as_deref().unwrap_or("unknown");
    let diff_ids: Vec<_> = layers.iter().map(|layer| layer.digest).collect();
    let mut config = Map::new();
    config.insert("model_format".to_owned(), json!("gguf"));
    config.insert("model_family".to_owned(), json!(family));
    config.insert("model_families".to_owned(), json!([family]));
    insert(&mut config, "model_type", facts.parameter_size.as_deref());
    insert(&mut config, "file_type", facts.quantisation.as_deref());
    config.insert("architecture".to_owned(), json!("amd64"));
    config.insert("os".to_owned(), json!("linux"));
    config.insert(
        "rootfs".to_owned(),
        json!({ "type": "layers", "diff_ids": diff_ids }),
    );
    let config = Document::json(ollama::CONFIG, &Value::Object(config));
    let manifest = Document::json(
        media_type::DOCKER_MANIFEST,
        &json!({
            "schemaVersion": 2,
            "mediaType": media_type::DOCKER_MANIFEST,
            "config": config.descriptor(),
            "layers": layers.iter().map(descriptor_json).collect::<Vec<_>>(),
        }),
    );
    (config, manifest)
}

fn insert(object: &mut Map<String, Value>, key: &str, value: Option<&str>) {
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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed expectation is a failed test")]
mod tests {
    use crate::dialect::{Dialect, ModelFacts, modelpack_manifest, ollama_manifest};
    use crate::digest::Digest;
    use crate::manifest::{Descriptor, Manifest};
    use crate::media_type::{modelpack, ollama};

    fn layer(media_type: &str) -> Descriptor {
        Descriptor {
            media_type: media_type.to_owned(),
            digest: Digest::sha256(b"weights"),
            size: 7,
            artifact_type: None,
            annotations: std::iter::once((modelpack::FILEPATH.to_owned(), "m.gguf".to_owned()))
                .collect(),
            is_foreign: false,
        }
    }

    #[test]
    fn what_is_written_reads_back_in_its_dialect() {
        let facts = ModelFacts::default();
        let (_, packed) = modelpack_manifest(&[layer(modelpack::WEIGHT_RAW)], &facts);
        let packed = Manifest::parse(packed.bytes, None).unwrap();
        assert_eq!(Dialect::of(&packed), Dialect::ModelPack);
        let (_, derived) = ollama_manifest(&[layer(ollama::MODEL)], &facts);
        let derived = Manifest::parse(derived.bytes, None).unwrap();
        assert_eq!(Dialect::of(&derived), Dialect::Ollama);
        assert_eq!(derived.layers()[0].digest, packed.layers()[0].digest);
    }

    #[test]
    fn the_same_inputs_give_the_same_bytes() {
        let facts = ModelFacts {
            architecture: Some("llama".to_owned()),
            ..ModelFacts::default()
        };
        let layers = [layer(modelpack::WEIGHT_RAW)];
        assert_eq!(
            modelpack_manifest(&layers, &facts),
            modelpack_manifest(&layers, &facts)
        );
    }
}
