//! What a collection refuses to believe: clocks that jump, listings that fail, a turn that was
//! lost; and that nothing forged keeps it busy for ever.

use std::sync::atomic::Ordering;
use std::time::Duration;

use artifact::{Digest, Repository};
use bytes::Bytes;
use futures::executor::block_on;
use jiff::{SignedDuration, Timestamp};

use super::world::{Pretends, World, push};
use crate::error::Error;
use crate::service::collect::CollectOptions;
use crate::service::collect::report::CollectSummary;
use crate::service::events::Outlet;
use crate::store::records::{Entry, ManifestRecord, RepositoryRecord};
use crate::store::{BlobStore, Change, MetadataIndex};

const HOUR: Duration = Duration::from_secs(3600);
const CONTENT: Bytes = Bytes::from_static(b"loose");

fn name() -> Repository {
    Repository::parse("a").unwrap()
}

fn collect(world: &World, grace: Duration) -> Result<CollectSummary, Error> {
    let options = CollectOptions {
        force: true,
        grace: Some(grace),
        ..CollectOptions::default()
    };
    block_on(world.registry.collect(options, &Outlet::silent()))
}

/// A blob that nothing names, which one run has seen.
fn seen_once() -> World {
    let world = World::new(Pretends::Nothing);
    block_on(push(&world.registry, &name(), CONTENT)).unwrap();
    assert_eq!(collect(&world, HOUR).unwrap().waiting, 1);
    world
}

fn is_stored(world: &World) -> bool {
    world.blobs.all().contains_key(&Digest::sha256(&CONTENT))
}

#[test]
fn what_was_marked_for_the_whole_grace_time_goes_and_not_before() {
    let world = seen_once();
    world.clock.advance(HOUR - Duration::from_secs(1));
    assert_eq!(collect(&world, HOUR).unwrap().blobs, 0);
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(collect(&world, HOUR).unwrap().blobs, 1);
    assert!(!is_stored(&world));
}

#[test]
fn after_a_jump_of_the_clock_every_wait_begins_anew() {
    for jump in [365 * 24, -24] {
        let world = seen_once();
        world.clock.jump(SignedDuration::from_hours(jump));
        assert_eq!(collect(&world, HOUR).unwrap().blobs, 0, "{jump}");
        world.clock.advance(HOUR / 2);
        assert_eq!(collect(&world, HOUR).unwrap().blobs, 0, "{jump}");
        assert!(is_stored(&world));
        world.clock.advance(HOUR);
        assert_eq!(collect(&world, HOUR).unwrap().blobs, 1, "{jump}");
    }
}

#[test]
fn a_listing_that_fails_removes_nothing() {
    let world = seen_once();
    world.clock.advance(2 * HOUR);
    world.blobs.cannot_list.store(true, Ordering::SeqCst);
    assert!(collect(&world, HOUR).is_err());
    assert!(is_stored(&world));
    world.blobs.cannot_list.store(false, Ordering::SeqCst);
    assert_eq!(collect(&world, HOUR).unwrap().blobs, 1);
}

#[test]
fn a_collector_that_lost_its_turn_removes_nothing() {
    let world = seen_once();
    world.clock.advance(2 * HOUR);
    world.loses_turn.store(true, Ordering::SeqCst);
    assert!(collect(&world, HOUR).is_err());
    assert!(is_stored(&world));
}

/// A manifest record that only says what it refers to, put without any check.
fn forge(world: &World, digest: Digest, subject: Digest) {
    let record = ManifestRecord {
        media_type: String::new(),
        size: 0,
        pushed: Timestamp::UNIX_EPOCH,
        artifact_type: None,
        subject: Some(subject),
        annotations: std::collections::BTreeMap::new(),
        blobs: Vec::new(),
        manifests: Vec::new(),
        derived: None,
        is_mirrored: false,
    };
    let entry = Entry::Manifest(name(), digest, record);
    let change = Change::Put(Box::new(entry));
    block_on(world.index.apply(vec![change])).unwrap();
    block_on(world.blobs.put(&digest, Bytes::new())).unwrap();
}

fn number(number: usize) -> Digest {
    Digest::sha256(number.to_string().as_bytes())
}

fn with_repository() -> World {
    let world = World::new(Pretends::Nothing);
    let created = Timestamp::UNIX_EPOCH;
    let entry = Entry::Repository(name(), RepositoryRecord { created });
    let change = Change::Put(Box::new(entry));
    block_on(world.index.apply(vec![change])).unwrap();
    world
}

#[test]
fn a_forged_circle_of_subjects_is_walked_once_and_stays() {
    let world = with_repository();
    forge(&world, number(0), number(1));
    forge(&world, number(1), number(0));
    assert_eq!(collect(&world, Duration::ZERO).unwrap().manifests, 0);
}

#[test]
fn a_long_chain_without_its_subject_goes_in_one_run() {
    let world = with_repository();
    for link in 0..300 {
        forge(&world, number(link + 1), number(link));
    }
    assert_eq!(collect(&world, Duration::ZERO).unwrap().manifests, 300);
    assert!(world.blobs.all().is_empty());
}
