//! Asking for a model to be on the node, and the events that tell how it goes.

use serde::{Deserialize, Serialize};

use crate::agent_api::{AgentError, ModelEntry};
use crate::dialect::Role;
use crate::digest::Digest;
use crate::name::ModelName;
use crate::reference::Reference;

/// Asks for a model to be on this node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
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
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
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
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
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
