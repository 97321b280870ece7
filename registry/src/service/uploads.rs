//! Upload sessions: begin, append, finish, cancel.

use std::sync::Arc;

use artifact::{Algorithm, Digest, Repository};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use uuid::Uuid;

use crate::config::GgufPolicy;
use crate::error::Error;
use crate::metrics::labels::MapSource;
use crate::service::chunk_maps::Cutting;
use crate::service::gate::Gate;
use crate::service::{Registry, detached};
use crate::store::UploadSession;
use crate::store::records::BlobRecord;

/// Which bytes of the blob a chunk claims to be, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChunkRange {
    /// Offset of the first byte.
    pub(crate) start: u64,
    /// Offset of the last byte.
    pub(crate) end: u64,
}

impl ChunkRange {
    fn length(self) -> u64 {
        (self.end - self.start).saturating_add(1)
    }
}

/// A request body.
pub(crate) trait Body:
    Stream<Item = Result<Bytes, Box<dyn std::error::Error + Send + Sync>>> + Send + Unpin
{
}

impl<S> Body for S where
    S: Stream<Item = Result<Bytes, Box<dyn std::error::Error + Send + Sync>>> + Send + Unpin
{
}

/// A session that a request is writing to, the gate before it, and the cutting beside it.
struct Incoming {
    id: Uuid,
    session: Box<dyn UploadSession>,
    gate: Option<Gate>,
    cutting: Option<Cutting>,
    /// Whether what the gate finds bad is refused.
    refuses: bool,
}

impl Incoming {
    /// Takes the next bytes, past the gate.
    async fn take(&mut self, piece: Bytes) -> Result<(), Error> {
        if let Some(gate) = &mut self.gate
            && let Err(reason) = gate.push(&piece).await
            && self.refuses
        {
            return Err(Error::GgufRefused { reason });
        }
        if let Some(cutting) = &mut self.cutting {
            cutting.push(&piece).await;
        }
        self.session.write(piece).await
    }
}

impl Registry {
    /// Opens an upload session.
    pub(crate) async fn begin_upload(
        &self,
        repository: &Repository,
        algorithm: Algorithm,
    ) -> Result<Uuid, Error> {
        self.refuse_if_mirrored(repository)?;
        self.uploads.begin(repository, algorithm).await
    }

    /// Refuses a blob whose announced size is beyond the limit, before a byte of it is sent.
    pub(crate) fn require_room_for(&self, announced: Option<u64>) -> Result<(), Error> {
        match (announced, self.max_blob_bytes) {
            (Some(size), Some(limit)) if size > limit => Err(Error::BlobTooLarge { limit }),
            _ => Ok(()),
        }
    }

    /// Bytes of the session that are safely stored.
    pub(crate) async fn upload_offset(
        &self,
        repository: &Repository,
        id: Uuid,
    ) -> Result<u64, Error> {
        self.uploads.offset(repository, id).await
    }

    /// Appends a chunk and makes it durable; gives the new offset. A body that is cut off leaves
    /// what arrived, so that the client can go on from there.
    pub(crate) async fn append_upload(
        &self,
        repository: &Repository,
        id: Uuid,
        range: Option<ChunkRange>,
        body: &mut dyn Body,
    ) -> Result<u64, Error> {
        let mut incoming = self.claim(repository, id, range).await?;
        match self.receive(&mut incoming, range, body).await {
            Ok(()) => {
                let offset = incoming.session.settle().await?;
                self.keep_onlookers(incoming);
                Ok(offset)
            }
            Err(error) => Err(self.leave(incoming, error).await),
        }
    }

