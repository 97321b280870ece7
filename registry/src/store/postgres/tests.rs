//! The index in PostgreSQL against a real server.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::path::Path;
use std::time::Duration;

use artifact::{Digest, Repository, Tag};
use jiff::Timestamp;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, SqlSafeStr};
use tests::Postgres;

use crate::config::Secret;
use crate::error::Error;
use crate::store::conformance;
use crate::store::key::RecordKey;
use crate::store::postgres::PostgresIndex;
use crate::store::records::{Entry, TagRecord};
use crate::store::{Change, LockKey, MetadataIndex, Page};

async fn connect(postgres: &Postgres) -> PostgresIndex {
    PostgresIndex::connect(&Secret::new(postgres.url()))
        .await
        .unwrap()
}

fn repository() -> Repository {
    Repository::parse("team/llama").unwrap()
}

fn key() -> RecordKey {
    RecordKey::Tag(repository(), Tag::parse("v1").unwrap())
}

fn tag_change() -> Change {
    let record = TagRecord {
        digest: Digest::sha256(b"m"),
        updated: Timestamp::UNIX_EPOCH,
    };
    let entry = Entry::Tag(repository(), Tag::parse("v1").unwrap(), record);
    Change::Put(Box::new(entry))
}

#[tokio::test]
async fn the_postgres_index_keeps_every_promise() {
    let postgres = Postgres::start();
    let index = connect(&postgres).await;
    conformance::verify(&index).await;
    index.close().await;
}

#[tokio::test]
async fn two_that_start_at_once_bring_the_schema_up_to_date_once() {
    let postgres = Postgres::start();
    let url = Secret::new(postgres.url());
    let started = futures::future::join_all((0..4).map(|_| PostgresIndex::connect(&url))).await;
    for index in started {
        assert_eq!(index.unwrap().generation().await.unwrap(), None);
    }
    assert_eq!(postgres.sql("SELECT count(*) FROM hayloft.migrations"), "1");
}

