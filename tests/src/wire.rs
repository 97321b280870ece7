//! HTTP as the test servers speak it: requests in, answers out, with faults on demand and counts.

mod answer;
mod fault;
mod request;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncRead, AsyncWrite, BufReader};
use tokio::net::TcpStream;

pub(crate) use answer::{After, Content, chunked, content, send_small, spoiled_small};
pub use fault::Fault;
pub(crate) use fault::Faults;
pub(crate) use request::Request;

/// A connection of any kind.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Duplex for T {}

/// A connection that requests are read from and answers are written to.
pub(crate) type Wire = BufReader<Box<dyn Duplex>>;

/// A TCP connection as a wire.
pub(crate) fn wire(stream: TcpStream) -> io::Result<Wire> {
    stream.set_nodelay(true)?;
    Ok(BufReader::new(Box::new(stream)))
}

/// What was sent of something.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    requests: AtomicU64,
    bytes: AtomicU64,
}

impl Sent {
    pub(crate) fn add_request(&self) {
        self.requests.fetch_add(1, Ordering::SeqCst);
    }

    fn add_bytes(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::SeqCst);
    }

    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::SeqCst)
    }
}
