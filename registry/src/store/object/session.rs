//! One upload session in a bucket: bytes are hashed and gathered into parts as they come, and a
//! part is sent while the next one fills. So an upload takes the memory of two parts.

mod commit;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use artifact::{Algorithm, Digest, Digester};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::error::Error;
use crate::store::UploadSession;
use crate::store::object::parts::{Buffer, MAX_PARTS, most_bytes, part_bytes};
use crate::store::object::state::{Phase, Progress, StateFile, Tail, keep_claimed, tail_key};
use crate::store::object::uploads::Shared;
use crate::store::object::{Inner, data_key, sweep, unknown};

/// How many bytes come in before the state is saved: it bounds what a kill in the middle of a long
/// chunk costs.
const CHECKPOINT_BYTES: u64 = 16 * 1024 * 1024;

/// [`UploadSession`] of a bucket.
pub(super) struct ObjectSession {
    work: Option<Box<Work>>,
    shared: Arc<Shared>,
}

/// A session open for writing. It holds the claim within this process; the claim against other
/// replicas is taken with the first part.
pub(super) struct Work {
    inner: Arc<Inner>,
    id: Uuid,
    shared: Arc<Shared>,
    file: Arc<Mutex<StateFile>>,
    /// The progress when the session was claimed, to which `rewind` returns.
    claimed: Progress,
    /// Set when all bytes were there before, and an earlier commit did not come to its end.
    completing: Option<Digest>,
    offset: u64,
    digester: Digester,
    multipart: Option<String>,
    parts: Vec<String>,
    /// The bytes after the last part that was sent.
    buffer: Buffer,
    flight: Option<Flight>,
    /// Where the last stored part ends, and the hash up to there; `None` when this session has
    /// stored no part yet.
    stored: Option<(u64, Digester)>,
    /// Some part could not be stored: what came after it is lost.
    has_failed: bool,
    /// Whether `data/<id>` may exist already.
    has_data: bool,
    _held: OwnedMutexGuard<()>,
}

/// A part on its way.
struct Flight {
    sending: JoinHandle<Result<String, Error>>,
    /// Where the part ends, and the hash up to there.
    end: (u64, Digester),
}

impl Work {
    /// Opens the session where its saved state stands.
    pub(super) async fn open(
        inner: Arc<Inner>,
        id: Uuid,
        shared: Arc<Shared>,
        held: OwnedMutexGuard<()>,
        file: StateFile,
    ) -> Result<Self, Error> {
        let claimed = file.state().progress.clone();
        let completing = match file.state().phase {
            Phase::Receiving => None,
            Phase::Completing(digest) => Some(digest),
        };
        let buffer = load_tail(&inner, id, claimed.tail.as_ref()).await?;
        Ok(Self {
            inner,
            id,
            shared,
            file: Arc::new(Mutex::new(file)),
            completing,
            offset: claimed.offset,
            digester: claimed.digester.clone(),
            multipart: claimed.multipart.clone(),
            parts: claimed.parts.clone(),
            claimed,
            buffer,
            flight: None,
            stored: None,
            has_failed: false,
            has_data: false,
            _held: held,
        })
    }

    fn key(&self) -> String {
        data_key(self.id)
    }

    async fn write(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        if self.completing.is_some() {
            // The bytes of this session are all there; more cannot follow.
            return Err(self.out_of_order());
        }
        while !bytes.is_empty() {
            let room = part_bytes(self.next_part()) - self.buffer.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.digester.update(now);
            self.offset += now.len() as u64;
            self.buffer.append(now);
            if now.len() == room {
                self.send_part().await?;
            }
            bytes = later;
        }
        Ok(())
    }

    fn next_part(&self) -> usize {
        self.parts.len() + usize::from(self.flight.is_some())
    }

    /// Sends what is in the buffer as the next part, after the one before has landed.
    async fn send_part(&mut self) -> Result<(), Error> {
        self.land().await?;
        let index = self.parts.len();
        if index >= MAX_PARTS {
            let limit = most_bytes();
            return Err(Error::BlobTooLarge { limit });
        }
        let multipart = self.begin_parts().await?;
        let stored = self.stored_progress();
        let objects = self.inner.objects.clone();
        let key = self.key();
        let content = self.buffer.payload();
        self.buffer.clear();
        let sending =
            tokio::spawn(async move { objects.put_part(&key, &multipart, index, content).await });
        let end = (self.offset, self.digester.clone());
        self.flight = Some(Flight { sending, end });
        // While the part is on its way.
        self.checkpoint(stored).await
    }

