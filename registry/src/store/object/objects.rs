//! A bucket as the registry uses it: whole small objects, conditional puts, and errors in the
//! registry's terms.
//!
//! A request that failed may have been carried out all the same: the answer was lost, or a retry
//! met what the first try had done. So nothing is concluded from an error of a conditional put;
//! the object is looked at instead. Every object put that way carries something unique, so that
//! finding it means that this put was the one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use http_body_util::BodyExt;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::signer::{SignedUrlOptions, Signer};
use object_store::{
    Error as StoreError, GetOptions, GetRange, GetResult, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMode, PutPayload, UpdateVersion,
};
use url::Url;

use crate::error::Error;

/// A connected bucket, and the prefix in it that everything lies below.
#[derive(Clone)]
pub(crate) struct Objects {
    store: Arc<dyn ObjectStore>,
    parts: Arc<dyn MultipartStore>,
    /// What makes signed addresses, if that is to be used.
    signer: Option<Arc<dyn Signer>>,
    /// How unfinished multipart uploads can be listed, which only S3 has.
    http: Option<object_store::client::HttpClient>,
    prefix: Path,
    /// Whether conditional puts are to be used; see `probe`.
    is_conditional: Arc<AtomicBool>,
}

impl std::fmt::Debug for Objects {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} below {:?}", self.store, self.prefix.as_ref())
    }
}

/// What came of a conditional put.
#[derive(Debug)]
pub(crate) enum Put {
    /// It was done; this is the object's version now.
    Done(UpdateVersion),
    /// The object was not as the condition demanded.
    Refused,
}

impl Objects {
    /// The objects of `store` below `prefix`; `parts` is the same store.
    pub(crate) fn new(
        store: Arc<dyn ObjectStore>,
        parts: Arc<dyn MultipartStore>,
        prefix: Path,
    ) -> Self {
        Self {
            store,
            parts,
            signer: None,
            http: None,
            prefix,
            is_conditional: Arc::new(AtomicBool::new(true)),
        }
    }

    /// Adds what makes signed addresses.
    pub(crate) fn with_signer(mut self, signer: Arc<dyn Signer>) -> Self {
        self.signer = Some(signer);
        self
    }

    /// Adds what listing unfinished uploads takes.
    pub(crate) fn with_http(mut self, http: object_store::client::HttpClient) -> Self {
        self.http = Some(http);
        self
    }

    /// No put is conditional from here on: the bucket does not honour it.
    pub(crate) fn forgo_conditions(&self) {
        self.is_conditional.store(false, Ordering::Release);
    }

    /// Everything below `folder`, as a store of its own.
    pub(crate) fn below(&self, folder: &str) -> Arc<dyn ObjectStore> {
        Arc::new(PrefixStore::new(Arc::clone(&self.store), self.path(folder)))
    }

    /// The whole path of `key`.
    pub(crate) fn path(&self, key: &str) -> Path {
        let below = Path::from(key);
        let parts = self.prefix.parts().chain(below.parts());
        parts.map(|part| part.as_ref().to_owned()).collect()
    }

    /// The key of a whole path.
    pub(crate) fn key_of(&self, path: &Path) -> Option<String> {
        let rest: Vec<String> = path
            .prefix_match(&self.prefix)?
            .map(|part| part.as_ref().to_owned())
            .collect();
        Some(rest.join("/"))
    }

    /// A small object and its version, or `None`.
    pub(crate) async fn get(&self, key: &str) -> Result<Option<(Bytes, UpdateVersion)>, Error> {
        let failed = |source| Error::object("read", key, source);
        let found = match self.store.get(&self.path(key)).await {
            Ok(found) => found,
            Err(StoreError::NotFound { .. }) => return Ok(None),
            Err(source) => return Err(failed(source)),
        };
        let version = UpdateVersion {
            e_tag: found.meta.e_tag.clone(),
            version: found.meta.version.clone(),
        };
        let size = found.meta.size;
        let bytes = found.bytes().await.map_err(failed)?;
        if bytes.len() as u64 != size {
            return Err(Error::ContentLength);
        }
        Ok(Some((bytes, version)))
    }

