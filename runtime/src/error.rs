//! Error: why the runtime could not do what was asked. Knows nothing of HTTP.

use crate::chat::template::TemplateFault;
use crate::engine::protocol::Failure;

/// Why the runtime could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The request has no body.
    #[error("missing request body")]
    MissingBody,
    /// The request's body is over the limit.
    #[error("the request body is too large; at most {limit} bytes are accepted")]
    BodyTooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// The request cannot be taken as it is.
    #[error("{reason}")]
    InvalidRequest {
        /// What is wrong with it.
        reason: String,
    },
    /// The model's name breaks the rules of names.
    #[error("invalid model name {name:?}")]
    InvalidName {
        /// The name.
        name: String,
        /// Which rule.
        #[source]
        source: artifact::reference::InvalidReference,
    },
    /// No model of this name is on the node.
    #[error("model '{name}' not found")]
    UnknownModel {
        /// The name that was asked for.
        name: String,
    },
    /// Several models end in this name.
    #[error("model '{name}' is ambiguous: it may be {}; use a longer name", candidates.join(" or "))]
    AmbiguousModel {
        /// The name that was asked for.
        name: String,
        /// Full names that it may mean.
        candidates: Vec<String>,
    },
    /// The model is not made for this.
    #[error("{name:?} does not support {capability}")]
    Unsupported {
        /// The model.
        name: String,
        /// What was asked of it.
        capability: &'static str,
    },
    /// The API knows this, this version of the runtime does not.
    #[error("{what} is not supported yet")]
    NotYet {
        /// The feature or path.
        what: String,
    },
    /// The prompt is longer than the context, and may not be cut.
    #[error("the input length exceeds the context length")]
    PromptTooLong,
    /// The requested format cannot be enforced.
    #[error("{reason}")]
    Format {
        /// Why.
        reason: String,
    },
    /// The model's chat template refused the messages.
    #[error("{reason}")]
    TemplateRefused {
        /// What the template said.
        reason: String,
    },
    /// The model's chat template cannot be used.
    #[error("{reason}")]
    Template {
        /// What is wrong with it.
        reason: String,
    },
    /// Too many requests wait for this model.
    #[error("server busy, please try again.  maximum pending requests exceeded")]
    Overloaded,
    /// The runtime is shutting down.
    #[error("the server is shutting down")]
    Stopping,
    /// The model is there but cannot be loaded.
    #[error("model '{name}' cannot be loaded: {reason}")]
    Load {
        /// The model.
        name: String,
        /// Why.
        reason: String,
    },
    /// The engine failed while it answered.
    #[error("the model failed: {reason}")]
    Engine {
        /// What it said.
        reason: String,
    },
    /// A file of the model could not be read.
    #[error("{path} cannot be read")]
    Read {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The cache folder could not be read.
    #[error("the models on this node cannot be listed")]
    Catalog(#[source] artifact::catalog::CatalogFault),
    /// Pulling and deleting need a node agent.
    #[error(
        "no node agent is configured, and only it may change the cache: give its address with --agent"
    )]
    NoAgent,
    /// The node agent refused, failed or did not answer.
    #[error("{source}")]
    Agent {
        /// What happened.
        source: artifact::client::Error,
    },
    /// A part of the runtime broke off.
    #[error("internal error: {reason}")]
    Internal {
        /// Which and why.
        reason: String,
    },
    /// The server could not run.
    #[error("cannot serve")]
    Serve(#[source] std::io::Error),
}

impl Error {
    /// [`Error::InvalidRequest`] with this reason.
    pub(crate) fn invalid(reason: impl Into<String>) -> Self {
        Self::InvalidRequest {
            reason: reason.into(),
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::PromptTooLong { .. } => Self::PromptTooLong,
            Failure::Format(reason) => Self::Format { reason },
            Failure::Engine(reason) => Self::Engine { reason },
            Failure::Stopping => Self::Stopping,
        }
    }
}

impl From<TemplateFault> for Error {
    fn from(fault: TemplateFault) -> Self {
        let reason = fault.to_string();
        match fault {
            TemplateFault::Refused(_) => Self::TemplateRefused { reason },
            TemplateFault::Unreadable(_) | TemplateFault::Failed(_) => Self::Template { reason },
        }
    }
}

impl From<artifact::client::Error> for Error {
    fn from(source: artifact::client::Error) -> Self {
        Self::Agent { source }
    }
}
