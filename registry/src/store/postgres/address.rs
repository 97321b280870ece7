//! The address of the database: what it says of encryption, kept as PostgreSQL's own clients do.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use url::Url;

use crate::config::Secret;
use crate::error::Error;

/// How to connect to the database at `url`.
pub(super) fn options(url: &Secret) -> Result<PgConnectOptions, Error> {
    let options = PgConnectOptions::from_str(url.reveal())
        .map_err(|error| Error::IndexUrl {
            source: Box::new(error),
        })?
        .application_name("hayloft")
        .disable_statement_logging();
    let Some(file) = authorities(url) else {
        return Ok(options);
    };
    check(&file)?;
    // The driver asks the authorities in these two modes alone. Whoever names some means them.
    let mode = match options.get_ssl_mode() {
        PgSslMode::Allow | PgSslMode::Prefer | PgSslMode::Require => PgSslMode::VerifyCa,
        other => other,
    };
    Ok(options.ssl_mode(mode))
}

/// The file of authorities that the address names, under any of the names that the driver knows.
fn authorities(url: &Secret) -> Option<PathBuf> {
    let url = Url::parse(url.reveal()).ok()?;
    let named = |name: &str| matches!(name, "sslrootcert" | "ssl-root-cert" | "ssl-ca");
    let (_, file) = url.query_pairs().filter(|(name, _)| named(name)).last()?;
    Some(PathBuf::from(file.as_ref()))
}

/// That the file can be read: the driver tells neither its name nor that nothing was in it.
fn check(file: &Path) -> Result<(), Error> {
    let refused = |problem: String| Error::Certificate {
        path: file.to_owned(),
        problem: format!("{problem}; sslrootcert in the database's address names it"),
    };
    let text = std::fs::read(file).map_err(|error| refused(error.to_string()))?;
    match CertificateDer::pem_slice_iter(&text).next() {
        Some(Ok(_)) => Ok(()),
        Some(Err(error)) => Err(refused(format!("it is not valid PEM ({error})"))),
        None => Err(refused("it holds no CERTIFICATE".to_owned())),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed expectation is a failed test")]
mod tests {
    use sqlx::postgres::PgSslMode;

    use super::options;
    use crate::config::Secret;

    fn mode(address: &str) -> PgSslMode {
        options(&Secret::new(address)).unwrap().get_ssl_mode()
    }

    #[test]
    fn authorities_that_are_named_are_asked_in_every_mode_that_may_encrypt() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.crt");
        std::fs::write(
            &file,
            "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n",
        )
        .unwrap();
        let file = file.display();
        for (said, meant) in [
            ("", PgSslMode::VerifyCa),
            ("&sslmode=require", PgSslMode::VerifyCa),
            ("&sslmode=verify-full", PgSslMode::VerifyFull),
            ("&sslmode=disable", PgSslMode::Disable),
        ] {
            let address = format!("postgres://hayloft@db/hayloft?sslrootcert={file}{said}");
            assert_eq!(format!("{:?}", mode(&address)), format!("{meant:?}"));
        }
        assert!(matches!(mode("postgres://hayloft@db"), PgSslMode::Prefer));
    }
}
