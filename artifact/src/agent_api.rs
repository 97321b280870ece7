//! Types of the node agent's API, spoken over HTTP and over its Unix socket.
//!
//! ```text
//! POST   /agent/v1/models/ensure          EnsureRequest -> NDJSON of PullEvent, the last one Ready or Failed
//! GET    /agent/v1/models                 -> ModelList
//! GET    /agent/v1/model?reference=REF    -> ModelEntry, or 404 with AgentError
//! DELETE /agent/v1/model?reference=REF    -> 204, or 404 / 409 with AgentError
//! POST   /agent/v1/model/pin              PinRequest -> ModelEntry
//! GET    /healthz, /readyz
//! ```

use serde::{Deserialize, Serialize};

use crate::dialect::Role;
use crate::digest::Digest;
use crate::name::ModelName;
use crate::reference::Reference;

/// Path of `ensure`.
pub const ENSURE_PATH: &str = "/agent/v1/models/ensure";
/// Path of the list of models.
pub const MODELS_PATH: &str = "/agent/v1/models";
/// Path of one model, named by the query parameter `reference`.
pub const MODEL_PATH: &str = "/agent/v1/model";
/// Path of `pin`.
pub const PIN_PATH: &str = "/agent/v1/model/pin";

/// Asks for a model to be on this node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnsureRequest {
    /// The model.
    pub reference: Reference,
    /// Speak plain HTTP to the registry. Loopback hosts are always spoken to in plain HTTP.
    #[serde(default)]
    pub plain_http: bool,
    /// The model as it was called, where that says more than the reference: upper case that an
    /// origin knows, or a bare name, which the agent looks for where it is configured to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl From<&ModelName> for EnsureRequest {
    fn from(name: &ModelName) -> Self {
        let is_plain = name.reference().to_string() == name.as_str();
        Self {
            reference: name.reference().clone(),
            plain_http: false,
            name: (!is_plain).then(|| name.as_str().to_owned()),
        }
    }
}

/// Progress of a pull: one JSON object a line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum PullEvent {
    /// The registry is being asked for the manifest.
    Resolving {
        /// The model.
        reference: Reference,
    },
    /// The manifest is known.
    Resolved {
        /// Digest of the manifest.
        digest: Digest,
        /// The blobs it names, in the order of their download.
        blobs: Vec<PlannedBlob>,
    },
    /// Bytes of one blob have arrived; sent a few times a second.
    Progress {
        /// The blob.
        digest: Digest,
        /// Bytes present, those of an earlier attempt included.
        completed: u64,
        /// Bytes in all.
        total: u64,
    },
    /// All bytes of a blob are here and its digest is being checked and synced.
    Verifying {
        /// The blob.
        digest: Digest,
    },
    /// The model is in the cache and visible in the views. The last event of a good pull.
    Ready {
        /// The model.
        model: Box<ModelEntry>,
        /// Bytes that came over the network for this request.
        fetched: u64,
        /// Bytes that were on the node already.
        reused: u64,
        /// What a person should know although all is well: the registry could not be asked whether
        /// the tag has moved.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    },
    /// The pull failed. The last event of a bad one.
    Failed {
        /// What went wrong and what to do.
        error: AgentError,
    },
}

/// A blob of a model that is being pulled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedBlob {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// What it is to the model.
    pub role: Role,
    /// Whether it is on the node already.
    pub cached: bool,
}

/// A model in the cache.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelEntry {
    /// Its full name.
    pub reference: Reference,
    /// Digest of its manifest.
    pub digest: Digest,
    /// Size of all its blobs in bytes.
    pub size: u64,
    /// When it was pulled, RFC 3339.
    pub pulled_at: String,
    /// When it was last asked for, RFC 3339; absent when the index was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used: Option<String>,
    /// Never removed to make room.
    #[serde(default)]
    pub pinned: bool,
    /// Config and layers, in the order of the manifest.
    pub blobs: Vec<ModelBlob>,
}

impl ModelEntry {
    /// The first blob in the given role.
    #[must_use]
    pub fn blob(&self, role: Role) -> Option<&ModelBlob> {
        self.blobs.iter().find(|blob| blob.role == role)
    }
}

/// A blob of a cached model; it lies at [`crate::CacheLayout::blob`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelBlob {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// What it is to the model.
    pub role: Role,
    /// Its media type.
    pub media_type: String,
    /// The file name it was packed under, if the manifest says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_name: Option<String>,
}

/// Answer to the list of models.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelList {
    /// The models, by name.
    pub models: Vec<ModelEntry>,
}

/// Pins a model, or lets it go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PinRequest {
    /// The model.
    pub reference: Reference,
    /// Pinned from now on or no longer.
    pub pinned: bool,
}

/// An error as the agent answers it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct AgentError {
    /// The kind, for programs.
    pub code: AgentErrorCode,
    /// What went wrong and what to do, for people.
    pub message: String,
}

/// Kinds of [`AgentError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentErrorCode {
    /// The request could not be read.
    BadRequest,
    /// The registry or the cache does not have the model.
    NotFound,
    /// The registry refused the credentials, or wants some.
    Denied,
    /// The registry cannot be reached, or broke off too often.
    Unreachable,
    /// The registry sent something other than it announced.
    Corrupt,
    /// The manifest is not a model this agent can handle.
    Unsupported,
    /// No room on the disk.
    NoSpace,
    /// The model is pinned, or its name collides with that of another one in the cache.
    Conflict,
    /// The agent itself failed.
    Internal,
}
