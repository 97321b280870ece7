//! Files that are read again when they change: certificates, accounts.
//!
//! They are looked at every few seconds instead of watched by the kernel: what Kubernetes mounts
//! from a Secret changes by swapping a symbolic link two folders up, which a watch on the file
//! never sees.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Time between two looks.
const PAUSE: Duration = Duration::from_secs(2);

/// Asks whoever waits to read its files again at once: what SIGHUP means to a server.
#[derive(Clone, Debug, Default)]
pub struct Reload(watch::Sender<()>);

impl Reload {
    /// Asks now. Files that were never changed are read again too.
    pub fn now(&self) {
        self.0.send_replace(());
    }
}

/// What tells one state of some files from another, without reading them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stamps(Vec<Option<Stamp>>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamps {
    /// The state of these files; taken before they are read, so that no change is missed.
    pub(crate) fn of(paths: &[&Path]) -> Self {
        Self(paths.iter().map(|path| stamp(path)).collect())
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    Some(Stamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.size(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    })
}

/// A watch on files; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Watch(JoinHandle<()>);

impl Watch {
    /// Calls `read` on a blocking thread whenever one of `paths` is no longer as it was at `seen`,
    /// and when asked to by `reload`.
    pub(crate) fn start(
        paths: Vec<PathBuf>,
        mut seen: Stamps,
        reload: Reload,
        read: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        let shared = Arc::new((paths, read));
        // Asked from here on: what is asked while files are being read is done afterwards.
        let mut asked = reload.0.subscribe();
        Self(tokio::spawn(async move {
            loop {
                let is_asked = tokio::select! {
                    () = tokio::time::sleep(PAUSE) => false,
                    changed = asked.changed() => changed.is_ok(),
                };
                let before = seen.clone();
                let shared = Arc::clone(&shared);
                let look = tokio::task::spawn_blocking(move || {
                    let (paths, read) = &*shared;
                    let paths: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
                    let now = Stamps::of(&paths);
                    if is_asked || now != before {
                        read();
                    }
                    now
                });
                // A look that panicked is repeated, since `seen` stays as it was.
                if let Ok(now) = look.await {
                    seen = now;
                }
                // Kept here, so that there is always somebody who may ask.
                let _ = &reload;
            }
        }))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}