    /// Appends the last chunk, if there is one, and makes the blob visible if all of it has
    /// `digest`. Ends the session either way, unless the body is cut off. Gives what is wrong with
    /// a blob that was let in all the same.
    pub(crate) async fn finish_upload(
        self: &Arc<Self>,
        repository: &Repository,
        id: Uuid,
        range: Option<ChunkRange>,
        digest: Digest,
        body: &mut dyn Body,
    ) -> Result<Option<String>, Error> {
        let mut incoming = self.claim(repository, id, range).await?;
        incoming.session.expect_algorithm(digest.algorithm());
        if let Err(error) = self.receive(&mut incoming, range, body).await {
            return Err(self.leave(incoming, error).await);
        }
        let whole = incoming.session.offset();
        let passed = match self.leave_gate(repository, incoming.gate.take(), whole) {
            Ok(passed) => passed,
            Err(error) => return Err(self.leave(incoming, error).await),
        };
        let Incoming {
            session, cutting, ..
        } = incoming;
        let registry = Arc::clone(self);
        let repository = repository.clone();
        detached(async move {
            // One lock from commit to link: content that nobody holds yet is not collected.
            let mut lock = registry.lock_content(&digest).await?;
            let cut = async { cutting?.finish(digest).await };
            let (size, map) = tokio::join!(session.commit(digest), cut);
            let size = size?;
            let record = BlobRecord::new(size).annotated(passed.annotations);
            registry
                .link_record(lock.as_mut(), &repository, &digest, record)
                .await?;
            if let Some(map) = map.filter(|map| map.size() == size) {
                registry.keep_map(&map, MapSource::Upload).await;
            }
            Ok(passed.warning)
        })
        .await
    }

    /// Ends a session and forgets its bytes.
    pub(crate) async fn cancel_upload(
        &self,
        repository: &Repository,
        id: Uuid,
    ) -> Result<(), Error> {
        let session = self.uploads.claim(repository, id).await?;
        self.gates.forget(id);
        if let Some(cuttings) = self.chunk_maps.cuttings() {
            cuttings.forget(id);
        }
        detached(session.cancel()).await
    }

    async fn claim(
        &self,
        repository: &Repository,
        id: Uuid,
        range: Option<ChunkRange>,
    ) -> Result<Incoming, Error> {
        let session = self.uploads.claim(repository, id).await?;
        let offset = session.offset();
        if range.is_some_and(|range| range.start != offset) {
            return Err(Error::OutOfOrder { id, offset });
        }
        Ok(Incoming {
            id,
            refuses: self.gates.policy(repository) == GgufPolicy::Refuse,
            gate: self.gates.enter(repository, id, offset),
            cutting: self
                .chunk_maps
                .cuttings()
                .and_then(|cuttings| cuttings.enter(id, offset)),
            session,
        })
    }

    /// Keeps what was seen of a session that goes on with another request.
    fn keep_onlookers(&self, incoming: Incoming) {
        if let Some(gate) = incoming.gate {
            self.gates.keep(incoming.id, gate);
        }
        if let Some((cutting, cuttings)) = incoming.cutting.zip(self.chunk_maps.cuttings()) {
            cuttings.keep(incoming.id, cutting);
        }
    }

    /// Moves the body into the session.
    async fn receive(
        &self,
        incoming: &mut Incoming,
        range: Option<ChunkRange>,
        body: &mut dyn Body,
    ) -> Result<(), Error> {
        let announced = range.map(ChunkRange::length);
        let mut received = 0;
        loop {
            let piece = match body.next().await {
                Some(Ok(piece)) => piece,
                None => break,
                Some(Err(source)) => return Err(Error::BodyCutOff { received, source }),
            };
            received += piece.len() as u64;
            if let Some(announced) = announced.filter(|announced| received > *announced) {
                return Err(Error::ChunkLength {
                    announced,
                    received,
                });
            }
            let size = incoming.session.offset();
            let size = size.saturating_add(piece.len() as u64);
            if let Some(limit) = self.max_blob_bytes.filter(|limit| size > *limit) {
                return Err(Error::BlobTooLarge { limit });
            }
            incoming.take(piece).await?;
        }
        match announced.filter(|announced| *announced != received) {
            // An empty body closes a session whatever its headers say.
            Some(announced) if received > 0 => Err(Error::ChunkLength {
                announced,
                received,
            }),
            _ => Ok(()),
        }
    }

    /// After a failed receive: decides what stays of the session, and gives the error back.
    async fn leave(&self, mut incoming: Incoming, error: Error) -> Error {
        let left = match &error {
            Error::BlobTooLarge { .. } | Error::GgufRefused { .. } => {
                incoming.session.cancel().await
            }
            Error::ChunkLength { .. } => incoming.session.rewind().await,
            Error::BodyCutOff { .. } => {
                let settled = incoming.session.settle().await.map(drop);
                self.keep_onlookers(incoming);
                settled
            }
            _ => Ok(()),
        };
        if let Err(failure) = left {
            tracing::warn!(error = %failure, "an upload session could not be left in order");
        }
        error
    }
}
