//! What can go wrong in a registry, in its own terms; nothing here knows of HTTP.

mod wrap;

pub(crate) use wrap::is_full;

use std::io;
use std::path::PathBuf;

use artifact::dialect::{Dialect, Inexpressible};
use artifact::digest::InvalidDigest;
use artifact::manifest::InvalidManifest;
use artifact::reference::InvalidReference;
use artifact::{Digest, Repository};
use uuid::Uuid;

use crate::service::hub::Refusal;
use crate::service::retention::InvalidRule;

/// Why an operation of the registry failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A repository name or a tag breaks the grammar.
    #[error("{0}")]
    Name(#[source] InvalidReference),
    /// A digest breaks the grammar.
    #[error("{0}")]
    Digest(#[source] InvalidDigest),
    /// The content does not have the digest that was claimed.
    #[error("the content has digest {actual}, not {expected}; nothing was stored")]
    DigestMismatch {
        /// What the client claimed.
        expected: Box<Digest>,
        /// What the bytes hash to.
        actual: Box<Digest>,
    },
    /// The repository holds no such blob.
    #[error("blob {digest} is not in repository {repository}")]
    BlobUnknown {
        /// Where it was looked for.
        repository: Repository,
        /// What was looked for.
        digest: Digest,
    },
    /// A manifest of the repository names the blob, so it cannot go.
    #[error(
        "blob {digest} is named by manifest {manifest} of repository {repository}: delete that manifest first"
    )]
    BlobInUse {
        /// The repository.
        repository: Repository,
        /// The blob.
        digest: Box<Digest>,
        /// A manifest that names it.
        manifest: Box<Digest>,
    },
    /// The blob would be larger than the configured limit.
    #[error("the blob is larger than the limit of {limit} bytes")]
    BlobTooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// The repository is not known.
    #[error("repository {repository} is not known to this registry")]
    RepositoryUnknown {
        /// Its name.
        repository: Repository,
    },
    /// The repository holds no such manifest or tag.
    #[error("manifest {reference} is not in repository {repository}")]
    ManifestUnknown {
        /// Where it was looked for.
        repository: Repository,
        /// The tag or digest.
        reference: String,
    },
    /// A GGUF file that llama.cpp would choke on, on its way in.
    #[error(
        "this GGUF file is not let in, because llama.cpp would choke on it: {reason} (who runs \
         the registry can let such files in by --gguf-policy)"
    )]
    GgufRefused {
        /// What is wrong with it.
        reason: String,
    },
    /// The manifest calls weights what llama.cpp would choke on.
    #[error(
        "the weights {digest} cannot be served, because llama.cpp would choke on them: {reason} \
         (who runs the registry can let such manifests in by --gguf-policy)"
    )]
    WeightsRefused {
        /// The layer.
        digest: Box<Digest>,
        /// What is wrong with it.
        reason: String,
    },
    /// The bytes are not a manifest.
    #[error("{0}")]
    ManifestInvalid(#[source] InvalidManifest),
    /// A descriptor of the manifest claims another size than the stored blob has.
    #[error(
        "the manifest says that {digest} has {claimed} bytes, but the stored content has {stored}"
    )]
    DescriptorSize {
        /// The content.
        digest: Digest,
        /// Bytes claimed.
        claimed: u64,
        /// Bytes stored.
        stored: u64,
    },
    /// A descriptor carries content (`data`) that is not what its digest and size say.
    #[error("the data in the descriptor of {digest} is not the content of that digest and size")]
    EmbeddedContent {
        /// The digest of the descriptor.
        digest: Box<Digest>,
    },
    /// The manifest names content that the repository does not hold.
    #[error("the manifest names content that repository {repository} does not hold: push it first")]
    ManifestBlobUnknown {
        /// The repository.
        repository: Repository,
        /// What is missing, at most 100 of them.
        missing: Vec<Digest>,
    },
    /// There is no such upload session, or it has ended or expired.
    #[error("upload session {id} is not known: it ended, expired or never was; start a new one")]
    UploadUnknown {
        /// What the client named, shortened.
        id: String,
    },
    /// The chunk does not start where the session stands, or another request is writing to it.
    #[error("the chunk does not continue the upload, which stands at {offset} bytes")]
    OutOfOrder {
        /// The session.
        id: Uuid,
        /// Bytes that are safely stored.
        offset: u64,
    },
    /// The chunk has another length than was announced.
    #[error("the chunk has {received} bytes, but {announced} were announced")]
    ChunkLength {
        /// From Content-Range.
        announced: u64,
        /// What arrived.
        received: u64,
    },
    /// The client went away or stalled before its body was complete.
    #[error("the request body ended early, after {received} bytes")]
    BodyCutOff {
        /// Bytes that arrived.
        received: u64,
        /// What the connection reported.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Too many upload sessions are open.
    #[error("{limit} upload sessions are open, which is the limit: finish or cancel some, or wait")]
    TooManyUploads {
        /// The limit.
        limit: usize,
    },
    /// The disk has no room.
    #[error(
        "the registry's storage is full: nothing was stored; free space in its data folder or bucket and try again"
    )]
    StorageFull {
        /// What the system said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file operation failed.
    #[error("cannot {action} {}", path.display())]
    Storage {
        /// What was attempted: "open", "write", …
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A sync to disk failed: what was written may be lost.
    #[error("cannot sync {} to disk", path.display())]
    Sync {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The storage failed in a way that makes every further promise worthless.
    #[error("the registry takes nothing in until it is restarted: {reason}")]
    Degraded {
        /// What failed.
        reason: String,
    },
    /// A request to the bucket failed, after all retries.
    #[error("cannot {action} {key} in the bucket: is it reachable, and does it exist?")]
    Object {
        /// What was attempted: "read", "write", …
        action: &'static str,
        /// Its key.
        key: String,
        /// What the object store said.
        #[source]
        source: object_store::Error,
    },
    /// The bucket does not let the registry do this.
    #[error(
        "the bucket does not allow the registry to {action} {key}: check the credentials, their rights and this machine's clock"
    )]
    ObjectDenied {
        /// What was attempted.
        action: &'static str,
        /// Its key.
        key: String,
        /// What the object store said.
        #[source]
        source: object_store::Error,
    },
    /// An object of the registry is not what was written there.
    #[error("object {key} in the bucket is damaged")]
    DamagedObject {
        /// Its key.
        key: String,
        /// What the reader met.
        #[source]
        source: serde_json::Error,
    },
    /// A blob is known, but its content is no longer in the storage.
    #[error("the content of blob {digest} has gone from the storage: push it again")]
    ContentGone {
        /// The blob.
        digest: Digest,
    },
    /// The address or an option of the bucket makes no sense.
    #[error("storage {url}: {reason}")]
    BucketConfig {
        /// The address.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// Another registry uses the bucket in a way that excludes this one.
    #[error(
        "the bucket is in use by another registry ({holder}): stop it, or give each its own prefix, or run both with the same PostgreSQL index"
    )]
    BucketInUse {
        /// Who, as far as it is known.
        holder: String,
    },
    /// The bucket does not honour conditional puts, which several replicas need.
    #[error(
        "the bucket ignores conditional puts (If-Match, If-None-Match), so several registries cannot share it: use a store that honours them, or the embedded index with one registry"
    )]
    Unconditional,
    /// A record could not be written, read or removed.
    #[error("cannot {action} record {key}")]
    Record {
        /// What was attempted.
        action: &'static str,
        /// Its key.
        key: String,
        /// What the store said.
        #[source]
        source: object_store::Error,
    },
    /// A record is not what was written there.
    #[error("record {key} is damaged")]
    DamagedRecord {
        /// Its key.
        key: String,
        /// What the reader met.
        #[source]
        source: serde_json::Error,
    },
    /// The index failed; it can be rebuilt from the records.
    #[error(
        "the metadata index failed: run `hayloft registry reindex` while the registry is stopped"
    )]
    Index {
        /// What it reported.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The htpasswd file cannot be used.
    #[error("htpasswd file {}{}: {problem}", path.display(), line_of(*line))]
    Htpasswd {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1; 0 for the file as a whole.
        line: usize,
        /// What is wrong with it and what to do; never what stands there.
        problem: String,
    },
    /// Certificate or key cannot be used.
    #[error("TLS file {}: {problem}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The database of the index cannot do this now; it may soon.
    #[error(
        "the registry's database cannot be reached or cannot be changed at the moment: try again later"
    )]
    IndexUnavailable {
        /// What was met.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The database is not there by an encrypted connection of the kind that its address asks for.
    #[error(
        "the registry's database cannot be reached by a connection that is encrypted as its address asks: its certificate must be signed by an authority in the file that sslrootcert names there, and be for the host name there"
    )]
    IndexEncryption {
        /// What was met.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The database is the index of another registry, which is running.
    #[error(
        "the database is in use as the index of another registry: give each registry a database of its own, or wait a minute if that registry was stopped for good"
    )]
    IndexForeign,
    /// What was given as the address of the database is none. The source never shows it.
    #[error("the address of the database is not a postgres:// URL")]
    IndexUrl {
        /// What was met.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The schema could not be brought up to date.
    #[error("the database's schema cannot be brought up to date")]
    IndexMigration {
        /// What was met.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another process uses the data folder.
    #[error("data folder {} is in use by another process: stop it, or give --data another folder", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// The storage gave more or fewer bytes of a blob than it has.
    #[error("the storage gave content of another length than the blob has")]
    ContentLength,
    /// The registry was told to change nothing.
    #[error("the registry is read-only: it changes nothing, and it collects nothing")]
    ReadOnly,
    /// Another collection is running, in this process or in another replica.
    #[error("a collection is already running: wait until it is done")]
    CollectionRuns,
    /// A collection would remove more than anybody would mean, so it removed nothing.
    #[error(
        "{going} of {total} {what} would go, more than {percent} %: nothing was removed; look at what would go with --dry-run, and allow it with --force"
    )]
    TooMuch {
        /// What is counted.
        what: &'static str,
        /// How many would go.
        going: u64,
        /// How many there are.
        total: u64,
        /// The share that may go.
        percent: u8,
    },
    /// Records could not be read when the index was built, so what they name would look
    /// unreferenced.
    #[error(
        "{damaged} records could not be read when the index was built, and what they name would be collected: find them with `hayloft fsck`, put them right, and run `hayloft registry reindex`"
    )]
    RecordsDamaged {
        /// How many.
        damaged: String,
    },
    /// A retention rule cannot be followed.
    #[error("retention rule {rule}")]
    RetentionRule {
        /// The rule.
        rule: String,
        /// What is wrong with it.
        #[source]
        source: InvalidRule,
    },
    /// The dialect that the client speaks cannot express the model.
    #[error(
        "manifest {digest} of repository {repository} has no form in the {dialect} dialect: {source}"
    )]
    Dialect {
        /// The repository.
        repository: Repository,
        /// The manifest.
        digest: Box<Digest>,
        /// What the client speaks.
        dialect: Dialect,
        /// Why.
        #[source]
        source: Inexpressible,
    },
    /// A lease is asked for that no node would need.
    #[error("the lease cannot be given: {reason}")]
    LeaseInvalid {
        /// Why.
        reason: String,
    },
    /// An upstream did not give what was asked of it.
    #[error("{}", artifact::client::chain(source))]
    Upstream {
        /// What happened.
        source: Box<artifact::client::Error>,
    },
    /// Several requests waited for one thing that failed.
    #[error(transparent)]
    Shared(std::sync::Arc<Error>),
    /// Something of a mirrored repository that is not here, while no upstream may be asked.
    #[error(
        "{what} of mirrored repository {repository} is not here, and the registry is offline: it asks no upstream"
    )]
    Offline {
        /// The repository.
        repository: Repository,
        /// The tag or digest.
        what: String,
    },
    /// The bytes of an upstream are not those of the blob.
    #[error(
        "an upstream sent other bytes for blob {expected}: they have digest {actual}; they are in quarantine, and nothing of them is served"
    )]
    FillMismatch {
        /// The blob.
        expected: Box<Digest>,
        /// What the bytes hash to.
        actual: Box<Digest>,
    },
    /// The blob of an upstream is a GGUF file that llama.cpp would choke on.
    #[error(
        "blob {digest} is not let in, because llama.cpp would choke on it: {reason} (who runs the \
         registry can let such files in by --gguf-policy)"
    )]
    FillRefused {
        /// The blob.
        digest: Box<Digest>,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no room for a blob among what is mirrored.
    #[error(
        "blob {digest} of {size} bytes has no room among at most {limit} bytes of mirrored blobs: the others are pinned or in use; raise --mirror-size"
    )]
    MirrorFull {
        /// The blob.
        digest: Box<Digest>,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// A repository that is to be filled is not mirrored.
    #[error("repository {repository} is not mirrored: no upstream is configured for its name")]
    NotMirrored {
        /// The repository.
        repository: Repository,
    },
    /// A push into a repository that is mirrored.
    #[error(
        "repository {repository} is a mirror of {upstream}: it takes no pushes; push there, or under another name"
    )]
    Mirrored {
        /// The repository.
        repository: Repository,
        /// Where it comes from.
        upstream: String,
    },
    /// A request of Hugging Face's protocol cannot be answered.
    #[error(transparent)]
    Hub(#[from] Refusal),
    /// The registry is shutting down.
    #[error("the registry is shutting down: try again when it is back")]
    Closing,
    /// The system gives no random numbers for a key.
    #[error("the system gives no random numbers")]
    Random,
    /// A background task ended without a result.
    #[error("an internal task failed")]
    Task(#[source] tokio::task::JoinError),
    /// The listening socket failed.
    #[error("cannot accept connections")]
    Listen(#[source] io::Error),
}

fn line_of(line: usize) -> String {
    match line {
        0 => String::new(),
        line => format!(", line {line}"),
    }
}
