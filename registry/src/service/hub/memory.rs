//! Commits that were made of several manifests, kept for a while.
//!
//! Such a commit is named after all tags of its repository together, and has no manifest of its own.
//! A client learns its name first and asks for its files afterwards: a push in between must not take
//! it away. It is kept in this process only; whoever asks another replica after such a push is told
//! that the revision is unknown, and asks for `main` again.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use artifact::Repository;
use artifact::hub::Commit;

use crate::service::hub::Snapshot;

/// Commits kept; one of a thousand files takes about 300 KB.
const MOST: usize = 256;

/// The commits, oldest first.
#[derive(Debug, Default)]
pub(crate) struct HubMemory(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    commits: HashMap<(Repository, Commit), Arc<Snapshot>>,
    order: VecDeque<(Repository, Commit)>,
}

impl HubMemory {
    /// The commit, if it is kept.
    pub(crate) fn get(&self, repository: &Repository, commit: &Commit) -> Option<Arc<Snapshot>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.commits
            .get(&(repository.clone(), commit.clone()))
            .cloned()
    }

    /// Keeps a commit.
    pub(crate) fn keep(&self, repository: &Repository, snapshot: &Arc<Snapshot>) {
        let key = (repository.clone(), snapshot.commit.clone());
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept
            .commits
            .insert(key.clone(), Arc::clone(snapshot))
            .is_none()
        {
            kept.order.push_back(key);
        }
        if kept.order.len() > MOST
            && let Some(oldest) = kept.order.pop_front()
        {
            kept.commits.remove(&oldest);
        }
    }
}
