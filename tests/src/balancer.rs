//! A TCP load balancer in front of replicas: each connection goes to the next of them that takes it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// The running balancer; it ends when dropped.
#[derive(Debug)]
pub struct Balancer {
    address: SocketAddr,
    replicas: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Balancer {
    /// Starts with nobody behind it.
    ///
    /// # Panics
    /// When no port can be had.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let replicas = Arc::<Mutex<Vec<String>>>::default();
        let known = Arc::clone(&replicas);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                let candidates = in_turn(&known);
                connections.spawn(async move {
                    for replica in candidates {
                        if let Ok(mut server) = TcpStream::connect(&replica).await {
                            // Either side may go at any time.
                            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                            return;
                        }
                    }
                });
            }
        });
        Self {
            address,
            replicas,
            task,
        }
    }

    /// One more `host:port` behind it.
    pub fn add(&self, replica: &str) {
        let mut replicas = self.replicas.lock().unwrap_or_else(PoisonError::into_inner);
        replicas.push(replica.to_owned());
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// All replicas, beginning with the one whose turn it is.
fn in_turn(replicas: &Mutex<Vec<String>>) -> Vec<String> {
    let mut replicas = replicas.lock().unwrap_or_else(PoisonError::into_inner);
    if !replicas.is_empty() {
        replicas.rotate_left(1);
    }
    replicas.clone()
}
