//! What is known of a model: from the header of its weights, or from its config, whatever dialect
//! that was written in.

use std::collections::BTreeMap;

use artifact::Repository;
use artifact::dialect::ModelFacts;
use artifact::gguf::annotations;
use artifact::hub::HubFile;
use serde_json::{Map, Value, json};

use crate::error::Error;
use crate::service::Registry;
use crate::service::hub::Snapshot;

/// Largest config that is read.
const MAX_CONFIG: u64 = 1024 * 1024;
/// Longest text that is taken over.
const MAX_TEXT: usize = 100;

/// What is known of a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Such as `llama`.
    pub(crate) architecture: Option<String>,
    /// Such as `Q4_K_M`.
    pub(crate) quantisation: Option<String>,
    /// Parameters as a person writes them, such as `7.6B`.
    pub(crate) parameters: Option<String>,
    /// The same as a number.
    pub(crate) parameter_count: Option<u64>,
    /// Context length in tokens.
    pub(crate) context_length: Option<u64>,
}

impl Facts {
    /// Reads a config of ModelPack, Docker Model or Ollama.
    fn of(config: &Value) -> Self {
        let inner = &config["config"];
        let text = |places: [&Value; 2]| {
            let found = places.iter().find_map(|place| place.as_str());
            let text: Option<String> = found.map(|text| text.chars().take(MAX_TEXT).collect());
            text.filter(|text| !text.is_empty())
        };
        Self {
            // Ollama writes the processor's architecture under this name, as images do.
            architecture: text([&inner["architecture"], &config["model_family"]]),
            quantisation: text([&inner["quantization"], &config["file_type"]]),
            parameters: text([&inner["paramSize"], &inner["parameters"]])
                .or_else(|| text([&config["model_type"], &Value::Null])),
            parameter_count: None,
            context_length: [&inner["context_size"], &config["context_length"]]
                .iter()
                .find_map(|place| place.as_u64()),
        }
    }

    /// Reads what was kept of a header.
    fn of_header(kept: &BTreeMap<String, String>) -> Self {
        let text = |key: &str| kept.get(key).cloned();
        let number = |key: &str| kept.get(key).and_then(|text| text.parse().ok());
        Self {
            architecture: text(annotations::ARCHITECTURE),
            quantisation: text(annotations::QUANTISATION),
            parameters: text(annotations::PARAMETER_SIZE),
            parameter_count: number(annotations::PARAMETERS),
            context_length: number(annotations::CONTEXT_LENGTH),
        }
    }

    /// As Hugging Face shows them.
    pub(crate) fn to_json(&self) -> Value {
        let mut shown = Map::new();
        for (key, value) in [
            ("architecture", &self.architecture),
            ("quantization", &self.quantisation),
            ("size_label", &self.parameters),
        ] {
            if let Some(value) = value {
                shown.insert(key.to_owned(), json!(value));
            }
        }
        for (key, value) in [
            ("total", self.parameter_count),
            ("context_length", self.context_length),
        ] {
            if let Some(value) = value {
                shown.insert(key.to_owned(), json!(value));
            }
        }
        Value::Object(shown)
    }
}

impl Registry {
    /// What is known of the model among these files: from the header of its first GGUF file, kept
    /// when that came in, else from the config; nothing when neither is here.
    pub(crate) async fn hub_facts(
        &self,
        repository: &Repository,
        snapshot: &Snapshot,
    ) -> Result<Facts, Error> {
        let kept = self.header_of(repository, &snapshot.files).await?;
        if kept.contains_key(annotations::ARCHITECTURE) {
            return Ok(Facts::of_header(&kept));
        }
        let Some(config) = &snapshot.config else {
            return Ok(Facts::default());
        };
        let record = self.index.blob(repository, &config.digest).await?;
        if record.is_none_or(|record| record.size > MAX_CONFIG) {
            return Ok(Facts::default());
        }
        let content = self.blobs.read(&config.digest).await?.unwrap_or_default();
        let config: Value = serde_json::from_slice(&content).unwrap_or_default();
        Ok(Facts::of(&config))
    }

    /// What the configs of the dialects say of a model with these files, and the annotations of its
    /// manifest: those of the header, if there is one file of weights.
    pub(super) async fn model_facts(
        &self,
        repository: &Repository,
        files: &[HubFile],
    ) -> Result<(ModelFacts, BTreeMap<String, String>), Error> {
        let kept = self.header_of(repository, files).await?;
        let text = |key: &str| kept.get(key).cloned();
        let number = |key: &str| kept.get(key).and_then(|text| text.parse().ok());
        let facts = ModelFacts {
            architecture: text(annotations::ARCHITECTURE),
            parameter_size: text(annotations::PARAMETER_SIZE),
            quantisation: text(annotations::QUANTISATION),
            name: text(annotations::NAME),
            context_length: number(annotations::CONTEXT_LENGTH),
            embedding_length: number(annotations::EMBEDDING_LENGTH),
        };
        let weights = files.iter().filter(|file| file.is_weights()).count();
        let annotations = if weights == 1 { kept } else { BTreeMap::new() };
        Ok((facts, annotations))
    }

    /// What was kept of the header of the first GGUF file.
    async fn header_of(
        &self,
        repository: &Repository,
        files: &[HubFile],
    ) -> Result<BTreeMap<String, String>, Error> {
        let Some(weights) = files.iter().find(|file| file.is_weights()) else {
            return Ok(BTreeMap::new());
        };
        let record = self.index.blob(repository, &weights.digest).await?;
        Ok(record.map(|record| record.annotations).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::service::hub::facts::Facts;

    #[test]
    fn every_dialect_says_the_same_of_a_model() {
        let facts = |config| Facts::of(&config);
        let wanted = Facts {
            architecture: Some("llama".to_owned()),
            quantisation: Some("Q8_0".to_owned()),
            parameters: Some("1B".to_owned()),
            parameter_count: None,
            context_length: None,
        };
        let pack = json!({ "architecture": "llama", "quantization": "Q8_0", "paramSize": "1B" });
        assert_eq!(facts(json!({ "config": pack })), wanted);
        let docker = json!({ "architecture": "llama", "quantization": "Q8_0", "parameters": "1B" });
        assert_eq!(facts(json!({ "config": docker })), wanted);
        let ollama = json!({
            "architecture": "amd64",
            "model_family": "llama",
            "file_type": "Q8_0",
            "model_type": "1B",
        });
        assert_eq!(facts(ollama), wanted);
        assert_eq!(facts(json!([1])), Facts::default());
    }
}
