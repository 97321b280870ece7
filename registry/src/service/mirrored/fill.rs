//! How a fill begins, goes on after a restart, and ends: with the blob in the storage and linked
//! into its repository, or with the reason why not.

use std::sync::Arc;

use artifact::chunk_map::ChunkMap;
use artifact::client::partial::ChunkState;
use artifact::client::{BlobSource, Origin, RetryPolicy};
use artifact::{Digest, Repository};
use jiff::Timestamp;
use tokio::io::AsyncReadExt;
use tracing::Instrument;

use crate::error::Error;
use crate::metrics::labels::MapSource;
use crate::mirror::fill::files::{FillFiles, FillNote};
use crate::mirror::fill::{Candidate, Fill, Phase, download};
use crate::service::blobs::unknown;
use crate::service::gate::Passed;
use crate::service::mirrored::Mirrored;
use crate::service::mirrored::blobs::Expected;
use crate::service::{Registry, detached};
use crate::store::records::BlobRecord;

/// Tries at one upstream in a row when there is another one to go on at.
const FEW_ATTEMPTS: usize = 3;
/// Bytes that are read at a time on the way into a bucket.
const COPY_BYTES: usize = 1 << 20;

impl Mirrored<'_> {
    /// The fill of a blob: the one that is running, or else a new one.
    pub(super) async fn fill(&self, expected: &Expected) -> Result<Arc<Fill>, Error> {
        if let Some(fill) = self.mirror.fills.running(&expected.digest) {
            return Ok(fill);
        }
        if let Some(error) = self.wrong(&expected.digest) {
            return Err(error);
        }
        if self.mirror.settings.offline {
            return Err(self.offline(expected.digest));
        }
        self.make_room(&expected.digest, expected.size).await?;
        let registry = self.mirror.registry()?;
        let note = FillNote {
            digest: expected.digest,
            size: expected.size,
            repository: self.repository.as_str().to_owned(),
            since: Timestamp::now(),
        };
        let start = |fill, states| registry.start_fill(fill, states);
        self.mirror.fills.join(note, start).await
    }

    /// The places to have a blob from, in the order in which they are tried.
    async fn candidates(&self, expected: &Expected) -> Result<Vec<Candidate>, Error> {
        let upstreams = self.route.in_turn();
        let mut retry = RetryPolicy::default();
        if upstreams.len() > 1 {
            retry.attempts = FEW_ATTEMPTS;
        }
        let mut candidates = Vec::new();
        for upstream in upstreams {
            let origin = self.mirror.origin(self.route, &upstream, self.repository);
            if let Some(source) = source_of(&origin.await?, expected, retry)? {
                candidates.push(Candidate { upstream, source });
            }
        }
        if candidates.is_empty() {
            return Err(unknown(self.repository, &expected.digest));
        }
        Ok(candidates)
    }
}

fn source_of(
    origin: &Origin,
    expected: &Expected,
    retry: RetryPolicy,
) -> Result<Option<BlobSource>, Error> {
    if let Some((descriptor, manifest)) = &expected.named {
        let source = origin.blob(descriptor, manifest, retry);
        return source.map(Some).map_err(Error::upstream);
    }
    // A blob that only its upstream knows of: a registry needs no manifest to give it.
    let registry = origin.registry().cloned();
    Ok(registry.map(|registry| BlobSource::new(registry, expected.digest, expected.size, retry)))
}

impl Registry {
    /// Goes on with what an earlier run left.
    pub(crate) async fn resume_fills(self: &Arc<Self>) -> Result<(), Error> {
        let Some(mirror) = self.mirror().filter(|mirror| !mirror.settings.offline) else {
            return Ok(());
        };
        for note in mirror.fills.with_files(FillFiles::left).await? {
            let is_mirrored = |name: &Repository| mirror.routes.of(name).is_some();
            if !note.repository().is_some_and(|name| is_mirrored(&name)) {
                tracing::warn!(blob.digest = %note.digest, repository = note.repository, "a fill is left of a repository that is not mirrored any more");
                continue;
            }
            let digest = note.digest;
            if self.is_filled(&note).await? {
                mirror
                    .fills
                    .with_files(move |files| files.forget(&digest))
                    .await?;
                continue;
            }
            let start = |fill, states| Arc::clone(self).start_fill(fill, states);
            if let Err(error) = mirror.fills.join(note, start).await {
                tracing::warn!(blob.digest = %digest, error = error.chain(), "a fill cannot go on");
            }
        }
        Ok(())
    }

    /// Whether the blob of a fill is in the storage, as it is when the registry was killed between
    /// the two last steps; then the last one is made up for.
    async fn is_filled(&self, note: &FillNote) -> Result<bool, Error> {
        let repository = note.repository().ok_or(Error::Closing)?;
        let mirrored = self.mirrored(&repository).ok_or(Error::Closing)?;
        let expected = Expected {
            digest: note.digest,
            size: note.size,
            named: None,
        };
        mirrored.link_stored(&expected).await
    }

