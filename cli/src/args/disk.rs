//! How the node's disk is kept: what `agent` and `serve` say of it.

use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use node_agent::DiskOptions;

use crate::args::values::{Bound, duration, size, size_or_none};

/// When the cache lets go of models.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "The node's disk")]
pub(crate) struct DiskArgs {
    /// Percent of the disk in use from which models are evicted, the least recently used first
    #[arg(
        long,
        value_name = "PERCENT",
        env = "HAYLOFT_HIGH_WATERMARK",
        default_value = "75",
        value_parser = clap::value_parser!(u8).range(1..=100)
    )]
    pub(crate) high_watermark: u8,
    /// Percent of the disk in use down to which they are
    #[arg(
        long,
        value_name = "PERCENT",
        env = "HAYLOFT_LOW_WATERMARK",
        default_value = "65",
        value_parser = clap::value_parser!(u8).range(0..=100)
    )]
    pub(crate) low_watermark: u8,
    /// Percent of the disk, and of its inodes, that no pull may take
    #[arg(
        long,
        value_name = "PERCENT",
        env = "HAYLOFT_MIN_FREE",
        default_value = "5",
        value_parser = clap::value_parser!(u8).range(0..=99)
    )]
    pub(crate) min_free: u8,
    /// What the cache itself may take, such as 400GiB; none for as much as the disk has
    #[arg(
        long,
        value_name = "SIZE",
        env = "HAYLOFT_CACHE_SIZE",
        default_value = "none",
        value_parser = size_or_none
    )]
    pub(crate) cache_size: Bound<u64>,
    /// How long a download is kept that nobody goes on with
    #[arg(
        long,
        value_name = "TIME",
        env = "HAYLOFT_KEEP_PARTIAL",
        default_value = "7d",
        value_parser = duration
    )]
    pub(crate) keep_partial: Duration,
    /// Bytes a second that are read again in the background, to find what the disk has lost; 0 for none
    #[arg(
        long,
        value_name = "SIZE",
        env = "HAYLOFT_SCRUB_RATE",
        default_value = "20MB",
        value_parser = rate
    )]
    pub(crate) scrub_rate: u64,
}

/// A size, with or without the `/s` that belongs to a rate.
fn rate(text: &str) -> Result<u64, String> {
    let text = text.trim();
    size(text.strip_suffix("/s").unwrap_or(text))
}

impl DiskArgs {
    /// What the agent makes of it.
    pub(crate) fn to_options(&self) -> Result<DiskOptions> {
        if self.low_watermark > self.high_watermark {
            bail!(
                "--low-watermark {} is above --high-watermark {}",
                self.low_watermark,
                self.high_watermark
            );
        }
        Ok(DiskOptions {
            high_watermark: self.high_watermark,
            low_watermark: self.low_watermark,
            min_free: self.min_free,
            cache_size: self.cache_size.into(),
            keep_partial: self.keep_partial,
            scrub_rate: self.scrub_rate,
            evicts: true,
        })
    }
}
