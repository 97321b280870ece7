//! The two threads that follow the writer: the hasher and the syncer.

use std::sync::Arc;

use crate::chunk_map::Cutter;
use crate::client::partial::ChunkState;
use crate::client::partial::pipeline::{Error, Finished, Shared, State};
use crate::digest::Digester;

/// Bytes written between two syncs.
const SYNC_BYTES: u64 = 64 * 1024 * 1024;

/// The hasher: follows the unbroken beginning of the blob. Gives nothing when the download ended
/// before it was whole.
pub(super) fn hash(shared: &Shared) -> Result<Option<Finished>, Error> {
    let part = &shared.part;
    let mut digester = Digester::new(part.digest().algorithm());
    let map = part.division().map().map(Arc::clone);
    // A blob that comes without a map gets one, for the next version of it.
    let mut cutter = map.is_none().then(Cutter::new);
    for chunk in 0..part.division().count() {
        let is_here = shared.wait(|state| match state.chunks.get(chunk)? {
            ChunkState::Absent => state.is_over.then_some(false),
            ChunkState::Written | ChunkState::Synced => Some(true),
        });
        if !is_here {
            return Ok(None);
        }
        part.read_range(part.division().range(chunk), |piece| {
            digester.update(piece);
            if let Some(cutter) = &mut cutter {
                cutter.update(piece);
            }
        })?;
    }
    let digest = digester.finish();
    let made = cutter.and_then(|cutter| cutter.finish(digest));
    Ok(Some(Finished {
        digest,
        map: map.or_else(|| made.map(Arc::new)),
    }))
}

/// The syncer: each time enough has come, makes it durable, and only then says so in the map.
pub(super) fn sync(shared: &Shared) -> Result<(), Error> {
    loop {
        let is_over = shared.wait(|state| {
            let is_due = state.unsynced >= SYNC_BYTES;
            (is_due || state.is_over).then_some(state.is_over)
        });
        // Taken before the sync: what is written while it runs is not covered by it.
        let covered = take_unsynced(&mut shared.lock());
        if !covered.is_empty() {
            shared.part.sync_data()?;
            for chunk in &covered {
                shared.part.mark(*chunk, ChunkState::Synced)?;
            }
            shared.part.sync_map()?;
        }
        if is_over {
            return Ok(());
        }
    }
}

fn take_unsynced(state: &mut State) -> Vec<usize> {
    state.unsynced = 0;
    let mut covered = Vec::new();
    for (chunk, state) in state.chunks.iter_mut().enumerate() {
        if *state == ChunkState::Written {
            *state = ChunkState::Synced;
            covered.push(chunk);
        }
    }
    covered
}