    /// The multipart upload, begun if there is none, and the claim that it takes to write to it.
    async fn begin_parts(&mut self) -> Result<String, Error> {
        let mut file = self.file.lock().await;
        let was_claimed = file.is_claimed();
        let multipart = match &self.multipart {
            Some(multipart) => {
                file.claim().await?;
                multipart.clone()
            }
            None => {
                let begun = self.inner.objects.begin_parts(&data_key(self.id)).await?;
                // Noted before anything is sent, so that it can be given up later.
                let progress = Progress {
                    multipart: Some(begun.clone()),
                    ..file.state().progress.clone()
                };
                file.save(Phase::Receiving, progress, true).await?;
                self.claimed.multipart = Some(begun.clone());
                self.multipart.insert(begun).clone()
            }
        };
        drop(file);
        if !was_claimed {
            keep_claimed(&self.file);
        }
        Ok(multipart)
    }

    /// Waits until the part on its way is stored.
    async fn land(&mut self) -> Result<(), Error> {
        let Some(flight) = self.flight.take() else {
            return Ok(());
        };
        match flight.sending.await.map_err(Error::Task).flatten() {
            Ok(part) => {
                self.parts.push(part);
                self.stored = Some(flight.end);
                Ok(())
            }
            Err(error) => {
                self.has_failed = true;
                Err(error)
            }
        }
    }

    /// Saves the state as of the last stored part, if it is time for that.
    async fn checkpoint(&mut self, stored: Option<Progress>) -> Result<(), Error> {
        let durable = self.shared.durable.load(Ordering::Acquire);
        match stored {
            Some(stored) if stored.offset.saturating_sub(durable) >= CHECKPOINT_BYTES => {
                self.save(Phase::Receiving, stored, true).await
            }
            _ => Ok(()),
        }
    }

    fn stored_progress(&self) -> Option<Progress> {
        let (offset, digester) = self.stored.clone()?;
        Some(Progress {
            offset,
            digester,
            multipart: self.multipart.clone(),
            parts: self.parts.clone(),
            tail: None,
        })
    }

    async fn save(&self, phase: Phase, progress: Progress, goes_on: bool) -> Result<(), Error> {
        let offset = progress.offset;
        let mut file = self.file.lock().await;
        let was_claimed = file.is_claimed();
        file.save(phase, progress, goes_on).await?;
        self.shared.durable.store(offset, Ordering::Release);
        if goes_on && !was_claimed {
            keep_claimed(&self.file);
        }
        Ok(())
    }

    /// Stores what has arrived, and gives the claim back. After a failed part, stores what came
    /// before it.
    async fn settle(&mut self) -> Result<(), Error> {
        let landed = self.land().await;
        if self.has_failed || landed.is_err() {
            return landed.and(self.fall_back().await);
        }
        if self.completing.is_some() || self.offset == self.claimed.offset {
            return self.file.lock().await.release().await;
        }
        let tail = self.put_tail().await?;
        let before = self.file.lock().await.state().progress.tail.clone();
        let progress = Progress {
            offset: self.offset,
            digester: self.digester.clone(),
            multipart: self.multipart.clone(),
            parts: self.parts.clone(),
            tail,
        };
        self.save(Phase::Receiving, progress, false).await?;
        if let Some(before) = before {
            self.forget_tail(&before).await;
        }
        Ok(())
    }

    /// Saves what whole parts have stored, if that is more than was saved, and gives the claim back.
    async fn fall_back(&mut self) -> Result<(), Error> {
        let durable = self.shared.durable.load(Ordering::Acquire);
        match self.stored_progress() {
            Some(stored) if stored.offset > durable => {
                self.save(Phase::Receiving, stored, false).await
            }
            _ => self.file.lock().await.release().await,
        }
    }

    async fn put_tail(&mut self) -> Result<Option<Tail>, Error> {
        if self.buffer.is_empty() {
            return Ok(None);
        }
        let tail = Tail {
            id: Uuid::now_v7(),
            size: self.buffer.len() as u64,
        };
        let content = self.buffer.payload();
        let key = tail_key(self.id, tail.id);
        self.inner.objects.put(&key, content).await?;
        Ok(Some(tail))
    }

