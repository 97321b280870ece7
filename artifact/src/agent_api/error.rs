//! The agent's errors, as every operation answers them.

use serde::{Deserialize, Serialize};

/// An error as the agent answers it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[error("{message}")]
pub struct AgentError {
    /// The kind, for programs.
    pub code: AgentErrorCode,
    /// What went wrong and what to do, for people.
    pub message: String,
}

/// Kinds of [`AgentError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
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
    /// The model is pinned or in use, or its name collides with that of another one in the cache.
    Conflict,
    /// The agent itself failed.
    Internal,
}

impl AgentErrorCode {
    /// The code as it stands in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::NotFound => "not_found",
            Self::Denied => "denied",
            Self::Unreachable => "unreachable",
            Self::Corrupt => "corrupt",
            Self::Unsupported => "unsupported",
            Self::NoSpace => "no_space",
            Self::Conflict => "conflict",
            Self::Internal => "internal",
        }
    }
}
