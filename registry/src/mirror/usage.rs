//! Usage: when mirrored blobs were used last, for what goes first when room is needed.
//!
//! Kept in memory and saved now and then: what is lost with a crash makes a blob look older than it
//! is, and costs another download at worst.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use artifact::Digest;
use jiff::Timestamp;

use crate::error::Error;
use crate::store::local::write_durably;

/// When blobs were used.
#[derive(Debug)]
pub(crate) struct Usage {
    path: PathBuf,
    state: Mutex<State>,
    /// Held by whoever makes room.
    pub(crate) shrinking: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    /// Milliseconds since 1970.
    last: HashMap<Digest, i64>,
    is_saved: bool,
    /// Bytes of all mirrored blobs, once they were counted.
    held: Option<u64>,
}

impl Usage {
    /// What was saved; nothing when that cannot be read.
    pub(crate) fn open(path: PathBuf) -> Self {
        let saved = std::fs::read(&path).ok();
        let last = saved.and_then(|text| serde_json::from_slice::<Vec<(Digest, i64)>>(&text).ok());
        let state = State {
            last: last.unwrap_or_default().into_iter().collect(),
            is_saved: true,
            held: None,
        };
        Self {
            path,
            state: Mutex::new(state),
            shrinking: tokio::sync::Mutex::default(),
        }
    }

    /// A blob is used now.
    pub(crate) fn touch(&self, digest: &Digest) {
        let mut state = self.lock();
        let now = Timestamp::now().as_millisecond();
        if state.last.insert(*digest, now) != Some(now) {
            state.is_saved = false;
        }
    }

    /// When a blob was used last.
    pub(crate) fn last(&self, digest: &Digest) -> Option<Timestamp> {
        let at = *self.lock().last.get(digest)?;
        Timestamp::from_millisecond(at).ok()
    }

    /// Bytes of all mirrored blobs, if they were counted. What clients delete is noticed at the
    /// next count, so it may be too much, never too little.
    pub(crate) fn held(&self) -> Option<u64> {
        self.lock().held
    }

    /// They were counted.
    pub(crate) fn set_held(&self, bytes: u64) {
        self.lock().held = Some(bytes);
    }

    /// So many more came.
    pub(crate) fn grew(&self, bytes: u64) {
        let mut state = self.lock();
        state.held = state.held.map(|held| held.saturating_add(bytes));
    }

    /// Forgets every blob that is not among `known`.
    pub(crate) fn retain(&self, known: impl Fn(&Digest) -> bool) {
        self.lock().last.retain(|digest, _| known(digest));
    }

    /// Writes it down, if anything changed.
    pub(crate) fn save(&self) -> Result<(), Error> {
        let entries: Vec<(Digest, i64)> = {
            let mut state = self.lock();
            if state.is_saved {
                return Ok(());
            }
            state.is_saved = true;
            state.last.iter().map(|(d, at)| (*d, *at)).collect()
        };
        let text = serde_json::to_vec(&entries).map_err(std::io::Error::other);
        let text = text.map_err(Error::storage("write", &self.path))?;
        write_durably(&self.path.with_extension("new"), &self.path, &text)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
