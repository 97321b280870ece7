//! The keys of the sled index, each under a letter for its kind and sorted the way it is listed.

use artifact::{Digest, Repository, Tag};
use uuid::Uuid;

use crate::store::key::RecordKey;
use crate::store::records::{LeaseRecord, ManifestRecord};

/// `kind`, then the parts with a zero byte between them; no part contains one.
pub(super) fn parts(kind: u8, parts: &[&str]) -> Vec<u8> {
    let mut key = vec![kind];
    key.extend_from_slice(parts.join("\0").as_bytes());
    key
}

/// Where a record itself lies.
pub(super) fn record(key: &RecordKey) -> Vec<u8> {
    match key {
        RecordKey::Repository(repository) => parts(b'r', &[repository.as_str()]),
        RecordKey::Manifest(repository, digest) => {
            parts(b'm', &[repository.as_str(), &digest.to_string()])
        }
        RecordKey::Tag(repository, tag) => parts(b't', &[repository.as_str(), tag.as_str()]),
        RecordKey::Blob(repository, digest) => {
            parts(b'b', &[repository.as_str(), &digest.to_string()])
        }
        RecordKey::Lease(..) => parts(b'e', &[&key.path()]),
    }
}

/// That a record is intended to change.
pub(super) fn intent(key: &RecordKey) -> Vec<u8> {
    parts(b'i', &[key.repository().as_str(), &key.path()])
}

/// That a tag points to a manifest.
pub(super) fn tag_of(repository: &Repository, digest: &Digest, tag: &Tag) -> Vec<u8> {
    parts(
        b'o',
        &[repository.as_str(), &digest.to_string(), tag.as_str()],
    )
}

/// That a repository holds a blob.
pub(super) fn holder(digest: &Digest, repository: &Repository) -> Vec<u8> {
    parts(b'h', &[&digest.to_string(), repository.as_str()])
}

/// What follows from a manifest: who holds it, its place among referrers, and what it names.
pub(super) fn of_manifest<'a>(
    repository: &'a Repository,
    digest: &'a Digest,
    record: &'a ManifestRecord,
) -> impl Iterator<Item = Vec<u8>> + 'a {
    let own = digest.to_string();
    let held = parts(b'd', &[&own, repository.as_str()]);
    let referrer = record.subject.iter().map(|subject| (b'f', subject));
    let blobs = record.blobs.iter().map(|named| (b'n', named));
    let manifests = record
        .manifests
        .iter()
        .flat_map(|named| [(b'n', named), (b'x', named)]);
    let others = referrer
        .chain(blobs)
        .chain(manifests)
        .map(move |(kind, other)| parts(kind, &[repository.as_str(), &other.to_string(), &own]));
    std::iter::once(held).chain(others)
}

/// What follows from a lease: until when each digest is wanted.
pub(super) fn of_lease<'a>(
    repository: &'a Repository,
    id: Uuid,
    record: &'a LeaseRecord,
) -> impl Iterator<Item = Vec<u8>> + 'a {
    let path = RecordKey::Lease(repository.clone(), id).path();
    let digests = record.digests.iter();
    digests.map(move |digest| parts(b'l', &[&digest.to_string(), &path]))
}