    /// Asks for a range of an object.
    pub(crate) async fn get_range(
        &self,
        key: &str,
        range: std::ops::Range<u64>,
    ) -> Result<Option<GetResult>, Error> {
        let options = GetOptions {
            range: Some(GetRange::Bounded(range)),
            ..GetOptions::default()
        };
        match self.store.get_opts(&self.path(key), options).await {
            Ok(found) => Ok(Some(found)),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(source) => Err(Error::object("read", key, source)),
        }
    }

    /// The size of an object, or `None`.
    pub(crate) async fn size(&self, key: &str) -> Result<Option<u64>, Error> {
        match self.store.head(&self.path(key)).await {
            Ok(found) => Ok(Some(found.size)),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(source) => Err(Error::object("look at", key, source)),
        }
    }

    /// Puts an object over whatever was there.
    pub(crate) async fn put(
        &self,
        key: &str,
        content: impl Into<PutPayload>,
    ) -> Result<UpdateVersion, Error> {
        let put = self.store.put(&self.path(key), content.into()).await;
        let done = put.map_err(|source| Error::object("write", key, source))?;
        Ok(done.into())
    }

    /// Puts an object that must not be there yet.
    pub(crate) async fn create(&self, key: &str, content: Bytes) -> Result<Put, Error> {
        self.put_if(key, PutMode::Create, content).await
    }

    /// Puts an object over the version that was read.
    pub(crate) async fn swap(
        &self,
        key: &str,
        version: UpdateVersion,
        content: Bytes,
    ) -> Result<Put, Error> {
        self.put_if(key, PutMode::Update(version), content).await
    }

    async fn put_if(&self, key: &str, mode: PutMode, content: Bytes) -> Result<Put, Error> {
        if !self.is_conditional.load(Ordering::Acquire) {
            // Read and write apart: good enough for the only registry of a bucket.
            if matches!(mode, PutMode::Create) && self.size(key).await?.is_some() {
                return Ok(Put::Refused);
            }
            return self.put(key, content).await.map(Put::Done);
        }
        let failure = match self
            .store
            .put_opts(&self.path(key), content.clone().into(), mode.into())
            .await
        {
            Ok(done) => return Ok(Put::Done(done.into())),
            Err(failure) => failure,
        };
        match self.get(key).await {
            Ok(Some((found, version))) if found == content => Ok(Put::Done(version)),
            Ok(_) => match failure {
                StoreError::AlreadyExists { .. }
                | StoreError::Precondition { .. }
                | StoreError::NotModified { .. } => Ok(Put::Refused),
                source => Err(Error::object("write", key, source)),
            },
            Err(_) => Err(Error::object("write", key, failure)),
        }
    }

    /// Removes an object; an absent one is fine.
    pub(crate) async fn delete(&self, key: &str) -> Result<(), Error> {
        match self.store.delete(&self.path(key)).await {
            Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
            Err(source) => Err(Error::object("remove", key, source)),
        }
    }

