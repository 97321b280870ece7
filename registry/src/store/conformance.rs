//! The suite that every metadata index must pass: call [`verify`] with an empty one.

#![expect(
    clippy::unwrap_used,
    reason = "a failed step of the suite is a failed test"
)]

mod collection;
mod locks;

use std::collections::BTreeMap;

use artifact::{Digest, Repository, Tag};
use jiff::Timestamp;

use crate::store::key::RecordKey;
use crate::store::records::{BlobRecord, Entry, ManifestRecord, RepositoryRecord, TagRecord};
use crate::store::{Change, MetadataIndex, Page};

/// Runs the whole suite on an empty index.
///
/// # Panics
/// When the index breaks a promise of the trait.
pub async fn verify(index: &dyn MetadataIndex) {
    an_empty_index_knows_nothing(index).await;
    repositories_are_listed_in_pages(index).await;
    tags_are_listed_found_moved_and_removed(index).await;
    referrers_follow_their_manifests(index).await;
    blobs_are_found_by_repository_and_by_holder(index).await;
    manifests_are_found_by_what_they_name(index).await;
    changes_are_made_together(index).await;
    a_record_put_again_leaves_nothing_of_the_old_one(index).await;
    records_are_listed_in_pages(index).await;
    records_that_differ_are_found(index).await;
    the_generation_is_kept(index).await;
    locks::verify(index).await;
    collection::verify(index).await;
}

fn name(text: &str) -> Repository {
    Repository::parse(text).unwrap()
}

fn tag(text: &str) -> Tag {
    Tag::parse(text).unwrap()
}

fn digest(text: &str) -> Digest {
    Digest::sha256(text.as_bytes())
}

fn page(after: Option<&str>, limit: usize) -> Page {
    Page {
        after: after.map(str::to_owned),
        limit,
    }
}

fn repository(text: &str) -> Entry {
    let created = Timestamp::UNIX_EPOCH;
    Entry::Repository(name(text), RepositoryRecord { created })
}

fn manifest(repository: &str, content: &str, subject: Option<&str>, blobs: &[&str]) -> Entry {
    let record = ManifestRecord {
        media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
        size: 7,
        pushed: Timestamp::UNIX_EPOCH,
        artifact_type: Some("application/example".to_owned()),
        subject: subject.map(digest),
        annotations: BTreeMap::from([("key".to_owned(), content.to_owned())]),
        blobs: blobs.iter().map(|blob| digest(blob)).collect(),
        manifests: vec![],
        derived: None,
        is_mirrored: true,
    };
    Entry::Manifest(name(repository), digest(content), record)
}

fn pointing(repository: &str, text: &str, content: &str) -> Entry {
    let record = TagRecord {
        digest: digest(content),
        updated: Timestamp::UNIX_EPOCH,
    };
    Entry::Tag(name(repository), tag(text), record)
}

fn blob(repository: &str, content: &str) -> Entry {
    let record = BlobRecord {
        size: 3,
        linked: Timestamp::UNIX_EPOCH,
        annotations: BTreeMap::from([("key".to_owned(), content.to_owned())]),
    };
    Entry::Blob(name(repository), digest(content), record)
}

async fn put(index: &dyn MetadataIndex, entries: Vec<Entry>) {
    let changes = entries
        .into_iter()
        .map(|entry| Change::Put(Box::new(entry)))
        .collect();
    index.apply(changes).await.unwrap();
}

async fn remove(index: &dyn MetadataIndex, key: RecordKey) {
    index.apply(vec![Change::Remove(key)]).await.unwrap();
}

async fn an_empty_index_knows_nothing(index: &dyn MetadataIndex) {
    let nowhere = name("nowhere");
    assert!(!index.has_repository(&nowhere).await.unwrap());
    assert_eq!(index.tag(&nowhere, &tag("v1")).await.unwrap(), None);
    assert_eq!(index.blob(&nowhere, &digest("x")).await.unwrap(), None);
    assert_eq!(index.manifest(&nowhere, &digest("x")).await.unwrap(), None);
    assert_eq!(index.holder_of(&digest("x")).await.unwrap(), None);
    assert_eq!(index.generation().await.unwrap(), None);
    assert!(
        index
            .tags(&nowhere, page(None, 9))
            .await
            .unwrap()
            .is_empty()
    );
    remove(index, RecordKey::Tag(nowhere.clone(), tag("v1"))).await;
    remove(index, RecordKey::Manifest(nowhere.clone(), digest("x"))).await;
    remove(index, RecordKey::Blob(nowhere, digest("x"))).await;
}

