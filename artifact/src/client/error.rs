//! Error: what can go wrong between this machine and a registry, or the node agent.

mod chain;
mod problem;

use std::path::PathBuf;
use std::time::Duration;

use reqwest::StatusCode;
use url::Url;

use crate::agent_api::{AgentError, AgentErrorCode};
use crate::client::answer::shown;
use crate::digest::Digest;
use crate::manifest::InvalidManifest;
use crate::reference::Reference;
pub use chain::chain;
pub use problem::Problem;

/// Why a call to a registry or to the node agent failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address of the node agent cannot be used.
    #[error("{address:?} is not the address of a node agent: {reason}")]
    Address {
        /// What was given.
        address: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The HTTP client could not be set up.
    #[error("the HTTP client cannot be set up: check the proxy and certificate settings")]
    Setup {
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// No agent answers.
    #[error(
        "no node agent answers at {address}: start one with `hayloft agent` or `hayloft serve`"
    )]
    AgentUnreachable {
        /// Its address.
        address: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The agent went away before its answer was complete.
    #[error("the node agent at {address} broke off; what it has fetched is kept, ask again")]
    AgentCut {
        /// Its address.
        address: String,
    },
    /// The agent answered something that is not its API.
    #[error("{address} does not answer as a node agent does: {reason}")]
    AgentAnswer {
        /// Its address.
        address: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// The agent answered with an error.
    #[error(transparent)]
    Agent {
        /// What it said.
        error: AgentError,
    },
    /// A URL of a registry could not be put together, or one that it gave cannot be used.
    #[error("{url:?} cannot be used: {reason}")]
    Url {
        /// The text.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A file with certificates of authorities cannot be used.
    #[error("the certificates in {path} cannot be used: {reason}")]
    Authority {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// TLS cannot be set up.
    #[error("TLS cannot be set up: {reason}; see SSL_CERT_FILE and --ca-file")]
    Tls {
        /// Why.
        reason: String,
    },
    /// A proxy on the way does not pass the request on.
    #[error("the proxy {proxy} does not pass on the request for {url}: {reason}")]
    Proxy {
        /// Its `host:port`, without credentials.
        proxy: String,
        /// What was asked for.
        url: String,
        /// What happened.
        reason: String,
        /// Whether it was there and did not want to.
        is_refusal: bool,
    },
    /// The registry cannot be reached, or the connection broke.
    #[error("{url} cannot be reached: {problem}")]
    Transport {
        /// What was asked for.
        url: String,
        /// What happened, told in full: the chain behind it repeats it in worse words.
        problem: Problem,
        /// Where it was told from.
        cause: reqwest::Error,
    },
    /// The registry sent nothing, or next to nothing, for too long.
    #[error("{url} sent too little for {} s", waited.as_secs())]
    Stalled {
        /// What was asked for.
        url: String,
        /// For how long.
        waited: Duration,
    },
    /// The registry wants other credentials, or its token service refused.
    #[error("{registry} refuses access{}: {reason}", fault_place(repository))]
    Denied {
        /// `host[:port]`.
        registry: String,
        /// The repository, if the refusal was about one.
        repository: String,
        /// What it said.
        reason: String,
    },
    /// There is a stored login, but it cannot be used.
    #[error("the stored login for {registry} cannot be used: {problem}")]
    Login {
        /// `host[:port]`.
        registry: String,
        /// What is wrong with it; never the login itself.
        problem: String,
    },
    /// The token handshake ended in something other than a token or a refusal.
    #[error("the handshake with {registry} failed: {reason}")]
    Handshake {
        /// `host[:port]`.
        registry: String,
        /// What happened.
        reason: String,
    },
    /// The registry does not have the manifest.
    #[error("{reference} is not in the registry: check the name and the tag")]
    ManifestUnknown {
        /// What was asked for.
        reference: Box<Reference>,
    },
    /// An origin does not have what was asked for.
    #[error("{what} is not at {place}: {hint}")]
    Absent {
        /// What was asked for.
        what: String,
        /// Where.
        place: String,
        /// What a person can do.
        hint: &'static str,
    },
    /// A kind of origin that cannot do what was asked for.
    #[error("{place} cannot be asked for {what}: {reason}")]
    Unsupported {
        /// What was asked for.
        what: String,
        /// Where.
        place: String,
        /// Why not.
        reason: &'static str,
    },
    /// A web page where something else was expected.
    #[error(
        "{url} answered with a web page: is a proxy or a log-in portal of the network between here \
         and there?"
    )]
    WebPage {
        /// What was asked for.
        url: String,
    },
    /// An answer that is not of the form expected.
    #[error("{url} answered something that cannot be used: {reason}")]
    Answer {
        /// What was asked for.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The registry does not have the blob.
    #[error("blob {digest} is not at {url}")]
    BlobUnknown {
        /// What was asked for.
        digest: Digest,
        /// Where.
        url: String,
    },
    /// Any other status than the one expected.
    #[error("{url} answered {status}{}", fault_detail(detail))]
    Status {
        /// What was asked for.
        url: String,
        /// The status.
        status: StatusCode,
        /// What the answer said, shortened.
        detail: String,
        /// When to come back, if the answer said.
        retry_after: Option<Duration>,
    },
    /// An answer longer than it may be.
    #[error("{url} sent more than {limit} bytes")]
    TooLong {
        /// What was asked for.
        url: String,
        /// The most that is read.
        limit: u64,
    },
    /// A body that ended before its time.
    #[error("{url} ended {missing} bytes too early")]
    Truncated {
        /// What was asked for.
        url: String,
        /// Bytes that did not come.
        missing: u64,
    },
    /// An answer to a range request that is about other bytes.
    #[error("{url} answered a request for bytes from {asked} with {got:?}")]
    WrongRange {
        /// What was asked for.
        url: String,
        /// First byte asked for.
        asked: u64,
        /// The `Content-Range` of the answer.
        got: String,
    },
    /// A range was asked for and the whole blob answered.
    #[error("{url} does not serve ranges")]
    RangesIgnored {
        /// What was asked for.
        url: String,
    },
    /// The answer announces another size than the manifest.
    #[error("{url} announces {announced} bytes, the manifest says {expected}")]
    WrongSize {
        /// What was asked for.
        url: String,
        /// Bytes announced.
        announced: u64,
        /// Bytes expected.
        expected: u64,
    },
    /// Bytes that do not have the digest they were asked for by.
    #[error("{what} has digest {actual}, not {expected}")]
    DigestMismatch {
        /// What was received.
        what: String,
        /// The digest asked for or announced.
        expected: Box<Digest>,
        /// The digest of what came.
        actual: Box<Digest>,
    },
    /// A chunk map that says something else than it should.
    #[error("the chunk map {map} of blob {blob} cannot be used: {reason}")]
    ChunkMap {
        /// The digest of the map, or of the manifest that offers maps.
        map: Box<Digest>,
        /// The digest of the blob, or of the manifest that the maps are of.
        blob: Box<Digest>,
        /// What is wrong with it.
        reason: String,
    },
    /// Not a manifest.
    #[error("{reference} has no valid manifest")]
    Manifest {
        /// What was asked for.
        reference: Box<Reference>,
        /// What is wrong with it.
        #[source]
        source: InvalidManifest,
    },
    /// A valid manifest, but not of a model.
    #[error("{reference} is not a model: {reason}")]
    NotAModel {
        /// What was asked for.
        reference: Box<Reference>,
        /// What it is instead.
        reason: &'static str,
    },
    /// A header of the registry's that cannot be used.
    #[error("{url} sent a {header} header that cannot be used: {value:?}")]
    Header {
        /// What was asked for.
        url: String,
        /// The header's name.
        header: &'static str,
        /// Its value, shortened.
        value: String,
    },
    /// A local file cannot be read, or changed while it was sent.
    #[error("{path} cannot be sent")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl Error {
    /// What became of a request to `url`.
    pub(crate) fn transport(url: &Url, source: reqwest::Error) -> Self {
        Self::Transport {
            url: shown(url),
            problem: Problem::of(&source, url),
            cause: source.without_url(),
        }
    }

    /// What became of an answer whose body broke off.
    pub(crate) fn broken(url: &str, source: reqwest::Error) -> Self {
        Self::Transport {
            url: url.to_owned(),
            problem: Problem::broken(&source),
            cause: source.without_url(),
        }
    }

    /// Whether asking again may help: the connection broke, the server was busy, the body was cut.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Transport { cause, problem, .. } => !cause.is_builder() && problem.may_pass(),
            Self::Proxy { is_refusal, .. } => !is_refusal,
            Self::Stalled { .. } | Self::Truncated { .. } => true,
            Self::Status { status, .. } => {
                status.is_server_error() && *status != StatusCode::NOT_IMPLEMENTED
                    || matches!(
                        *status,
                        StatusCode::REQUEST_TIMEOUT
                            | StatusCode::TOO_EARLY
                            | StatusCode::TOO_MANY_REQUESTS
                    )
            }
            _ => false,
        }
    }

    /// Whether nothing listens at the address: asking again in a moment rarely helps.
    #[must_use]
    pub fn is_down(&self) -> bool {
        matches!(self, Self::Transport { cause, .. } if cause.is_connect())
    }

    /// Whether somebody is there who does not let this caller have it: other credentials, or
    /// another policy of a proxy, would help.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        match self {
            Self::Denied { .. } | Self::Login { .. } => true,
            Self::Proxy { is_refusal, .. } => *is_refusal,
            Self::Status { status, .. } => matches!(
                *status,
                StatusCode::UNAUTHORIZED
                    | StatusCode::FORBIDDEN
                    | StatusCode::PROXY_AUTHENTICATION_REQUIRED
            ),
            _ => false,
        }
    }

    /// Whether the other side asks to be left alone for a while.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        match self {
            Self::Status {
                status,
                retry_after,
                ..
            } => {
                *status == StatusCode::TOO_MANY_REQUESTS
                    || *status == StatusCode::SERVICE_UNAVAILABLE && retry_after.is_some()
            }
            _ => false,
        }
    }

    /// Whether the other side could not be reached at all, or did not keep the connection.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        matches!(
            self,
            Self::Transport { .. }
                | Self::Proxy { .. }
                | Self::WebPage { .. }
                | Self::Stalled { .. }
                | Self::Truncated { .. }
                | Self::AgentUnreachable { .. }
                | Self::AgentCut { .. }
        ) || self.is_retryable()
    }

    /// Whether the source cannot be asked for ranges, though the whole blob may still be had.
    #[must_use]
    pub fn is_ranges_unsupported(&self) -> bool {
        matches!(self, Self::RangesIgnored { .. } | Self::WrongRange { .. })
    }

    /// Whether an origin answered that it does not have the manifest, the repository or the blob.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(
            self,
            Self::ManifestUnknown { .. } | Self::BlobUnknown { .. } | Self::Absent { .. }
        )
    }

    /// Whether what was asked for is not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.is_absent() || crate::client::agent::is_not_found(self)
    }

    /// The kind of the error in the node agent's API.
    #[must_use]
    pub fn code(&self) -> AgentErrorCode {
        match self {
            Self::Denied { .. } | Self::Login { .. } => AgentErrorCode::Denied,
            Self::ManifestUnknown { .. } | Self::BlobUnknown { .. } | Self::Absent { .. } => {
                AgentErrorCode::NotFound
            }
            Self::Manifest { .. } | Self::NotAModel { .. } | Self::Unsupported { .. } => {
                AgentErrorCode::Unsupported
            }
            Self::TooLong { .. }
            | Self::Truncated { .. }
            | Self::WrongRange { .. }
            | Self::RangesIgnored { .. }
            | Self::WrongSize { .. }
            | Self::DigestMismatch { .. }
            | Self::ChunkMap { .. }
            | Self::Header { .. } => AgentErrorCode::Corrupt,
            Self::Transport { .. }
            | Self::Proxy { .. }
            | Self::Stalled { .. }
            | Self::Status { .. }
            | Self::Handshake { .. }
            | Self::WebPage { .. }
            | Self::Answer { .. }
            | Self::AgentUnreachable { .. }
            | Self::AgentCut { .. }
            | Self::AgentAnswer { .. } => AgentErrorCode::Unreachable,
            Self::Agent { error } => error.code,
            Self::Address { .. } | Self::Url { .. } => AgentErrorCode::BadRequest,
            Self::Setup { .. } | Self::File { .. } | Self::Authority { .. } | Self::Tls { .. } => {
                AgentErrorCode::Internal
            }
        }
    }

    /// How long the server asked to be left alone, at most a minute.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

fn fault_place(repository: &str) -> String {
    if repository.is_empty() {
        String::new()
    } else {
        format!(" to {repository}")
    }
}

fn fault_detail(detail: &str) -> String {
    if detail.is_empty() {
        String::new()
    } else {
        format!(": {detail}")
    }
}

#[cfg(test)]
mod tests;
