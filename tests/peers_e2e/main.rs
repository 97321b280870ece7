//! Stories told with clients and servers that other people wrote: `make test-peers` builds them.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a failed expectation is a failed test"
)]

mod crane;
mod distribution;
mod helm;
mod logins;
mod mirror_clients;
mod ollama;
mod one_push;
mod oras;
mod peer;
mod regctl;
mod versitygw;
