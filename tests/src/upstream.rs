//! A hostile origin: a small registry that serves manifests and blobs, with faults on demand that no
//! real registry produces when it is asked to, and with counts of what it sent.

mod connection;
mod request;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use artifact::dialect::{ModelFacts, modelpack_manifest};
use artifact::manifest::Descriptor;
use artifact::media_type::modelpack;
use artifact::{Digest, Reference};
use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// What is wrong with the answers to GETs of blobs.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// Sends half of what it announced, then closes the connection.
    DropAtHalf,
    /// Announces more bytes than the blob has, sends the blob, then closes.
    AnnounceMore,
    /// Announces and sends fewer bytes than the blob has.
    AnnounceLess,
    /// Answers a range with the whole blob and status 200.
    IgnoreRange,
    /// Answers a range with other bytes than were asked for, and says so.
    WrongOffset,
    /// Answers a range with a multipart body.
    Multipart,
    /// Flips a bit of every body.
    WrongBytes,
    /// Sends more than it announced in chunked coding, without end.
    Endless,
    /// Sends half of what it announced, then nothing, with the connection open.
    Stall,
    /// Answers with a status and no blob.
    Status(u16),
    /// Sends at most so many bytes a second on each connection.
    Slow(u64),
    /// Redirects to another place.
    Redirect(String),
    /// Sends the blob and claims that it is gzip.
    ContentEncoding,
}

impl Fault {
    /// Whether it spoils answers to ranges only.
    fn is_of_ranges(&self) -> bool {
        matches!(
            self,
            Self::IgnoreRange | Self::WrongOffset | Self::Multipart
        )
    }
}

/// What it has sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests for manifests.
    pub manifests: u64,
    /// GETs of blobs.
    pub blobs: u64,
    /// Bytes of blobs.
    pub bytes: u64,
    /// Requests for a token.
    pub tokens: u64,
}

/// The running origin; it ends when dropped.
#[derive(Debug)]
pub struct Upstream {
    address: SocketAddr,
    state: Arc<State>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    inner: Mutex<Inner>,
    manifests: AtomicU64,
    blobs: AtomicU64,
    bytes: AtomicU64,
    tokens: AtomicU64,
}

#[derive(Debug, Default)]
struct Inner {
    /// By tag and by digest.
    manifests: HashMap<String, (String, Bytes)>,
    blobs: HashMap<String, Bytes>,
    fault: Option<Fault>,
    /// Answers that the fault still spoils; none means all.
    fault_left: Option<usize>,
    token: Option<String>,
    announced_digest: Option<String>,
    retry_after: Option<u64>,
    /// Status of the answers to the next requests for manifests, and how many of them.
    manifest_status: Option<(u16, usize)>,
}

impl State {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The status that stands in for the next manifest.
    fn next_manifest_status(&self) -> Option<u16> {
        let mut inner = self.lock();
        let (status, left) = inner.manifest_status.as_mut()?;
        *left = left.checked_sub(1)?;
        Some(*status)
    }

    /// The fault for the next answer.
    fn next_fault(&self) -> Option<Fault> {
        let mut inner = self.lock();
        match &mut inner.fault_left {
            Some(0) => return None,
            Some(left) => *left -= 1,
            None => {}
        }
        inner.fault.clone()
    }
}

impl Upstream {
    /// Starts on a port of its own.
    ///
    /// # Panics
    /// When no port can be had.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(State::default());
        let served = Arc::clone(&state);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&served);
                connections.spawn(async move {
                    // A client that goes away is none of the origin's business.
                    let _ = connection::serve(stream, &state, address).await;
                });
            }
        });
        Self {
            address,
            state,
            task,
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A model with these weights under `test/model:TAG`, in ModelPack form.
    pub fn add_model(&self, tag: &str, weights: impl Into<Bytes>) -> Reference {
        let weights = weights.into();
        let layer = Descriptor {
            media_type: modelpack::WEIGHT_RAW.to_owned(),
            digest: self.add_blob(weights.clone()),
            size: weights.len() as u64,
            artifact_type: None,
            annotations: [(modelpack::FILEPATH.to_owned(), "weights.gguf".to_owned())].into(),
            is_foreign: false,
        };
        let (config, manifest) = modelpack_manifest(&[layer], &ModelFacts::default());
        self.add_blob(config.bytes);
        self.add_manifest(tag, manifest.media_type, manifest.bytes)
    }

    /// A blob under its digest.
    pub fn add_blob(&self, bytes: impl Into<Bytes>) -> Digest {
        let bytes = bytes.into();
        let digest = Digest::sha256(&bytes);
        self.state.lock().blobs.insert(digest.to_string(), bytes);
        digest
    }

    /// A manifest under `test/model:TAG` and under its digest.
    ///
    /// # Panics
    /// When `tag` is not a tag.
    pub fn add_manifest(&self, tag: &str, media_type: &str, bytes: impl Into<Bytes>) -> Reference {
        let bytes = bytes.into();
        let entry = (media_type.to_owned(), bytes.clone());
        let mut inner = self.state.lock();
        inner
            .manifests
            .insert(Digest::sha256(&bytes).to_string(), entry.clone());
        inner.manifests.insert(tag.to_owned(), entry);
        Reference::parse(&format!("{}/test/model:{tag}", self.address)).expect("a reference")
    }

    /// Spoils every answer to a GET of a blob from now on.
    pub fn set_fault(&self, fault: Fault) {
        self.set_fault_for(fault, None);
    }

    /// Spoils the next `answers` answers.
    pub fn set_fault_times(&self, fault: Fault, answers: usize) {
        self.set_fault_for(fault, Some(answers));
    }

    fn set_fault_for(&self, fault: Fault, answers: Option<usize>) {
        let mut inner = self.state.lock();
        inner.fault = Some(fault);
        inner.fault_left = answers;
    }

    /// Answers well from now on.
    pub fn clear_fault(&self) {
        self.state.lock().fault = None;
    }

    /// Sends a `Retry-After` of so many seconds with [`Fault::Status`].
    pub fn set_retry_after(&self, seconds: u64) {
        self.state.lock().retry_after = Some(seconds);
    }

    /// Answers the next `answers` requests for manifests with a status and no manifest.
    pub fn refuse_manifests(&self, status: u16, answers: usize) {
        self.state.lock().manifest_status = Some((status, answers));
    }

    /// Announces this as the digest of every manifest.
    pub fn announce_digest(&self, digest: &str) {
        self.state.lock().announced_digest = Some(digest.to_owned());
    }

    /// Wants a token from now on, and gives it to anybody who does the handshake.
    pub fn require_token(&self, token: &str) {
        self.state.lock().token = Some(token.to_owned());
    }

    /// What it has sent so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            manifests: self.state.manifests.load(Ordering::SeqCst),
            blobs: self.state.blobs.load(Ordering::SeqCst),
            bytes: self.state.bytes.load(Ordering::SeqCst),
            tokens: self.state.tokens.load(Ordering::SeqCst),
        }
    }

    /// Closes the listener and every connection: nothing answers any more.
    pub async fn stop(mut self) {
        self.task.abort();
        // Cancelled is the expected outcome.
        let _ = (&mut self.task).await;
    }

    /// Waits until it has sent at least so many bytes of blobs.
    ///
    /// # Panics
    /// When that takes more than half a minute.
    pub async fn wait_for_bytes(&self, bytes: u64) {
        let wait = async {
            while self.counts().bytes < bytes {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), wait)
            .await
            .expect("the origin was asked for that much");
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Bytes that look random and are the same for the same seed.
#[must_use]
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
