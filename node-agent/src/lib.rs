//! The node agent: pulls each model once per node into a cache that every pod and tool on the node
//! reads.
//!
//! Reading order: [`app`](Config) puts the parts together; `http` is the API; a request becomes a
//! pull ([`Puller`]: resolve, plan, fetch, publish); the cache ([`NodeCache`]) keeps blobs, downloads
//! in progress, views and the index, all below one folder laid out by [`artifact::layout`], and counts
//! what happens ([`Metrics`]).
//!
//! Life of a pull: the tag becomes a manifest; blobs that are missing are fetched, one flight per
//! digest, by ranges over a few connections, written in place, hashed and synced in step; a blob
//! whose digest is right is renamed into `blobs/`; when all are there, links are renamed into the
//! views, the manifest last.

mod app;
mod cache;
mod error;
mod http;
mod keeper;
mod metrics;
mod preload;
mod pull;
mod repair;
mod scrub;
mod socket;

pub use app::{Config, LocalNode, serve};
pub use cache::{DiskOptions, Held, Limit, NodeCache, Shortage};
pub use error::Error;
pub use metrics::{Counted, Ensured, Metrics, Source, Verified};
pub use preload::PreloadOptions;
pub use pull::{Bandwidth, BandwidthWindow, InvalidWindow, PullOptions, Pulled, Puller};
