//! The part of the suite about what the collection asks: holders, leases, marks.

use artifact::Digest;
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use crate::store::conformance::{blob, digest, manifest, name, page, put, remove};
use crate::store::key::RecordKey;
use crate::store::records::{Entry, LeaseRecord};
use crate::store::{Mark, MetadataIndex};

pub(super) async fn verify(index: &dyn MetadataIndex) {
    content_is_held_as_blob_or_as_manifest(index).await;
    an_index_that_names_a_manifest_is_found(index).await;
    the_last_lease_decides(index).await;
    leases_are_listed_in_pages(index).await;
    marks_are_kept_until_they_are_taken_away(index).await;
    facts_are_kept(index).await;
    the_clock_goes_on(index).await;
}

async fn content_is_held_as_blob_or_as_manifest(index: &dyn MetadataIndex) {
    let content = digest("somebody's");
    assert!(!index.is_held(&content).await.unwrap());
    for (entry, key) in [
        (
            blob("holder", "somebody's"),
            RecordKey::Blob(name("holder"), content),
        ),
        (
            manifest("holder", "somebody's", None, &[]),
            RecordKey::Manifest(name("holder"), content),
        ),
    ] {
        put(index, vec![entry]).await;
        assert!(index.is_held(&content).await.unwrap(), "{key:?}");
        remove(index, key).await;
        assert!(!index.is_held(&content).await.unwrap());
    }
}

async fn an_index_that_names_a_manifest_is_found(index: &dyn MetadataIndex) {
    let here = name("indexes");
    let child = digest("child");
    let with_children = |own: &str, children: Vec<Digest>| match manifest("indexes", own, None, &[])
    {
        Entry::Manifest(repository, digest, mut record) => {
            record.manifests = children;
            Entry::Manifest(repository, digest, record)
        }
        other => other,
    };
    put(
        index,
        vec![
            with_children("list", vec![child]),
            // A manifest that names the same content as a blob is no index over it.
            manifest("indexes", "plain", None, &["layer"]),
        ],
    )
    .await;
    let naming = index.index_naming(&here, &child).await.unwrap();
    assert_eq!(naming, Some(digest("list")));
    let naming = index.manifest_naming(&here, &child).await.unwrap();
    assert_eq!(naming, Some(digest("list")));
    let naming = index.index_naming(&here, &digest("layer")).await.unwrap();
    assert_eq!(naming, None);
    let elsewhere = index.index_naming(&name("holder"), &child).await.unwrap();
    assert_eq!(elsewhere, None);
    remove(index, RecordKey::Manifest(here.clone(), digest("list"))).await;
    assert_eq!(index.index_naming(&here, &child).await.unwrap(), None);
}

fn lease(repository: &str, id: u128, contents: &[&str], seconds: i64) -> Entry {
    let record = LeaseRecord {
        digests: contents.iter().map(|content| digest(content)).collect(),
        expires: Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds),
        holder: "node-1".to_owned(),
    };
    Entry::Lease(name(repository), Uuid::from_u128(id), record)
}

async fn the_last_lease_decides(index: &dyn MetadataIndex) {
    let content = digest("leased");
    let until = async || index.leased_until(&content).await.unwrap();
    let at = |seconds| Some(Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds));
    assert_eq!(until().await, None);
    put(index, vec![lease("one", 1, &["leased", "more"], 100)]).await;
    put(index, vec![lease("two", 2, &["leased"], 50)]).await;
    assert_eq!(until().await, at(100));
    put(index, vec![lease("two", 2, &["leased"], 200)]).await;
    assert_eq!(until().await, at(200), "a lease was renewed");
    put(index, vec![lease("two", 2, &["other"], 300)]).await;
    assert_eq!(until().await, at(100), "a lease let go of its content");
    remove(index, RecordKey::Lease(name("one"), Uuid::from_u128(1))).await;
    assert_eq!(until().await, None);
    remove(index, RecordKey::Lease(name("two"), Uuid::from_u128(2))).await;
    assert!(index.leases(page(None, 9)).await.unwrap().is_empty());
}

async fn leases_are_listed_in_pages(index: &dyn MetadataIndex) {
    let entries = [
        lease("le", 2, &["x"], 1),
        lease("le-d", 1, &["x"], 1),
        lease("le", 3, &["x"], 1),
    ];
    put(index, entries.to_vec()).await;
    let mut paths: Vec<String> = entries.iter().map(|entry| entry.key().path()).collect();
    paths.sort();
    let listed = async |after: Option<&str>, limit| -> Vec<String> {
        let leases = index.leases(page(after, limit)).await.unwrap();
        leases
            .into_iter()
            .map(|(name, id, _)| RecordKey::Lease(name, id).path())
            .collect()
    };
    assert_eq!(listed(None, 9).await, paths);
    assert_eq!(listed(Some(&paths[0]), 1).await, paths[1..2]);
    for entry in entries {
        remove(index, entry.key()).await;
    }
}

async fn marks_are_kept_until_they_are_taken_away(index: &dyn MetadataIndex) {
    let marks = [
        Mark::Link(name("marked"), digest("x")),
        Mark::Manifest(name("marked"), digest("x")),
        Mark::Content(digest("x")),
    ];
    let early = Timestamp::UNIX_EPOCH;
    let late = early + SignedDuration::from_nanos(1_234_567_000);
    for mark in &marks {
        assert_eq!(index.marked(mark).await.unwrap(), None);
        index.mark(mark, early).await.unwrap();
        index.mark(mark, late).await.unwrap();
        assert_eq!(index.marked(mark).await.unwrap(), Some(late));
    }
    let mut names: Vec<String> = marks.iter().map(Mark::name).collect();
    names.sort();
    let listed = index.marks(page(None, 9)).await.unwrap();
    let found: Vec<String> = listed.iter().map(|(mark, _)| mark.name()).collect();
    assert_eq!(found, names);
    let next = index.marks(page(Some(&names[0]), 1)).await.unwrap();
    assert_eq!(next[0].0.name(), names[1]);
    for mark in &marks {
        index.unmark(mark).await.unwrap();
        index.unmark(mark).await.unwrap();
        assert_eq!(index.marked(mark).await.unwrap(), None);
    }
    assert!(index.marks(page(None, 9)).await.unwrap().is_empty());
}

async fn facts_are_kept(index: &dyn MetadataIndex) {
    assert_eq!(index.noted("fact").await.unwrap(), None);
    index.note("fact", "one").await.unwrap();
    index.note("fact", "two \"quoted\"").await.unwrap();
    let noted = index.noted("fact").await.unwrap();
    assert_eq!(noted.as_deref(), Some("two \"quoted\""));
}

async fn the_clock_goes_on(index: &dyn MetadataIndex) {
    let first = index.now().await.unwrap();
    let second = index.now().await.unwrap();
    assert!(first <= second);
    let apart = Timestamp::now().duration_since(first).abs();
    assert!(apart < SignedDuration::from_hours(1), "{first}");
}