    /// Every object below `folder`, with its key.
    pub(crate) fn list(
        &self,
        folder: &str,
    ) -> BoxStream<'static, Result<(String, ObjectMeta), Error>> {
        let objects = self.clone();
        let key = folder.to_owned();
        self.store
            .list(Some(&self.path(folder)))
            .map_err(move |source| Error::object("list", &key, source))
            .try_filter_map(move |found| {
                let key = objects.key_of(&found.location);
                futures::future::ready(Ok(key.map(|key| (key, found))))
            })
            .boxed()
    }

    /// Begins a multipart upload; gives its id.
    pub(crate) async fn begin_parts(&self, key: &str) -> Result<String, Error> {
        let begun = self.parts.create_multipart(&self.path(key)).await;
        begun.map_err(|source| Error::object("begin", key, source))
    }

    /// Puts part `index` of a multipart upload; gives what completing it needs to know of the part.
    pub(crate) async fn put_part(
        &self,
        key: &str,
        id: &str,
        index: usize,
        content: PutPayload,
    ) -> Result<String, Error> {
        let put = self
            .parts
            .put_part(&self.path(key), &id.to_owned(), index, content)
            .await;
        let part = put.map_err(|source| Error::object("write a part of", key, source))?;
        Ok(part.content_id)
    }

    /// Makes one object of the parts. What counts is the object: a store may answer an error after
    /// it has put the parts together, and a retry then finds no such upload.
    pub(crate) async fn complete_parts(
        &self,
        key: &str,
        id: &str,
        parts: Vec<String>,
        size: u64,
    ) -> Result<(), Error> {
        let parts = parts.into_iter().map(|content_id| PartId { content_id });
        let completed = self
            .parts
            .complete_multipart(&self.path(key), &id.to_owned(), parts.collect())
            .await;
        let found = self.size(key).await?;
        match completed {
            _ if found == Some(size) => Ok(()),
            Ok(_) => Err(Error::ContentLength),
            Err(source) => Err(Error::object("complete", key, source)),
        }
    }

    /// Gives up a multipart upload; one that is not there is fine.
    pub(crate) async fn abort_parts(&self, key: &str, id: &str) -> Result<(), Error> {
        self.abort_at(&self.path(key), id).await
    }

    /// Gives up a multipart upload by its whole path.
    pub(crate) async fn abort_at(&self, path: &Path, id: &str) -> Result<(), Error> {
        match self.parts.abort_multipart(path, &id.to_owned()).await {
            Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
            Err(source) => Err(Error::object("abort", path.as_ref(), source)),
        }
    }

    /// A signed address of the object, if this bucket has such.
    pub(crate) async fn signed_url(
        &self,
        key: &str,
        valid: Duration,
    ) -> Result<Option<Url>, Error> {
        let Some(signer) = &self.signer else {
            return Ok(None);
        };
        let path = self.path(key);
        let signed = signer.signed_url(http::Method::GET, &path, valid);
        match signed.await {
            Ok(url) => Ok(Some(url)),
            Err(source) => Err(Error::object("sign an address of", key, source)),
        }
    }

    /// The answer of the bucket itself to a GET with this query; `None` when it has none.
    pub(crate) async fn get_bucket(
        &self,
        query: Vec<(String, String)>,
    ) -> Result<Option<String>, Error> {
        let (Some(signer), Some(http)) = (&self.signer, &self.http) else {
            return Ok(None);
        };
        let failed = |source| Error::object("list unfinished uploads of", "", source);
        let generic = |source: Box<dyn std::error::Error + Send + Sync>| {
            let store = "bucket";
            failed(StoreError::Generic { store, source })
        };
        let options = SignedUrlOptions::new().with_query(query);
        let url = signer
            .signed_url_opts(http::Method::GET, &Path::default(), SIGNED_FOR, &options)
            .await
            .map_err(failed)?;
        let request = http::Request::get(url.as_str())
            .body(object_store::client::HttpRequestBody::empty())
            .map_err(|error| generic(error.into()))?;
        let answer = http
            .execute(request)
            .await
            .map_err(|error| generic(error.into()))?;
        if !answer.status().is_success() {
            tracing::debug!(status = %answer.status(), "the bucket does not list unfinished uploads");
            return Ok(None);
        }
        let body = http_body_util::Limited::new(answer.into_body(), MOST_BYTES_OF_LISTING);
        let body = body.collect().await.map_err(generic)?.to_bytes();
        String::from_utf8(body.into())
            .map(Some)
            .map_err(|error| generic(error.into()))
    }
}

/// A page of a listing, a thousand entries, is far smaller.
const MOST_BYTES_OF_LISTING: usize = 16 * 1024 * 1024;
/// A signed request is made at once.
const SIGNED_FOR: Duration = Duration::from_secs(60);
