//! Held: gates of upload sessions between two of their requests, within bounds.
//!
//! A gate that is dropped here loses nothing but time: its blob is read again when a manifest
//! calls it weights.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use super::{Gate, State};

/// Most gates that are held.
const GATES: usize = 4096;
/// Most bytes of unfinished headers that are held, all gates together.
const BYTES: usize = 256 << 20;

/// The gates that wait for their session's next request.
#[derive(Debug, Default)]
pub(super) struct Held(Mutex<Shelf>);

#[derive(Debug, Default)]
struct Shelf {
    gates: HashMap<Uuid, (u64, Gate)>,
    /// Counts up, so that the oldest is known.
    next: u64,
    bytes: usize,
}

impl Held {
    /// Takes the gate of a session.
    pub(super) fn take(&self, id: Uuid) -> Option<Gate> {
        self.shelf().take(id)
    }

    /// Keeps the gate of a session; the oldest ones make room.
    pub(super) fn put(&self, id: Uuid, gate: Gate) {
        let mut shelf = self.shelf();
        drop(shelf.take(id));
        let weight = gate.weight();
        while shelf.gates.len() >= GATES || shelf.bytes + weight > BYTES {
            let oldest = shelf.gates.iter().min_by_key(|(_, (place, _))| *place);
            let Some(oldest) = oldest.map(|(id, _)| *id) else {
                break;
            };
            drop(shelf.take(oldest));
        }
        let place = shelf.next;
        shelf.next += 1;
        shelf.bytes += weight;
        shelf.gates.insert(id, (place, gate));
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        // Whatever a panicking thread left there, each gate still says what it has seen.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelf {
    fn take(&mut self, id: Uuid) -> Option<Gate> {
        let (_, gate) = self.gates.remove(&id)?;
        self.bytes = self.bytes.saturating_sub(gate.weight());
        Some(gate)
    }
}

impl Gate {
    /// Bytes of a header that it keeps.
    fn weight(&self) -> usize {
        match &self.state {
            State::Start(start) => start.len(),
            State::Reading(feed) => feed.kept(),
            State::Decided(_) => 0,
        }
    }
}
