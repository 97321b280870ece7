//! What the agent is doing: its disk, the models that it keeps here, what it downloads.

use serde::{Deserialize, Serialize};

use crate::agent_api::{AgentError, LeaseEntry};
use crate::digest::Digest;
use crate::reference::Reference;

/// Answer to the status of the agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AgentStatus {
    /// Its version.
    pub version: String,
    /// When it was started, RFC 3339.
    #[cfg_attr(feature = "openapi", schema(format = DateTime))]
    pub started_at: String,
    /// Its cache folder.
    pub cache: String,
    /// The disk of that folder.
    pub disk: DiskStatus,
    /// The search for what the disk has lost.
    #[serde(default)]
    pub scrub: ScrubStatus,
    /// The desired list; absent when the agent has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preload: Option<PreloadStatus>,
    /// Blobs that are being downloaded, by digest.
    #[serde(default)]
    pub downloads: Vec<Download>,
    /// Models that consumers hold for a time.
    #[serde(default)]
    pub leases: Vec<LeaseEntry>,
}

/// The disk of the cache.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DiskStatus {
    /// Bytes of the disk, without those that are the system's alone.
    pub total: u64,
    /// Bytes that may be used.
    pub free: u64,
    /// Bytes that the cache takes.
    pub cached: u64,
    /// Bytes that are promised to downloads and not yet taken from the disk.
    #[serde(default)]
    pub reserved: u64,
    /// Percent of the disk in use from which models are evicted.
    pub high_watermark: u8,
    /// Percent of the disk in use down to which they are.
    pub low_watermark: u8,
}

/// The reading again of what is cached.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ScrubStatus {
    /// Bytes a second; 0 when it is off.
    pub rate: u64,
    /// The blob that is being read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reading: Option<Digest>,
    /// Blobs found damaged since the agent started.
    #[serde(default)]
    pub damaged: u64,
    /// The last of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_damaged: Option<Digest>,
}

/// A blob that is being downloaded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Download {
    /// Its digest.
    pub digest: Digest,
    /// Bytes present.
    pub completed: u64,
}

/// The desired list, and how far the node is with it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PreloadStatus {
    /// The file.
    pub file: String,
    /// Whether the file was read since the agent started.
    pub is_known: bool,
    /// Why what the file says now does not count; the last good list does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// The models, in the order of the list.
    pub models: Vec<PreloadedModel>,
}

impl PreloadStatus {
    /// Whether the list is known and every model of it is on the node.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let is_ready = |model: &PreloadedModel| matches!(model.state, PreloadState::Ready { .. });
        self.is_known && self.models.iter().all(is_ready)
    }
}

/// A model of the desired list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PreloadedModel {
    /// The model as the list calls it.
    pub name: String,
    /// Whether it is pinned while it is listed.
    pub pin: bool,
    /// How far it is.
    #[serde(flatten)]
    pub state: PreloadState,
}

/// How far a model of the desired list is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum PreloadState {
    /// Its turn has not come.
    Waiting,
    /// It is being pulled.
    Pulling {
        /// Bytes present.
        completed: u64,
        /// Bytes in all; 0 as long as its manifest is not known.
        total: u64,
    },
    /// It is on the node.
    Ready {
        /// Its full name.
        reference: Reference,
        /// Digest of its manifest.
        digest: Digest,
        /// Since when that version is known to be here, RFC 3339.
        #[cfg_attr(feature = "openapi", schema(format = DateTime))]
        since: String,
        /// Why it may not be the newest: its origin could not be asked, or the newest one could not
        /// be pulled.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    },
    /// It could not be pulled.
    Failed {
        /// Why.
        error: AgentError,
        /// How often it was tried.
        tries: u32,
        /// When it is tried again, RFC 3339.
        #[cfg_attr(feature = "openapi", schema(format = DateTime))]
        next_try: String,
    },
}

impl PreloadState {
    /// Every state as it stands in JSON.
    pub const NAMES: [&'static str; 4] = ["waiting", "pulling", "ready", "failed"];

    /// The state as it stands in JSON.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Waiting => Self::NAMES[0],
            Self::Pulling { .. } => Self::NAMES[1],
            Self::Ready { .. } => Self::NAMES[2],
            Self::Failed { .. } => Self::NAMES[3],
        }
    }
}
