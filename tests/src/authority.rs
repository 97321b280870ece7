//! A private certificate authority.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

/// The authority, and the file that its clients must know.
#[derive(Debug)]
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

/// A certificate and its key, as PEM.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// The private key.
    pub key: String,
}

impl Authority {
    /// A new one that nobody trusts yet.
    ///
    /// # Panics
    /// When the keys cannot be made.
    #[must_use]
    pub fn new() -> Self {
        Self::named("Test Authority")
    }

    /// One with this common name.
    ///
    /// # Panics
    /// When the keys cannot be made.
    #[must_use]
    pub fn named(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a certificate");
        let folder = crate::scratch();
        std::fs::write(folder.path().join("ca.crt"), issuer.pem()).expect("a file");
        Self { issuer, folder }
    }

    /// Its certificate, in a file `ca.crt` that stands alone in its folder.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("ca.crt")
    }

    /// The folder of [`Authority::file`].
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Certificate and key of the authority itself, for a proxy that signs by it.
    #[must_use]
    pub fn pair(&self) -> Pair {
        Pair {
            certificate: self.issuer.pem(),
            key: self.issuer.key().serialize_pem(),
        }
    }

    /// A certificate for this machine's own names.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn issue(&self) -> Pair {
        self.issue_from(&["localhost", "127.0.0.1"], 2000)
    }

    /// A certificate for these names, good from the beginning of that year on.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn issue_from(&self, names: &[&str], year: i32) -> Pair {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("parameters");
        params.not_before = rcgen::date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Pair {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Pair {
    /// Writes both into a folder, each under a temporary name first; gives their paths.
    ///
    /// # Panics
    /// When the folder cannot be written to.
    #[must_use]
    pub fn write(&self, folder: &Path) -> (PathBuf, PathBuf) {
        let place = |name: &str, text: &str| {
            let path = folder.join(name);
            let temporary = folder.join(format!("{name}.new"));
            std::fs::write(&temporary, text).expect("a file");
            std::fs::rename(temporary, &path).expect("a rename");
            path
        };
        (
            place("registry.crt", &self.certificate),
            place("registry.key", &self.key),
        )
    }
}
