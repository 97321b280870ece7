//! The gate of a fill: what llama.cpp would choke on is not fetched to its end.

use std::sync::Arc;

use bytes::Bytes;

use crate::config::GgufPolicy;
use crate::error::Error;
use crate::mirror::fill::Fill;
use crate::service::gate::{Gate, Passed};
use crate::service::mirrored::Mirrored;

/// Bytes that are looked at at a time.
const PIECE_BYTES: u64 = 256 << 10;

impl Mirrored<'_> {
    /// Looks at the beginning of a fill while it comes; ends when that says what the blob is.
    ///
    /// # Errors
    /// [`Error::FillRefused`] when it is not to be let in.
    pub(super) async fn vet(&self, fill: &Arc<Fill>) -> Result<Passed, Error> {
        let registry = self.registry;
        if registry.gate_policy(self.repository) == GgufPolicy::Off {
            fill.vetted();
            return Ok(Passed::default());
        }
        let size = fill.size();
        let mut gate = Gate::new(Some(size));
        let mut at = 0;
        while at < size && !gate.is_decided() {
            let until = fill.readable(at).await.map_err(Error::Shared)?;
            let piece = read(fill, at, until.min(at + PIECE_BYTES)).await?;
            at += piece.len() as u64;
            // The reason comes again at the end.
            let _ = gate.push(&piece).await;
        }
        match registry.leave_gate(self.repository, Some(gate), size) {
            Err(Error::GgufRefused { reason }) => Err(Error::FillRefused {
                digest: Box::new(fill.digest()),
                reason,
            }),
            passed => {
                fill.vetted();
                passed
            }
        }
    }
}

async fn read(fill: &Arc<Fill>, from: u64, to: u64) -> Result<Bytes, Error> {
    let fill = Arc::clone(fill);
    let reading = tokio::task::spawn_blocking(move || fill.read(from..to));
    reading.await.map_err(Error::Task)?
}
