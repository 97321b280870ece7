//! versitygw, an S3 server that other people wrote and run: the bucket outlives the registries.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tests::s3::{BUCKET, registry_in};
use tests::{Builder, project_root};

const KEY: &str = "soak-key";
const SECRET: &str = "soak-secret";
/// It is up in well under a second.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running versitygw; dropping it ends the process.
#[derive(Debug)]
pub(crate) struct Gateway {
    child: Child,
    address: String,
}

impl Gateway {
    /// Serves the buckets in `folder`, which gets one.
    pub(crate) fn start(folder: &Path) -> Self {
        let program = project_root().join(".peers/bin/versitygw");
        assert!(program.is_file(), "versitygw is not built: run make soak");
        std::fs::create_dir_all(folder.join(BUCKET)).expect("the bucket can be made");
        // It takes no port 0; between the probe and its start nobody else asks for one here.
        let probe = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = probe.local_addr().expect("an address").to_string();
        drop(probe);
        let child = Command::new(program)
            .args(["--quiet", "--port", &address, "posix"])
            .arg(folder)
            .env("ROOT_ACCESS_KEY", KEY)
            .env("ROOT_SECRET_KEY", SECRET)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("versitygw starts");
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(&address).is_err() {
            assert!(Instant::now() < deadline, "versitygw does not listen");
            std::thread::yield_now();
        }
        Self { child, address }
    }

    /// A registry in its bucket.
    pub(crate) fn registry(&self) -> Builder {
        registry_in(&self.address, KEY, SECRET)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
