//! Media types of manifests and of the three model dialects.
//!
//! Sources: OCI image-spec `media-types.md`; CNCF ModelPack model-spec; Ollama
//! `server/layer.go`; Docker model-spec `spec.md`.

/// OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// The empty JSON object, used as config of artifacts.
pub const OCI_EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// Docker image manifest, schema 2; the only one Ollama asks for.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker manifest list.
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// Every manifest type Hayloft reads, as an `Accept` header.
pub const ACCEPT_MANIFESTS: &str = "application/vnd.oci.image.manifest.v1+json, \
     application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.docker.distribution.manifest.list.v2+json";

/// CNCF ModelPack: types `application/vnd.cncf.model.*`.
pub mod modelpack {
    /// What all types of layers begin with.
    pub const PREFIX: &str = "application/vnd.cncf.model.";
    /// `artifactType` of the manifest.
    pub const ARTIFACT: &str = "application/vnd.cncf.model.manifest.v1+json";
    /// Config blob.
    pub const CONFIG: &str = "application/vnd.cncf.model.config.v1+json";
    /// Weights, uncompressed and unarchived.
    pub const WEIGHT_RAW: &str = "application/vnd.cncf.model.weight.v1.raw";
    /// Weights in GGUF, as Docker Model Runner also writes them.
    pub const WEIGHT_GGUF: &str = "application/vnd.cncf.model.weight.v1.gguf";
    /// A file that configures the weights: here the Modelfile.
    pub const WEIGHT_CONFIG_RAW: &str = "application/vnd.cncf.model.weight.config.v1.raw";
    /// Documentation: README, LICENSE.
    pub const DOC_RAW: &str = "application/vnd.cncf.model.doc.v1.raw";
    /// Annotation: the path of the file that a layer holds.
    pub const FILEPATH: &str = "org.cncf.model.filepath";
}

/// CNAI: what ModelPack was called before, under otherwise the same names.
pub mod cnai {
    /// What all types of layers begin with.
    pub const PREFIX: &str = "application/vnd.cnai.model.";
    /// `artifactType` of the manifest.
    pub const ARTIFACT: &str = "application/vnd.cnai.model.manifest.v1+json";
    /// Config blob.
    pub const CONFIG: &str = "application/vnd.cnai.model.config.v1+json";
    /// Annotation: the path of the file that a layer holds.
    pub const FILEPATH: &str = "org.cnai.model.filepath";
}

/// Hayloft's own annotations.
pub mod hayloft {
    /// On a manifest that was made from one in another dialect: the digest of that one.
    pub const DERIVED_FROM: &str = "org.hayloft.derived.from";
}

/// Ollama: types `application/vnd.ollama.image.*`.
pub mod ollama {
    /// Config blob: Docker's type, with Ollama's own fields.
    pub const CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// GGUF weights.
    pub const MODEL: &str = "application/vnd.ollama.image.model";
    /// Vision projector.
    pub const PROJECTOR: &str = "application/vnd.ollama.image.projector";
    /// LoRA adapter.
    pub const ADAPTER: &str = "application/vnd.ollama.image.adapter";
    /// Go template text.
    pub const TEMPLATE: &str = "application/vnd.ollama.image.template";
    /// Older name of the template layer.
    pub const PROMPT: &str = "application/vnd.ollama.image.prompt";
    /// System prompt text.
    pub const SYSTEM: &str = "application/vnd.ollama.image.system";
    /// Parameters as a JSON object.
    pub const PARAMS: &str = "application/vnd.ollama.image.params";
    /// Example messages as a JSON array.
    pub const MESSAGES: &str = "application/vnd.ollama.image.messages";
    /// License text; may repeat.
    pub const LICENSE: &str = "application/vnd.ollama.image.license";
}

/// Docker Model Runner: types `application/vnd.docker.ai.*`.
pub mod docker_model {
    /// Config blob, version 0.1.
    pub const CONFIG_V01: &str = "application/vnd.docker.ai.model.config.v0.1+json";
    /// Config blob, version 0.2 (a layer per file).
    pub const CONFIG_V02: &str = "application/vnd.docker.ai.model.config.v0.2+json";
    /// GGUF weights.
    pub const GGUF: &str = "application/vnd.docker.ai.gguf.v3";
    /// LoRA adapter in GGUF.
    pub const LORA: &str = "application/vnd.docker.ai.gguf.v3.lora";
    /// Vision projector, as the specification names it.
    pub const MMPROJ_SPEC: &str = "application/vnd.docker.ai.gguf.v3.mmproj";
    /// Vision projector, as the code names it.
    pub const MMPROJ: &str = "application/vnd.docker.ai.mmproj";
    /// Jinja chat template.
    pub const TEMPLATE: &str = "application/vnd.docker.ai.chat.template.jinja";
    /// License text.
    pub const LICENSE: &str = "application/vnd.docker.ai.license";
}
