//! The push of a blob: one pass over a file, hashed while it is sent; after a broken connection it
//! goes on where the registry says it stopped.
//!
//! Source: OCI distribution-spec 1.1, "Pushing a blob in chunks" and "Resuming an upload".

mod body;

use std::path::Path;

use bytes::Bytes;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use reqwest::{Method, Response, StatusCode};
use url::Url;

use crate::client::error::Error;
use crate::client::registry::{Operation, RegistryClient};
use crate::client::retry::RetryPolicy;
use crate::digest::Digest;
use body::{FileBody, Progress};

const OCTET_STREAM: &str = "application/octet-stream";

/// A blob that is in the registry now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PushedBlob {
    /// Its digest, computed from the bytes that were sent.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Whether it was there already, so that nothing was sent.
    pub existed: bool,
}

/// Pushes bytes whose digest is cheap to know beforehand: nothing is sent when the registry has
/// them.
///
/// # Errors
/// Those of any request; [`Error::Status`] with what the registry said when it refuses.
pub async fn push_bytes(registry: &RegistryClient, bytes: Bytes) -> Result<PushedBlob, Error> {
    let digest = Digest::sha256(&bytes);
    let size = bytes.len() as u64;
    let pushed = |existed| PushedBlob {
        digest,
        size,
        existed,
    };
    let mut delays = RetryPolicy::default().delays();
    loop {
        match push_bytes_once(registry, &digest, bytes.clone()).await {
            Ok(existed) => return Ok(pushed(existed)),
            Err(error) => wait_after(error, &mut delays).await?,
        }
    }
}

async fn push_bytes_once(
    registry: &RegistryClient,
    digest: &Digest,
    bytes: Bytes,
) -> Result<bool, Error> {
    if registry.has_blob(digest).await? {
        return Ok(true);
    }
    let session = open_session(registry).await?;
    let url = with_digest(&session, digest);
    let answer = registry
        .send(Operation::Push, || {
            registry
                .request(Method::PUT, url.clone())
                .header(CONTENT_TYPE, OCTET_STREAM)
                .body(bytes.clone())
        })
        .await?;
    expect(registry, answer, StatusCode::CREATED).await?;
    Ok(false)
}

/// Pushes a file in one pass. With `known` as its digest, the registry is asked first and nothing
/// is sent when it has the blob. `on_progress` is told the bytes sent so far, at most once for
/// each mebibyte, from the thread that reads the file.
///
/// # Errors
/// [`Error::File`] when the file cannot be read or changes meanwhile; otherwise as [`push_bytes`].
pub async fn push_file(
    registry: &RegistryClient,
    path: &Path,
    known: Option<Digest>,
    on_progress: impl Fn(u64) + Send + Sync + 'static,
) -> Result<PushedBlob, Error> {
    let progress = Progress::new(on_progress);
    let body = FileBody::open(path, progress).await?;
    let size = body.size();
    if let Some(digest) = known
        && registry.has_blob(&digest).await?
    {
        return Ok(PushedBlob {
            digest,
            size,
            existed: true,
        });
    }
    let digest = Upload::new(registry, body).run().await?;
    Ok(PushedBlob {
        digest,
        size,
        existed: false,
    })
}

/// The upload of one file: its session and how far the registry has come.
struct Upload<'a> {
    registry: &'a RegistryClient,
    body: FileBody,
    session: Option<Url>,
    offset: u64,
}

impl<'a> Upload<'a> {
    fn new(registry: &'a RegistryClient, body: FileBody) -> Self {
        Self {
            registry,
            body,
            session: None,
            offset: 0,
        }
    }

    async fn run(mut self) -> Result<Digest, Error> {
        let mut delays = RetryPolicy::default().delays();
        loop {
            let before = self.offset;
            let error = match self.attempt().await {
                Ok(digest) => return Ok(digest),
                Err(error) => error,
            };
            // The file's own fault is the cause when the connection broke because of it.
            if let Some(fault) = self.body.take_fault() {
                return Err(fault);
            }
            if self.offset > before {
                delays = RetryPolicy::default().delays();
            }
            wait_after(error, &mut delays).await?;
            self.recover().await?;
        }
    }

