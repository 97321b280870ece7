//! The suite that every blob and upload store must pass: call `verify` with an empty one, or
//! [`verify_bucket`] with an empty bucket.

#![expect(
    clippy::unwrap_used,
    reason = "a failed step of the suite is a failed test"
)]

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use artifact::{Algorithm, Digest, Repository};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use uuid::Uuid;

use crate::config::Bucket;
use crate::error::Error;
use crate::store::object::{ObjectStore, Objects, connect, honours_conditions};
use crate::store::{BlobContent, BlobStore, MapStore, UploadStore};

/// The parts of a store.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Store<'a> {
    /// Committed content.
    pub(crate) blobs: &'a dyn BlobStore,
    /// The chunk maps of committed content.
    pub(crate) maps: &'a dyn MapStore,
    /// Content on its way in.
    pub(crate) uploads: &'a dyn UploadStore,
}

/// Connects to an empty bucket and runs the whole suite on the store over it; then makes sure that
/// nothing is left of sessions and removed blobs.
///
/// # Panics
/// When the bucket cannot be used, or the store breaks a promise of its traits.
pub async fn verify_bucket(bucket: &Bucket) {
    let objects = connect(bucket).unwrap();
    assert!(honours_conditions(&objects).await.unwrap());
    let store = ObjectStore::new(objects.clone(), Uuid::new_v4(), Arc::default(), 100);
    verify(Store {
        blobs: &store,
        maps: &store,
        uploads: &store,
    })
    .await;
    let left: Vec<_> = objects.list("uploads").try_collect().await.unwrap();
    assert!(left.is_empty(), "{left:?}");
    let data: Vec<_> = objects.list("data").try_collect().await.unwrap();
    let blobs: Vec<_> = store.list().try_collect().await.unwrap();
    let quarantined: Vec<_> = objects.list("quarantine").try_collect().await.unwrap();
    assert!(data.len() <= blobs.len() + quarantined.len(), "{data:?}");
    a_session_moves_between_replicas(&objects).await;
}

/// Two replicas on one bucket: one at a time writes to a session, and the other goes on with it.
async fn a_session_moves_between_replicas(objects: &Objects) {
    let content = noise(26_000_000, 20);
    let replica = || ObjectStore::new(objects.clone(), Uuid::new_v4(), Arc::default(), 100);
    let (first, second) = (replica(), replica());
    let begun = first.begin(&repository(), Algorithm::Sha256).await;
    let id = begun.unwrap();
    let mut writing = first.claim(&repository(), id).await.unwrap();
    writing.write(content.slice(..25_000_000)).await.unwrap();
    // The second one watches the claim, sees it renewed, and refuses.
    let refused = second.claim(&repository(), id).await;
    assert!(matches!(refused.err(), Some(Error::OutOfOrder { .. })));
    assert_eq!(writing.settle().await.unwrap(), 25_000_000);
    drop(writing);
    let mut session = second.claim(&repository(), id).await.unwrap();
    assert_eq!(session.offset(), 25_000_000);
    session.write(content.slice(25_000_000..)).await.unwrap();
    let digest = Digest::sha256(&content);
    let size = session.commit(digest).await.unwrap();
    assert_eq!(size, content.len() as u64);
    let found = first.stat(&digest).await.unwrap();
    assert_eq!(found, Some(size));
}

/// Runs the whole suite on an empty store.
///
/// # Panics
/// When the store breaks a promise of its traits.
pub(crate) async fn verify(store: Store<'_>) {
    an_unknown_blob_is_absent(store).await;
    small_content_is_put_and_read(store).await;
    an_upload_becomes_visible_with_its_digest(store).await;
    an_upload_of_many_parts_reads_back_in_any_range(store).await;
    a_wrong_digest_leaves_nothing(store).await;
    a_session_goes_on_where_it_settled(store).await;
    a_dropped_session_keeps_what_arrived(store).await;
    a_session_rewinds_to_where_it_was_claimed(store).await;
    another_algorithm_at_the_end_is_honoured(store).await;
    a_cancelled_session_is_unknown(store).await;
    one_request_at_a_time_has_the_session(store).await;
    equal_content_is_stored_once(store).await;
    blobs_are_listed_removed_and_quarantined(store).await;
    a_chunk_map_lies_beside_its_blob_and_goes_with_it(store).await;
    an_idle_session_expires_and_a_busy_one_does_not(store).await;
    store.blobs.check().await.unwrap();
}

fn repository() -> Repository {
    Repository::parse("team/model").unwrap()
}

/// Bytes that repeat nowhere within a part and differ from `seed` to `seed`.
pub(crate) fn noise(length: usize, seed: u64) -> Bytes {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(length).collect()
}

