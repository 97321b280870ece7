//! What the doctor is to look at.

use clap::Args;

use crate::args::disk::DiskArgs;
use crate::args::sources::SourcesArgs;
use crate::args::{AgentArgs, DataArgs, OutputArgs};

#[derive(Args, Debug)]
pub(crate) struct DoctorArgs {
    /// Models that the agent is to pull: where each comes from is asked for it
    #[arg(value_name = "REF")]
    pub(crate) references: Vec<String>,
    /// A registry that the agent is to reach: HOST or HOST:PORT; repeatable
    #[arg(long = "registry", value_name = "HOST")]
    pub(crate) registries: Vec<String>,
    /// Speak plain HTTP to registries that are not on this machine
    #[arg(long)]
    pub(crate) plain_http: bool,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    #[command(flatten)]
    pub(crate) agent: AgentArgs,
    #[command(flatten)]
    pub(crate) disk: DiskArgs,
    #[command(flatten)]
    pub(crate) sources: SourcesArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}
