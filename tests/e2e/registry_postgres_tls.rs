//! PostgreSQL by TLS: who is believed to be the database, and what is said of who is not.

use std::path::Path;

use tests::{Authority, Builder, Finished, Postgres, Server, hayloft_command, run, scratch};

use crate::registry_faults::{fill, holds_everything};
use crate::registry_support::Api;

/// A registry whose index is at the address that a file holds.
fn registry(folder: &Path, address: &str) -> Builder {
    let file = folder.join("database-url");
    std::fs::write(&file, format!("{address}\n")).unwrap();
    Server::registry()
        .data(&folder.join("data"))
        .argument("--index-file")
        .argument(file.to_str().unwrap())
}

/// What a registry says that is started on this address and ends at once.
fn start(folder: &Path, address: &str) -> Finished {
    let mut command = hayloft_command(["registry", "--listen", "127.0.0.1:0", "--data"]);
    command.arg(folder).env("HAYLOFT_INDEX", address);
    run(&mut command)
}

#[tokio::test]
async fn a_database_with_a_certificate_of_the_authority_that_is_named_is_used_encrypted() {
    let (folder, authority) = (scratch(), Authority::new());
    let postgres = Postgres::start_with_tls(&authority);
    let file = authority.file();
    let asked = format!("sslmode=verify-full&sslrootcert={}", file.display());
    for host in ["localhost", "127.0.0.1"] {
        let address = format!("{}?{asked}", postgres.tls_url(host));
        let mut api = Api::on(registry(folder.path(), &address).start());
        fill(&api).await;
        holds_everything(&api).await;
        let plain = postgres.sql(
            "SELECT count(*) FROM pg_stat_ssl NATURAL JOIN pg_stat_activity
             WHERE application_name = 'hayloft' AND NOT ssl",
        );
        let encrypted = postgres.sql(
            "SELECT count(*) > 0 FROM pg_stat_ssl NATURAL JOIN pg_stat_activity
             WHERE application_name = 'hayloft' AND ssl",
        );
        assert_eq!((plain.as_str(), encrypted.as_str()), ("0", "t"), "{host}");
        assert_eq!(api.server.terminate(), Some(0));
        assert!(!api.server.log().contains("canary"), "no password shows");
    }
}

#[test]
fn a_database_that_cannot_prove_who_it_is_ends_the_start_with_the_remedy() {
    let (folder, authority, stranger) = (scratch(), Authority::new(), Authority::new());
    let postgres = Postgres::start_with_tls(&authority);
    let (right, wrong) = (authority.file(), stranger.file());
    let (right, wrong) = (right.display(), wrong.display());
    let empty = folder.path().join("empty.crt");
    std::fs::write(&empty, "").unwrap();
    let named = "signed by an authority in the file that sslrootcert names";
    for (host, asked, words) in [
        (
            "localhost",
            format!("sslmode=verify-full&sslrootcert={wrong}"),
            [named, "invalid peer certificate"],
        ),
        // Who names authorities means them, whatever the driver thinks.
        (
            "localhost",
            format!("sslmode=require&sslrootcert={wrong}"),
            [named, "invalid peer certificate"],
        ),
        (
            "localhost",
            format!("sslrootcert={wrong}"),
            [named, "invalid peer certificate"],
        ),
        (
            "localhost",
            "sslmode=verify-full".to_owned(),
            [named, "invalid peer certificate"],
        ),
        (
            "127.0.0.2",
            format!("sslmode=verify-full&sslrootcert={right}"),
            ["be for the host name there", "not valid for name"],
        ),
        (
            "localhost",
            "sslmode=verify-full&sslrootcert=/nowhere/ca.crt".to_owned(),
            ["/nowhere/ca.crt", "sslrootcert in the database's address"],
        ),
        (
            "localhost",
            format!("sslmode=verify-full&sslrootcert={}", empty.display()),
            ["empty.crt", "holds no CERTIFICATE"],
        ),
    ] {
        let address = format!("{}?{asked}", postgres.tls_url(host));
        let began = std::time::Instant::now();
        let said = start(folder.path(), &address).failed();
        let said = said.lines().last().unwrap();
        for word in words {
            assert!(said.contains(word), "{host} {asked}: {said}");
        }
        assert!(!said.contains("canary"), "no password shows: {said}");
        let patience = std::time::Duration::from_secs(10);
        assert!(began.elapsed() < patience, "waiting cures none of these");
    }
}
