//! Whether the storage still keeps what it is told to keep.

use std::sync::{Mutex, PoisonError};

use crate::error::Error;

/// Turns bad with the first failed sync, or when another process takes the bucket, and stays so
/// until a restart.
///
/// After a failed fsync the kernel may have dropped the dirty pages and report success the next
/// time, so a later success proves nothing: what was written before can be gone. Reading goes on;
/// whatever would promise durability is refused.
#[derive(Debug, Default)]
pub(crate) struct Health(Mutex<Option<String>>);

impl Health {
    /// An error when the store is degraded.
    pub(crate) fn require(&self) -> Result<(), Error> {
        let reason = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match reason.as_ref() {
            None => Ok(()),
            Some(reason) => Err(Error::Degraded {
                reason: reason.clone(),
            }),
        }
    }

    /// Passes `outcome` on; a failed sync degrades the store.
    pub(crate) fn watch<T>(&self, outcome: Result<T, Error>) -> Result<T, Error> {
        if let Err(error) = &outcome {
            self.note(error);
        }
        outcome
    }

    /// Looks at what failed; a failed sync degrades the store.
    pub(crate) fn note(&self, error: &Error) {
        if let Error::Sync { path, source } = error {
            tracing::debug!(%error);
            self.degrade(format!(
                "its disk failed to sync {} ({source})",
                path.display()
            ));
        }
    }

    /// Refuses writes from here on.
    pub(crate) fn degrade(&self, reason: String) {
        tracing::error!(reason, "the store is degraded: writes are refused");
        let mut first = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert(reason);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::error::Error;
    use crate::store::health::Health;
    use crate::store::local::sync_folder;

    #[test]
    fn a_failed_sync_degrades_the_store_for_good() {
        let health = Health::default();
        assert!(health.require().is_ok());
        // The kernel does not sync folders of /proc: a real failure of a real fsync.
        let failed = health.watch(sync_folder(Path::new("/proc/self")));
        assert!(matches!(failed, Err(Error::Sync { .. })), "{failed:?}");
        assert!(health.watch(Ok(())).is_ok());
        assert!(matches!(health.require(), Err(Error::Degraded { .. })));
    }

    #[test]
    fn a_full_disk_does_not_degrade_the_store() {
        let health = Health::default();
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        let failed: Result<(), Error> = health.watch(Err(Error::sync("/data")(full)));
        assert!(matches!(failed, Err(Error::StorageFull { .. })));
        assert!(health.require().is_ok());
    }
}
