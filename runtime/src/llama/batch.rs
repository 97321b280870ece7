//! Batch: tokens at positions for sequences, with the checks that the C structure leaves out.

use llama_cpp_2::llama_batch::LlamaBatch;

use super::{LlamaFault, Token};

/// The input of one decode step. Capacity and sequence numbers are checked here, because the C
/// library aborts or writes out of bounds on both.
pub(crate) struct Batch {
    inner: LlamaBatch<'static>,
    capacity: usize,
    sequences: u32,
}

impl Batch {
    /// A batch for at most `capacity` tokens of sequences `0..sequences`.
    pub(crate) fn new(capacity: usize, sequences: u32) -> Self {
        // Each token belongs to one sequence, so one cell per token is enough.
        let inner = LlamaBatch::new(capacity, 1);
        Self {
            inner,
            capacity,
            sequences,
        }
    }

    /// Forgets the tokens.
    pub(crate) fn clear(&mut self) {
        self.inner.clear();
    }

    /// Tokens in the batch.
    pub(crate) fn len(&self) -> usize {
        usize::try_from(self.inner.n_tokens()).unwrap_or(0)
    }

    /// Tokens that still fit.
    pub(crate) fn room(&self) -> usize {
        self.capacity.saturating_sub(self.len())
    }

    /// Adds `token` at `position` of `sequence`; with `wants_logits` its output can be read after
    /// the decode under the index that is returned.
    pub(crate) fn add(
        &mut self,
        token: Token,
        position: usize,
        sequence: u32,
        wants_logits: bool,
    ) -> Result<i32, LlamaFault> {
        if self.room() == 0 {
            return Err(LlamaFault::Batch("more tokens than the batch holds"));
        }
        if sequence >= self.sequences {
            return Err(LlamaFault::Batch("sequence number out of range"));
        }
        let (Ok(position), Ok(sequence)) = (i32::try_from(position), i32::try_from(sequence))
        else {
            return Err(LlamaFault::Batch("position out of range"));
        };
        let index = self.inner.n_tokens();
        self.inner
            .add(token, position, &[sequence], wants_logits)
            .map_err(|_full| LlamaFault::Batch("more tokens than the batch holds"))?;
        Ok(index)
    }

    /// For [`super::context::Context::decode`] only.
    pub(super) fn inner_mut(&mut self) -> &mut LlamaBatch<'static> {
        &mut self.inner
    }
}