impl Store<'_> {
    async fn begin(self) -> Uuid {
        let begun = self.uploads.begin(&repository(), Algorithm::Sha256).await;
        begun.unwrap()
    }

    /// Sends `content` in one request of pieces as a connection would give them.
    async fn append(self, id: Uuid, content: &Bytes) -> u64 {
        let mut session = self.uploads.claim(&repository(), id).await.unwrap();
        for start in (0..content.len()).step_by(300_000) {
            let end = content.len().min(start + 300_000);
            session.write(content.slice(start..end)).await.unwrap();
        }
        session.settle().await.unwrap()
    }

    async fn commit(self, id: Uuid, digest: Digest) -> Result<u64, Error> {
        let session = self.uploads.claim(&repository(), id).await?;
        session.commit(digest).await
    }

    /// Pushes in one request.
    async fn push(self, content: &Bytes) -> Digest {
        let id = self.begin().await;
        let digest = Digest::sha256(content);
        let mut session = self.uploads.claim(&repository(), id).await.unwrap();
        for start in (0..content.len()).step_by(300_000) {
            let end = content.len().min(start + 300_000);
            session.write(content.slice(start..end)).await.unwrap();
        }
        let size = session.commit(digest).await.unwrap();
        assert_eq!(size, content.len() as u64);
        digest
    }

    async fn read_whole(self, digest: &Digest) -> Option<Bytes> {
        let blob = self.blobs.open(digest).await.unwrap()?;
        let size = blob.size;
        let pieces: Vec<Bytes> = blob.stream().await.unwrap().try_collect().await.unwrap();
        let content = Bytes::from(pieces.concat());
        assert_eq!(content.len() as u64, size);
        Some(content)
    }

    async fn read_range(self, digest: &Digest, range: Range<u64>) -> Bytes {
        let blob = self.blobs.open(digest).await.unwrap().unwrap();
        match blob.content {
            BlobContent::File { file, .. } => {
                let mut buffer = vec![0; usize::try_from(range.end - range.start).unwrap()];
                std::os::unix::fs::FileExt::read_exact_at(&file, &mut buffer, range.start).unwrap();
                buffer.into()
            }
            BlobContent::Remote(remote) => {
                let pieces = remote.read(range).await.unwrap();
                let pieces: Vec<Bytes> = pieces.try_collect().await.unwrap();
                pieces.concat().into()
            }
        }
    }

    async fn listed(self) -> BTreeMap<String, u64> {
        let found = self.blobs.list().map(|blob| {
            let blob = blob.unwrap();
            (blob.digest.to_string(), blob.size)
        });
        found.collect().await
    }
}

async fn an_unknown_blob_is_absent(store: Store<'_>) {
    let digest = Digest::sha256(b"never stored");
    assert_eq!(store.blobs.stat(&digest).await.unwrap(), None);
    assert!(store.blobs.open(&digest).await.unwrap().is_none());
    assert_eq!(store.blobs.read(&digest).await.unwrap(), None);
    assert!(!store.blobs.remove(&digest).await.unwrap());
    store.blobs.quarantine(&digest).await.unwrap();
    assert!(store.listed().await.is_empty());
    let claimed = store.uploads.claim(&repository(), Uuid::new_v4()).await;
    assert!(matches!(claimed.err(), Some(Error::UploadUnknown { .. })));
}

async fn small_content_is_put_and_read(store: Store<'_>) {
    for content in [Bytes::new(), noise(700, 1), noise(3_000_000, 2)] {
        let digest = Digest::sha256(&content);
        store.blobs.put(&digest, content.clone()).await.unwrap();
        store.blobs.put(&digest, content.clone()).await.unwrap();
        let size = store.blobs.stat(&digest).await.unwrap();
        assert_eq!(size, Some(content.len() as u64));
        let read = store.blobs.read(&digest).await.unwrap();
        assert!(read.as_ref() == Some(&content));
        assert!(store.read_whole(&digest).await == Some(content));
    }
}

async fn an_upload_becomes_visible_with_its_digest(store: Store<'_>) {
    for content in [Bytes::new(), noise(5_000, 3), noise(2_000_000, 4)] {
        let id = store.begin().await;
        let digest = Digest::sha256(&content);
        assert_eq!(store.append(id, &content).await, content.len() as u64);
        if !content.is_empty() {
            assert_eq!(store.blobs.stat(&digest).await.unwrap(), None, "too early");
        }
        let size = store.commit(id, digest).await.unwrap();
        assert_eq!(size, content.len() as u64);
        assert!(store.read_whole(&digest).await == Some(content));
        let offset = store.uploads.offset(&repository(), id).await;
        assert!(matches!(offset, Err(Error::UploadUnknown { .. })));
    }
}