    fn start_fill(self: Arc<Self>, fill: Arc<Fill>, states: Vec<ChunkState>) {
        let task = async move {
            let outcome = self.run_fill(&fill, states).await;
            let Some(mirror) = self.mirror() else {
                return;
            };
            let digest = fill.digest();
            // Off the board first: whoever asks from here on finds the blob, or begins anew.
            let phase = match outcome {
                Ok(()) => Phase::Done,
                Err(error) => {
                    tracing::warn!(blob.digest = %digest, repository = fill.note().repository, error = error.chain(), "a blob could not be filled");
                    let error = Arc::new(error);
                    if matches!(
                        *error,
                        Error::FillMismatch { .. } | Error::FillRefused { .. }
                    ) {
                        mirror.fills.note_wrong(digest, Arc::clone(&error));
                    }
                    Phase::Failed(error)
                }
            };
            mirror.fills.leave(&digest);
            fill.end(phase);
        };
        tokio::spawn(task.in_current_span());
    }

    async fn run_fill(
        self: &Arc<Self>,
        fill: &Arc<Fill>,
        states: Vec<ChunkState>,
    ) -> Result<(), Error> {
        let repository = fill.note().repository().ok_or(Error::Closing)?;
        let mirrored = self.mirrored(&repository).ok_or(Error::Closing)?;
        let mirror = mirrored.mirror;
        let turns = Arc::clone(&mirror.fills.turns);
        // Nobody closes it.
        let _turn = turns.acquire_owned().await.map_err(|_| Error::Closing)?;
        let digest = fill.digest();
        let expected = Expected {
            digest,
            size: fill.size(),
            named: mirrored.named(&digest).await?,
        };
        let candidates = mirrored.candidates(&expected).await?;
        let connections = mirror.settings.connections;
        let (finished, passed) = match tokio::try_join!(
            download(fill, states, candidates, connections),
            mirrored.vet(fill)
        ) {
            Ok(outcome) => outcome,
            Err(error) => {
                if matches!(error, Error::FillRefused { .. }) {
                    let forget = move |files: &FillFiles| files.forget(&digest);
                    mirror.fills.with_files(forget).await?;
                }
                return Err(error);
            }
        };
        if finished.digest != digest {
            let quarantine = move |files: &FillFiles| files.quarantine(&digest);
            mirror.fills.with_files(quarantine).await?;
            return Err(Error::FillMismatch {
                expected: Box::new(digest),
                actual: Box::new(finished.digest),
            });
        }
        let (registry, fill) = (Arc::clone(self), Arc::clone(fill));
        let owner = repository.clone();
        let map = finished.map;
        let adopting = async move {
            let map = map.as_deref();
            registry.adopt_fill(&fill, &owner, passed, map).await
        };
        detached(adopting).await?;
        tracing::info!(
            blob.digest = %digest,
            bytes = expected.size,
            "a blob was filled",
        );
        mirrored.filled(&digest, expected.size);
        Ok(())
    }

    /// Makes the verified bytes of a fill a blob, and links it, with the chunk map that was made of
    /// them on the way.
    async fn adopt_fill(
        &self,
        fill: &Fill,
        repository: &Repository,
        passed: Passed,
        map: Option<&ChunkMap>,
    ) -> Result<(), Error> {
        let mirror = self.mirror().ok_or(Error::Closing)?;
        let (digest, size) = (fill.digest(), fill.size());
        let part = mirror.fills.files.part(&digest);
        let mut lock = self.lock_content(&digest).await?;
        if !self.blobs.adopt(&digest, &part).await? {
            self.upload_fill(repository, &digest, &part).await?;
        }
        let record = BlobRecord::new(size).annotated(passed.annotations);
        self.link_record(lock.as_mut(), repository, &digest, record)
            .await?;
        if let Some(map) = map {
            self.keep_map(map, MapSource::Fill).await;
        }
        let forget = move |files: &FillFiles| files.forget(&digest);
        mirror.fills.with_files(forget).await
    }

    /// Sends the bytes of a fill to a storage that is not on this disk.
    async fn upload_fill(
        &self,
        repository: &Repository,
        digest: &Digest,
        part: &std::path::Path,
    ) -> Result<(), Error> {
        let algorithm = digest.algorithm();
        let id = self.uploads.begin(repository, algorithm).await?;
        let mut session = self.uploads.claim(repository, id).await?;
        let mut file = tokio::fs::File::open(part)
            .await
            .map_err(Error::storage("open", part))?;
        loop {
            let mut piece = bytes::BytesMut::with_capacity(COPY_BYTES);
            let read = file.read_buf(&mut piece).await;
            if read.map_err(Error::storage("read", part))? == 0 {
                break;
            }
            session.write(piece.freeze()).await?;
        }
        session.commit(*digest).await.map(drop)
    }
}
