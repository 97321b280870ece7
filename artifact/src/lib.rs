//! The shared vocabulary of Hayloft, in reading order.
//!
//! Names first ([`digest`], [`reference`](mod@reference), [`name`](mod@name), [`media_type`]), then what they name ([`manifest`],
//! [`dialect`], [`hub`], [`gguf`], [`chunk_map`], [`modelfile`]), then the contracts between the roles
//! ([`error_code`], [`layout`], [`agent_api`]).
//!
//! Without features this crate does no I/O, has no async code, reads no clock and no environment.
//! Feature `client` adds the network: the registry client, blob transfer and the caller of the
//! node agent's API. Feature `trace` carries traces from process to process.

pub mod agent_api;
#[cfg(feature = "client")]
pub mod catalog;
pub mod chunk_map;
#[cfg(feature = "client")]
pub mod client;
pub mod dialect;
pub mod digest;
pub mod error_code;
pub mod gguf;
pub mod hub;
pub mod layout;
pub mod manifest;
pub mod media_type;
pub mod modelfile;
pub mod name;
pub mod reference;
#[cfg(feature = "trace")]
pub mod trace;

pub use chunk_map::{ChunkHash, ChunkMap};
pub use digest::{Algorithm, Digest, Digester};
pub use error_code::ErrorCode;
pub use layout::CacheLayout;
pub use manifest::Manifest;
pub use name::ModelName;
pub use reference::{Reference, Repository, Tag};