async fn an_upload_of_many_parts_reads_back_in_any_range(store: Store<'_>) {
    let content = noise(30_000_001, 5);
    let digest = store.push(&content).await;
    assert!(store.read_whole(&digest).await == Some(content.clone()));
    let length = content.len() as u64;
    for range in [
        0..1,
        length - 1..length,
        8_388_607..8_388_609,
        1_000..20_000_000,
    ] {
        let expected = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
        let found = store.read_range(&digest, range.clone()).await;
        assert!(found == content.slice(expected), "{range:?}");
    }
}

async fn a_wrong_digest_leaves_nothing(store: Store<'_>) {
    for length in [10, 20_000_000] {
        let content = noise(length, 6);
        let id = store.begin().await;
        let _ = store.append(id, &content).await;
        let claimed = Digest::sha256(b"something else");
        let refused = store.commit(id, claimed).await;
        assert!(matches!(refused, Err(Error::DigestMismatch { .. })));
        for digest in [claimed, Digest::sha256(&content)] {
            assert_eq!(store.blobs.stat(&digest).await.unwrap(), None);
        }
        let offset = store.uploads.offset(&repository(), id).await;
        assert!(matches!(offset, Err(Error::UploadUnknown { .. })));
    }
}

async fn a_session_goes_on_where_it_settled(store: Store<'_>) {
    let content = noise(19_000_000, 7);
    let id = store.begin().await;
    let mut sent = 0;
    for end in [1, 5_000_000, 5_000_001, 8_388_608, 18_000_000, 19_000_000] {
        assert_eq!(
            store.append(id, &content.slice(sent..end)).await,
            end as u64
        );
        let offset = store.uploads.offset(&repository(), id).await.unwrap();
        assert_eq!(offset, end as u64);
        sent = end;
    }
    let digest = Digest::sha256(&content);
    let _ = store.commit(id, digest).await.unwrap();
    assert!(store.read_whole(&digest).await == Some(content));
}

async fn a_dropped_session_keeps_what_arrived(store: Store<'_>) {
    let content = noise(10_000_000, 8);
    let id = store.begin().await;
    let mut session = store.uploads.claim(&repository(), id).await.unwrap();
    session.write(content.slice(..9_000_000)).await.unwrap();
    drop(session);
    // The next request waits for the settling.
    let offset = store.uploads.offset(&repository(), id).await.unwrap();
    assert_eq!(offset, 9_000_000);
    let _ = store.append(id, &content.slice(9_000_000..)).await;
    let digest = Digest::sha256(&content);
    let _ = store.commit(id, digest).await.unwrap();
    assert!(store.read_whole(&digest).await == Some(content));
}

async fn a_session_rewinds_to_where_it_was_claimed(store: Store<'_>) {
    let content = noise(12_000_000, 9);
    let id = store.begin().await;
    let _ = store.append(id, &content.slice(..1_000_000)).await;
    let mut session = store.uploads.claim(&repository(), id).await.unwrap();
    session.write(noise(20_000_000, 10)).await.unwrap();
    session.rewind().await.unwrap();
    assert_eq!(session.offset(), 1_000_000);
    drop(session);
    let offset = store.uploads.offset(&repository(), id).await.unwrap();
    assert_eq!(offset, 1_000_000);
    let _ = store.append(id, &content.slice(1_000_000..)).await;
    let digest = Digest::sha256(&content);
    let _ = store.commit(id, digest).await.unwrap();
    assert!(store.read_whole(&digest).await == Some(content));
}

async fn another_algorithm_at_the_end_is_honoured(store: Store<'_>) {
    for length in [1_000, 9_000_000] {
        let content = noise(length, 11 + length as u64);
        let id = store.begin().await;
        let _ = store.append(id, &content).await;
        let digest = Digest::of(Algorithm::Sha512, &content);
        let _ = store.commit(id, digest).await.unwrap();
        assert!(store.read_whole(&digest).await == Some(content));
    }
    let content = noise(2_000, 12);
    let id = store.begin().await;
    let _ = store.append(id, &content).await;
    let wrong = Digest::of(Algorithm::Sha512, b"other");
    let refused = store.commit(id, wrong).await;
    assert!(matches!(refused, Err(Error::DigestMismatch { .. })));
}

async fn a_cancelled_session_is_unknown(store: Store<'_>) {
    let id = store.begin().await;
    let _ = store.append(id, &noise(9_000_000, 13)).await;
    let session = store.uploads.claim(&repository(), id).await.unwrap();
    session.cancel().await.unwrap();
    let claimed = store.uploads.claim(&repository(), id).await;
    assert!(matches!(claimed.err(), Some(Error::UploadUnknown { .. })));
    let other = Repository::parse("other").unwrap();
    let id = store.begin().await;
    let foreign = store.uploads.offset(&other, id).await;
    assert!(matches!(foreign, Err(Error::UploadUnknown { .. })));
}

