//! How far the node is with the desired list: what the status tells, and whose turn it is.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use artifact::agent_api::{PreloadState, PreloadStatus, PreloadedModel, PullEvent};
use artifact::catalog::timestamp;
use artifact::client::RetryPolicy;
use artifact::{Digest, Reference};
use tokio::time::Instant;

use crate::error::Error;
use crate::preload::list::Wanted;
use crate::pull::Pulled;

/// Waits between the tries of one model: they double from the first to the last.
const BACK_OFF: RetryPolicy = RetryPolicy {
    attempts: 20,
    first_delay: Duration::from_secs(2),
    max_delay: Duration::from_secs(300),
};

/// The list and its states. A clone is the same board.
#[derive(Clone, Debug)]
pub(crate) struct Board(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    file: String,
    is_known: bool,
    problem: Option<String>,
    rows: Vec<Row>,
}

/// A model of the list.
#[derive(Debug)]
struct Row {
    wanted: Wanted,
    state: PreloadState,
    /// When it is looked for next, unless it is being looked for.
    due: Instant,
    is_running: bool,
    tries: u32,
    /// Blobs of the pull that goes on: bytes present, bytes in all.
    blobs: HashMap<Digest, (u64, u64)>,
}

impl Board {
    pub(crate) fn new(file: &Path) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            file: file.display().to_string(),
            is_known: false,
            problem: None,
            rows: Vec::new(),
        })))
    }

    /// A new list counts from now on. What is known of models that stay is kept.
    pub(super) fn set_list(&self, list: Vec<Wanted>) {
        let mut inner = self.lock();
        let mut before = std::mem::take(&mut inner.rows);
        inner.rows = list
            .into_iter()
            .map(
                |wanted| match before.iter().position(|row| row.wanted.name == wanted.name) {
                    Some(at) => before.swap_remove(at).now(wanted),
                    None => Row::new(wanted),
                },
            )
            .collect();
        inner.is_known = true;
        inner.problem = None;
    }

    /// The file is no list, and why. What it said before still counts.
    pub(super) fn set_problem(&self, problem: String) {
        self.lock().problem = Some(problem);
    }

    /// What the list says now.
    pub(super) fn list(&self) -> Vec<Wanted> {
        let inner = self.lock();
        inner.rows.iter().map(|row| row.wanted.clone()).collect()
    }

    /// The models that are due, as many as may run beside those that do. They run from now on.
    pub(super) fn take_due(&self, at_a_time: usize) -> Vec<Wanted> {
        let mut inner = self.lock();
        let running = inner.rows.iter().filter(|row| row.is_running).count();
        let now = Instant::now();
        let due = inner.rows.iter_mut().filter(|row| row.is_due(now));
        due.take(at_a_time.saturating_sub(running))
            .map(|row| {
                row.is_running = true;
                row.blobs.clear();
                row.wanted.clone()
            })
            .collect()
    }

    /// The models that are ready.
    pub(super) fn ready(&self) -> Vec<(Wanted, Reference)> {
        let inner = self.lock();
        let ready = inner.rows.iter().filter_map(|row| match &row.state {
            PreloadState::Ready { reference, .. } if !row.is_running => {
                Some((row.wanted.clone(), reference.clone()))
            }
            _ => None,
        });
        ready.collect()
    }

    /// A model that was ready is no longer here, or no longer pinned.
    pub(super) fn lost(&self, wanted: &Wanted) {
        self.change(wanted, |row| {
            row.state = PreloadState::Waiting;
            row.due = Instant::now();
        });
    }

    /// A pull tells how it goes. A model that is here stays ready while a newer version comes.
    pub(super) fn tell(&self, wanted: &Wanted, event: &PullEvent) {
        self.change(wanted, |row| {
            match event {
                PullEvent::Resolved { blobs, .. } => {
                    row.blobs = blobs
                        .iter()
                        .map(|blob| {
                            let present = if blob.cached { blob.size } else { 0 };
                            (blob.digest, (present, blob.size))
                        })
                        .collect();
                }
                PullEvent::Progress {
                    digest, completed, ..
                } => {
                    if let Some(blob) = row.blobs.get_mut(digest) {
                        blob.0 = (*completed).min(blob.1);
                    }
                }
                _ => {}
            }
            if !matches!(row.state, PreloadState::Ready { .. }) {
                let bytes = |of: fn(&(u64, u64)) -> u64| {
                    row.blobs.values().map(of).fold(0, u64::saturating_add)
                };
                row.state = PreloadState::Pulling {
                    completed: bytes(|blob| blob.0),
                    total: bytes(|blob| blob.1),
                };
            }
        });
    }

    /// A pull has ended; the next one is after `interval`, or sooner where it failed.
    pub(super) fn ended(
        &self,
        wanted: &Wanted,
        outcome: Result<&Pulled, &Error>,
        interval: Duration,
    ) {
        self.change(wanted, |row| {
            row.is_running = false;
            row.blobs.clear();
            match outcome {
                Ok(pulled) => row.succeeded(pulled, interval),
                Err(error) => row.failed(error),
            }
        });
    }

    /// What the status tells.
    pub(crate) fn status(&self) -> PreloadStatus {
        let inner = self.lock();
        let models = inner.rows.iter().map(|row| PreloadedModel {
            name: row.wanted.name.to_string(),
            pin: row.wanted.pin,
            state: row.state.clone(),
        });
        PreloadStatus {
            file: inner.file.clone(),
            is_known: inner.is_known,
            problem: inner.problem.clone(),
            models: models.collect(),
        }
    }

    /// Changes the row of a model, if it is still listed in the same way.
    fn change(&self, wanted: &Wanted, change: impl FnOnce(&mut Row)) {
        let mut inner = self.lock();
        if let Some(row) = inner.rows.iter_mut().find(|row| row.wanted == *wanted) {
            change(row);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Row {
    fn new(wanted: Wanted) -> Self {
        Self {
            wanted,
            state: PreloadState::Waiting,
            due: Instant::now(),
            is_running: false,
            tries: 0,
            blobs: HashMap::new(),
        }
    }

    /// The same model as the list says it now. A pull under another setting does not count for it.
    fn now(self, wanted: Wanted) -> Self {
        if self.wanted == wanted {
            return self;
        }
        let is_ready = matches!(self.state, PreloadState::Ready { .. });
        let state = if is_ready {
            self.state
        } else {
            PreloadState::Waiting
        };
        Self {
            state,
            ..Self::new(wanted)
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        !self.is_running && self.due <= now
    }

    fn succeeded(&mut self, pulled: &Pulled, interval: Duration) {
        let model = &pulled.model;
        let since = match &self.state {
            PreloadState::Ready { digest, since, .. } if *digest == model.digest => since.clone(),
            _ => timestamp(SystemTime::now()),
        };
        self.tries = 0;
        self.due = Instant::now() + around(interval);
        self.state = PreloadState::Ready {
            reference: model.reference.clone(),
            digest: model.digest,
            since,
            note: pulled.note.clone(),
        };
    }

    fn failed(&mut self, error: &Error) {
        self.tries = self.tries.saturating_add(1);
        let waited = usize::try_from(self.tries - 1).unwrap_or(usize::MAX);
        let delay = BACK_OFF.delays().nth(waited).unwrap_or(BACK_OFF.max_delay);
        self.due = Instant::now() + delay;
        let error = error.to_agent_error();
        match &mut self.state {
            PreloadState::Ready { note, .. } => *note = Some(error.message),
            state => {
                *state = PreloadState::Failed {
                    error,
                    tries: self.tries,
                    next_try: timestamp(SystemTime::now() + delay),
                }
            }
        }
    }
}

/// A tenth more or less, so that nodes that were started together do not ask together.
fn around(interval: Duration) -> Duration {
    let fifth = RetryPolicy {
        attempts: 2,
        first_delay: interval / 5,
        max_delay: interval,
    };
    // The first delay comes with up to as much again of jitter.
    let jittered = fifth.delays().next().unwrap_or(fifth.first_delay);
    interval * 7 / 10 + jittered
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use artifact::agent_api::PreloadState;

    use crate::error::Error;
    use crate::preload::list::parse;
    use crate::preload::state::{Board, around};

    fn board(names: &[&str]) -> Board {
        let board = Board::new(Path::new("list.toml"));
        let entry = |name: &&str| format!("[[model]]\nreference = \"{name}\"\n");
        let text: String = names.iter().map(entry).collect();
        board.set_list(parse(&text).unwrap());
        board
    }

    #[test]
    fn models_take_turns_and_one_that_failed_waits() {
        let board = board(&["h:1/a", "h:1/b", "h:1/c"]);
        let first = board.take_due(2);
        assert_eq!(first.len(), 2);
        assert!(board.take_due(2).is_empty());
        let error = Error::BadRequest {
            reason: "no".to_owned(),
        };
        board.ended(&first[0], Err(&error), Duration::from_secs(600));
        let next = board.take_due(2);
        assert_eq!(next[0].name.as_str(), "h:1/c");
        let status = board.status();
        assert!(matches!(
            &status.models[0].state,
            PreloadState::Failed { tries: 1, error, .. } if error.message == "no"
        ));
        assert!(!status.is_ready());
    }

    #[test]
    fn an_empty_list_is_ready_and_an_unknown_one_is_not() {
        assert!(board(&[]).status().is_ready());
        let unknown = Board::new(Path::new("list.toml"));
        unknown.set_problem("it cannot be read".to_owned());
        assert!(!unknown.status().is_ready());
    }

    #[test]
    fn intervals_differ_by_a_tenth() {
        for _ in 0..100 {
            let time = around(Duration::from_secs(100)).as_secs_f64();
            assert!((89.9..110.1).contains(&time), "{time}");
        }
    }
}
