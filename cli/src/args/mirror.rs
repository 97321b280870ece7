//! What a registry can be told of its upstreams.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::RangedU64ValueParser;
use clap::{ArgAction, Args, Subcommand};
use registry::{Secret, Upstream};

use crate::args::OutputArgs;
use crate::args::values::{Bound, duration, period, secret, size_or_none, switch};
use crate::config::upstream;

/// What to do with a registry's mirror.
#[derive(Debug, Subcommand)]
pub(crate) enum MirrorTask {
    /// Show upstreams, their health, and what is on its way in
    Status(MirrorStatusArgs),
    /// Bring models in before anybody asks for them
    Warm(WarmArgs),
}

#[derive(Args, Debug)]
pub(crate) struct MirrorStatusArgs {
    /// The registry: HOST, HOST:PORT or a URL
    #[arg(long, value_name = "REGISTRY", default_value = "127.0.0.1:5000")]
    pub(crate) registry: String,
    /// Speak plain HTTP to a registry that is not on this machine
    #[arg(long)]
    pub(crate) plain_http: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Args, Debug)]
pub(crate) struct WarmArgs {
    #[arg(
        value_name = "REFERENCE",
        required = true,
        help = "Models in the mirror: HOST[:PORT]/PREFIX/NAME[:TAG]"
    )]
    pub(crate) references: Vec<String>,
    /// Speak plain HTTP to a registry that is not on this machine
    #[arg(long)]
    pub(crate) plain_http: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// What is mirrored, and how.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Mirror of the registry")]
pub(crate) struct MirrorArgs {
    /// Repositories below PREFIX are mirrored from URL; KIND is oci, ollama or hf. Repeatable;
    /// several for one prefix are tried in order
    #[arg(
        long = "upstream",
        value_name = "PREFIX=KIND+URL",
        env = "HAYLOFT_UPSTREAM",
        action = ArgAction::Append,
        value_delimiter = ';',
        value_parser = upstream::parse
    )]
    pub(crate) upstreams: Vec<Upstream>,
    /// Ask no upstream: serve what is here
    #[arg(
        long,
        value_name = "on|off",
        env = "HAYLOFT_OFFLINE",
        default_value = "off",
        default_missing_value = "on",
        num_args = 0..=1,
        require_equals = true,
        action = ArgAction::Set,
        value_parser = switch
    )]
    pub(crate) offline: bool,
    /// A mirrored tag is served without asking its upstream again for this long
    #[arg(
        long,
        value_name = "TIME",
        env = "HAYLOFT_TAG_TTL",
        default_value = "5m",
        value_parser = duration
    )]
    pub(crate) tag_ttl: Duration,
    /// What an upstream does not have is not asked for again for this long
    #[arg(
        long,
        value_name = "TIME",
        env = "HAYLOFT_NEGATIVE_TTL",
        default_value = "1m",
        value_parser = duration
    )]
    pub(crate) negative_ttl: Duration,
    /// Most bytes of mirrored blobs; what was not used for longest goes first
    #[arg(
        long,
        value_name = "SIZE",
        env = "HAYLOFT_MIRROR_SIZE",
        default_value = "none",
        value_parser = size_or_none
    )]
    pub(crate) mirror_size: Bound<u64>,
    /// A mirrored blob that was used within this time goes only where nothing else is left to go
    #[arg(
        long,
        value_name = "TIME",
        env = "HAYLOFT_MIRROR_KEEP",
        default_value = "10m",
        value_parser = duration
    )]
    pub(crate) mirror_keep: Duration,
    /// Mirrored repositories whose blobs never go, such as hub/team/*; repeatable
    #[arg(
        long = "mirror-pin",
        value_name = "REPOSITORIES",
        env = "HAYLOFT_MIRROR_PIN",
        action = ArgAction::Append,
        value_delimiter = ';'
    )]
    pub(crate) mirror_pins: Vec<String>,
    /// Connections to an upstream for one blob
    #[arg(
        long,
        value_name = "N",
        env = "HAYLOFT_MIRROR_CONNECTIONS",
        default_value = "4",
        value_parser = RangedU64ValueParser::<usize>::new().range(1..=64)
    )]
    pub(crate) mirror_connections: usize,
    /// An upstream that sends nothing for this long is taken to be gone
    #[arg(
        long,
        value_name = "TIME",
        env = "HAYLOFT_MIRROR_STALL",
        default_value = "30s",
        value_parser = period
    )]
    pub(crate) mirror_stall: Duration,
    /// The proxy to upstreams: http://, https://, socks5:// or socks5h://HOST:PORT [default:
    /// HTTP_PROXY, HTTPS_PROXY, ALL_PROXY of the environment]
    #[arg(
        long,
        value_name = "URL",
        env = "HAYLOFT_MIRROR_PROXY",
        hide_env_values = true,
        value_parser = secret
    )]
    pub(crate) mirror_proxy: Option<Secret>,
    /// Hosts, domains and networks that are reached without that proxy
    #[arg(
        long = "mirror-no-proxy",
        value_name = "HOST",
        env = "HAYLOFT_MIRROR_NO_PROXY",
        requires = "mirror_proxy",
        action = ArgAction::Append,
        value_delimiter = ','
    )]
    pub(crate) mirror_no_proxies: Vec<String>,
    /// A file with certificates of authorities in PEM, trusted beside the system's for upstreams;
    /// repeatable
    #[arg(
        long = "mirror-ca",
        value_name = "FILE",
        env = "HAYLOFT_MIRROR_CA",
        action = ArgAction::Append,
        value_delimiter = ';'
    )]
    pub(crate) mirror_cas: Vec<PathBuf>,
}
