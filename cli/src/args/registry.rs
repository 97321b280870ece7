//! What a registry can be told: the same flags for `registry`, for `serve`, and in part for the
//! verbs that look after a registry's storage.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::RangedU64ValueParser;
use clap::{ArgAction, Args};
use registry::{ChunkMapPolicy, GgufRule, RetentionRule, Secret};
use url::Url;

use crate::args::mirror::MirrorArgs;
use crate::args::values::{
    Bound, duration, period, period_or_none, secret, size, size_or_none, switch, web_url,
};
use crate::config::retention;

/// Everything but the address.
#[derive(Args, Clone, Debug)]
pub(crate) struct RegistryOptions {
    #[command(flatten)]
    pub(crate) storage: StorageArgs,
    #[command(flatten)]
    pub(crate) service: ServiceArgs,
    #[command(flatten)]
    pub(crate) collection: CollectionArgs,
    #[command(flatten)]
    pub(crate) access: AccessArgs,
    #[command(flatten)]
    pub(crate) limits: LimitsArgs,
    #[command(flatten)]
    pub(crate) mirror: MirrorArgs,
}

/// Where a registry keeps things.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Storage of the registry")]
pub(crate) struct StorageArgs {
    /// Where blobs and records are kept: s3://BUCKET[/PREFIX], gs://…, az://…, or file:///FOLDER
    /// [default: registry in the data folder]
    #[arg(long, value_name = "URL", env = "HAYLOFT_STORAGE")]
    pub(crate) storage: Option<String>,
    /// An option of the bucket that is not secret, such as aws_endpoint=URL; repeatable. Secrets
    /// come by the environment: AWS_SECRET_ACCESS_KEY and its like
    #[arg(
        long = "storage-option",
        value_name = "NAME=VALUE",
        env = "HAYLOFT_STORAGE_OPTION",
        hide_env_values = true,
        action = ArgAction::Append,
        value_delimiter = ';',
        value_parser = secret
    )]
    pub(crate) storage_options: Vec<Secret>,
    /// What answers lookups: sled in the data folder, or postgres://… for several replicas
    #[arg(
        long,
        value_name = "sled|URL",
        env = "HAYLOFT_INDEX",
        hide_env_values = true,
        default_value = "sled",
        value_parser = secret
    )]
    pub(crate) index: Secret,
    /// A file that holds the value of --index, for a URL with a password
    #[arg(
        long,
        value_name = "FILE",
        env = "HAYLOFT_INDEX_FILE",
        conflicts_with = "index"
    )]
    pub(crate) index_file: Option<PathBuf>,
}

/// How requests are answered.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Service of the registry")]
pub(crate) struct ServiceArgs {
    /// Answer a GET of a large blob in a bucket by a redirect to a signed address there: on or off
    #[arg(
        long,
        value_name = "on|off",
        env = "HAYLOFT_REDIRECT",
        default_value = "on",
        action = ArgAction::Set,
        value_parser = switch
    )]
    pub(crate) redirect: bool,
    /// Refuse everything that would change the storage, collection included
    #[arg(
        long,
        value_name = "on|off",
        env = "HAYLOFT_READ_ONLY",
        default_value = "off",
        default_missing_value = "on",
        num_args = 0..=1,
        require_equals = true,
        action = ArgAction::Set,
        value_parser = switch
    )]
    pub(crate) read_only: bool,
    /// Largest blob accepted, such as 400GiB
    #[arg(
        long,
        value_name = "SIZE",
        env = "HAYLOFT_MAX_BLOB_SIZE",
        default_value = "none",
        value_parser = size_or_none
    )]
    pub(crate) max_blob_size: Bound<u64>,
    /// What becomes of GGUF files that llama.cpp would choke on: refuse, warn or off, for all
    /// repositories or for some, as in scratch/*=off; repeatable [default: refuse]
    #[arg(
        long,
        value_name = "[REPOSITORIES=]POLICY",
        env = "HAYLOFT_GGUF_POLICY",
        action = ArgAction::Append,
        value_delimiter = ';'
    )]
    pub(crate) gguf_policy: Vec<GgufRule>,
    /// Whose chunk maps are offered, by which nodes fetch only what changed: models, all or off
    #[arg(
        long,
        value_name = "models|all|off",
        env = "HAYLOFT_CHUNK_MAPS",
        default_value = "models"
    )]
    pub(crate) chunk_maps: ChunkMapPolicy,
    /// An upload session without progress for this long is removed
    #[arg(
        long,
        value_name = "TIME",
        env = "HAYLOFT_UPLOAD_EXPIRY",
        default_value = "7d",
        value_parser = period
    )]
    pub(crate) upload_expiry: Duration,
    /// Upload sessions open at once
    #[arg(
        long,
        value_name = "N",
        env = "HAYLOFT_MAX_UPLOADS",
        default_value = "10000",
        value_parser = RangedU64ValueParser::<usize>::new().range(1..)
    )]
    pub(crate) max_uploads: usize,
    /// The address under which clients reach the registry [default: what they call it]
    #[arg(long, value_name = "URL", env = "HAYLOFT_EXTERNAL_URL", value_parser = web_url)]
    pub(crate) external_url: Option<Url>,
    /// How long running requests may go on after shutdown has begun
    #[arg(
        long,
        value_name = "TIME",
        env = "HAYLOFT_SHUTDOWN_GRACE",
        default_value = "25s",
        value_parser = duration
    )]
    pub(crate) shutdown_grace: Duration,
}

