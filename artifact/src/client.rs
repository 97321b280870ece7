//! The network, in reading order: errors, the caller of the node agent's API, the registry client,
//! the origins of models of any kind, the download of a blob, the push of a blob.
//!
//! ```text
//! AgentClient ── HTTP or Unix socket ──► node agent
//! RegistryClient ── resolve, exists, put_manifest ──► any OCI registry
//!    ├── fetch: ranged GET of a blob, checked and resumable
//!    └── push:  one pass over a file, hashed while it is sent
//! Origin ── manifest, blob, tags, chunk maps ──► a registry, the Ollama library or Hugging Face
//! ```

pub mod agent;
mod answer;
pub mod chunk_maps;
pub mod error;
pub mod fetch;
pub mod logins;
pub mod origin;
pub mod partial;
pub mod probe;
pub mod push;
pub mod registry;
pub mod retry;
pub mod sources;
pub mod transport;

pub use agent::{AgentClient, DEFAULT_AGENT};
pub use chunk_maps::ChunkMaps;
pub use error::{Error, chain};
pub use fetch::{BlobSource, RangeReader};
pub use logins::LoginFiles;
pub use origin::{Answer, Found, InvalidOrigin, Known, Origin, OriginKind, OriginUrl, Selector};
pub use probe::{Probed, probe};
pub use push::{PushedBlob, push_bytes, push_file};
pub use registry::{Credentials, RegistryClient, RegistryOptions, Resolved, check_login};
pub use retry::RetryPolicy;
pub use sources::{InvalidUpstream, Sources, Upstream};
pub use transport::{ProxyOptions, ProxyUrl, Timeouts, Transport, TransportOptions};
