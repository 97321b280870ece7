//! The three dialects of a model's manifest: reading what each layer is, and writing.
//!
//! Sources: CNCF ModelPack model-spec `config.md` and `manifest.md`; Ollama `server/layer.go`;
//! Docker model-spec `spec.md`. The GGUF blob is the same in all of them: only the small manifest
//! and its config differ.

mod derive;
mod docker;
mod go_template;
mod model;
mod modelpack;
mod ollama;
mod write;

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::manifest::{Descriptor, Manifest};
use crate::media_type::{self, cnai, docker_model};

pub use derive::{Derived, Inexpressible, Source, derive};
pub use go_template::{ChatFormat, chat_format_of};
pub use model::{MAX_TEXT_BYTES, Parts, texts_of, weights_of};
pub use modelpack::modelpack_manifest;
pub use write::{Document, ModelFacts};

/// What a Jinja chat template beside the weights is called, as model repositories have it.
const CHAT_TEMPLATE_FILE: &str = "chat_template.jinja";

/// Who wrote a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// CNCF ModelPack, what Hayloft writes by default.
    ModelPack,
    /// Ollama.
    Ollama,
    /// Docker Model Runner.
    Docker,
    /// None of the three: a container image, a chart, anything.
    Other,
}

/// What a blob is to its model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The manifest's config.
    Config,
    /// Weights in GGUF.
    Model,
    /// Vision projector.
    Projector,
    /// LoRA adapter.
    Adapter,
    /// Modelfile.
    Modelfile,
    /// Go template text, Ollama's.
    Template,
    /// Jinja chat template.
    ChatTemplate,
    /// System prompt.
    System,
    /// Parameters as a JSON object.
    Params,
    /// Example messages as a JSON array.
    Messages,
    /// License text.
    License,
    /// Anything else.
    Other,
}

impl Dialect {
    /// Who wrote this manifest, told from its artifact type and its config's media type.
    #[must_use]
    pub fn of(manifest: &Manifest) -> Self {
        let Some(config) = manifest.config() else {
            return Self::Other;
        };
        let is_ollama = |layer: &Descriptor| {
            layer
                .media_type
                .starts_with("application/vnd.ollama.image.")
        };
        let artifact_type = manifest.artifact_type();
        match config.media_type.as_str() {
            media_type::modelpack::CONFIG | cnai::CONFIG => Self::ModelPack,
            docker_model::CONFIG_V01 | docker_model::CONFIG_V02 => Self::Docker,
            _ if artifact_type == Some(media_type::modelpack::ARTIFACT) => Self::ModelPack,
            _ if artifact_type == Some(cnai::ARTIFACT) => Self::ModelPack,
            _ if manifest.layers().iter().any(is_ollama) => Self::Ollama,
            _ => Self::Other,
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::ModelPack => "ModelPack",
            Self::Ollama => "Ollama",
            Self::Docker => "Docker Model",
            Self::Other => "no model's",
        })
    }
}

/// What a layer is to its model, told from its media type and, where that is general, its file name.
#[must_use]
pub fn role_of(layer: &Descriptor) -> Role {
    use crate::media_type::{modelpack, ollama};
    let name = file_name_of(layer);
    match current_name(&layer.media_type).as_ref() {
        ollama::MODEL | docker_model::GGUF | modelpack::WEIGHT_GGUF => Role::Model,
        ollama::PROJECTOR | docker_model::MMPROJ | docker_model::MMPROJ_SPEC => Role::Projector,
        ollama::ADAPTER | docker_model::LORA => Role::Adapter,
        ollama::TEMPLATE | ollama::PROMPT => Role::Template,
        docker_model::TEMPLATE => Role::ChatTemplate,
        ollama::SYSTEM => Role::System,
        ollama::PARAMS => Role::Params,
        ollama::MESSAGES => Role::Messages,
        ollama::LICENSE | docker_model::LICENSE => Role::License,
        modelpack::WEIGHT_RAW => role_of_weight(name),
        modelpack::WEIGHT_CONFIG_RAW if name == Some("Modelfile") => Role::Modelfile,
        modelpack::WEIGHT_CONFIG_RAW if name == Some(CHAT_TEMPLATE_FILE) => Role::ChatTemplate,
        modelpack::DOC_RAW
            if name.is_some_and(|name| name.to_ascii_uppercase().starts_with("LICENSE")) =>
        {
            Role::License
        }
        _ => Role::Other,
    }
}