    /// Best effort: what is left of a session goes with it.
    async fn forget_tail(&self, tail: &Tail) {
        let key = tail_key(self.id, tail.id);
        if let Err(error) = self.inner.objects.delete(&key).await {
            tracing::debug!(%error, "a tail stays until its session ends");
        }
    }

    async fn rewind(&mut self) -> Result<(), Error> {
        // Whatever comes of it: its number is used again.
        let _ = self.land().await;
        let claimed = self.claimed.clone();
        self.buffer = load_tail(&self.inner, self.id, claimed.tail.as_ref()).await?;
        self.offset = claimed.offset;
        self.digester = claimed.digester.clone();
        self.parts.clone_from(&claimed.parts);
        self.stored = None;
        self.has_failed = false;
        self.save(Phase::Receiving, claimed, false).await
    }

    /// Ends the session and forgets its bytes.
    async fn end(&mut self) -> Result<(), Error> {
        let _ = self.land().await;
        let state = {
            let mut file = self.file.lock().await;
            file.end();
            file.state().clone()
        };
        self.inner.count_ended();
        sweep::remove_upload(&self.inner.objects, self.id, &state, self.has_data).await
    }

    fn out_of_order(&self) -> Error {
        let offset = self.offset;
        Error::OutOfOrder {
            id: self.id,
            offset,
        }
    }
}

async fn load_tail(inner: &Inner, id: Uuid, tail: Option<&Tail>) -> Result<Buffer, Error> {
    let mut buffer = Buffer::default();
    if let Some(tail) = tail {
        let found = inner.objects.get(&tail_key(id, tail.id)).await?;
        let (content, _) = found.ok_or_else(|| unknown(id))?;
        if content.len() as u64 != tail.size {
            return Err(Error::ContentLength);
        }
        buffer.append(&content);
    }
    Ok(buffer)
}

impl ObjectSession {
    pub(super) fn new(work: Work, shared: Arc<Shared>) -> Self {
        Self {
            work: Some(Box::new(work)),
            shared,
        }
    }

    fn work(&mut self) -> Result<&mut Work, Error> {
        self.work.as_deref_mut().ok_or(Error::Closing)
    }
}

impl Drop for ObjectSession {
    fn drop(&mut self) {
        // From here on a newcomer waits for the settling instead of being refused.
        self.shared.receiving.store(false, Ordering::Release);
        let Some(mut work) = self.work.take() else {
            return;
        };
        // Detached on purpose: the client has gone, what it sent is kept. Without a runtime the
        // process is ending, and the bucket has the last checkpoint.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let settling = work.inner.settling.clone();
            let settle = async move {
                if let Err(error) = work.settle().await {
                    tracing::warn!(%error, "an upload session could not be settled");
                }
            };
            settling.spawn_on(settle, &runtime);
        }
    }
}

impl UploadSession for ObjectSession {
    fn offset(&self) -> u64 {
        self.work.as_ref().map_or(0, |work| work.offset)
    }

    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<(), Error>> {
        async move { self.work()?.write(&bytes).await }.boxed()
    }

    fn settle(&mut self) -> BoxFuture<'_, Result<u64, Error>> {
        async move {
            let work = self.work()?;
            work.settle().await?;
            let offset = work.offset;
            work.claimed.offset = offset;
            Ok(offset)
        }
        .boxed()
    }

    fn rewind(&mut self) -> BoxFuture<'_, Result<(), Error>> {
        async move { self.work()?.rewind().await }.boxed()
    }

    fn commit(mut self: Box<Self>, digest: Digest) -> BoxFuture<'static, Result<u64, Error>> {
        let work = self.work.take();
        async move {
            let outcome = match work {
                Some(work) => work.commit(digest).await,
                None => Err(Error::Closing),
            };
            drop(self);
            outcome
        }
        .boxed()
    }

    fn cancel(mut self: Box<Self>) -> BoxFuture<'static, Result<(), Error>> {
        let work = self.work.take();
        async move {
            let outcome = match work {
                Some(mut work) => work.end().await,
                None => Err(Error::Closing),
            };
            drop(self);
            outcome
        }
        .boxed()
    }

    fn expect_algorithm(&mut self, algorithm: Algorithm) {
        if let Some(work) = &mut self.work
            && work.offset == 0
        {
            work.digester = Digester::new(algorithm);
        }
    }
}