async fn one_request_at_a_time_has_the_session(store: Store<'_>) {
    let id = store.begin().await;
    let mut first = store.uploads.claim(&repository(), id).await.unwrap();
    first.write(noise(1_000, 14)).await.unwrap();
    let second = store.uploads.claim(&repository(), id).await;
    assert!(matches!(
        second.err(),
        Some(Error::OutOfOrder { offset: 0, .. })
    ));
    assert_eq!(first.settle().await.unwrap(), 1_000);
    drop(first);
    let third = store.uploads.claim(&repository(), id).await.unwrap();
    assert_eq!(third.offset(), 1_000);
    third.cancel().await.unwrap();
}

async fn equal_content_is_stored_once(store: Store<'_>) {
    let content = noise(9_500_000, 15);
    let first = store.push(&content).await;
    let second = store.push(&content).await;
    assert_eq!(first, second);
    assert!(store.read_whole(&first).await == Some(content));
    let listed = store.listed().await;
    assert_eq!(listed.get(&first.to_string()), Some(&9_500_000));
}

async fn blobs_are_listed_removed_and_quarantined(store: Store<'_>) {
    for length in [3_000, 9_100_000] {
        let removed = store.push(&noise(length, 16)).await;
        let aside = store.push(&noise(length, 17)).await;
        let listed = store.listed().await;
        for digest in [removed, aside] {
            assert_eq!(listed.get(&digest.to_string()), Some(&(length as u64)));
        }
        assert!(store.blobs.remove(&removed).await.unwrap());
        assert!(!store.blobs.remove(&removed).await.unwrap());
        store.blobs.quarantine(&aside).await.unwrap();
        let listed = store.listed().await;
        for digest in [removed, aside] {
            assert!(!listed.contains_key(&digest.to_string()));
            assert_eq!(store.blobs.stat(&digest).await.unwrap(), None);
            assert!(store.blobs.open(&digest).await.unwrap().is_none());
        }
        // What was quarantined can be pushed again.
        assert_eq!(store.push(&noise(length, 17)).await, aside);
        assert!(store.read_whole(&aside).await == Some(noise(length, 17)));
    }
}

async fn a_chunk_map_lies_beside_its_blob_and_goes_with_it(store: Store<'_>) {
    let [forgotten, removed, aside] = [
        store.push(&noise(2_000_000, 21)).await,
        store.push(&noise(2_000_000, 22)).await,
        store.push(&noise(9_100_000, 23)).await,
    ];
    store.maps.forget_map(&removed).await.unwrap();
    for blob in [forgotten, removed, aside] {
        assert_eq!(store.maps.map(&blob).await.unwrap(), None);
        for map in ["first", "second"] {
            store.maps.keep_map(&blob, map.into()).await.unwrap();
            assert_eq!(store.maps.map(&blob).await.unwrap(), Some(map.into()));
        }
    }
    let mut mapped: Vec<_> = store.maps.mapped().try_collect().await.unwrap();
    mapped.sort_by_key(Digest::to_string);
    let mut all = vec![forgotten, removed, aside];
    all.sort_by_key(Digest::to_string);
    assert_eq!(mapped, all);
    store.maps.forget_map(&forgotten).await.unwrap();
    assert!(store.blobs.stat(&forgotten).await.unwrap().is_some());
    assert!(store.blobs.remove(&removed).await.unwrap());
    store.blobs.quarantine(&aside).await.unwrap();
    let left: Vec<Digest> = store.maps.mapped().try_collect().await.unwrap();
    assert!(left.is_empty(), "{left:?}");
    assert!(store.blobs.remove(&forgotten).await.unwrap());
}

async fn an_idle_session_expires_and_a_busy_one_does_not(store: Store<'_>) {
    let idle = store.begin().await;
    let _ = store.append(idle, &noise(9_000_000, 18)).await;
    let busy = store.begin().await;
    let mut session = store.uploads.claim(&repository(), busy).await.unwrap();
    session.write(noise(1_000, 19)).await.unwrap();
    let unexpired = store.uploads.expire(Duration::from_secs(3600)).await;
    assert_eq!(unexpired.unwrap(), 0);
    // Object stores count whole seconds.
    until_older_than_a_second().await;
    let _ = store.uploads.expire(Duration::from_secs(1)).await.unwrap();
    let offset = store.uploads.offset(&repository(), idle).await;
    assert!(matches!(offset, Err(Error::UploadUnknown { .. })));
    assert_eq!(session.settle().await.unwrap(), 1_000);
    session.cancel().await.unwrap();
}

/// Ages in a store that notes whole seconds can be told apart after this.
async fn until_older_than_a_second() {
    tokio::time::sleep(Duration::from_millis(2_100)).await;
}
