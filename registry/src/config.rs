//! What a registry needs to know: plain values, put together by whoever starts it.

mod chunk_maps;
mod gguf;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use artifact::Repository;
use artifact::client::{Credentials, OriginUrl, TransportOptions};
use url::Url;

use crate::watched::Reload;

pub use chunk_maps::{ChunkMapPolicy, InvalidChunkMapPolicy};
pub use gguf::{GgufPolicy, GgufRule, InvalidGgufRule};

/// What a registry needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// The folder of everything it keeps on this machine; created if absent.
    pub data: PathBuf,
    /// Where blobs and records are kept.
    pub storage: Storage,
    /// What answers lookups and listings.
    pub index: Index,
    /// Largest blob accepted, in bytes; `None` for no limit but the storage.
    pub max_blob_bytes: Option<u64>,
    /// What becomes of GGUF files that llama.cpp would choke on; they are refused by default.
    pub gguf: Vec<GgufRule>,
    /// Whose chunk maps are offered. Default: those of models.
    pub chunk_maps: ChunkMapPolicy,
    /// An upload session without progress for this long is removed. Default: a week.
    pub upload_expiry: Duration,
    /// Upload sessions open at once. Default: 10,000.
    pub max_uploads: usize,
    /// The address under which clients reach the registry, for absolute `Location` headers.
    /// Default: what the request's `Host` says.
    pub external_url: Option<Url>,
    /// Whether a GET of a large blob in a bucket may be answered by a redirect to a signed
    /// address there. Default: yes.
    pub redirect: bool,
    /// Whether everything that would change the storage is refused, collection included.
    pub read_only: bool,
    /// When what nobody refers to is collected.
    pub collection: Collection,
    /// Which tags are kept; a repository without a rule keeps all of them.
    pub retention: Vec<RetentionRule>,
    /// An htpasswd file with bcrypt entries; `None` lets everybody in.
    pub htpasswd: Option<PathBuf>,
    /// Certificate and key; `None` for plain HTTP.
    pub tls: Option<TlsFiles>,
    /// Asks for accounts, certificate and key to be read again at once, as SIGHUP does; they are
    /// also read again when the files change.
    pub reload: Reload,
    /// What one client may ask of the server.
    pub limits: Limits,
    /// How long running requests may go on after shutdown has begun. Default: 25 s.
    pub shutdown_grace: Duration,
    /// What is mirrored from elsewhere.
    pub mirror: Mirror,
}

impl Config {
    /// The defaults, with everything stored in `data`.
    #[must_use]
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self {
            data: data.into(),
            ..Self::default()
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data: PathBuf::from("registry"),
            storage: Storage::Folder,
            index: Index::Sled,
            max_blob_bytes: None,
            gguf: Vec::new(),
            chunk_maps: ChunkMapPolicy::default(),
            upload_expiry: Duration::from_secs(7 * 24 * 3600),
            max_uploads: 10_000,
            external_url: None,
            redirect: true,
            read_only: false,
            collection: Collection::default(),
            retention: Vec::new(),
            htpasswd: None,
            tls: None,
            reload: Reload::default(),
            limits: Limits::default(),
            shutdown_grace: Duration::from_secs(25),
            mirror: Mirror::default(),
        }
    }
}

/// Where blobs and records are kept.
#[derive(Clone, Debug)]
pub enum Storage {
    /// In the data folder.
    Folder,
    /// In a bucket.
    Bucket(Bucket),
}

/// A bucket of an object store, and how to reach it.
#[derive(Clone, Debug)]
pub struct Bucket {
    /// `s3://BUCKET[/PREFIX]`, `gs://…` or `az://…`.
    pub url: Url,
    /// Options by the names that the object_store crate gives them (`aws_endpoint`,
    /// `aws_access_key_id`, …), secrets among them.
    pub options: Vec<(String, Secret)>,
}

/// What answers lookups and listings.
#[derive(Clone, Debug)]
pub enum Index {
    /// sled, in the data folder: for one registry process.
    Sled,
    /// PostgreSQL, by its `postgres://` URL: for several replicas.
    Postgres(Secret),
}

