//! Limits that configuration sets: blob size, open sessions, their expiry, the external address.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::time::{Duration, Instant};

use artifact::Digest;
use registry::Config;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A registry in this process, stopped when dropped.
struct Running {
    address: std::net::SocketAddr,
    _stop: tokio::sync::oneshot::Sender<()>,
    _folder: tempfile::TempDir,
}

async fn start(change: impl FnOnce(&mut Config)) -> Running {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config::new(folder.path());
    change(&mut config);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    tokio::spawn(registry::serve(config, listener, async move {
        let _ = stopped.await;
    }));
    Running {
        address,
        _stop: stop,
        _folder: folder,
    }
}

impl Running {
    /// Sends one request and gives the whole answer, header names in lower case.
    async fn ask(&self, method: &str, path: &str, body: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: here\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// The path of a new upload session.
    async fn begin(&self) -> String {
        let answer = self.ask("POST", "/v2/a/blobs/uploads/", b"").await;
        let location = answer
            .lines()
            .find_map(|line| line.strip_prefix("location: "))
            .unwrap();
        location[location.find("/v2/").unwrap()..].to_owned()
    }
}

#[tokio::test]
async fn a_blob_over_the_limit_is_413_and_its_session_ends() {
    let registry = start(|config| config.max_blob_bytes = Some(10)).await;
    let digest = Digest::sha256(b"0123456789");
    let location = registry.begin().await;
    let fits = registry.ask("PATCH", &location, b"0123456789").await;
    assert!(fits.starts_with("HTTP/1.1 202"), "{fits}");
    let more = registry.ask("PATCH", &location, b"x").await;
    assert!(more.starts_with("HTTP/1.1 413"), "{more}");
    assert!(more.contains("SIZE_INVALID"), "{more}");
    let gone = registry.ask("GET", &location, b"").await;
    assert!(gone.starts_with("HTTP/1.1 404"), "{gone}");
    let path = format!("/v2/a/blobs/uploads/?digest={digest}");
    let whole = registry.ask("POST", &path, b"0123456789").await;
    assert!(whole.starts_with("HTTP/1.1 201"), "{whole}");
}

#[tokio::test]
async fn too_many_open_sessions_are_429() {
    let registry = start(|config| config.max_uploads = 2).await;
    let first = registry.begin().await;
    let _ = registry.begin().await;
    let third = registry.ask("POST", "/v2/a/blobs/uploads/", b"").await;
    assert!(third.starts_with("HTTP/1.1 429"), "{third}");
    assert!(
        third.contains("retry-after: ") && third.contains("TOOMANYREQUESTS"),
        "{third}"
    );
    let _ = registry.ask("DELETE", &first, b"").await;
    let _ = registry.begin().await;
}

#[tokio::test]
async fn sessions_without_progress_expire() {
    let registry = start(|config| config.upload_expiry = Duration::from_millis(200)).await;
    let location = registry.begin().await;
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let answer = registry.ask("GET", &location, b"").await;
        if answer.starts_with("HTTP/1.1 404") {
            break;
        }
        assert!(
            Instant::now() < deadline,
            "the session is still there: {answer}"
        );
    }
}

#[tokio::test]
async fn the_external_address_stands_in_locations() {
    let url = "https://models.example.com/".parse().unwrap();
    let registry = start(|config| config.external_url = Some(url)).await;
    let answer = registry.ask("POST", "/v2/a/blobs/uploads/", b"").await;
    let wanted = "location: https://models.example.com/v2/a/blobs/uploads/";
    assert!(answer.contains(wanted), "{answer}");
}
