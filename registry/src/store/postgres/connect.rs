//! Connecting: options, pools with their bounds, and the schema.

use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::pool::PoolOptions;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, Executor, PgConnection, PgPool, Postgres};

use crate::config::Secret;
use crate::error::Error;
use crate::store::locks::KeyedLocks;
use crate::store::postgres::failure::failed;
use crate::store::postgres::lock::{Turns, named_lock};
use crate::store::postgres::state::Continuity;
use crate::store::postgres::{PostgresIndex, address};

/// Connections for queries. PostgreSQL itself allows 100 by default, to all replicas together.
const QUERY_CONNECTIONS: u32 = 12;
/// Locks of each [`Turns`] that are held at once.
const LOCKS: usize = 10;
/// Connections that hold locks. A few more than locks, because one goes back to its pool a moment
/// after its lock was dropped.
const LOCK_CONNECTIONS: u32 = 24;
/// A request waits this long for a connection, new or free.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection that was idle for longer is tried before it is used.
const TRY_AFTER: Duration = Duration::from_secs(1);

/// Bounds inside the database. A lock may wait for the commit of a large blob on another replica,
/// so it waits longest.
const QUERY_LIMITS: &str = "SET statement_timeout = '30s'; SET lock_timeout = '10s'";
const LOCK_LIMITS: &str = "SET statement_timeout = '90s'; SET lock_timeout = '60s'; \
     SET idle_in_transaction_session_timeout = '60s'";

static MIGRATIONS: Migrator = sqlx::migrate!("../migrations");
const MIGRATIONS_TABLE: &str = "hayloft.migrations";
/// What the migrations make.
const TABLES: [&str; 13] = [
    "repositories",
    "manifests",
    "manifest_content",
    "tags",
    "blobs",
    "leases",
    "lease_content",
    "intents",
    "marks",
    "notes",
    "state",
    "changes",
    "replicas",
];

impl PostgresIndex {
    /// Connects to the database at `url` and brings its schema up to date.
    ///
    /// # Errors
    /// When the URL is none, or the database cannot be reached or changed.
    pub(crate) async fn connect(url: &Secret) -> Result<Self, Error> {
        let options = address::options(url)?;
        let mut connection = PgConnection::connect_with(&options).await.map_err(failed)?;
        migrate(&mut connection).await?;
        connection.close().await.map_err(failed)?;
        let continuity = Arc::new(Continuity::default());
        Ok(Self {
            queries: query_pool(&options, &continuity),
            lock_holders: lock_pool(&options, &continuity),
            locks: KeyedLocks::default(),
            turns: Turns::new(LOCKS),
            continuity,
        })
    }

    /// Brings the schema up to date, for tables that vanished while the registry runs.
    pub(crate) async fn migrate(&self) -> Result<(), Error> {
        let options = self.queries.connect_options();
        let mut connection = PgConnection::connect_with(&options).await.map_err(failed)?;
        migrate(&mut connection).await?;
        connection.close().await.map_err(failed)
    }

    /// Ends all connections.
    pub(crate) async fn close(&self) {
        self.lock_holders.close().await;
        self.queries.close().await;
    }
}

fn pool_options(continuity: &Arc<Continuity>, limits: &'static str) -> PoolOptions<Postgres> {
    let continuity = Arc::clone(continuity);
    PoolOptions::new()
        .acquire_timeout(CONNECT_TIMEOUT)
        .test_before_acquire(false)
        .before_acquire(|connection: &mut PgConnection, meta| {
            Box::pin(async move {
                if meta.idle_for < TRY_AFTER {
                    return Ok(true);
                }
                connection.ping().await.map(|()| true)
            })
        })
        .after_connect(move |connection: &mut PgConnection, _| {
            let continuity = Arc::clone(&continuity);
            Box::pin(async move {
                connection.execute(limits).await?;
                continuity.inspect(connection).await
            })
        })
}

fn query_pool(options: &PgConnectOptions, continuity: &Arc<Continuity>) -> PgPool {
    pool_options(continuity, QUERY_LIMITS)
        .max_connections(QUERY_CONNECTIONS)
        .connect_lazy_with(options.clone())
}

fn lock_pool(options: &PgConnectOptions, continuity: &Arc<Continuity>) -> PgPool {
    pool_options(continuity, LOCK_LIMITS)
        .max_connections(LOCK_CONNECTIONS)
        // Here and not where a lock is dropped: this also runs when the task that waited for a
        // lock was dropped, and the lock came afterwards.
        .after_release(|connection: &mut PgConnection, _| {
            Box::pin(async move {
                connection
                    .execute("SELECT pg_advisory_unlock_all()")
                    .await?;
                Ok(true)
            })
        })
        .connect_lazy_with(options.clone())
}

/// Applies the migrations that are missing, under an advisory lock: of two replicas that start at
/// once one does it and the other waits. Tables that were dropped since are made again, empty, with
/// all others: what is in them is of no use without each other.
async fn migrate(connection: &mut PgConnection) -> Result<(), Error> {
    let mut migrator = Migrator {
        migrations: MIGRATIONS.migrations.clone(),
        // A newer replica may have applied more: migrations only ever expand what an older
        // release needs.
        ignore_missing: true,
        ..Migrator::DEFAULT
    };
    migrator.dangerous_set_table_name(MIGRATIONS_TABLE);
    migrator.create_schema("hayloft");
    if is_complete(connection, &migrator).await? {
        return Ok(());
    }
    // Kept until the connection ends: whoever comes next finds everything done.
    sqlx::query!("SELECT pg_advisory_lock($1)", named_lock("schema"))
        .execute(&mut *connection)
        .await
        .map_err(failed)?;
    if is_complete(connection, &migrator).await? {
        return Ok(());
    }
    if is_migrated(connection, &migrator).await {
        tracing::error!("tables of the index were dropped: it is made again from the records");
        connection
            .execute("DROP SCHEMA hayloft CASCADE")
            .await
            .map_err(failed)?;
    }
    migrator
        .run_direct(None, connection, false)
        .await
        .map_err(|error| Error::IndexMigration {
            source: Box::new(error),
        })
}

/// Whether all migrations were applied and all tables are there still.
async fn is_complete(connection: &mut PgConnection, migrator: &Migrator) -> Result<bool, Error> {
    if !is_migrated(connection, migrator).await {
        return Ok(false);
    }
    let tables = TABLES.map(|name| format!("hayloft.{name}"));
    let missing = sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM unnest($1::text[]) AS t (name)
           WHERE to_regclass(name) IS NULL"#,
        &tables as &[String]
    )
    .fetch_one(connection)
    .await;
    Ok(missing.map_err(failed)? == 0)
}

/// Whether nothing is missing, without any write: so a registry also starts on a database that is
/// read-only, and with a role that may not change the schema.
async fn is_migrated(connection: &mut PgConnection, migrator: &Migrator) -> bool {
    use sqlx::migrate::Migrate;
    let dirty = connection.dirty_version(MIGRATIONS_TABLE).await;
    let applied = connection.list_applied_migrations(MIGRATIONS_TABLE).await;
    let (Ok(None), Ok(applied)) = (dirty, applied) else {
        return false;
    };
    migrator.iter().all(|wanted| {
        applied
            .iter()
            .any(|have| have.version == wanted.version && have.checksum == wanted.checksum)
    })
}
