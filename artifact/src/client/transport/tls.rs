//! TLS: whose certificates are trusted, and who issued one that is not.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, OtherError, SignatureScheme};
use rustls_platform_verifier::Verifier;

use crate::client::error::Error;
use crate::client::transport::issuer::issuer_of;

/// A certificate whose issuer nobody here trusts.
#[derive(Debug)]
pub(crate) struct Untrusted {
    /// The issuer's name, if it can be read.
    pub(crate) issuer: String,
}

impl fmt::Display for Untrusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the certificate is issued by {}, who is not trusted",
            self.issuer
        )
    }
}

impl std::error::Error for Untrusted {}

/// The certificates of the files, in order.
pub(super) fn read(files: &[PathBuf]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let mut all = Vec::new();
    for path in files {
        let fault = |reason: String| Error::Authority {
            path: path.clone(),
            reason,
        };
        let text = std::fs::read(path).map_err(|error| fault(error.to_string()))?;
        let before = all.len();
        for certificate in CertificateDer::pem_slice_iter(&text) {
            all.push(certificate.map_err(|error| fault(error.to_string()))?);
        }
        if all.len() == before {
            return Err(fault("there is no certificate in PEM in it".to_owned()));
        }
    }
    Ok(all)
}

/// What a client trusts: the system's authorities and these. It is the verifier that reqwest would
/// use by itself, but one that says who issued what it does not trust.
pub(super) fn config(extra: Vec<CertificateDer<'static>>) -> Result<ClientConfig, Error> {
    let fault = |error: rustls::Error| Error::Tls {
        reason: error.to_string(),
    };
    let provider = CryptoProvider::get_default().map_or_else(
        || Arc::new(rustls::crypto::aws_lc_rs::default_provider()),
        Arc::clone,
    );
    let inner = Verifier::new_with_extra_roots(extra, Arc::clone(&provider)).map_err(fault)?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(fault)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Naming { inner }))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Verifies as `inner` does; an unknown issuer becomes one with a name.
#[derive(Debug)]
struct Naming {
    inner: Verifier,
}

impl ServerCertVerifier for Naming {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.inner.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        verified.map_err(|error| match error {
            rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
                let last = intermediates.last().unwrap_or(end_entity);
                let issuer = issuer_of(last).unwrap_or_else(|| "somebody unnamed".to_owned());
                let other = OtherError(Arc::new(Untrusted { issuer }));
                rustls::Error::InvalidCertificate(CertificateError::Other(other))
            }
            other => other,
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
