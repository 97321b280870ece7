//! The end-to-end harness: the real binary in real processes, on random ports, in folders of its own.
//!
//! [`Server`] runs one role (or `serve`, all of them), [`hayloft`] runs a verb to its end,
//! [`upstream`] is an origin with faults on demand, [`hub`] stands in for the Ollama library and for
//! Hugging Face, [`CuttingProxy`] breaks connections off,
//! [`S3Server`] is a bucket, [`FaultProxy`] makes one misbehave, [`SmallDisk`] is soon full, [`Reader`] has a file mapped,
//! [`Squid`] and [`Socks`] are proxies, [`Authority`] issues certificates, [`Postgres`] is a database server, [`Balancer`] stands before
//! replicas, [`fixture`] finds the bundled model, [`variants`] makes later versions of it.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a harness: a failure to set up is a failed test"
)]

mod authority;
mod balancer;
mod collector;
mod command;
mod cutting_proxy;
mod fault_proxy;
mod holding_proxy;
pub mod hub;
mod postgres;
mod reader;
pub mod s3;
mod server;

mod small_disk;
mod socks;
mod split_gguf;
pub mod squid;
mod terminal;
pub mod upstream;
pub mod variants;
mod wire;

pub use authority::{Authority, Pair};
pub use balancer::Balancer;
pub use collector::{Collector, ReceivedSpan};
pub use command::{
    Finished, ask_to_end, fixture, hang_up, hayloft, hayloft_command, project_root, run,
};
pub use cutting_proxy::CuttingProxy;
pub use fault_proxy::{Fault, FaultProxy};
pub use holding_proxy::HoldingProxy;
pub use postgres::Postgres;
pub use reader::Reader;
pub use s3::S3Server;
pub use server::{Builder, Server};
pub use small_disk::SmallDisk;
pub use socks::Socks;
pub use split_gguf::split_gguf;
pub use squid::Squid;
pub use terminal::Terminal;

/// A folder of its own for one test, removed when dropped.
#[must_use]
pub fn scratch() -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix("hayloft-test-")
        .tempdir()
        .expect("a temporary folder can be made")
}

/// Waits until `ready` gives something, asking again every 20 milliseconds, for at most `seconds`.
///
/// # Panics
/// When the time is over: the message names what was waited for.
pub async fn eventually<T, F, Fut>(what: &str, seconds: u64, mut ready: F) -> T
where
    F: FnMut() -> Fut,
    Fut: std::future::Future<Output = Option<T>>,
{
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(seconds);
    loop {
        if let Some(value) = ready().await {
            return value;
        }
        assert!(
            std::time::Instant::now() < deadline,
            "waited {seconds} seconds in vain: {what}"
        );
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
