//! The part of the suite about locks and intents.

use std::time::Duration;

use crate::store::conformance::{blob, digest, name, tag};
use crate::store::key::RecordKey;
use crate::store::{Change, LockKey, MetadataIndex};

/// A lock that can be taken is taken well within this time.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) async fn verify(index: &dyn MetadataIndex) {
    a_lock_keeps_others_out(index).await;
    a_lock_of_several_keys_waits_for_all_of_them(index).await;
    locks_taken_in_any_order_never_wait_for_each_other(index).await;
    a_lock_can_be_extended_in_order(index).await;
    what_was_intended_stays_until_it_is_applied(index).await;
}

fn here() -> LockKey {
    LockKey::Repository(name("locked"))
}

fn content() -> LockKey {
    LockKey::Blob(digest("locked"))
}

/// Whether the keys cannot be taken for a while.
async fn is_kept_out(index: &dyn MetadataIndex, keys: Vec<LockKey>) -> bool {
    let taken = tokio::time::timeout(Duration::from_millis(50), index.lock(keys)).await;
    taken.is_err()
}

async fn a_lock_keeps_others_out(index: &dyn MetadataIndex) {
    let mut held = index.lock(vec![here()]).await.unwrap();
    held.check().await.unwrap();
    assert!(is_kept_out(index, vec![here()]).await);
    assert!(index.try_lock(here()).await.unwrap().is_none());
    let other = index.lock(vec![LockKey::Repository(name("other"))]);
    let other = tokio::time::timeout(PATIENCE, other).await.unwrap();
    other.unwrap().check().await.unwrap();
    drop(held);
    let next = tokio::time::timeout(PATIENCE, index.lock(vec![here()])).await;
    // A lock that was let go can be taken.
    drop(next.unwrap().unwrap());
    let collector = index.try_lock(LockKey::Collection).await.unwrap();
    assert!(collector.is_some());
    let second = index.try_lock(LockKey::Collection).await.unwrap();
    assert!(second.is_none());
}

async fn a_lock_of_several_keys_waits_for_all_of_them(index: &dyn MetadataIndex) {
    for one in [here(), content()] {
        let held = index.lock(vec![one]).await.unwrap();
        assert!(is_kept_out(index, vec![here(), content()]).await);
        drop(held);
    }
    let both = index.lock(vec![here(), content(), here()]).await.unwrap();
    for one in [here(), content()] {
        assert!(is_kept_out(index, vec![one]).await);
    }
    drop(both);
}

async fn locks_taken_in_any_order_never_wait_for_each_other(index: &dyn MetadataIndex) {
    let rounds = futures::future::join_all((0..20).map(|round| async move {
        let mut keys = vec![here(), content(), LockKey::Blob(digest("second"))];
        keys.rotate_left(round % 3);
        let mut held = index.lock(keys).await.unwrap();
        held.check().await.unwrap();
    }));
    let done = tokio::time::timeout(PATIENCE, rounds).await;
    assert!(done.is_ok(), "two wait for each other");
}

async fn a_lock_can_be_extended_in_order(index: &dyn MetadataIndex) {
    let mut held = index.lock(vec![content()]).await.unwrap();
    held.extend(vec![here()]).await.unwrap();
    assert!(is_kept_out(index, vec![here()]).await);
    let backwards = held.extend(vec![LockKey::Blob(digest("late"))]).await;
    assert!(backwards.is_err(), "a lock was taken out of order");
    held.check().await.unwrap();
    assert!(is_kept_out(index, vec![content()]).await);
    drop(held);
    let again = index.lock(vec![here(), content()]);
    drop(
        tokio::time::timeout(PATIENCE, again)
            .await
            .unwrap()
            .unwrap(),
    );
}

async fn what_was_intended_stays_until_it_is_applied(index: &dyn MetadataIndex) {
    let one = name("intended");
    let other = name("intended/more");
    let keys = [
        RecordKey::Blob(one.clone(), digest("a")),
        RecordKey::Tag(one.clone(), tag("v1")),
    ];
    let elsewhere = RecordKey::Repository(other.clone());
    let mut held = index
        .lock(vec![LockKey::Repository(one.clone())])
        .await
        .unwrap();
    held.intend(keys.to_vec()).await.unwrap();
    held.intend(vec![keys[0].clone(), elsewhere.clone()])
        .await
        .unwrap();
    let mut found = index.unsettled(Some(&one)).await.unwrap();
    found.sort();
    let mut wanted = keys.to_vec();
    wanted.sort();
    assert_eq!(found, wanted);
    assert_eq!(index.unsettled(None).await.unwrap().len(), 3);
    let put = Change::Put(Box::new(blob("intended", "a")));
    held.apply(vec![put]).await.unwrap();
    drop(held);
    let left = index.unsettled(Some(&one)).await.unwrap();
    assert_eq!(left, [keys[1].clone()], "an intent outlives the lock");
    assert!(index.blob(&one, &digest("a")).await.unwrap().is_some());
    let mut held = index.lock(vec![LockKey::Repository(one)]).await.unwrap();
    let removals = [keys[1].clone(), elsewhere].map(Change::Remove);
    held.apply(removals.to_vec()).await.unwrap();
    assert_eq!(index.unsettled(None).await.unwrap(), []);
}
