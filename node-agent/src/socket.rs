//! Socket: the agent's Unix socket, which is bound anew when its file is removed.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::unix::SocketAddr;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::Interval;

use crate::cache::NodeCache;

/// Who may use it: the agent's user and group.
const MODE: u32 = 0o660;
/// Time between two looks at the file.
const PERIOD: Duration = Duration::from_secs(1);

/// A bound socket.
#[derive(Debug)]
pub(crate) struct Socket {
    path: PathBuf,
    listener: UnixListener,
    looks: Interval,
    cache: NodeCache,
}

impl Socket {
    /// Binds the socket; a file that is there is replaced, since the lock on the cache says that its
    /// owner is gone.
    pub(crate) fn bind(path: PathBuf, cache: NodeCache) -> std::io::Result<Self> {
        Ok(Self {
            listener: bind(&path)?,
            looks: tokio::time::interval(PERIOD),
            path,
            cache,
        })
    }

    async fn look(&mut self) {
        if std::fs::symlink_metadata(&self.path).is_ok() {
            return;
        }
        // Its folder may be gone too. What cannot be mended now is tried at the next look.
        if self.cache.blocking(|_| Ok(())).await.is_ok()
            && let Ok(listener) = bind(&self.path)
        {
            tracing::warn!(path = %self.path.display(), "the socket was removed and is bound anew");
            self.listener = listener;
        }
    }
}

impl axum::serve::Listener for Socket {
    type Io = UnixStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok(connection) => return connection,
                    Err(error) => {
                        // Out of descriptors, say: others give theirs back meanwhile.
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(PERIOD).await;
                    }
                },
                _ = self.looks.tick() => self.look().await,
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// The socket gets its mode before it gets its name, so nobody else ever gets in.
fn bind(path: &Path) -> std::io::Result<UnixListener> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = path.with_file_name(name);
    match std::fs::remove_file(&temporary) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(&temporary)?;
    std::fs::set_permissions(&temporary, std::fs::Permissions::from_mode(MODE))?;
    std::fs::rename(&temporary, path)?;
    Ok(listener)
}