    async fn attempt(&mut self) -> Result<Digest, Error> {
        let session = match &self.session {
            Some(session) => session.clone(),
            None => open_session(self.registry).await?,
        };
        self.session = Some(session.clone());
        let next = if self.offset < self.body.size() {
            self.send_rest(&session).await?
        } else {
            session
        };
        self.session = Some(next.clone());
        self.offset = self.body.size();
        let digest = self.body.digest().await?;
        let url = with_digest(&next, &digest);
        let answer = self
            .registry
            .send(Operation::Push, || {
                self.registry
                    .request(Method::PUT, url.clone())
                    .header(CONTENT_LENGTH, 0)
            })
            .await?;
        expect(self.registry, answer, StatusCode::CREATED).await?;
        Ok(digest)
    }

    /// Everything from the offset in one PATCH; the session's next URL.
    async fn send_rest(&mut self, session: &Url) -> Result<Url, Error> {
        let size = self.body.size();
        let length = size - self.offset;
        let mut request = self
            .registry
            .request(Method::PATCH, session.clone())
            .header(CONTENT_TYPE, OCTET_STREAM)
            .header(CONTENT_LENGTH, length);
        if self.offset > 0 {
            request = request.header(CONTENT_RANGE, format!("{}-{}", self.offset, size - 1));
        }
        let request = request.body(self.body.stream_from(self.offset).await?);
        // A body that streams cannot be sent twice, so this request does no handshake: the one that
        // opened the session did.
        let answer = self.registry.send_once(Operation::Push, request).await?;
        let answer = expect(self.registry, answer, StatusCode::ACCEPTED).await?;
        self.registry.location(session, &answer)
    }

    /// Asks the registry how far it has come; a session that is gone is begun anew.
    async fn recover(&mut self) -> Result<(), Error> {
        let Some(session) = self.session.clone() else {
            return Ok(());
        };
        let mut delays = RetryPolicy::default().delays();
        loop {
            match self.offset_of(&session).await {
                Ok(Some((offset, next))) => {
                    self.offset = offset;
                    self.session = Some(next);
                    return Ok(());
                }
                Ok(None) => {
                    self.offset = 0;
                    self.session = None;
                    return Ok(());
                }
                Err(error) => wait_after(error, &mut delays).await?,
            }
        }
    }

    async fn offset_of(&self, session: &Url) -> Result<Option<(u64, Url)>, Error> {
        let answer = self
            .registry
            .send(Operation::Push, || {
                self.registry.request(Method::GET, session.clone())
            })
            .await?;
        match answer.status() {
            StatusCode::NO_CONTENT | StatusCode::ACCEPTED | StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            _ => return Err(self.registry.fault(answer).await),
        }
        let offset = offset_from_range(&answer).filter(|offset| *offset <= self.body.size());
        let next = self
            .registry
            .location(session, &answer)
            .unwrap_or_else(|_| session.clone());
        Ok(offset.map(|offset| (offset, next)))
    }
}

/// `Range: 0-END` as the count of bytes received. Without the header nothing has been; and
/// `0-0` is how common registries say so too, which costs at most one byte sent twice.
fn offset_from_range(answer: &Response) -> Option<u64> {
    let Some(value) = answer.headers().get(RANGE) else {
        return Some(0);
    };
    let text = value.to_str().ok()?.trim_start_matches("bytes=").trim();
    let (first, last) = text.split_once('-')?;
    let last: u64 = last.parse().ok()?;
    match (first, last) {
        ("0", 0) => Some(0),
        ("0", last) => last.checked_add(1),
        _ => None,
    }
}

async fn open_session(registry: &RegistryClient) -> Result<Url, Error> {
    let url = registry.url("blobs/uploads/")?;
    let answer = registry
        .send(Operation::Push, || {
            registry
                .request(Method::POST, url.clone())
                .header(CONTENT_LENGTH, 0)
        })
        .await?;
    let answer = expect(registry, answer, StatusCode::ACCEPTED).await?;
    registry.location(&url, &answer)
}

fn with_digest(session: &Url, digest: &Digest) -> Url {
    let mut url = session.clone();
    url.query_pairs_mut()
        .append_pair("digest", &digest.to_string());
    url
}

async fn expect(
    registry: &RegistryClient,
    answer: Response,
    status: StatusCode,
) -> Result<Response, Error> {
    if answer.status() == status {
        Ok(answer)
    } else {
        Err(registry.fault(answer).await)
    }
}

async fn wait_after(error: Error, delays: &mut backon::ExponentialBackoff) -> Result<(), Error> {
    if !error.is_retryable() {
        return Err(error);
    }
    let Some(delay) = delays.next() else {
        return Err(error);
    };
    tracing::debug!(error = %error, "the push goes on after a failure");
    let delay = error.retry_after().map_or(delay, |asked| asked.max(delay));
    tokio::time::sleep(delay).await;
    Ok(())
}