#[tokio::test]
async fn locks_are_kept_between_replicas() {
    let postgres = Postgres::start();
    let (one, other) = (connect(&postgres).await, connect(&postgres).await);
    let key = LockKey::Repository(repository());
    let held = one.lock(vec![key.clone()]).await.unwrap();
    assert!(other.try_lock(key.clone()).await.unwrap().is_none());
    let waiting = tokio::spawn(async move { other.lock(vec![key]).await.map(drop) });
    drop(held);
    let taken = tokio::time::timeout(Duration::from_secs(10), waiting).await;
    taken.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_wait_for_a_lock_that_is_given_up_leaves_nothing_locked() {
    let postgres = Postgres::start();
    let (one, other) = (connect(&postgres).await, connect(&postgres).await);
    let key = LockKey::Repository(repository());
    let held = one.lock(vec![key.clone()]).await.unwrap();
    let given_up = tokio::time::timeout(Duration::from_millis(200), other.lock(vec![key.clone()]));
    assert!(given_up.await.is_err());
    drop(held);
    let again = tokio::time::timeout(Duration::from_secs(10), one.lock(vec![key]));
    again.await.unwrap().unwrap().check().await.unwrap();
}

#[tokio::test]
async fn many_locks_at_once_never_stop_each_other() {
    let postgres = Postgres::start();
    let index = connect(&postgres).await;
    let hot = LockKey::Repository(repository());
    // Many more than there are connections, of both kinds, all after one repository.
    let work = (0..60).map(|round: u32| {
        let (index, hot) = (index.clone(), hot.clone());
        tokio::spawn(async move {
            let content = LockKey::Blob(Digest::sha256(&round.to_be_bytes()));
            if round.is_multiple_of(2) {
                index.lock(vec![hot, content]).await.map(drop)
            } else {
                let mut lock = index.lock(vec![content]).await?;
                lock.extend(vec![hot]).await
            }
        })
    });
    let done = tokio::time::timeout(Duration::from_secs(30), futures::future::join_all(work));
    // Time runs out when locks wait for each other.
    for outcome in done.await.unwrap() {
        outcome.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_lost_lock_cannot_write() {
    let postgres = Postgres::start();
    let index = connect(&postgres).await;
    let mut lock = index
        .lock(vec![LockKey::Repository(repository())])
        .await
        .unwrap();
    lock.intend(vec![key()]).await.unwrap();
    let killed = postgres
        .sql("SELECT count(pg_terminate_backend(pid)) FROM pg_locks WHERE locktype = 'advisory'");
    assert_eq!(killed, "1");
    for outcome in [lock.check().await, lock.apply(vec![tag_change()]).await] {
        assert!(
            matches!(outcome, Err(Error::IndexUnavailable { .. })),
            "{outcome:?}"
        );
    }
    drop(lock);
    let tag = Tag::parse("v1").unwrap();
    assert_eq!(index.tag(&repository(), &tag).await.unwrap(), None);
    assert_eq!(index.unsettled(None).await.unwrap(), [key()]);
}

#[tokio::test]
async fn what_was_intended_outlives_a_crash_of_the_database() {
    let mut postgres = Postgres::start_with(&["fsync=on"]);
    let index = connect(&postgres).await;
    let keys = vec![LockKey::Repository(repository())];
    let mut lock = index.lock(keys.clone()).await.unwrap();
    lock.intend(vec![key()]).await.unwrap();
    postgres.kill();
    assert!(lock.apply(vec![tag_change()]).await.is_err());
    drop(lock);
    let away = index.has_repository(&repository()).await;
    assert!(
        matches!(away, Err(Error::IndexUnavailable { .. })),
        "{away:?}"
    );
    postgres.restart();
    assert_eq!(index.unsettled(None).await.unwrap(), [key()]);
    let mut lock = index.lock(keys).await.unwrap();
    lock.apply(vec![tag_change()]).await.unwrap();
    assert_eq!(index.unsettled(None).await.unwrap(), []);
}

#[tokio::test]
async fn a_database_that_is_read_only_answers_and_refuses_changes() {
    let postgres = Postgres::start();
    let index = connect(&postgres).await;
    index.apply(vec![tag_change()]).await.unwrap();
    let _ = postgres.sql("ALTER SYSTEM SET default_transaction_read_only = on");
    let _ = postgres.sql("SELECT pg_reload_conf()");
    // Also from a fresh start.
    let index = connect(&postgres).await;
    let first = Page {
        after: None,
        limit: 9,
    };
    let tags = index.tags(&repository(), first).await.unwrap();
    assert_eq!(tags.len(), 1);
    let mut lock = index
        .lock(vec![LockKey::Repository(repository())])
        .await
        .unwrap();
    let refused = lock.intend(vec![key()]).await;
    assert!(
        matches!(refused, Err(Error::IndexUnavailable { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn listings_of_100_000_names_follow_an_index_at_the_end_as_at_the_start() {
    let postgres = Postgres::start();
    let index = connect(&postgres).await;
    let _ = postgres.sql(
        "INSERT INTO hayloft.tags SELECT 'big', 'v' || n, 'sha256:' || n, '{}'
             FROM generate_series(1, 100000) n;
         INSERT INTO hayloft.manifests SELECT 'big', 'sha256:' || n, 'sha256:subject', '{}'
             FROM generate_series(1, 100000) n;
         ANALYZE",
    );
    for (what, after) in [
        ("tag", "v1"),
        ("tag", "v99990"),
        ("subject", "sha256:99990"),
    ] {
        let query = if what == "tag" {
            format!(
                "SELECT tag FROM hayloft.tags WHERE repository = 'big' AND tag > '{after}'
                 ORDER BY tag LIMIT 100"
            )
        } else {
            format!(
                "SELECT digest, record FROM hayloft.manifests WHERE repository = 'big'
                 AND subject = 'sha256:subject' AND digest > '{after}' ORDER BY digest LIMIT 100"
            )
        };
        let plan = postgres.sql(&format!("EXPLAIN (ANALYZE, BUFFERS, TIMING OFF) {query}"));
        assert!(plan.contains("Index"), "{plan}");
        assert!(
            !plan.contains("Seq Scan") && !plan.contains("Sort"),
            "{plan}"
        );
    }
    let big = Repository::parse("big").unwrap();
    let last = Page {
        after: Some("v99990".to_owned()),
        limit: 100,
    };
    assert_eq!(index.tags(&big, last).await.unwrap().len(), 9);
}

#[tokio::test]
async fn a_wrong_address_is_refused_without_showing_the_password() {
    let refused = PostgresIndex::connect(&Secret::new("postgres://u:secret@[broken/x")).await;
    let told = format!("{:?}", refused.unwrap_err());
    assert!(!told.contains("secret"), "{told}");
    let absent = PostgresIndex::connect(&Secret::new("postgres://u:secret@127.0.0.1:1/x")).await;
    let told = format!("{:?}", absent.unwrap_err());
    assert!(told.contains("IndexUnavailable"), "{told}");
    assert!(!told.contains("secret"), "{told}");
}

#[tokio::test]
async fn the_kept_descriptions_of_all_queries_are_up_to_date() {
    let postgres = Postgres::start();
    connect(&postgres).await.close().await;
    let mut connection = PgConnection::connect(&postgres.url()).await.unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources: String = std::fs::read_dir(root.join("src/store/postgres"))
        .unwrap()
        .map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap())
        .collect();
    let mut count = 0;
    for file in std::fs::read_dir(root.join(".sqlx")).unwrap() {
        let kept = std::fs::read(file.unwrap().path()).unwrap();
        let kept: serde_json::Value = serde_json::from_slice(&kept).unwrap();
        let query = kept["query"].as_str().unwrap().to_owned();
        let advice = "run scripts/prepare-queries.sh";
        assert!(sources.contains(&query), "{query} is not in use: {advice}");
        let described = connection.describe(AssertSqlSafe(query.clone()).into_sql_str());
        let described = serde_json::to_value(described.await.unwrap()).unwrap();
        let kept = kept["describe"].clone();
        assert_eq!(
            without_origin(described),
            without_origin(kept),
            "{query}: {advice}"
        );
        count += 1;
    }
    // That every query has its description is what the compiler checks.
    assert!(count > 40, "{count}");
}

/// Which table a column is from is written with or without its schema, as the search path of the
/// connection that asks has it.
fn without_origin(mut described: serde_json::Value) -> serde_json::Value {
    for column in described["columns"].as_array_mut().unwrap() {
        column.as_object_mut().unwrap().remove("origin");
    }
    described
}
