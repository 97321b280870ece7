//! HTTP as the test servers speak it: requests in, answers out, with faults on demand and counts.

mod answer;
mod fault;
mod request;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncRead, AsyncWrite, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::authority::Pair;
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

/// A TCP connection as a wire, by TLS if there is an acceptor.
pub(crate) async fn secured(stream: TcpStream, tls: Option<&TlsAcceptor>) -> io::Result<Wire> {
    let Some(tls) = tls else {
        return wire(stream);
    };
    stream.set_nodelay(true)?;
    Ok(BufReader::new(Box::new(tls.accept(stream).await?)))
}

/// What speaks TLS with a certificate.
pub(crate) fn acceptor(pair: &Pair) -> TlsAcceptor {
    let certificate = CertificateDer::from_pem_slice(pair.certificate.as_bytes());
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes());
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions of TLS")
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.expect("a certificate")],
            key.expect("a key"),
        );
    TlsAcceptor::from(Arc::new(config.expect("a certificate and its key")))
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
