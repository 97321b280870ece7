//! Schedule: which chunks of a fill are here, which are on their way, and which comes next.
//!
//! Chunks come in order, but for those that a reader waits for: they come first. Whoever fetches
//! takes a run of chunks, so that one request brings more than one.

use std::collections::BTreeMap;
use std::ops::Range;

/// How far a chunk has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chunk {
    Absent,
    /// Somebody fetches it; its first bytes up to this offset of the blob can be read.
    Coming(u64),
    Here,
}

/// The chunks of one blob.
#[derive(Debug)]
pub(crate) struct Schedule {
    chunks: Vec<Chunk>,
    chunk_bytes: u64,
    size: u64,
    /// Most chunks of a run.
    longest: usize,
    /// No chunk before this one is absent.
    first_absent: usize,
    /// Chunks that readers wait for, with how many.
    awaited: BTreeMap<usize, usize>,
}

impl Schedule {
    /// Of a blob of `size` bytes; `here` says which chunks of `chunk_bytes` are here already.
    pub(crate) fn new(size: u64, chunk_bytes: u64, longest: usize, here: &[bool]) -> Self {
        let chunks = here.iter().map(|here| match here {
            true => Chunk::Here,
            false => Chunk::Absent,
        });
        Self {
            chunks: chunks.collect(),
            chunk_bytes,
            size,
            longest: longest.max(1),
            first_absent: 0,
            awaited: BTreeMap::new(),
        }
    }

    fn chunk_of(&self, offset: u64) -> usize {
        usize::try_from(offset / self.chunk_bytes).unwrap_or(usize::MAX)
    }

    fn start_of(&self, chunk: usize) -> u64 {
        (chunk as u64)
            .saturating_mul(self.chunk_bytes)
            .min(self.size)
    }

    /// The end of the bytes that can be read without a gap from `offset` on, within its chunk.
    pub(crate) fn readable_until(&self, offset: u64) -> u64 {
        let chunk = self.chunk_of(offset);
        match self.chunks.get(chunk) {
            Some(Chunk::Here) => self.start_of(chunk + 1),
            Some(Chunk::Coming(until)) => (*until).max(offset),
            Some(Chunk::Absent) | None => offset,
        }
    }

    /// Takes the next run of chunks to fetch, as bytes; `None` when nothing is left to be taken.
    pub(crate) fn take(&mut self) -> Option<Range<u64>> {
        let is_absent = |chunk: &usize| self.chunks.get(*chunk) == Some(&Chunk::Absent);
        let awaited = self.awaited.keys().copied().find(is_absent);
        let next = (self.first_absent..self.chunks.len()).find(is_absent);
        self.first_absent = next.unwrap_or(self.chunks.len());
        let first = awaited.or(next)?;
        let run = (first..self.chunks.len()).take_while(is_absent);
        let end = first + run.take(self.longest).count();
        for chunk in first..end {
            self.chunks[chunk] = Chunk::Coming(self.start_of(chunk));
        }
        Some(self.start_of(first)..self.start_of(end))
    }

    /// Bytes have come, all of one chunk. Those of one chunk come in order, from one connection.
    pub(crate) fn grew(&mut self, bytes: &Range<u64>) {
        let chunk = self.chunk_of(bytes.start);
        if let Some(Chunk::Coming(until)) = self.chunks.get_mut(chunk)
            && *until == bytes.start
        {
            *until = bytes.end;
        }
    }

    /// All bytes of a chunk are here.
    pub(crate) fn arrived(&mut self, chunk: usize) {
        if let Some(state) = self.chunks.get_mut(chunk) {
            *state = Chunk::Here;
        }
    }

    /// Nobody fetches any more: what is not whole counts as absent.
    pub(crate) fn give_back(&mut self) {
        for state in &mut self.chunks {
            if matches!(state, Chunk::Coming(_)) {
                *state = Chunk::Absent;
            }
        }
        self.first_absent = 0;
    }

    /// A reader waits for the chunk that holds `offset`.
    pub(crate) fn wait_for(&mut self, offset: u64) {
        *self.awaited.entry(self.chunk_of(offset)).or_default() += 1;
    }

    /// A reader that waited for `offset` does so no more.
    pub(crate) fn waited_for(&mut self, offset: u64) {
        let chunk = self.chunk_of(offset);
        if let Some(count) = self.awaited.get_mut(&chunk) {
            *count -= 1;
            if *count == 0 {
                self.awaited.remove(&chunk);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::mirror::fill::schedule::Schedule;

    /// Ten chunks of ten bytes, but that the last one is shorter.
    fn schedule(here: &[usize]) -> Schedule {
        let here: Vec<bool> = (0..10).map(|chunk| here.contains(&chunk)).collect();
        Schedule::new(95, 10, 3, &here)
    }

    #[test]
    fn chunks_come_in_order_in_runs_around_what_is_here() {
        let mut schedule = schedule(&[1]);
        let runs: Vec<_> = std::iter::from_fn(|| schedule.take()).collect();
        assert_eq!(runs, [0..10, 20..50, 50..80, 80..95]);
    }

    #[test]
    fn what_a_reader_waits_for_comes_first_and_once() {
        let mut schedule = schedule(&[]);
        schedule.wait_for(71);
        assert_eq!(schedule.take(), Some(70..95));
        assert_eq!(schedule.take(), Some(0..30));
        schedule.waited_for(71);
        schedule.wait_for(35);
        schedule.waited_for(35);
        assert_eq!(schedule.take(), Some(30..60));
    }

    #[test]
    fn the_beginning_of_a_coming_chunk_can_be_read_and_what_is_given_back_cannot() {
        let mut schedule = schedule(&[]);
        schedule.take();
        assert_eq!(schedule.readable_until(0), 0);
        schedule.grew(&(0..4));
        schedule.grew(&(10..12));
        assert_eq!(schedule.readable_until(1), 4);
        assert_eq!(schedule.readable_until(10), 12);
        schedule.arrived(0);
        assert_eq!(schedule.readable_until(3), 10);
        schedule.give_back();
        assert_eq!(schedule.readable_until(10), 10);
        assert_eq!(schedule.readable_until(3), 10);
        assert_eq!(schedule.take(), Some(10..40));
    }
}