async fn repositories_are_listed_in_pages(index: &dyn MetadataIndex) {
    let names = ["a", "a-b", "a/b", "a0", "b"];
    put(index, names.map(repository).to_vec()).await;
    assert!(index.has_repository(&name("a/b")).await.unwrap());
    let all = index.repositories(page(None, 100)).await.unwrap();
    assert_eq!(all, names.map(name));
    let next = index.repositories(page(Some("a-b"), 2)).await.unwrap();
    assert_eq!(next, [name("a/b"), name("a0")]);
    let after_an_absent_one = index.repositories(page(Some("a1"), 2)).await.unwrap();
    assert_eq!(after_an_absent_one, [name("b")]);
    assert!(index.repositories(page(None, 0)).await.unwrap().is_empty());
    assert!(
        index
            .repositories(page(Some("b"), 9))
            .await
            .unwrap()
            .is_empty()
    );
}

async fn tags_are_listed_found_moved_and_removed(index: &dyn MetadataIndex) {
    let here = name("tags");
    put(
        index,
        vec![
            repository("tags"),
            manifest("tags", "one", None, &[]),
            manifest("tags", "two", None, &[]),
            pointing("tags", "b", "one"),
            pointing("tags", "A", "one"),
            pointing("tags", "a", "two"),
            // Names that only continue another must not run into its list.
            pointing("tags/more", "z", "one"),
            pointing("tags-more", "z", "one"),
        ],
    )
    .await;
    let all = index.tags(&here, page(None, 100)).await.unwrap();
    assert_eq!(all, [tag("A"), tag("a"), tag("b")]);
    let next = index.tags(&here, page(Some("A"), 1)).await.unwrap();
    assert_eq!(next, [tag("a")]);
    let of_one = index.tags_of(&here, &digest("one")).await.unwrap();
    assert_eq!(of_one, [tag("A"), tag("b")]);
    put(index, vec![pointing("tags", "b", "two")]).await;
    let moved = index.tag(&here, &tag("b")).await.unwrap().unwrap();
    assert_eq!(moved.digest, digest("two"));
    assert_eq!(
        index.tags_of(&here, &digest("one")).await.unwrap(),
        [tag("A")]
    );
    let of_two = index.tags_of(&here, &digest("two")).await.unwrap();
    assert_eq!(of_two, [tag("a"), tag("b")]);
    remove(index, RecordKey::Tag(here.clone(), tag("a"))).await;
    assert_eq!(index.tag(&here, &tag("a")).await.unwrap(), None);
    assert_eq!(
        index.tags_of(&here, &digest("two")).await.unwrap(),
        [tag("b")]
    );
}

async fn referrers_follow_their_manifests(index: &dyn MetadataIndex) {
    let here = name("referrers");
    let subject = digest("subject");
    let entries = ["r1", "r2", "r3"].map(|own| manifest("referrers", own, Some("subject"), &[]));
    put(index, entries.to_vec()).await;
    put(
        index,
        vec![manifest("elsewhere", "r4", Some("subject"), &[])],
    )
    .await;
    let mut wanted = ["r1", "r2", "r3"].map(digest);
    wanted.sort_by_key(ToString::to_string);
    let found = index
        .referrers(&here, &subject, page(None, 9))
        .await
        .unwrap();
    let digests: Vec<Digest> = found.iter().map(|(digest, _)| *digest).collect();
    assert_eq!(digests, wanted);
    assert!(
        found
            .iter()
            .all(|(_, record)| record.annotations.len() == 1)
    );
    let last = wanted[0].to_string();
    let next = index
        .referrers(&here, &subject, page(Some(&last), 1))
        .await
        .unwrap();
    assert_eq!(next[0].0, wanted[1]);
    remove(index, RecordKey::Manifest(here.clone(), wanted[1])).await;
    let left = index
        .referrers(&here, &subject, page(None, 9))
        .await
        .unwrap();
    assert_eq!(left.len(), 2);
}

async fn blobs_are_found_by_repository_and_by_holder(index: &dyn MetadataIndex) {
    put(index, vec![blob("first", "held"), blob("second", "held")]).await;
    let held = digest("held");
    assert_eq!(
        index
            .blob(&name("first"), &held)
            .await
            .unwrap()
            .unwrap()
            .size,
        3
    );
    assert_eq!(index.blob(&name("third"), &held).await.unwrap(), None);
    remove(index, RecordKey::Blob(name("first"), held)).await;
    assert_eq!(index.blob(&name("first"), &held).await.unwrap(), None);
    assert_eq!(index.holder_of(&held).await.unwrap(), Some(name("second")));
    remove(index, RecordKey::Blob(name("second"), held)).await;
    assert_eq!(index.holder_of(&held).await.unwrap(), None);
}

