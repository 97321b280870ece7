//! Every order in which two that want the opposite can meet.
//!
//! The proof that these tests can fail is part of them: with locks that are only pretended the
//! same search finds the order in which a blob is lost (without the lock of the blob after some
//! hundred). The one about HEAD found a fault when it was written: the blob was looked for before its
//! mark, so a collection could come in between.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use artifact::{Digest, Repository, Tag};
use bytes::Bytes;
use futures::executor::block_on;
use jiff::Timestamp;
use uuid::Uuid;

use super::schedule::{Task, every_order, run};
use super::world::{Pretends, World, manifest, push};
use crate::service::Registry;
use crate::service::collect::survey::Survey;
use crate::service::collect::{CollectOptions, Run};
use crate::service::events::Outlet;
use crate::service::leases::NewLease;
use crate::service::manifests::ManifestReference;
use crate::store::{Mark, MetadataIndex};

const CONTENT: Bytes = Bytes::from_static(b"weights");

fn digest() -> Digest {
    Digest::sha256(&CONTENT)
}

fn name(text: &str) -> Repository {
    Repository::parse(text).unwrap()
}

/// Whether something was acknowledged.
type Told = Arc<Mutex<Option<bool>>>;

/// A world in which `a` holds the content, nothing names it, and its time is over.
fn loose(pretends: Pretends) -> World {
    let world = World::new(pretends);
    block_on(push(&world.registry, &name("a"), CONTENT)).unwrap();
    let mark = Mark::Link(name("a"), digest());
    block_on(world.index.mark(&mark, world.clock.now())).unwrap();
    world
}

/// What a collection without a grace time does about one mark.
fn sweep(world: &World, mark: Mark) -> Task {
    let registry = Arc::clone(&world.registry);
    let now = world.clock.now();
    Box::pin(async move {
        let outlet = Outlet::silent();
        let run = Run {
            registry: &registry,
            options: CollectOptions::default(),
            grace: Duration::ZERO,
            now,
            waits_since: Timestamp::MIN,
            outlet: &outlet,
        };
        run.sweep_mark(&mut Survey::default(), mark).await.unwrap();
    })
}

/// A task that tells whether what it asked for was granted.
fn asks<W>(world: &World, work: impl FnOnce(Arc<Registry>) -> W) -> (Task, Told)
where
    W: Future<Output = bool> + Send + 'static,
{
    let told = Told::default();
    let (telling, work) = (Arc::clone(&told), work(Arc::clone(&world.registry)));
    let task: Task = Box::pin(async move {
        *telling.lock().unwrap() = Some(work.await);
    });
    (task, told)
}

fn was_granted(told: &Told) -> bool {
    told.lock().unwrap().unwrap()
}

fn is_linked(world: &World, repository: &str) -> bool {
    block_on(world.index.blob(&name(repository), &digest()))
        .unwrap()
        .is_some()
}

fn is_stored(world: &World) -> bool {
    world.blobs.all().contains_key(&digest())
}

/// Whoever holds the content can read it, and what nobody holds is gone.
fn is_consistent(world: &World) -> bool {
    is_stored(world) == (is_linked(world, "a") || is_linked(world, "b"))
}

/// Mounts the only, unreferenced copy elsewhere while it is being collected.
fn mount_against_sweep(pretends: Pretends, source: Option<&str>) -> (u64, u64) {
    let mut lost = 0;
    let orders = every_order(|choose| {
        let world = loose(pretends);
        let source = source.map(name);
        let (mount, told) = asks(&world, |registry| async move {
            let (target, digest) = (name("b"), digest());
            let mounted = registry.mount_if_held(&target, &digest, source.as_ref());
            mounted.await.unwrap()
        });
        run(
            vec![mount, sweep(&world, Mark::Link(name("a"), digest()))],
            choose,
        );
        let is_right = is_consistent(&world) && was_granted(&told) == is_linked(&world, "b");
        lost += u64::from(!is_right);
        is_right
    });
    (orders, lost)
}

#[test]
fn a_mount_either_holds_the_blob_or_says_that_it_is_gone() {
    for source in [Some("a"), None] {
        let (orders, lost) = mount_against_sweep(Pretends::Nothing, source);
        println!("mount against collection: {orders} orders, {lost} lost");
        assert!(orders > 10, "only {orders} orders: they do not meet");
        assert_eq!(lost, 0);
    }
}

#[test]
fn without_the_lock_of_the_blob_the_search_finds_the_lost_one() {
    let (orders, lost) = mount_against_sweep(Pretends::Blobs, Some("a"));
    println!("without the lock: lost in order number {orders}");
    assert_eq!(lost, 1, "none of {orders} orders lost it");
}

