//! Mend: the cache goes on when its folder is wiped, or removed, under the running agent.
//!
//! Folders are held open, so what was removed would be written to for ever without anybody seeing
//! it. Before each piece of work the names are compared with what is open: a dozen system calls.
//! Where they differ, folders are opened anew, the lock is taken on the new one, and the index
//! begins empty.

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::PoisonError;

use crate::cache::folder::{Folder, identity};
use crate::cache::{LOCK_FILE, NodeCache};
use crate::error::Error;

impl NodeCache {
    /// Opens anew what is no longer what its name leads to.
    ///
    /// # Errors
    /// [`Error::Locked`] when another agent has the new folder; [`Error::Storage`].
    pub(crate) fn mend(&self) -> Result<(), Error> {
        if self.is_current()? {
            return Ok(());
        }
        let mut lock = self.0.lock.lock().unwrap_or_else(PoisonError::into_inner);
        // Somebody else may have been first.
        if self.has_current_folders()? && self.has_current_lock(&lock)? {
            return Ok(());
        }
        let root = &self.0.root;
        tracing::warn!(root = %root.path().display(), "the cache was removed under the agent and is made anew");
        root.reopen_root()?;
        *lock = self.0.root.lock(LOCK_FILE)?.ok_or_else(|| Error::Locked {
            root: root.path().to_owned(),
        })?;
        for (parent, name, folder) in self.folders() {
            folder.reopen(parent, name)?;
        }
        if root.stat("index")?.is_none() {
            self.0.index.reopen();
        }
        Ok(())
    }

    fn is_current(&self) -> Result<bool, Error> {
        let lock = self.0.lock.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(self.has_current_folders()? && self.has_current_lock(&lock)?)
    }

    fn has_current_folders(&self) -> Result<bool, Error> {
        if !self.0.root.is_at_its_path() {
            return Ok(false);
        }
        for (parent, name, folder) in self.folders() {
            if !folder.is_at(parent, name)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// On a read-only disk the lock may be on the folder itself.
    fn has_current_lock(&self, lock: &File) -> Result<bool, Error> {
        let held = identity(lock.as_fd());
        let named = self.0.root.stat(LOCK_FILE)?;
        Ok(named.map(|stat| (stat.st_dev, stat.st_ino)) == held || self.0.root.identity() == held)
    }

    /// Every folder that is held open, below the root: its parent and its name there. Parents come
    /// first.
    fn folders(&self) -> impl Iterator<Item = (&Folder, &'static str, &Folder)> {
        let inner = &self.0;
        [
            (&inner.root, "blobs", &inner.blobs),
            (&inner.blobs, "sha256", &inner.sha256),
            (&inner.blobs, "sha512", &inner.sha512),
            (&inner.root, "ingest", &inner.ingest),
            (&inner.root, "views", &inner.views_root),
            (&inner.views_root, "plain", &inner.plain),
            (&inner.views_root, "ollama", &inner.ollama),
            (&inner.views_root, "huggingface", &inner.huggingface),
        ]
        .into_iter()
        .chain(inner.maps.folders(&inner.root))
    }
}
