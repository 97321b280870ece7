//! Debian's microsocks, a SOCKS5 proxy, for which names below `upstream.test` are this machine's.

use std::process::{Child, Command, Stdio};

use crate::squid::{UPSTREAM, free_port};
use crate::{eventually, run, scratch};

/// A running microsocks. Dropping it kills the process.
#[derive(Debug)]
pub struct Socks {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Socks {
    /// Starts it in a mount namespace with a `/etc/hosts` of its own, and waits until it listens.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start() -> Self {
        for _ in 0..10 {
            let folder = scratch();
            let port = free_port();
            let hosts = folder.path().join("hosts");
            let known = format!("127.0.0.1 localhost\n127.0.0.1 {UPSTREAM}\n");
            std::fs::write(&hosts, known).expect("a file");
            let mut command = Command::new("unshare");
            if run(Command::new("id").arg("-u")).succeeded().trim() != "0" {
                command.arg("--map-root-user");
            }
            let script = "mount --bind \"$1\" /etc/hosts && exec microsocks -i 127.0.0.1 -p \"$2\"";
            let mut child = command
                .args(["--mount", "sh", "-c", script, "sh"])
                .arg(&hosts)
                .arg(port.to_string())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("util-linux is installed");
            let listens = eventually("microsocks listens or ends", 20, || {
                let connected = std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
                let ended = child.try_wait().ok().flatten().is_some();
                std::future::ready((connected || ended).then_some(connected && !ended))
            });
            if listens.await {
                return Self {
                    child,
                    port,
                    _folder: folder,
                };
            }
        }
        panic!("microsocks does not start: is it installed (scripts/install-deps.sh)?");
    }

    /// `socks5h://127.0.0.1:PORT`: names are looked up there.
    #[must_use]
    pub fn url(&self) -> String {
        format!("socks5h://127.0.0.1:{}", self.port)
    }
}

impl Drop for Socks {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
