//! Cutting a GGUF file: its header by content, its tensors from the start of each.

use super::content::Content;
use super::{Chunks, FAR_BYTES};
use crate::chunk_map::ChunkHasher;
use crate::gguf::{Header, TensorInfo};

/// Tensors that follow each other are joined up to this length, in bytes. With more, a model of
/// some 100 million parameters, whose attention tensors are that small, would have a changed one
/// in every chunk after an adapter was merged; with less, a map would not gain anything.
const JOINED_BYTES: u64 = 256 << 10;
/// The longest piece of a tensor, in bytes.
const PIECE_BYTES: u64 = 4 << 20;
/// The same for files that are larger than [`FAR_BYTES`] by their header.
const FAR_PIECE_BYTES: u64 = 16 << 20;

/// Cuts a GGUF file whose header is known, from its first byte on.
pub(super) struct Gguf {
    /// What is before the first tensor; none once that has come.
    header: Option<Content>,
    /// Where runs of tensor data begin, in bytes from the start of the file, the last one first.
    starts: Vec<u64>,
    piece_bytes: u64,
    /// How much has come.
    position: u64,
    /// The bytes of the chunk that is being hashed.
    length: u64,
    hasher: ChunkHasher,
}

impl Gguf {
    pub(super) fn new(header: &Header) -> Self {
        let mut starts = runs(header);
        starts.reverse();
        let piece_bytes = if header.min_file_size() > FAR_BYTES {
            FAR_PIECE_BYTES
        } else {
            PIECE_BYTES
        };
        Self {
            header: Some(Content::header()),
            starts,
            piece_bytes,
            position: 0,
            length: 0,
            hasher: ChunkHasher::default(),
        }
    }

    pub(super) fn update(&mut self, bytes: &[u8], chunks: &mut Chunks) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let before_start = match self.starts.last() {
                Some(start) => start.saturating_sub(self.position),
                None => u64::MAX,
            };
            let room = match self.header {
                Some(_) => before_start,
                None => before_start.min(self.piece_bytes - self.length),
            };
            let room = usize::try_from(room).unwrap_or(usize::MAX);
            let (taken, left) = rest.split_at(room.min(rest.len()));
            self.position += taken.len() as u64;
            match &mut self.header {
                Some(content) => content.update(taken, chunks),
                None => self.hash(taken, chunks),
            }
            if self.starts.last() == Some(&self.position) {
                self.end_run(chunks);
            }
            rest = left;
        }
    }

    /// The file ends here, wherever its header says that it should.
    pub(super) fn finish(mut self, chunks: &mut Chunks) {
        self.end_run(chunks);
    }

    fn hash(&mut self, bytes: &[u8], chunks: &mut Chunks) {
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        if self.length == self.piece_bytes {
            self.end_piece(chunks);
        }
    }

    /// Ends the header or a run of tensors; the next run begins.
    fn end_run(&mut self, chunks: &mut Chunks) {
        self.starts.pop();
        if let Some(content) = self.header.take() {
            content.finish(chunks);
        }
        self.end_piece(chunks);
    }

    fn end_piece(&mut self, chunks: &mut Chunks) {
        if self.length > 0 {
            chunks.push(self.length, self.hasher.finish());
            self.length = 0;
        }
    }
}

/// Where the runs of tensor data begin, in bytes from the start of the file, in order. A run is a
/// tensor, or tensors that come to [`JOINED_BYTES`] at most; it goes on to where the next begins,
/// and the last one to the end of the file.
fn runs(header: &Header) -> Vec<u64> {
    let start_of = |tensor: &TensorInfo| header.data_offset().saturating_add(tensor.offset());
    let mut tensors: Vec<&TensorInfo> = header.tensors().iter().collect();
    tensors.sort_by_key(|tensor| tensor.offset());

    let mut runs: Vec<u64> = Vec::new();
    for (index, tensor) in tensors.iter().enumerate() {
        let start = start_of(tensor);
        // Padding belongs to the tensor before it.
        let end = match tensors.get(index + 1) {
            Some(next) => start_of(next),
            None => start.saturating_add(tensor.bytes()),
        };
        let joins = runs.last().is_some_and(|run| end - run <= JOINED_BYTES);
        if !joins {
            runs.push(start);
        }
    }
    runs
}
