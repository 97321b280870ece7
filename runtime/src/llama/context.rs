//! Context and its KV cache: decode a batch, read logits, trim a sequence.
//!
//! llama.cpp's C functions call the cache "memory"; here it is the KV cache everywhere.

use std::num::NonZeroU32;

use llama_cpp_2::DecodeError;
use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::context::params::LlamaContextParams;

use super::batch::Batch;
use super::model::Model;
use super::{LlamaFault, Token, backend};

/// What a context is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ContextShape {
    /// KV cells, shared by all sequences.
    pub(crate) cells: u32,
    /// Sequences that can be decoded together.
    pub(crate) sequences: u32,
    /// The most tokens in one decode step.
    pub(crate) batch: u32,
    /// Threads for prompt and answer.
    pub(crate) threads: i32,
}

/// The computing state over a [`Model`]: it lives on the stack of the engine thread.
pub(crate) struct Context<'model> {
    inner: LlamaContext<'model>,
    batch: usize,
}

impl<'model> Context<'model> {
    /// Makes the context with one KV cache that all sequences share.
    pub(crate) fn new(model: &'model Model, shape: ContextShape) -> Result<Self, LlamaFault> {
        let params = LlamaContextParams::default()
            .with_n_ctx(NonZeroU32::new(shape.cells))
            .with_n_batch(shape.batch)
            .with_n_ubatch(shape.batch)
            .with_n_seq_max(shape.sequences)
            .with_n_threads(shape.threads)
            .with_n_threads_batch(shape.threads)
            .with_kv_unified(true)
            .with_no_perf(true);
        let inner = model
            .inner()
            .new_context(backend()?, params)
            .map_err(|_null| LlamaFault::Context { cells: shape.cells })?;
        let batch = usize::try_from(inner.n_batch()).unwrap_or(0);
        Ok(Self { inner, batch })
    }

    /// Decodes the batch. [`LlamaFault::CacheFull`] leaves the cache as it was.
    pub(crate) fn decode(&mut self, batch: &mut Batch) -> Result<(), LlamaFault> {
        if batch.len() == 0 {
            return Ok(());
        }
        // The C library aborts the process on a longer batch.
        if batch.len() > self.batch {
            return Err(LlamaFault::Batch("longer than the context's batch"));
        }
        match self.inner.decode(batch.inner_mut()) {
            Ok(()) => Ok(()),
            Err(DecodeError::NoKvCacheSlot) => Err(LlamaFault::CacheFull),
            Err(error) => Err(LlamaFault::Decode(error.to_string())),
        }
    }

    /// The logits of the batch entry `index`, which was added with `wants_logits`.
    pub(crate) fn logits(&self, index: i32) -> &[f32] {
        self.inner.get_logits_ith(index)
    }

    /// Keeps the first `kept` positions of a sequence and drops the rest. Says how many are really
    /// kept: recurrent models cannot go back, and start again from 0.
    pub(crate) fn keep_prefix(&mut self, sequence: u32, kept: usize) -> usize {
        if let Ok(from) = u32::try_from(kept)
            && matches!(
                self.inner
                    .clear_kv_cache_seq(Some(sequence), Some(from), None),
                Ok(true)
            )
        {
            return kept;
        }
        self.forget(sequence);
        0
    }

    /// Drops a whole sequence from the cache.
    pub(crate) fn forget(&mut self, sequence: u32) {
        // Whole sequences can always be removed; the call has nothing else to report.
        let _removed = self.inner.clear_kv_cache_seq(Some(sequence), None, None);
    }
}

/// How many leading tokens two texts share.
pub(crate) fn common_prefix(left: &[Token], right: &[Token]) -> usize {
    left.iter()
        .zip(right)
        .take_while(|(left, right)| left == right)
        .count()
}
