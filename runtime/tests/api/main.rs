//! The runtime over real HTTP, with a real small model in a cache folder that the tests lay out.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

mod answers;
mod concurrency;
mod errors;
mod formats;
mod hostile;
mod lifecycle;
mod listing;
mod openai;
mod options;
mod support;
