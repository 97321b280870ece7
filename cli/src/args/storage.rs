//! The verbs that look after a registry's storage: `gc`, `fsck`, `registry reindex`.

use std::time::Duration;

use clap::Args;

use crate::args::registry::{CollectionArgs, StorageArgs};
use crate::args::values::{duration, size};
use crate::args::{DataArgs, OutputArgs};

/// Whose storage: that of a running registry, or one that no registry runs on.
#[derive(Args, Clone, Debug)]
pub(crate) struct TargetArgs {
    /// The running registry [default: open the storage itself, which needs that none runs on it]
    #[arg(long, value_name = "HOST:PORT|URL", env = "HAYLOFT_REGISTRY")]
    pub(crate) registry: Option<String>,
    /// Speak plain HTTP to a registry that is not on this machine
    #[arg(long)]
    pub(crate) plain_http: bool,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    #[command(flatten)]
    pub(crate) storage: StorageArgs,
}

#[derive(Args, Debug)]
pub(crate) struct GcArgs {
    /// Only say what would go, and why
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Remove also more than the share of all blobs that a collection may
    #[arg(long)]
    pub(crate) force: bool,
    /// Another grace time than the registry's own, such as 12h; 0 for none
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) grace: Option<Duration>,
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    #[command(flatten)]
    pub(crate) collection: CollectionArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Args, Debug)]
pub(crate) struct FsckArgs {
    /// Read no more than so many bytes in a second, such as 100MiB
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) rate: Option<u64>,
    /// Move corrupt content aside, so that it can be pushed again
    #[arg(long)]
    pub(crate) quarantine: bool,
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}
