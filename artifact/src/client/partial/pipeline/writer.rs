//! The writer: puts pieces in their place and notes chunks that became whole.

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::chunk_map::{ChunkHash, ChunkHasher};
use crate::client::partial::pipeline::{Error, Progress, Settled, Shared};
use crate::client::partial::{ChunkState, PartFile};

/// What the writer is told.
#[derive(Debug)]
pub(super) enum Message {
    /// Bytes that came, and where they belong.
    Piece(u64, Bytes),
    /// A whole chunk lies in another file.
    Copy {
        chunk: usize,
        source: Arc<File>,
        from: u64,
    },
    /// What has become of a range?
    Settle(Range<u64>, oneshot::Sender<Settled>),
}

/// Writes until nobody has anything more to put.
pub(super) fn write(
    shared: &Shared,
    mut receiver: mpsc::Receiver<Message>,
    progress: &dyn Progress,
) -> Result<(), Error> {
    let mut writer = Writer {
        shared,
        progress,
        hashers: HashMap::new(),
    };
    let outcome = (|| {
        while let Some(message) = receiver.blocking_recv() {
            match message {
                Message::Piece(offset, bytes) => writer.piece(offset, &bytes)?,
                Message::Copy {
                    chunk,
                    source,
                    from,
                } => writer.copy(chunk, &source, from)?,
                Message::Settle(range, answer) => {
                    // A pull that has gone meanwhile needs no answer.
                    let _ = answer.send(writer.settle(&range));
                }
            }
        }
        Ok(())
    })();
    shared.end();
    outcome
}

struct Writer<'a> {
    shared: &'a Shared,
    progress: &'a dyn Progress,
    /// Of the chunks that are on their way and whose hash is known.
    hashers: HashMap<usize, ChunkHasher>,
}

impl Writer<'_> {
    fn part(&self) -> &PartFile {
        &self.shared.part
    }

    /// A piece may lie across chunks.
    fn piece(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        let end = offset + bytes.len() as u64;
        let chunks = self.part().division().chunks_in(&(offset..end));
        for chunk in chunks {
            let range = self.part().division().range(chunk);
            let (from, to) = (offset.max(range.start), end.min(range.end));
            self.place(
                chunk,
                &range,
                from,
                slice(bytes, from - offset, to - offset),
            )?;
        }
        Ok(())
    }

    /// Bytes of one chunk. Those that are here already are dropped, and so are those behind a gap:
    /// they followed a beginning that turned out wrong.
    fn place(
        &mut self,
        chunk: usize,
        range: &Range<u64>,
        at: u64,
        bytes: &[u8],
    ) -> Result<(), Error> {
        let Some(filled) = self.filled(chunk) else {
            return Ok(());
        };
        let next = range.start + filled;
        let end = at + bytes.len() as u64;
        if at > next || end <= next {
            return Ok(());
        }
        let fresh = slice(bytes, next - at, end - at);
        self.part().write_at(next, fresh)?;
        if self.part().division().hash(chunk).is_some() {
            self.hashers.entry(chunk).or_default().update(fresh);
        }
        self.progress.written(next..end);
        self.shared.lock().filled[chunk] = end - range.start;
        if end == range.end {
            let hash = self
                .hashers
                .remove(&chunk)
                .map(|mut hasher| hasher.finish());
            self.complete(chunk, range, hash)?;
        }
        Ok(())
    }

    /// A chunk that some other file holds. A failure is not one of the download: the chunk can be
    /// had elsewhere.
    fn copy(&mut self, chunk: usize, source: &File, from: u64) -> Result<(), Error> {
        // One that has begun to come goes on to come.
        if self.filled(chunk) != Some(0) {
            return Ok(());
        }
        let range = self.part().division().range(chunk);
        if let Err(error) = self.part().copy_from(source, from, range.clone()) {
            tracing::warn!(%error, chunk, "a chunk could not be copied on this node");
            self.shared.lock().wrong.insert(chunk);
            return Ok(());
        }
        let hash = self.part().hash_of(range.clone())?;
        self.progress.written(range.clone());
        self.complete(chunk, &range, Some(hash))
    }

    /// All bytes of a chunk are in the file, and `hash` is what they have.
    fn complete(
        &self,
        chunk: usize,
        range: &Range<u64>,
        hash: Option<ChunkHash>,
    ) -> Result<(), Error> {
        let bytes = range.end - range.start;
        let expected = self.part().division().hash(chunk);
        if expected.is_some() && hash != expected {
            let mut state = self.shared.lock();
            state.filled[chunk] = 0;
            state.wrong.insert(chunk);
            drop(state);
            self.progress.forgotten(bytes);
            return Ok(());
        }
        let mut state = self.shared.lock();
        state.chunks[chunk] = ChunkState::Written;
        state.unsynced += bytes;
        drop(state);
        self.shared.changed.notify_all();
        self.part().mark(chunk, ChunkState::Written)?;
        self.progress.chunk_is_whole(chunk);
        Ok(())
    }

    /// Bytes of a chunk that is not whole yet; nothing when it is, or is none.
    fn filled(&self, chunk: usize) -> Option<u64> {
        let state = self.shared.lock();
        let is_absent = state.chunks.get(chunk) == Some(&ChunkState::Absent);
        is_absent.then(|| state.filled[chunk])
    }

    fn settle(&self, range: &Range<u64>) -> Settled {
        let chunks = self.part().division().chunks_in(range);
        let mut state = self.shared.lock();
        let mut settled = Settled::default();
        for chunk in chunks {
            if state.wrong.remove(&chunk) {
                settled.wrong.push(chunk);
            }
            if state.chunks[chunk] == ChunkState::Absent {
                let whole = self.part().division().range(chunk);
                let missing = whole.start + state.filled[chunk]..whole.end;
                match settled.missing.last_mut() {
                    Some(last) if last.end == missing.start => last.end = missing.end,
                    _ => settled.missing.push(missing),
                }
            }
        }
        settled
    }
}

fn slice(bytes: &[u8], from: u64, to: u64) -> &[u8] {
    let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
    bytes.get(index(from)..index(to)).unwrap_or_default()
}
