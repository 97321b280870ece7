//! A TCP proxy that breaks connections off in the middle of what a client sends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// The running proxy; it ends when dropped.
#[derive(Debug)]
pub struct CuttingProxy {
    address: SocketAddr,
    counters: Arc<Counters>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Counters {
    forwarded: AtomicU64,
    cuts_left: AtomicUsize,
}

impl CuttingProxy {
    /// Forwards to `target`, and for the first `cuts` connections that get there, breaks off after
    /// the client has sent `bytes` on it.
    ///
    /// # Panics
    /// When no port can be had.
    pub async fn start(target: &str, bytes: u64, cuts: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let counters = Arc::new(Counters {
            forwarded: AtomicU64::new(0),
            cuts_left: AtomicUsize::new(cuts),
        });
        let shared = Arc::clone(&counters);
        let target = target.to_owned();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let counters = Arc::clone(&shared);
                let target = target.clone();
                connections.spawn(async move {
                    // Either side may go at any time: that is what a proxy sees.
                    let _ = forward(client, &target, bytes, &counters).await;
                });
            }
        });
        Self {
            address,
            counters,
            task,
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Bytes that clients have sent through it.
    #[must_use]
    pub fn forwarded(&self) -> u64 {
        self.counters.forwarded.load(Ordering::SeqCst)
    }

    /// Connections that are still to be cut.
    #[must_use]
    pub fn cuts_left(&self) -> usize {
        self.counters.cuts_left.load(Ordering::SeqCst)
    }
}

impl Drop for CuttingProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(
    mut client: TcpStream,
    target: &str,
    bytes: u64,
    counters: &Counters,
) -> std::io::Result<()> {
    let mut server = TcpStream::connect(target).await?;
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let upward = async {
        let mut sent = 0;
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let count = from_client.read(&mut buffer).await?;
            if count == 0 {
                return to_server.shutdown().await;
            }
            to_server.write_all(&buffer[..count]).await?;
            sent += count as u64;
            counters.forwarded.fetch_add(count as u64, Ordering::SeqCst);
            if sent >= bytes && take_cut(counters) {
                return Err(std::io::ErrorKind::ConnectionReset.into());
            }
        }
    };
    let downward = tokio::io::copy(&mut from_server, &mut to_client);
    tokio::select! {
        ended = upward => ended,
        ended = downward => ended.map(drop),
    }
}

fn take_cut(counters: &Counters) -> bool {
    counters
        .cuts_left
        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
            left.checked_sub(1)
        })
        .is_ok()
}
