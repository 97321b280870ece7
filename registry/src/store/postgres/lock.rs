//! Locks by session advisory locks. Whoever loses the connection loses the locks and, with the
//! same connection, the way to change anything.

use std::sync::Arc;

use artifact::Digest;
use futures::FutureExt;
use sqlx::Postgres;
use sqlx::pool::PoolConnection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::Error;
use crate::store::index::{Answer, Change, IndexLock, LockKey};
use crate::store::key::RecordKey;
use crate::store::locks::HeldKeys;
use crate::store::postgres::PostgresIndex;
use crate::store::postgres::failure::failed;

/// Turns at the connections that hold locks, so that waiting for one has no time-out.
///
/// Two kinds, because a lock of content may be extended by a repository: a holder of the one kind
/// may wait for a holder of the other, who never waits for a turn of the first.
#[derive(Clone, Debug)]
pub(super) struct Turns {
    content: Arc<Semaphore>,
    repositories: Arc<Semaphore>,
}

impl Turns {
    /// So many turns of each kind.
    pub(super) fn new(count: usize) -> Self {
        Self {
            content: Arc::new(Semaphore::new(count)),
            repositories: Arc::new(Semaphore::new(count)),
        }
    }

    async fn wait(&self, keys: &[LockKey]) -> Result<OwnedSemaphorePermit, Error> {
        let has_repository = keys.iter().any(|key| matches!(key, LockKey::Repository(_)));
        let turns = if has_repository {
            &self.repositories
        } else {
            &self.content
        };
        Arc::clone(turns)
            .acquire_owned()
            .await
            .map_err(Error::index)
    }
}

/// [`IndexLock`] of the index in PostgreSQL. The locks end when the connection goes back to its
/// pool.
struct PostgresLock {
    index: PostgresIndex,
    connection: PoolConnection<Postgres>,
    held: HeldKeys,
    _turn: OwnedSemaphorePermit,
}

impl PostgresIndex {
    pub(super) async fn lock_all(
        &self,
        mut keys: Vec<LockKey>,
    ) -> Result<Box<dyn IndexLock>, Error> {
        keys.sort_unstable();
        keys.dedup();
        let held = self.locks.lock(keys.clone()).await;
        let turn = self.turns.wait(&keys).await?;
        let connection = self
            .retry(|| async {
                let mut connection = self.lock_holders.acquire().await?;
                wait_for(&mut connection, &keys).await?;
                Ok(connection)
            })
            .await?;
        let index = self.clone();
        Ok(Box::new(PostgresLock {
            index,
            connection,
            held,
            _turn: turn,
        }))
    }

    pub(super) async fn lock_if_free(
        &self,
        key: LockKey,
    ) -> Result<Option<Box<dyn IndexLock>>, Error> {
        if key == LockKey::Collection {
            // What an older copy of the database takes for garbage may be linked since.
            self.continuity.require_certain()?;
        }
        let id = lock_id(&key);
        let turn = self.turns.wait(std::slice::from_ref(&key)).await?;
        let Some(held) = self.locks.try_lock(key) else {
            return Ok(None);
        };
        let taken = self
            .retry(|| async {
                let mut connection = self.lock_holders.acquire().await?;
                let is_taken =
                    sqlx::query_scalar!(r#"SELECT pg_try_advisory_lock($1) AS "taken!""#, id)
                        .fetch_one(&mut *connection)
                        .await?;
                Ok(is_taken.then_some(connection))
            })
            .await?;
        let index = self.clone();
        Ok(taken.map(|connection| {
            Box::new(PostgresLock {
                index,
                connection,
                held,
                _turn: turn,
            }) as Box<dyn IndexLock>
        }))
    }
}

impl IndexLock for PostgresLock {
    fn extend(&mut self, mut keys: Vec<LockKey>) -> Answer<'_, ()> {
        async move {
            keys.sort_unstable();
            keys.dedup();
            self.held.extend(&self.index.locks, keys.clone()).await?;
            wait_for(&mut self.connection, &keys).await.map_err(failed)
        }
        .boxed()
    }

    fn intend(&mut self, keys: Vec<RecordKey>) -> Answer<'_, ()> {
        async move {
            let paths: Vec<String> = keys.iter().map(RecordKey::path).collect();
            let names: Vec<String> = keys
                .iter()
                .map(|key| key.repository().as_str().to_owned())
                .collect();
            sqlx::query!(
                "INSERT INTO hayloft.intents (path, repository)
                 SELECT * FROM unnest($1::text[], $2::text[]) ON CONFLICT DO NOTHING",
                &paths,
                &names
            )
            .execute(&mut *self.connection)
            .await
            .map_err(failed)?;
            Ok(())
        }
        .boxed()
    }

    fn apply(&mut self, changes: Vec<Change>) -> Answer<'_, ()> {
        async move {
            // Not tried again: after a lost connection the locks are lost too.
            self.index
                .apply_on(&mut self.connection, changes)
                .await
                .map_err(failed)
        }
        .boxed()
    }

    /// A session that answers has its locks.
    fn check(&mut self) -> Answer<'_, ()> {
        async move {
            self.index.continuity.require_own()?;
            sqlx::query_scalar!(r#"SELECT 1 AS "one!""#)
                .fetch_one(&mut *self.connection)
                .await
                .map(drop)
                .map_err(failed)
        }
        .boxed()
    }
}

/// Waits for the locks one by one in their order, which is the same for everybody.
async fn wait_for(
    connection: &mut PoolConnection<Postgres>,
    keys: &[LockKey],
) -> Result<(), sqlx::Error> {
    for key in keys {
        sqlx::query!("SELECT pg_advisory_lock($1)", lock_id(key))
            .execute(&mut **connection)
            .await?;
    }
    Ok(())
}

/// The number that stands for a key. Two keys of one number would only wait for each other.
pub(super) fn lock_id(key: &LockKey) -> i64 {
    match key {
        LockKey::Blob(digest) => named_lock(&format!("blob {digest}")),
        LockKey::Repository(repository) => {
            named_lock(&format!("repository {}", repository.as_str()))
        }
        LockKey::Collection => named_lock("collection"),
    }
}

/// The number that stands for a name, among all users of the database.
pub(super) fn named_lock(name: &str) -> i64 {
    let digest = Digest::sha256(format!("hayloft {name}").as_bytes());
    let first = digest
        .hex()
        .get(..16)
        .map(|hex| u64::from_str_radix(hex, 16));
    first.and_then(Result::ok).unwrap_or_default().cast_signed()
}