/// When what nobody refers to is collected, and which tags are kept.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Collection")]
pub(crate) struct CollectionArgs {
    /// Time between two collections; none for those only that are asked for
    #[arg(
        long,
        value_name = "TIME",
        env = "HAYLOFT_GC_INTERVAL",
        default_value = "1h",
        value_parser = period_or_none
    )]
    pub(crate) gc_interval: Bound<Duration>,
    /// What nobody refers to is kept for this long
    #[arg(
        long,
        value_name = "TIME",
        env = "HAYLOFT_GC_GRACE",
        default_value = "24h",
        value_parser = duration
    )]
    pub(crate) gc_grace: Duration,
    /// A collection that would remove more than this share of all blobs removes nothing
    #[arg(
        long,
        value_name = "PERCENT",
        env = "HAYLOFT_GC_MAX_PERCENT",
        default_value = "50",
        value_parser = clap::value_parser!(u8).range(0..=100)
    )]
    pub(crate) gc_max_percent: u8,
    /// Which tags are kept, such as team/*=last:10,within:30d,match:v*,untagged:7d; repeatable
    #[arg(
        long,
        value_name = "RULE",
        env = "HAYLOFT_RETAIN",
        action = ArgAction::Append,
        value_delimiter = ';',
        value_parser = retention::parse
    )]
    pub(crate) retain: Vec<RetentionRule>,
}

/// Who may come in, and how the way is kept private.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Access to the registry")]
pub(crate) struct AccessArgs {
    /// An htpasswd file with bcrypt entries [default: everybody may read and write]
    #[arg(long, value_name = "FILE", env = "HAYLOFT_HTPASSWD")]
    pub(crate) htpasswd: Option<PathBuf>,
    /// Certificate chain in PEM, read again when it changes [default: plain HTTP]
    #[arg(long, value_name = "FILE", env = "HAYLOFT_TLS_CERT")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Private key of the certificate, in PEM
    #[arg(long, value_name = "FILE", env = "HAYLOFT_TLS_KEY")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Address that answers /metrics, /healthz and /readyz alone, by plain HTTP and without a
    /// login [default: none; /metrics is with the API, behind its login]
    #[arg(long, value_name = "ADDR", env = "HAYLOFT_METRICS_LISTEN")]
    pub(crate) metrics_listen: Option<SocketAddr>,
}

/// What one client may ask of the server.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Limits of the registry")]
pub(crate) struct LimitsArgs {
    /// Largest request head
    #[arg(
        long,
        value_name = "SIZE",
        env = "HAYLOFT_HEADER_SIZE",
        default_value = "64KiB",
        value_parser = size
    )]
    pub(crate) header_size: u64,
    /// A client has this long to send a request head
    #[arg(
        long,
        value_name = "TIME",
        env = "HAYLOFT_HEADER_TIME",
        default_value = "30s",
        value_parser = period
    )]
    pub(crate) header_time: Duration,
    /// A client whose request body brings nothing for this long is taken to be gone
    #[arg(
        long,
        value_name = "TIME",
        env = "HAYLOFT_BODY_IDLE",
        default_value = "60s",
        value_parser = period
    )]
    pub(crate) body_idle: Duration,
    /// A client that takes nothing of its response for this long is taken to be gone
    #[arg(
        long,
        value_name = "TIME",
        env = "HAYLOFT_WRITE_IDLE",
        default_value = "120s",
        value_parser = period
    )]
    pub(crate) write_idle: Duration,
    /// Connections at once; more wait until one ends
    #[arg(
        long,
        value_name = "N",
        env = "HAYLOFT_CONNECTIONS",
        default_value = "10000",
        value_parser = RangedU64ValueParser::<usize>::new().range(1..)
    )]
    pub(crate) connections: usize,
}
