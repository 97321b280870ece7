//! TLS by rustls, with a certificate that is exchanged while connections go on.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::config::TlsFiles;
use crate::error::Error;
use crate::watched::{Reload, Stamps, Watch};

/// Largest PEM file that is read.
const MAX_PEM_BYTES: u64 = 4 * 1024 * 1024;

/// What greets TLS connections.
#[derive(Clone)]
pub(crate) struct Tls {
    acceptor: TlsAcceptor,
    _watch: Arc<Watch>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Tls(…)")
    }
}

impl Tls {
    /// Reads certificate and key, and again whenever one of them changes: connections that begin
    /// later see the new certificate. A bad pair is refused now; later the old one stays, and the
    /// log says why.
    pub(crate) fn open(files: TlsFiles, reload: Reload) -> Result<Self, Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let seen = Stamps::of(&[&files.certificate, &files.key]);
        let pair = Arc::new(ArcSwap::from_pointee(read(&files, &provider)?));
        let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| refused(&files.certificate, error.to_string()))?
            .with_no_client_auth();
        let mut config = config.with_cert_resolver(Arc::new(Current(Arc::clone(&pair))));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let paths: Vec<PathBuf> = vec![files.certificate.clone(), files.key.clone()];
        let watch = Watch::start(paths, seen, reload, move || match read(&files, &provider) {
            Ok(new) => {
                pair.store(Arc::new(new));
                tracing::info!(path = %files.certificate.display(), "serving a new certificate");
            }
            // Often one file of two has changed and the other one follows in a moment.
            Err(error) => tracing::error!(
                error = error.chain(),
                "the new certificate is refused: the old one stays"
            ),
        });
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            _watch: Arc::new(watch),
        })
    }

    /// Makes a TLS connection of a connection.
    pub(crate) fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }
}

/// The certificate of this moment.
#[derive(Debug)]
struct Current(Arc<ArcSwap<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

fn read(files: &TlsFiles, provider: &CryptoProvider) -> Result<CertifiedKey, Error> {
    let path = &files.certificate;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem(path)?)
        .collect::<Result<_, _>>()
        .map_err(|error| refused(path, format!("it is not valid PEM ({error})")))?;
    if chain.is_empty() {
        return Err(refused(path, "it holds no CERTIFICATE".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_slice(&pem(&files.key)?).map_err(|_| {
        let problem = "it holds no private key in PEM form that can be read without a passphrase";
        refused(&files.key, problem.to_owned())
    })?;
    CertifiedKey::from_der(chain, key, provider).map_err(|error| {
        let problem =
            format!("certificate and key do not belong together, or are damaged ({error})");
        refused(path, problem)
    })
}

fn pem(path: &Path) -> Result<Vec<u8>, Error> {
    use std::io::Read;
    let read = || {
        let mut text = Vec::new();
        let file = std::fs::File::open(path)?;
        file.take(MAX_PEM_BYTES).read_to_end(&mut text)?;
        Ok(text)
    };
    read().map_err(Error::storage("read", path))
}

fn refused(path: &Path, problem: String) -> Error {
    Error::Certificate {
        path: path.to_owned(),
        problem,
    }
}
