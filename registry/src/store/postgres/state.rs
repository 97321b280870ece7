//! Which registry a database is the index of, which rebuild of it, and how far it has come.
//!
//! A database outlives the registry's processes and has a life of its own: somebody may put an
//! older copy back, empty it, or point a second registry at it. The number of its changes only
//! grows; so a smaller one, another generation or another registry shows that it is not what it
//! was. Every new connection looks, since a database that is put back ends the old ones.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::{Connection, PgConnection};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::error::Error;
use crate::store::postgres::PostgresIndex;
use crate::store::postgres::failure::{failed, is_without_tables};
use crate::store::postgres::lock::named_lock;

/// What the database says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DatabaseState {
    /// The registry whose index it is.
    pub(crate) registry: Option<Uuid>,
    /// The rebuild that filled it.
    pub(crate) generation: Option<i64>,
    /// How often it changed.
    pub(crate) changes: i64,
}

/// How the database of a connection compares with the one that was known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Standing {
    /// The same, further on.
    #[default]
    Certain,
    /// An older copy, an empty one: the records must be compared with it.
    Doubtful,
    /// Another registry took it.
    Foreign,
}

#[derive(Debug, Default)]
struct Known {
    /// The least that the database must say of itself.
    state: Option<DatabaseState>,
    standing: Standing,
    /// How often `state` was taken from the database.
    readings: u64,
}

impl Known {
    fn take(&mut self, state: DatabaseState) {
        self.state = Some(state);
        self.readings += 1;
    }
}

/// Watches that the database goes on from what is known of it.
#[derive(Debug, Default)]
pub(super) struct Continuity {
    known: Mutex<Known>,
    doubt: Notify,
}

impl Continuity {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be asked before a change of our own, and given to [`Continuity::count_change`] after it.
    pub(super) fn readings(&self) -> u64 {
        self.known().readings
    }

    /// Notes a change of our own: the database cannot have seen fewer. A change that began before
    /// the last reading may be part of what was read, and is not counted twice.
    pub(super) fn count_change(&self, readings: u64) {
        let mut known = self.known();
        if known.readings == readings
            && let Some(state) = &mut known.state
        {
            state.changes += 1;
        }
    }

    /// Fails when the database belongs to another registry by now.
    pub(super) fn require_own(&self) -> Result<(), Error> {
        match self.known().standing {
            Standing::Certain | Standing::Doubtful => Ok(()),
            Standing::Foreign => Err(Error::IndexForeign),
        }
    }

    /// Fails unless the database is known to go on from where it was.
    pub(super) fn require_certain(&self) -> Result<(), Error> {
        self.require_own()?;
        match self.known().standing {
            Standing::Doubtful => Err(Error::IndexUnavailable {
                source:
                    "it was put back to an earlier state and is being compared with the records"
                        .into(),
            }),
            Standing::Certain | Standing::Foreign => Ok(()),
        }
    }

