//! A hostile origin: a small registry that serves manifests and blobs, with faults on demand that no
//! real registry produces when it is asked to, and with counts of what it sent.

mod answers;
mod chunk_maps;

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use artifact::dialect::{ModelFacts, modelpack_manifest};
use artifact::manifest::Descriptor;
use artifact::media_type::modelpack;
use artifact::{Digest, Reference};
use bytes::Bytes;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

pub use crate::wire::Fault;
use crate::wire::{self, After, Faults, Request, Sent};
pub use chunk_maps::chunk_map_of;

/// What it has sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests for manifests.
    pub manifests: u64,
    /// Those that were answered with one.
    pub manifest_bodies: u64,
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
    faults: Faults,
    manifests: Sent,
    manifest_bodies: Sent,
    blobs: Sent,
    tokens: Sent,
}

#[derive(Debug, Default)]
struct Inner {
    /// By tag and by digest.
    manifests: HashMap<String, (String, Bytes)>,
    blobs: HashMap<String, Bytes>,
    /// Descriptors by the digest of their subject.
    referrers: HashMap<String, Vec<Value>>,
    /// What was asked for of which blob, in order.
    asked: Vec<(String, Option<Range<u64>>)>,
    /// Faults leave blobs below a mebibyte alone.
    spares_small: bool,
    token: Option<String>,
    announced_digest: Option<String>,
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
                    let _ = serve(stream, &state, address).await;
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
        let (config, manifest) =
            modelpack_manifest(&[layer], &ModelFacts::default(), &BTreeMap::new());
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

    /// Bytes under the digest of others.
    pub fn add_wrong_blob(&self, digest: &Digest, bytes: impl Into<Bytes>) {
        let mut inner = self.state.lock();
        inner.blobs.insert(digest.to_string(), bytes.into());
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

    /// The digest of the manifest under a tag.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn digest_of(&self, tag: &str) -> Digest {
        let inner = self.state.lock();
        let (_, bytes) = inner.manifests.get(tag).expect("a manifest");
        Digest::sha256(bytes)
    }

    /// Spoils every answer to a GET of a blob from now on.
    pub fn set_fault(&self, fault: Fault) {
        self.state.faults.set(fault, None);
    }

    /// Spoils the next `answers` answers.
    pub fn set_fault_times(&self, fault: Fault, answers: usize) {
        self.state.faults.set(fault, Some(answers));
    }

    /// Faults leave blobs below a mebibyte alone from now on: configs and chunk maps.
    pub fn spare_small_blobs(&self) {
        self.state.lock().spares_small = true;
    }

    /// Answers well from now on.
    pub fn clear_fault(&self) {
        self.state.faults.clear();
    }

    /// Sends a `Retry-After` of so many seconds with [`Fault::Status`] and with refused manifests.
    pub fn set_retry_after(&self, seconds: u64) {
        self.state.faults.set_retry_after(seconds);
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
            manifests: self.state.manifests.requests(),
            manifest_bodies: self.state.manifest_bodies.requests(),
            blobs: self.state.blobs.requests(),
            bytes: self.state.blobs.bytes(),
            tokens: self.state.tokens.requests(),
        }
    }

    /// The ranges that were asked for of a blob since the last call; nothing stands for all of it.
    #[must_use]
    pub fn take_asked(&self, digest: &Digest) -> Vec<Option<Range<u64>>> {
        let digest = digest.to_string();
        let mut inner = self.state.lock();
        let asked = inner.asked.extract_if(.., |(blob, _)| *blob == digest);
        asked.map(|(_, range)| range).collect()
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

async fn serve(stream: TcpStream, state: &State, address: SocketAddr) -> io::Result<()> {
    let mut wire = wire::wire(stream)?;
    while let Some(request) = Request::read(&mut wire).await? {
        if answers::answer(&mut wire, state, address, &request).await? == After::Close {
            return wire.shutdown().await;
        }
    }
    Ok(())
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
