//! Failures of the database: which may pass, which are tried again, and how they are told.

use std::time::Duration;

use crate::error::Error;
use crate::store::postgres::PostgresIndex;

/// Pauses before the tries after the first, in milliseconds: together long enough for a fail-over
/// to be noticed, short enough for a client that waits.
const PAUSES: [u64; 3] = [20, 100, 400];

/// What kind of trouble a failure means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// The statement had no effect, or none that doing it again would double: try at once.
    Passing,
    /// The database cannot do this now: later perhaps.
    Lasting,
    /// A mistake in this program or in the database's content.
    Broken,
}

impl PostgresIndex {
    /// Does work that may be done twice, and does it again when the first try met trouble that
    /// passes: a lost connection, a deadlock, a failed serialization.
    pub(super) async fn retry<T, W>(&self, mut work: impl FnMut() -> W) -> Result<T, Error>
    where
        W: Future<Output = Result<T, sqlx::Error>>,
    {
        self.continuity.require_own()?;
        let mut pauses = PAUSES.iter();
        loop {
            let error = match work().await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let (Trouble::Passing, Some(pause)) = (trouble(&error), pauses.next()) else {
                return Err(failed(error));
            };
            tracing::debug!(%error, "the index's database failed, trying again");
            tokio::time::sleep(Duration::from_millis(*pause)).await;
        }
    }
}

/// What the failure means to who asked.
pub(super) fn failed(error: sqlx::Error) -> Error {
    if is_of_encryption(&error) {
        return Error::IndexEncryption {
            source: Box::new(error),
        };
    }
    match trouble(&error) {
        Trouble::Passing | Trouble::Lasting => Error::IndexUnavailable {
            source: Box::new(error),
        },
        Trouble::Broken => Error::index(error),
    }
}

/// Whether the tables are not there, or not those that the migrations made.
pub(super) fn is_without_tables(error: &sqlx::Error) -> bool {
    code(error).is_some_and(|code| matches!(code.as_str(), "42P01" | "42703" | "3F000"))
}

/// Whether the two could not agree on an encrypted connection, as the address asks for one.
fn is_of_encryption(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Tls(_) => true,
        sqlx::Error::Io(error) => error
            .get_ref()
            .is_some_and(|inner| inner.is::<rustls::Error>()),
        _ => false,
    }
}

fn code(error: &sqlx::Error) -> Option<String> {
    Some(error.as_database_error()?.code()?.into_owned())
}

/// Codes: appendix A of PostgreSQL's manual.
fn trouble(error: &sqlx::Error) -> Trouble {
    if let Some(code) = code(error) {
        return match code.as_str() {
            // Serialization failure, deadlock, session ended by an administrator, crash of another
            // session.
            "40001" | "40P01" | "57P01" | "57P02" => Trouble::Passing,
            // Read-only transaction, lock or statement time-out, database or tables gone: an
            // administrator is at work.
            "25006" | "55P03" | "57014" | "3D000" | "3F000" | "42P01" | "42703" => Trouble::Lasting,
            // Lost connections, refused log-in, no resources (disk full), operator intervention
            // (starting up, shutting down), system errors.
            code if ["08", "28", "53", "57", "58"]
                .iter()
                .any(|class| code.starts_with(class)) =>
            {
                Trouble::Lasting
            }
            _ => Trouble::Broken,
        };
    }
    match error {
        error if is_of_encryption(error) => Trouble::Lasting,
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => {
            Trouble::Passing
        }
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::BeginFailed => {
            Trouble::Lasting
        }
        _ => Trouble::Broken,
    }
}
