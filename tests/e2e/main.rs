//! End-to-end tests: one binary, one module per story.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a failed expectation is a failed test"
)]

mod cli;
mod main_path;
mod tidy;
