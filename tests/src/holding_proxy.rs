//! A TCP proxy that stops in the middle of what a server sends, until it is told to go on.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// The running proxy; it ends when dropped.
#[derive(Debug)]
pub struct HoldingProxy {
    address: SocketAddr,
    /// Bytes that servers may send in all.
    allowed: watch::Sender<u64>,
    /// Bytes that they have sent.
    sent: watch::Sender<u64>,
    task: JoinHandle<()>,
}

impl HoldingProxy {
    /// Forwards to `target` until it has sent `bytes` in all, then holds the rest back.
    ///
    /// # Panics
    /// When no port can be had.
    pub async fn start(target: &str, bytes: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (allowed, sent) = (watch::Sender::new(bytes), watch::Sender::new(0));
        let (target, limit, count) = (target.to_owned(), allowed.subscribe(), sent.clone());
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (target, limit, count) = (target.clone(), limit.clone(), count.clone());
                connections.spawn(async move {
                    // Either side may go at any time: that is what a proxy sees.
                    let _ = forward(client, &target, limit, &count).await;
                });
            }
        });
        Self {
            address,
            allowed,
            sent,
            task,
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until it holds something back.
    pub async fn holds(&self) {
        let allowed = *self.allowed.borrow();
        // The sender lives as long as this does.
        let _ = self
            .sent
            .subscribe()
            .wait_for(|sent| *sent >= allowed)
            .await;
    }

    /// Lets everything through from now on.
    pub fn release(&self) {
        self.allowed.send_replace(u64::MAX);
    }
}

impl Drop for HoldingProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(
    mut client: TcpStream,
    target: &str,
    mut allowed: watch::Receiver<u64>,
    sent: &watch::Sender<u64>,
) -> std::io::Result<()> {
    let mut server = TcpStream::connect(target).await?;
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let upward = tokio::io::copy(&mut from_client, &mut to_server);
    let downward = async {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let count = from_server.read(&mut buffer).await?;
            if count == 0 {
                return to_client.shutdown().await;
            }
            let so_far = *sent.borrow();
            if allowed.wait_for(|allowed| so_far < *allowed).await.is_err() {
                return Ok(());
            }
            to_client.write_all(&buffer[..count]).await?;
            sent.send_modify(|sent| *sent += count as u64);
        }
    };
    tokio::select! {
        ended = upward => ended.map(drop),
        ended = downward => ended,
    }
}
