//! The registry role: OCI distribution 1.1 over a content-addressed store.
//!
//! A request travels downwards: `http` turns it into a typed endpoint and asks the policy,
//! `service` knows the rules, `store` keeps things. Blobs lie in a folder under their digests.
//! What a repository holds is told by records, small JSON files written durably before anything is
//! acknowledged; an index over them answers lookups and listings and can be rebuilt at any time
//! (`index_state`). `app` puts it all together.

mod app;
mod config;
mod error;
mod http;
mod index_state;
mod metrics;
mod mirror;
mod service;
mod storage;
mod store;
mod tasks;
mod watched;

pub use app::{collect, fsck, serve};
pub use config::{
    Bucket, ChunkMapPolicy, Collection, Config, GgufPolicy, GgufRule, HubLogin, Index,
    InvalidChunkMapPolicy, InvalidGgufRule, Limits, Mirror, RetentionRule, Secret, Storage,
    TlsFiles, Upstream,
};
pub use error::Error;
pub use http::front::Listeners;
pub use index_state::{ReindexProgress, ReindexSummary, reindex};
pub use service::collect::CollectOptions;
pub use service::collect::report::{CollectEvent, CollectSummary, Collectable, Reason, Stay};
pub use service::fsck::FsckOptions;
pub use service::fsck::report::{Finding, FsckEvent, FsckSummary};
pub use service::hub::Refusal as HubRefusal;
pub use service::mirrored::status::{FillStatus, MirrorStatus, UpstreamStatus};
pub use service::mirrored::warm::WarmEvent;
pub use service::reindex::ReindexEvent;
pub use service::retention::InvalidRule;
pub use store::key::RecordKey;
pub use store::object::is_option as is_storage_option;
pub use store::records::{
    BlobRecord, Derivation, Entry, LeaseRecord, ManifestRecord, RepositoryRecord, TagRecord,
};
pub use store::{Answer, Change, IndexLock, LockKey, Mark, MetadataIndex, Page};
#[cfg(any(test, feature = "test-support"))]
pub use store::{blob_conformance, conformance, memory::MemoryIndex};
pub use watched::Reload;