/// The media type as ModelPack names it today: before it came to the CNCF it was CNAI's.
fn current_name(media_type: &str) -> Cow<'_, str> {
    match media_type.strip_prefix(cnai::PREFIX) {
        Some(rest) => Cow::Owned(format!("{}{rest}", media_type::modelpack::PREFIX)),
        None => Cow::Borrowed(media_type),
    }
}

/// Whether a layer says of itself that it holds weights in GGUF: by its media type or its file
/// name. Raw weights without a name may be in any format.
#[must_use]
pub fn is_gguf(layer: &Descriptor) -> bool {
    let is_raw = current_name(&layer.media_type) == media_type::modelpack::WEIGHT_RAW;
    matches!(
        role_of(layer),
        Role::Model | Role::Projector | Role::Adapter
    ) && (!is_raw || file_name_of(layer).is_some())
}

/// The file name a layer was packed under, if an annotation says and it is a bare name.
#[must_use]
pub fn file_name_of(layer: &Descriptor) -> Option<&str> {
    let keys = [
        media_type::modelpack::FILEPATH,
        cnai::FILEPATH,
        "org.opencontainers.image.title",
    ];
    let path = keys.iter().find_map(|key| layer.annotations.get(*key))?;
    let name = path.rsplit('/').next()?;
    let is_plain = !name.is_empty() && name != "." && name != ".." && !name.contains(['\0', '\\']);
    is_plain.then_some(name)
}

fn role_of_weight(file_name: Option<&str>) -> Role {
    let Some(name) = file_name else {
        return Role::Model;
    };
    let name = name.to_ascii_lowercase();
    if !name.ends_with(".gguf") {
        return Role::Other;
    }
    if name.contains("mmproj") {
        Role::Projector
    } else if name.contains("lora") || name.contains("adapter") {
        Role::Adapter
    } else {
        Role::Model
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crate::dialect::{Role, role_of};
    use crate::digest::Digest;
    use crate::manifest::Descriptor;
    use crate::media_type::{docker_model, modelpack, ollama};

    fn layer(media_type: &str, file_path: Option<&str>) -> Descriptor {
        let annotations: BTreeMap<_, _> = file_path
            .map(|path| (modelpack::FILEPATH.to_owned(), path.to_owned()))
            .into_iter()
            .collect();
        Descriptor {
            media_type: media_type.to_owned(),
            digest: Digest::sha256(b""),
            size: 0,
            artifact_type: None,
            annotations,
            is_foreign: false,
        }
    }

    #[test]
    fn every_dialect_names_the_weights() {
        for (media_type, path) in [
            (ollama::MODEL, None),
            (docker_model::GGUF, None),
            (modelpack::WEIGHT_RAW, Some("dir/model.gguf")),
            (modelpack::WEIGHT_RAW, None),
            ("application/vnd.cnai.model.weight.v1.raw", None),
        ] {
            assert_eq!(
                role_of(&layer(media_type, path)),
                Role::Model,
                "{media_type}"
            );
        }
        let projector = layer(modelpack::WEIGHT_RAW, Some("mmproj-f16.gguf"));
        assert_eq!(role_of(&projector), Role::Projector);
        let tokenizer = layer(modelpack::WEIGHT_RAW, Some("tokenizer.json"));
        assert_eq!(role_of(&tokenizer), Role::Other);
    }
}