async fn manifests_are_found_by_what_they_name(index: &dyn MetadataIndex) {
    let here = name("naming");
    put(
        index,
        vec![manifest("naming", "m", None, &["layer", "layer", "config"])],
    )
    .await;
    for named in ["layer", "config"] {
        let naming = index.manifest_naming(&here, &digest(named)).await.unwrap();
        assert_eq!(naming, Some(digest("m")));
    }
    let elsewhere = index
        .manifest_naming(&name("first"), &digest("layer"))
        .await
        .unwrap();
    assert_eq!(elsewhere, None);
    remove(index, RecordKey::Manifest(here.clone(), digest("m"))).await;
    assert_eq!(
        index
            .manifest_naming(&here, &digest("layer"))
            .await
            .unwrap(),
        None
    );
}

async fn changes_are_made_together(index: &dyn MetadataIndex) {
    let here = name("together");
    let key = RecordKey::Blob(here.clone(), digest("gone"));
    put(index, vec![blob("together", "gone")]).await;
    index
        .apply(vec![
            Change::Remove(key),
            Change::Put(Box::new(blob("together", "come"))),
            Change::Put(Box::new(repository("together"))),
        ])
        .await
        .unwrap();
    assert!(index.has_repository(&here).await.unwrap());
    assert_eq!(index.blob(&here, &digest("gone")).await.unwrap(), None);
    assert!(index.blob(&here, &digest("come")).await.unwrap().is_some());
}

async fn a_record_put_again_leaves_nothing_of_the_old_one(index: &dyn MetadataIndex) {
    let here = name("again");
    let with = |subject, blob| manifest("again", "m", Some(subject), &[blob]);
    put(index, vec![with("old subject", "old layer")]).await;
    put(index, vec![with("new subject", "new layer")]).await;
    for (age, count) in [("old", 0), ("new", 1)] {
        let subject = digest(&format!("{age} subject"));
        let found = index.referrers(&here, &subject, page(None, 9)).await;
        assert_eq!(found.unwrap().len(), count, "{age}");
        let layer = digest(&format!("{age} layer"));
        let naming = index.manifest_naming(&here, &layer).await.unwrap();
        assert_eq!(naming.is_some(), count == 1, "{age}");
    }
}

async fn records_are_listed_in_pages(index: &dyn MetadataIndex) {
    let here = name("listed");
    let all = ["a", "b", "c"].map(digest);
    let mut sorted = all;
    sorted.sort_by_key(ToString::to_string);
    for text in ["a", "b", "c"] {
        let entries = vec![
            blob("listed", text),
            manifest("listed", text, None, &[]),
            pointing("listed", text, text),
            // A neighbour whose name goes on where this one ends.
            blob("listed/more", text),
        ];
        put(index, entries).await;
    }
    let first = sorted[0].to_string();
    for (after, limit, wanted) in [
        (None, 9, &sorted[..]),
        (None, 1, &sorted[..1]),
        (Some(first.as_str()), 1, &sorted[1..2]),
        (Some(first.as_str()), 9, &sorted[1..]),
    ] {
        let blobs = index.blobs(&here, page(after, limit)).await.unwrap();
        let blobs: Vec<Digest> = blobs.into_iter().map(|(digest, _)| digest).collect();
        assert_eq!(blobs, wanted);
        let manifests = index.manifests(&here, page(after, limit)).await.unwrap();
        let manifests: Vec<Digest> = manifests.into_iter().map(|(digest, _)| digest).collect();
        assert_eq!(manifests, wanted);
    }
    let tags = index.tag_records(&here, page(Some("a"), 1)).await.unwrap();
    assert_eq!(tags[0].0, tag("b"));
    assert_eq!(tags[0].1.digest, digest("b"));
    assert_eq!(tags.len(), 1);
}

async fn records_that_differ_are_found(index: &dyn MetadataIndex) {
    let same = [
        repository("differing"),
        manifest("differing", "m", Some("s"), &["layer"]),
        pointing("differing", "v1", "m"),
        blob("differing", "layer"),
    ];
    put(index, same.to_vec()).await;
    assert_eq!(index.differing(same.to_vec()).await.unwrap(), []);
    let other = [
        repository("differing"),
        pointing("differing", "v1", "other"),
        pointing("differing", "v2", "m"),
        manifest("differing", "m", None, &["layer"]),
    ];
    let found = index.differing(other.to_vec()).await.unwrap();
    let wanted: Vec<RecordKey> = other[1..].iter().map(Entry::key).collect();
    assert_eq!(found, wanted);
    assert_eq!(index.differing(vec![]).await.unwrap(), []);
}

async fn the_generation_is_kept(index: &dyn MetadataIndex) {
    index.begin(7).await.unwrap();
    index.begin(8).await.unwrap();
    index.flush().await.unwrap();
    assert_eq!(index.generation().await.unwrap(), Some(8));
}
