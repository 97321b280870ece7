//! The third pass: all content against its digests, no faster than asked.

use std::time::Duration;

use artifact::{Digest, Digester};
use futures::StreamExt;
use tokio::time::Instant;

use crate::error::Error;
use crate::service::fsck::Check;
use crate::service::fsck::report::{Finding, FsckEvent};

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
            match self.hash(&blob.digest, &pace).await? {
                Verdict::Right => {}
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
        let verdict = self.hash(&digest, &Pace::new(None, bytes)).await?;
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

    /// Reads content and compares size and digest.
    async fn hash(&mut self, digest: &Digest, pace: &Pace) -> Result<Verdict, Error> {
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
        let mut digester = Digester::new(digest.algorithm());
        while let Some(piece) = pieces.next().await {
            let piece = match piece {
                Ok(piece) => piece,
                Err(error) => return Ok(unreadable(&error)),
            };
            self.summary.bytes += piece.len() as u64;
            let hashed = tokio::task::spawn_blocking(move || {
                digester.update(&piece);
                digester
            });
            digester = hashed.await.map_err(Error::Task)?;
            pace.keep(self.summary.bytes).await;
            self.report().await;
        }
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

/// Waits so that no more bytes pass in a second than asked.
struct Pace {
    rate: Option<u64>,
    from: u64,
    start: Instant,
}

impl Pace {
    /// `from` bytes have passed before.
    fn new(rate: Option<u64>, from: u64) -> Self {
        let start = Instant::now();
        Self { rate, from, start }
    }

    /// Waits until `bytes` may have passed.
    async fn keep(&self, bytes: u64) {
        let Some(rate) = self.rate else { return };
        let passed = bytes.saturating_sub(self.from);
        let millis = u128::from(passed) * 1000 / u128::from(rate.max(1));
        let due = Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX));
        // Beyond what the clock can count there is nobody left to wait.
        if let Some(due) = self.start.checked_add(due) {
            tokio::time::sleep_until(due).await;
        }
    }
}
