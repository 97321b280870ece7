//! Models that a node keeps in any case, and waiting for models.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use node_agent::PreloadOptions;

use crate::args::values::period;
use crate::args::{AgentArgs, DataArgs, OutputArgs};

/// What the agent keeps on the node.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "What is kept on the node")]
pub(crate) struct PreloadArgs {
    /// A list of models that the agent pulls and pins, in TOML; read again when it changes
    #[arg(long, value_name = "FILE", env = "HAYLOFT_PRELOAD")]
    pub(crate) preload: Option<PathBuf>,
    /// How often the tags of the models on that list are looked up again
    #[arg(
        long,
        value_name = "TIME",
        env = "HAYLOFT_PRELOAD_INTERVAL",
        default_value = "10m",
        value_parser = period
    )]
    pub(crate) preload_interval: Duration,
}

impl PreloadArgs {
    /// What the agent makes of it.
    pub(crate) fn to_options(&self) -> Option<PreloadOptions> {
        self.preload.as_ref().map(|file| PreloadOptions {
            file: file.clone(),
            interval: self.preload_interval,
        })
    }
}

/// Questions to an agent that runs.
#[derive(Debug, Subcommand)]
pub(crate) enum AgentTask {
    /// Show what the node's agent is doing: disk, desired list, downloads
    Status(AgentStatusArgs),
}

#[derive(Args, Debug)]
pub(crate) struct AgentStatusArgs {
    #[command(flatten)]
    pub(crate) data: DataArgs,
    #[command(flatten)]
    pub(crate) agent: AgentArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Args, Debug)]
pub(crate) struct WaitArgs {
    /// The models
    #[arg(required = true, value_name = "REF")]
    pub(crate) references: Vec<String>,
    /// How long to wait before giving up, with exit code 9
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = period)]
    pub(crate) timeout: Duration,
    /// Take whichever version of a model is on the node: do not wait for the digest in its name, nor
    /// for the agent to have asked where its tag points to now
    #[arg(long)]
    pub(crate) any_digest: bool,
    /// Ask the agent to pull them, and do not only wait for somebody else to
    #[arg(long)]
    pub(crate) pull: bool,
    /// With --pull: speak plain HTTP to a registry that is not on this machine
    #[arg(long, requires = "pull")]
    pub(crate) plain_http: bool,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    #[command(flatten)]
    pub(crate) agent: AgentArgs,
}
