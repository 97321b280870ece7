//! The seams of storage: what a blob store, an upload store and a metadata index must do.
//!
//! A blob has two states. While it is being received it belongs to an upload session and nobody
//! else can see it; once its digest has matched it is committed, and from then on it is visible
//! under that digest, whole, for ever or until it is collected.

mod content;
pub(crate) mod health;
pub(crate) mod index;
pub(crate) mod key;
pub(crate) mod local;
pub(crate) mod locks;
pub(crate) mod mark;
pub(crate) mod object;
pub(crate) mod paging;
pub(crate) mod postgres;
pub(crate) mod records;
pub(crate) mod sled;

#[cfg(any(test, feature = "test-support"))]
pub mod blob_conformance;
#[cfg(any(test, feature = "test-support"))]
pub mod conformance;
#[cfg(any(test, feature = "test-support"))]
pub(crate) mod memory;

use std::fmt::Debug;
use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use artifact::{Algorithm, Digest, Repository};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use jiff::Timestamp;
use url::Url;
use uuid::Uuid;

use crate::error::Error;

pub use index::{Answer, Change, IndexLock, LockKey, MetadataIndex, Page};
pub use mark::Mark;

/// Committed content, by digest.
pub(crate) trait BlobStore: Debug + Send + Sync {
    /// The size in bytes, or `None` when there is no such blob.
    fn stat<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<Option<u64>, Error>>;

    /// Opens a blob for reading, or `None` when there is no such blob.
    fn open<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<Option<OpenBlob>, Error>>;

    /// The whole content of a small blob (a manifest), or `None` when there is no such blob.
    fn read<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<Option<Bytes>, Error>>;

    /// Stores small content whose digest the caller has computed; durable when this returns.
    fn put<'a>(&'a self, digest: &'a Digest, content: Bytes) -> BoxFuture<'a, Result<(), Error>>;

    /// Makes a file a blob; durable when this returns, and the file has gone from where it was. The
    /// caller has found the digest of its bytes right. `false`, with the file untouched, when this
    /// store does not keep files, or not on the same disk.
    fn adopt<'a>(
        &'a self,
        digest: &'a Digest,
        file: &'a Path,
    ) -> BoxFuture<'a, Result<bool, Error>>;

    /// Removes a blob, and its chunk map before it; the absence of the blob is durable when this
    /// returns. `false` when it was not there.
    ///
    /// The caller makes sure that nobody links the blob meanwhile: it holds the blob's lock.
    fn remove<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<bool, Error>>;

    /// Every blob, in no particular order.
    fn list(&self) -> BoxStream<'_, Result<StoredBlob, Error>>;

    /// Moves a blob aside: it is no longer visible, and kept for a person to look at. Its chunk map
    /// goes. A blob that is not there is fine.
    fn quarantine<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<(), Error>>;

    /// An address that gives the blob to whoever has it, for `valid`; `None` when this store has
    /// no such addresses, or not for this blob.
    fn signed_url<'a>(
        &'a self,
        digest: &'a Digest,
        valid: Duration,
    ) -> BoxFuture<'a, Result<Option<Url>, Error>>;

    /// Whether content can be stored: writes, reads and removes a probe.
    fn check(&self) -> BoxFuture<'_, Result<(), Error>>;
}

/// The chunk maps of blobs, encoded, each beside its blob.
///
/// A map says nothing that its blob does not say: it is kept without a sync, may be lost at any time,
/// and is made again. It goes with its blob, by whatever way that goes.
pub(crate) trait MapStore: Debug + Send + Sync {
    /// The map of a blob, or `None` when there is none.
    fn map<'a>(&'a self, blob: &'a Digest) -> BoxFuture<'a, Result<Option<Bytes>, Error>>;

    /// Keeps the map of a blob, over whatever was there. The caller holds the blob's lock and has
    /// found the blob there.
    fn keep_map<'a>(&'a self, blob: &'a Digest, map: Bytes) -> BoxFuture<'a, Result<(), Error>>;

    /// Removes the map of a blob; one that is not there is fine. The caller holds the blob's lock.
    fn forget_map<'a>(&'a self, blob: &'a Digest) -> BoxFuture<'a, Result<(), Error>>;

