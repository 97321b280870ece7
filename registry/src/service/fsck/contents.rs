//! The third pass: all content against its digests, no faster than asked.

use artifact::chunk_map::MIN_MAPPED_BYTES;
use artifact::{Digest, Digester};
use futures::StreamExt;

use crate::error::Error;
use crate::service::fsck::Check;
use crate::service::fsck::maps::MapState;
use crate::service::fsck::report::{Finding, FsckEvent};
use crate::service::pace::Pace;

/// How content stands.
enum Verdict {
    /// It is what it should be, or has gone meanwhile.
    Right,
    /// It is not.
    Wrong(Finding),
}

impl Check<'_> {
    pub(super) async fn check_contents(&mut self) -> Result<(), Error> {
        let pace = Pace::new(self.options.rate, self.summary.bytes);
        let mut stored = self.registry.blobs.list();
        while let Some(blob) = stored.next().await {
            let blob = blob?;
            let mut map = match blob.size {
                MIN_MAPPED_BYTES.. => self.registry.map_state(&blob).await?,
                _ => MapState::Absent,
            };
            match self.hash(&blob.digest, &pace, &mut map).await? {
                Verdict::Right => self.check_map(&blob.digest, map).await?,
                // Its map goes with it.
                Verdict::Wrong(finding) => self.found_wrong(blob.digest, finding).await?,
            }
            if !self.registry.index.is_held(&blob.digest).await? {
                self.check_orphan(blob.digest, blob.size).await?;
            }
            self.summary.contents += 1;
            self.report().await;
        }
        Ok(())
    }

    /// Tells what is wrong with content, and moves it aside if that is asked for and still so.
    async fn found_wrong(&mut self, digest: Digest, finding: Finding) -> Result<(), Error> {
        // What cannot be read may be right: only what is known to be wrong is moved.
        let is_known = !matches!(finding, Finding::Unreadable { .. });
        self.found(finding).await;
        if !self.options.quarantine || !is_known {
            return Ok(());
        }
        let _lock = self.registry.lock_content(&digest).await?;
        // Read once more: it may have been pushed again since.
        let bytes = self.summary.bytes;
        let verdict = self
            .hash(&digest, &Pace::new(None, bytes), &mut MapState::Absent)
            .await?;
        self.summary.bytes = bytes;
        if matches!(verdict, Verdict::Wrong(_)) {
            self.registry.blobs.quarantine(&digest).await?;
            self.summary.quarantined += 1;
            self.outlet.tell(FsckEvent::Quarantined { digest }).await;
        }
        Ok(())
    }

    async fn check_orphan(&mut self, digest: Digest, size: u64) -> Result<(), Error> {
        let lock = self.registry.lock_content(&digest).await?;
        let is_orphaned = !self.registry.index.is_held(&digest).await?
            && self.registry.blobs.stat(&digest).await?.is_some();
        drop(lock);
        if is_orphaned {
            self.found(Finding::Orphaned { digest, size }).await;
        }
        Ok(())
    }

    /// Reads content and compares size and digest, and its chunks with their map.
    async fn hash(
        &mut self,
        digest: &Digest,
        pace: &Pace,
        map: &mut MapState,
    ) -> Result<Verdict, Error> {
        let unreadable = |error: &Error| {
            Verdict::Wrong(Finding::Unreadable {
                digest: *digest,
                reason: error.chain(),
            })
        };
        let blob = match self.registry.blobs.open(digest).await {
            Ok(Some(blob)) => blob,
            Ok(None) => return Ok(Verdict::Right),
            Err(error) => return Ok(unreadable(&error)),
        };
        let size = blob.size;
        let mut pieces = match blob.stream().await {
            Ok(pieces) => pieces,
            Err(error) => return Ok(unreadable(&error)),
        };
        let map_state = std::mem::replace(map, MapState::Absent);
        let mut reading = (Digester::new(digest.algorithm()), map_state);
        while let Some(piece) = pieces.next().await {
            let piece = match piece {
                Ok(piece) => piece,
                Err(error) => return Ok(unreadable(&error)),
            };
            self.summary.bytes += piece.len() as u64;
            let hashed = tokio::task::spawn_blocking(move || {
                reading.0.update(&piece);
                reading.1.update(&piece);
                reading
            });
            reading = hashed.await.map_err(Error::Task)?;
            pace.keep(self.summary.bytes).await;
            self.report().await;
        }
        let (digester, map_state) = reading;
        *map = map_state;
        let actual = digester.finish();
        let expected = self.expected_size(digest).await?.unwrap_or(size);
        Ok(if size != expected {
            Verdict::Wrong(Finding::WrongSize {
                digest: *digest,
                size,
                expected,
            })
        } else if actual != *digest {
            Verdict::Wrong(Finding::Corrupt {
                digest: *digest,
                actual,
                size,
            })
        } else {
            Verdict::Right
        })
    }

    /// The size that some repository's record gives.
    async fn expected_size(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        let index = &self.registry.index;
        let Some(holder) = index.holder_of(digest).await? else {
            return Ok(None);
        };
        Ok(index.blob(&holder, digest).await?.map(|record| record.size))
    }
}
