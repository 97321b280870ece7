//! Attempt: one request for a run of bytes, and what became of them.

use std::ops::Range;
use std::sync::Arc;

use artifact::client::fetch::Mode;
use artifact::client::partial::{Settled, Sink};
use artifact::client::{self, BlobSource};
use tokio::sync::Notify;

use crate::pull::fetch::active::Track;
use crate::pull::fetch::pace::Pace;

/// Asks one place once for some bytes.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) source: BlobSource,
    pub(super) range: Range<u64>,
    /// What is looked at in the end: more than `range` when another request brought the beginning.
    pub(super) settles: Range<u64>,
    pub(super) mode: Mode,
    pub(super) sink: Sink,
    pub(super) pace: Pace,
    pub(super) track: Arc<Track>,
    /// Told at the first bytes.
    pub(super) began: Arc<Notify>,
}

/// How an attempt ended: what has become of its bytes, and why it ended before the last one.
/// Nothing when the writer has ended.
pub(super) type Outcome = Option<(Settled, Option<client::Error>)>;

impl Attempt {
    pub(super) async fn run(self) -> Outcome {
        let (sink, settles) = (self.sink.clone(), self.settles.clone());
        let failure = self.put_all().await?;
        let settled = sink.settle(settles).await.ok()?;
        Some((settled, failure))
    }

    async fn put_all(self) -> Option<Option<client::Error>> {
        let mut reader = self.source.reader(self.range.clone(), self.mode);
        let mut is_first = true;
        loop {
            let (offset, bytes) = match reader.next().await {
                Ok(Some(piece)) => piece,
                Ok(None) => return Some(None),
                Err(error) => return Some(Some(error)),
            };
            let length = bytes.len();
            self.track.hold();
            self.sink.put(offset, bytes).await.ok()?;
            self.pace.take(length).await;
            self.track.go_on(offset + length as u64);
            if std::mem::take(&mut is_first) {
                self.began.notify_one();
            }
        }
    }
}