    /// The blobs whose maps are kept, in no particular order.
    fn mapped(&self) -> BoxStream<'_, Result<Digest, Error>>;
}

/// A blob as a listing shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredBlob {
    /// What it hashes to, or should.
    pub(crate) digest: Digest,
    /// Its size in bytes.
    pub(crate) size: u64,
    /// When it was committed.
    pub(crate) modified: Timestamp,
}

/// A blob that is open for reading; it stays readable even when it is removed meanwhile.
#[derive(Debug)]
pub(crate) struct OpenBlob {
    /// Its size in bytes.
    pub(crate) size: u64,
    /// Where its bytes come from.
    pub(crate) content: BlobContent,
}

/// Where the bytes of an open blob come from.
#[derive(Debug)]
pub(crate) enum BlobContent {
    /// A file of the local store.
    File {
        /// The file.
        file: File,
        /// The same file, opened to be read around the page cache, if that makes sense.
        direct: Option<File>,
        /// Bytes of this blob that were sent lately, by whatever request.
        served: Arc<AtomicU64>,
    },
    /// Content that is fetched as it is read.
    Remote(Box<dyn RemoteContent>),
}

/// Content that comes from elsewhere, such as a bucket.
pub(crate) trait RemoteContent: Debug + Send {
    /// Asks for a range of it, which must lie within the blob. The stream gives these bytes and no
    /// others, piece by piece as they are taken; anything else is an error, also late in the stream.
    fn read(
        self: Box<Self>,
        range: Range<u64>,
    ) -> BoxFuture<'static, Result<BoxStream<'static, Result<Bytes, Error>>, Error>>;
}

/// Content on its way in.
pub(crate) trait UploadStore: Debug + Send + Sync {
    /// Opens a session for `repository`, hashed with `algorithm`.
    fn begin<'a>(
        &'a self,
        repository: &'a Repository,
        algorithm: Algorithm,
    ) -> BoxFuture<'a, Result<Uuid, Error>>;

    /// Bytes of the session that are safely stored.
    fn offset<'a>(
        &'a self,
        repository: &'a Repository,
        id: Uuid,
    ) -> BoxFuture<'a, Result<u64, Error>>;

    /// Takes the session for writing. One request at a time may have it: while another one is
    /// receiving, this fails with [`Error::OutOfOrder`].
    fn claim<'a>(
        &'a self,
        repository: &'a Repository,
        id: Uuid,
    ) -> BoxFuture<'a, Result<Box<dyn UploadSession>, Error>>;

    /// Waits until what dropped sessions had received is kept.
    fn settled(&self) -> BoxFuture<'_, ()>;

    /// Removes sessions untouched for longer than `age`; gives how many.
    fn expire(&self, age: Duration) -> BoxFuture<'_, Result<usize, Error>>;
}

/// An upload session that this request alone may write to.
///
/// Dropped without `settle` or `commit`, for instance because the client went away, it keeps and
/// settles what has arrived, in the background.
pub(crate) trait UploadSession: Send {
    /// Bytes received so far.
    fn offset(&self) -> u64;

    /// Takes the next bytes. An error may surface one call later than its cause.
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<(), Error>>;

    /// Makes what has arrived durable, with the state of the hash; gives the offset. Nothing is
    /// written after it.
    fn settle(&mut self) -> BoxFuture<'_, Result<u64, Error>>;

    /// Forgets what was written since the session was claimed.
    fn rewind(&mut self) -> BoxFuture<'_, Result<(), Error>>;

    /// Ends the session: the content becomes visible if it has this digest, else
    /// [`Error::DigestMismatch`] and nothing is kept. Gives the size in bytes.
    fn commit(self: Box<Self>, digest: Digest) -> BoxFuture<'static, Result<u64, Error>>;

    /// Ends the session and forgets its bytes.
    fn cancel(self: Box<Self>) -> BoxFuture<'static, Result<(), Error>>;

    /// Chooses the hash, which is free of cost as long as nothing has been written.
    fn expect_algorithm(&mut self, algorithm: Algorithm);
}