    /// Looks at the database behind a new connection.
    pub(super) async fn inspect(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        // Taken before the database is asked: while it answers, changes of our own go on and are
        // counted, and its answer would look older than what is known by then.
        let Some(before) = self.known().state else {
            return Ok(());
        };
        match read_state(connection).await {
            Ok(found) => self.compare(&before, &found),
            Err(error) if is_without_tables(&error) => self.set(Standing::Doubtful),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn compare(&self, before: &DatabaseState, found: &DatabaseState) {
        match standing(before, found) {
            Standing::Certain => {
                let mut known = self.known();
                let is_further = known.state.is_some_and(|state| {
                    (state.generation, state.changes) < (found.generation, found.changes)
                });
                if is_further {
                    known.take(*found);
                }
            }
            standing @ (Standing::Doubtful | Standing::Foreign) => self.set(standing),
        }
    }

    fn set(&self, standing: Standing) {
        let mut known = self.known();
        if known.standing != standing {
            tracing::error!(
                ?standing,
                "the index's database is not what it was: it was emptied, put back or taken over"
            );
        }
        known.standing = standing;
        self.doubt.notify_one();
    }
}

fn standing(before: &DatabaseState, found: &DatabaseState) -> Standing {
    if found.registry.is_some() && found.registry != before.registry {
        return Standing::Foreign;
    }
    // A later generation is the work of somebody who compared it with the records meanwhile.
    let goes_on = found.registry == before.registry
        && (found.generation > before.generation
            || (found.generation == before.generation && found.changes >= before.changes));
    if goes_on {
        Standing::Certain
    } else {
        Standing::Doubtful
    }
}

async fn read_state(connection: &mut PgConnection) -> Result<DatabaseState, sqlx::Error> {
    let row = sqlx::query!(
        r#"SELECT registry, generation,
                  (SELECT coalesce(sum(count), 0) FROM hayloft.changes)::bigint AS "changes!"
           FROM hayloft.state"#
    )
    .fetch_optional(connection)
    .await?;
    Ok(match row {
        Some(row) => DatabaseState {
            registry: row.registry,
            generation: row.generation,
            changes: row.changes,
        },
        None => DatabaseState {
            registry: None,
            generation: None,
            changes: 0,
        },
    })
}

/// The right to compare the database with the records, held by one replica at a time.
#[derive(Debug)]
pub(crate) struct Rebuilding {
    connection: PgConnection,
}

impl Rebuilding {
    /// Lets the next one in. Dropped without it, the connection ends and the lock with it.
    pub(crate) async fn finish(self) {
        if let Err(error) = self.connection.close().await {
            tracing::debug!(%error, "the connection that held the lock of a rebuild was lost");
        }
    }
}

impl PostgresIndex {
    /// What the database says of itself, which is then what it must go on from.
    pub(crate) async fn state(&self) -> Result<DatabaseState, Error> {
        self.retry(|| async {
            let mut connection = self.queries.acquire().await?;
            read_state(&mut connection).await
        })
        .await
    }

    /// Takes the state of the database as it is for certain.
    pub(crate) async fn trust(&self) -> Result<DatabaseState, Error> {
        let state = self.state().await?;
        let mut known = self.continuity.known();
        known.take(state);
        known.standing = Standing::Certain;
        Ok(state)
    }

    /// Looks whether the database goes on from what is known of it; gives what it says.
    ///
    /// # Errors
    /// When it cannot be reached, or belongs to another registry.
    pub(crate) async fn inspect(&self) -> Result<DatabaseState, Error> {
        let before = self.known();
        let mut connection = self.queries.acquire().await.map_err(failed)?;
        let found = read_state(&mut connection).await;
        match &found {
            Ok(found) => {
                if let Some(before) = before {
                    self.continuity.compare(&before, found);
                }
            }
            Err(error) if is_without_tables(error) => self.continuity.set(Standing::Doubtful),
            Err(_) => {}
        }
        self.continuity.require_own()?;
        found.map_err(failed)
    }

    /// What the database said when it was in order, with the changes made since.
    pub(crate) fn known(&self) -> Option<DatabaseState> {
        self.continuity.known().state
    }

    /// Whether the records must be compared with the database.
    pub(crate) fn is_doubtful(&self) -> bool {
        self.continuity.known().standing == Standing::Doubtful
    }

    /// Completes when a doubt has come up.
    pub(crate) async fn doubted(&self) {
        self.continuity.doubt.notified().await;
    }

    /// Waits for the right to compare the database with the records.
    pub(crate) async fn rebuilding(&self) -> Result<Rebuilding, Error> {
        let mut connection = self
            .retry(|| async {
                let options = self.queries.connect_options();
                PgConnection::connect_with(&options).await
            })
            .await?;
        // Without a time-out: another replica may have many records to read.
        sqlx::query!("SELECT pg_advisory_lock($1)", named_lock("rebuild"))
            .execute(&mut connection)
            .await
            .map_err(failed)?;
        Ok(Rebuilding { connection })
    }

    /// Makes the database that of `registry`, unless a running process of another registry has it.
    pub(crate) async fn claim(&self, registry: Uuid) -> Result<(), Error> {
        let foreign = self
            .retry(|| {
                sqlx::query_scalar!(
                    r#"SELECT EXISTS (SELECT FROM hayloft.replicas
                       WHERE registry <> $1 AND seen > now() - interval '1 minute') AS "is!""#,
                    registry
                )
                .fetch_one(&self.queries)
            })
            .await?;
        if foreign {
            return Err(Error::IndexForeign);
        }
        self.retry(|| {
            sqlx::query!(
                "INSERT INTO hayloft.state (registry) VALUES ($1)
                 ON CONFLICT (is_only) DO UPDATE SET registry = excluded.registry,
                     generation = CASE WHEN state.registry = excluded.registry
                                       THEN state.generation END",
                registry
            )
            .execute(&self.queries)
        })
        .await?;
        Ok(())
    }

    /// Says that this process runs; processes that have not said so for a day are forgotten.
    pub(crate) async fn report_alive(&self, replica: Uuid, registry: Uuid) -> Result<(), Error> {
        self.retry(|| {
            sqlx::query!(
                "WITH gone AS (DELETE FROM hayloft.replicas WHERE seen < now() - interval '1 day')
                 INSERT INTO hayloft.replicas (id, registry) VALUES ($1, $2)
                 ON CONFLICT (id) DO UPDATE SET seen = now()",
                replica,
                registry
            )
            .execute(&self.queries)
        })
        .await
        .map(drop)
    }

    /// Says that this process has ended.
    pub(crate) async fn report_end(&self, replica: Uuid) -> Result<(), Error> {
        let removed = self.retry(|| {
            sqlx::query!("DELETE FROM hayloft.replicas WHERE id = $1", replica)
                .execute(&self.queries)
        });
        // Not worth waiting for: it is forgotten by itself.
        match tokio::time::timeout(Duration::from_secs(2), removed).await {
            Ok(outcome) => outcome.map(drop),
            Err(_) => Ok(()),
        }
    }

    pub(super) async fn find_generation(&self) -> Result<Option<u64>, Error> {
        let state = self.state().await?;
        Ok(state.generation.map(i64::cast_unsigned))
    }

    /// Begins a generation, and forgets all marks: of an older copy's, some may be on what has
    /// been linked since.
    pub(super) async fn put_generation(&self, generation: u64) -> Result<(), Error> {
        self.retry(|| {
            sqlx::query!(
                "WITH marks AS (DELETE FROM hayloft.marks)
                 INSERT INTO hayloft.state (generation) VALUES ($1)
                 ON CONFLICT (is_only) DO UPDATE SET generation = excluded.generation",
                generation.cast_signed()
            )
            .execute(&self.queries)
        })
        .await
        .map(drop)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use crate::store::postgres::state::{DatabaseState, Standing, standing};

    #[test]
    fn a_database_that_does_not_go_on_is_noticed() {
        let own = Some(Uuid::from_u128(1));
        let state = |registry, generation, changes| DatabaseState {
            registry,
            generation,
            changes,
        };
        let before = state(own, Some(4), 100);
        for (found, wanted) in [
            (state(own, Some(4), 100), Standing::Certain),
            (state(own, Some(4), 170), Standing::Certain),
            (state(own, Some(5), 3), Standing::Certain),
            (state(own, Some(4), 99), Standing::Doubtful),
            (state(own, Some(3), 500), Standing::Doubtful),
            (state(own, None, 500), Standing::Doubtful),
            (state(None, None, 0), Standing::Doubtful),
            (
                state(Some(Uuid::from_u128(2)), Some(9), 900),
                Standing::Foreign,
            ),
        ] {
            assert_eq!(standing(&before, &found), wanted, "{found:?}");
        }
    }
}