/// When what nobody refers to is collected.
#[derive(Clone, Copy, Debug)]
pub struct Collection {
    /// Time between two runs; `None` for no runs but those that are asked for. Default: an hour.
    pub interval: Option<Duration>,
    /// What nobody refers to is kept for this long. Default: a day.
    pub grace: Duration,
    /// A run that would remove more than this share of all blobs, in percent, removes nothing
    /// until it is asked for with force. Default: 50.
    pub max_percent: u8,
}

impl Default for Collection {
    fn default() -> Self {
        Self {
            interval: Some(Duration::from_secs(3600)),
            grace: Duration::from_secs(24 * 3600),
            max_percent: 50,
        }
    }
}

/// Which tags of some repositories are kept: those that any of the three conditions holds for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetentionRule {
    /// The repositories: a name, or a prefix followed by `*`. The longest match decides.
    pub repositories: String,
    /// The tags that were set last, this many of them.
    pub keep_last: Option<usize>,
    /// Tags that were set within this time.
    pub keep_within: Option<Duration>,
    /// Tags that match one of these globs, such as `v*`.
    pub keep_matching: Vec<String>,
    /// Manifests without a tag are removed after this time; `None` keeps them.
    pub untagged_after: Option<Duration>,
}

/// Certificate and key, PEM files that are read again when they change.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The certificate, and those that lead from it to the authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// What one client may ask of the server.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Largest request head, in bytes.
    pub header_bytes: usize,
    /// A client has this long to send a request head.
    pub header_time: Duration,
    /// A client whose request body brings nothing for this long is taken to be gone.
    pub body_idle: Duration,
    /// A client that takes nothing of its response for this long is taken to be gone.
    pub write_idle: Duration,
    /// Connections at once; more wait in the listen queue.
    pub connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_bytes: 64 * 1024,
            header_time: Duration::from_secs(30),
            body_idle: Duration::from_secs(60),
            write_idle: Duration::from_secs(120),
            connections: 10_000,
        }
    }
}

/// What is mirrored from elsewhere, and how.
#[derive(Clone, Debug)]
pub struct Mirror {
    /// From where. Those of one prefix are asked in this order.
    pub upstreams: Vec<Upstream>,
    /// Nothing is asked of any upstream: what is here is served. Default: no.
    pub offline: bool,
    /// A tag that was asked for at its upstream is served without another question for this long.
    /// Default: 5 min.
    pub tag_ttl: Duration,
    /// What an upstream does not have is not asked for again for this long. Default: 1 min.
    pub negative_ttl: Duration,
    /// Most bytes of mirrored blobs; what was not used for longest goes first. `None` for no limit
    /// but the storage.
    pub max_bytes: Option<u64>,
    /// What was used within this time goes only where nothing else is left to go, so that nobody
    /// who comes back for the rest of it finds it gone. Default: 10 min.
    pub keep: Duration,
    /// Mirrored repositories whose blobs never go: names, or prefixes followed by `*`.
    pub pinned: Vec<String>,
    /// Connections to an upstream for one blob. Default: 4.
    pub connections: usize,
    /// How upstreams are reached: times, a proxy, authorities.
    pub transport: TransportOptions,
    /// Who asks registries.
    pub credentials: Credentials,
    /// Who asks Hugging Face; another upstream of its kind gets no token.
    pub hub: Option<HubLogin>,
}

impl Default for Mirror {
    fn default() -> Self {
        Self {
            upstreams: Vec::new(),
            offline: false,
            tag_ttl: Duration::from_secs(300),
            negative_ttl: Duration::from_secs(60),
            max_bytes: None,
            keep: Duration::from_secs(600),
            pinned: Vec::new(),
            connections: 4,
            transport: TransportOptions::default(),
            credentials: Credentials::Anonymous,
            hub: None,
        }
    }
}

/// A login for Hugging Face.
#[derive(Clone, Debug)]
pub struct HubLogin {
    /// Where it is for: scheme, host and port.
    pub at: OriginUrl,
    /// The token.
    pub credentials: Credentials,
}

/// Where repositories below a prefix are mirrored from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Repositories whose names begin with this and a slash; what follows is the name there.
    pub prefix: Repository,
    /// The origin.
    pub at: OriginUrl,
}

/// Text that must not show: passwords, keys, URLs that carry them.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides `text` from every debug output.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that needs it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("(hidden)")
    }
}
