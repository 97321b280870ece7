//! Types of the node agent's API, spoken over HTTP and over its Unix socket.
//!
//! The agent serves a description of every operation, made from these types and from its handlers,
//! at [`DESCRIPTION_PATH`]; `docs/node-agent.md` has the table.

mod error;
mod lease;
mod model;
mod pull;
#[cfg(feature = "openapi")]
mod schema;
mod status;

pub use error::{AgentError, AgentErrorCode};
pub use lease::{LeaseEntry, LeaseGiven, LeaseList, LeaseRequest};
pub use model::{ModelBlob, ModelEntry, ModelList, PinRequest};
pub use pull::{EnsureRequest, PlannedBlob, PullEvent};
pub use status::{
    AgentStatus, DiskStatus, Download, PreloadState, PreloadStatus, PreloadedModel, ScrubStatus,
};

/// Path of `ensure`.
pub const ENSURE_PATH: &str = "/agent/v1/models/ensure";
/// Path of the list of models.
pub const MODELS_PATH: &str = "/agent/v1/models";
/// Path of one model, named by the query parameter `reference`.
pub const MODEL_PATH: &str = "/agent/v1/model";
/// Path of `pin`.
pub const PIN_PATH: &str = "/agent/v1/model/pin";
/// Path of the list of leases.
pub const LEASES_PATH: &str = "/agent/v1/leases";
/// Path of one lease.
pub const LEASE_PATH: &str = "/agent/v1/leases/{id}";
/// Path of the status of the agent.
pub const STATUS_PATH: &str = "/agent/v1/status";
/// Path of the description of the API, in OpenAPI 3.1.
pub const DESCRIPTION_PATH: &str = "/agent/v1/openapi.json";