/// Puts a manifest that names the unreferenced blob while that is being collected.
fn manifest_against(pretends: Pretends, by_hand: bool) -> (u64, u64) {
    let mut lost = 0;
    let orders = every_order(|choose| {
        let world = loose(pretends);
        let (put, told) = asks(&world, |registry| async move {
            let tag = ManifestReference::Tag(Tag::parse("v1").unwrap());
            let new = manifest(&name("a"), tag, &[CONTENT], None);
            registry.store_manifest(new).await.is_ok()
        });
        let other = if by_hand {
            let unlink = |registry: Arc<Registry>| async move {
                registry.unlink_blob(&name("a"), &digest()).await.is_ok()
            };
            asks(&world, unlink).0
        } else {
            sweep(&world, Mark::Link(name("a"), digest()))
        };
        run(vec![put, other], choose);
        // Once accepted, what the manifest names is there.
        let is_held = is_linked(&world, "a") && is_stored(&world);
        let is_right = !was_granted(&told) || is_held;
        lost += u64::from(!is_right);
        is_right
    });
    (orders, lost)
}

#[test]
fn an_accepted_manifest_keeps_what_it_names() {
    for by_hand in [false, true] {
        let (orders, lost) = manifest_against(Pretends::Nothing, by_hand);
        println!("manifest against unlinking: {orders} orders, {lost} lost");
        assert!(orders > 10, "only {orders} orders: they do not meet");
        assert_eq!(lost, 0);
    }
}

#[test]
fn without_the_lock_of_the_repository_the_search_finds_the_broken_manifest() {
    let (orders, lost) = manifest_against(Pretends::Repositories, true);
    assert_eq!(lost, 1, "none of {orders} orders broke it");
}

#[test]
fn a_push_of_content_that_is_being_collected_is_kept() {
    let orders = every_order(|choose| {
        let world = World::new(Pretends::Nothing);
        block_on(push(&world.registry, &name("a"), CONTENT)).unwrap();
        block_on(world.registry.unlink_blob(&name("a"), &digest())).unwrap();
        let mark = Mark::Content(digest());
        block_on(world.index.mark(&mark, world.clock.now())).unwrap();
        let (pushed, told) = asks(&world, |registry| async move {
            push(&registry, &name("b"), CONTENT).await.is_ok()
        });
        run(vec![pushed, sweep(&world, mark)], choose);
        assert!(was_granted(&told) && is_linked(&world, "b") && is_stored(&world));
        true
    });
    println!("push against collection of content: {orders} orders");
}

#[test]
fn a_head_that_says_yes_has_renewed_the_blob() {
    let orders = every_order(|choose| {
        let world = loose(Pretends::Nothing);
        let (head, told) = asks(&world, |registry| async move {
            registry.blob_size(&name("a"), &digest()).await.is_ok()
        });
        run(
            vec![head, sweep(&world, Mark::Link(name("a"), digest()))],
            choose,
        );
        assert!(is_consistent(&world));
        assert_eq!(was_granted(&told), is_linked(&world, "a"));
        true
    });
    println!("head against collection: {orders} orders");
}

#[test]
fn a_lease_that_was_given_holds() {
    let orders = every_order(|choose| {
        let world = loose(Pretends::Nothing);
        let (lease, told) = asks(&world, |registry| async move {
            let new = NewLease {
                repository: name("a"),
                id: Uuid::nil(),
                digests: vec![digest()],
                time: Duration::from_secs(60),
                holder: String::new(),
            };
            registry.write_lease(new).await.is_ok()
        });
        run(
            vec![lease, sweep(&world, Mark::Link(name("a"), digest()))],
            choose,
        );
        assert!(is_consistent(&world));
        assert_eq!(was_granted(&told), is_linked(&world, "a"));
        true
    });
    println!("lease against collection: {orders} orders");
}

#[test]
fn two_collectors_and_a_mount_lose_nothing() {
    let orders = every_order(|choose| {
        let world = loose(Pretends::Nothing);
        let (mount, told) = asks(&world, |registry| async move {
            let (target, source, digest) = (name("b"), name("a"), digest());
            let mounted = registry.mount_if_held(&target, &digest, Some(&source));
            mounted.await.unwrap()
        });
        let mark = Mark::Link(name("a"), digest());
        let tasks = vec![mount, sweep(&world, mark.clone()), sweep(&world, mark)];
        run(tasks, choose);
        assert!(is_consistent(&world));
        assert_eq!(was_granted(&told), is_linked(&world, "b"));
        true
    });
    println!("two collectors and a mount: {orders} orders");
}
