//! The only module that touches llama.cpp: backend start, its log, and the guarded wrappers below.
//!
//! llama.cpp aborts the process on many bad inputs (a batch that is too long, a token accepted
//! against its grammar). Every such precondition is checked in these wrappers, in Rust, so that
//! the engine above cannot reach it.

pub(crate) mod batch;
pub(crate) mod context;
pub(crate) mod grammar;
pub(crate) mod model;
pub(crate) mod sampler;

use std::sync::OnceLock;

use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_2::{LogOptions, send_logs_to_tracing};

pub(crate) use llama_cpp_2::token::LlamaToken as Token;

/// Everything that llama.cpp can refuse, in our terms.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LlamaFault {
    /// The backend could not be started.
    #[error("llama.cpp did not start: {0}")]
    Backend(String),
    /// The model file was refused.
    #[error("llama.cpp cannot load {path}: {reason}")]
    Load {
        /// The file that was given.
        path: String,
        /// What was refused.
        reason: String,
    },
    /// No context of the wanted size could be made.
    #[error("llama.cpp cannot make a context of {cells} tokens (not enough memory?)")]
    Context {
        /// KV cells asked for.
        cells: u32,
    },
    /// A batch was used beyond its bounds: a fault in the engine, caught before the C code.
    #[error("batch misuse: {0}")]
    Batch(&'static str),
    /// There are no free KV cells for the batch.
    #[error("the KV cache is full")]
    CacheFull,
    /// A decode step failed.
    #[error("llama.cpp failed to decode: {0}")]
    Decode(String),
    /// The grammar text was refused.
    #[error("llama.cpp refused the grammar")]
    Grammar,
    /// No token of the vocabulary continues the grammar.
    #[error("the model has no token that continues the requested format")]
    GrammarStuck,
    /// Following the grammar takes too long.
    #[error("the requested format is too complex to follow in reasonable time")]
    GrammarTooSlow,
    /// The model computed something that is not a number.
    #[error("the model computed values that are not numbers; the file is probably damaged")]
    NotANumber,
}

/// The process-wide backend: started once, on first use, and never stopped.
pub(crate) fn backend() -> Result<&'static LlamaBackend, LlamaFault> {
    static BACKEND: OnceLock<Result<LlamaBackend, String>> = OnceLock::new();
    BACKEND
        .get_or_init(|| {
            send_logs_to_tracing(LogOptions::default().with_logs_enabled(true));
            LlamaBackend::init().map_err(|error| error.to_string())
        })
        .as_ref()
        .map_err(|reason| LlamaFault::Backend(reason.clone()))
}

/// Whether this build and machine compute on a GPU.
pub(crate) fn computes_on_gpu() -> bool {
    backend().is_ok_and(LlamaBackend::supports_gpu_offload)
}
