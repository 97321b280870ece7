//! What the node's downloads may take of the network: what `agent` and `serve` say of it.

use clap::{ArgAction, Args};
use node_agent::{Bandwidth, BandwidthWindow, PullOptions};

use crate::args::values::{Bound, size_or_none};

/// How much of the network downloads take.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "The node's network")]
pub(crate) struct NetworkArgs {
    /// Most connections to one host for one blob; how many it gets depends on what they bring
    #[arg(
        long,
        value_name = "COUNT",
        env = "HAYLOFT_MAX_CONNECTIONS",
        default_value = "16",
        value_parser = clap::value_parser!(u16).range(1..=256)
    )]
    pub(crate) max_connections: u16,
    /// Bytes a second that all downloads together may take, such as 50MB; none for no limit
    #[arg(
        long,
        value_name = "RATE",
        env = "HAYLOFT_BANDWIDTH",
        default_value = "none",
        value_parser = size_or_none
    )]
    pub(crate) bandwidth: Bound<u64>,
    /// The same for a part of the day in local time, such as 08:00-18:00=10MB; repeatable, the
    /// first one that fits counts
    #[arg(
        long = "bandwidth-at",
        value_name = "HH:MM-HH:MM=RATE",
        env = "HAYLOFT_BANDWIDTH_AT",
        action = ArgAction::Append,
        value_delimiter = ';',
        value_parser = window
    )]
    pub(crate) bandwidth_at: Vec<BandwidthWindow>,
}

fn window(text: &str) -> Result<BandwidthWindow, String> {
    let rate = |text: &str| size_or_none(text).ok().map(Option::from);
    BandwidthWindow::parse(text, rate).map_err(|error| error.to_string())
}

impl NetworkArgs {
    /// Puts it among the agent's options.
    pub(crate) fn apply(&self, options: &mut PullOptions) {
        options.connections = usize::from(self.max_connections);
        options.bandwidth = Bandwidth {
            rate: self.bandwidth.into(),
            windows: self.bandwidth_at.clone(),
        };
    }
}
