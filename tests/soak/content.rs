//! What is pushed: blobs and manifests by number, the same in every run.

use artifact::Digest;
use bytes::Bytes;
use serde_json::{Value, json};
use tests::upstream::noise;

/// Media type of every manifest here.
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Where everything goes; one name lies below another, and one contains a word of the API.
pub(crate) const REPOSITORIES: [&str; 4] = ["soak", "soak/one", "soak/blobs/two", "other/three"];

/// Blobs that all workers push, mount and delete.
pub(crate) const SHARED_BLOBS: usize = 24;
/// Manifests per worker and repository.
pub(crate) const MANIFESTS: usize = 6;
/// Tags per worker and repository.
pub(crate) const TAGS: usize = 4;

/// A piece of content and its digest.
#[derive(Clone, Debug)]
pub(crate) struct Blob {
    pub(crate) digest: Digest,
    pub(crate) bytes: Bytes,
}

impl Blob {
    fn new(bytes: Vec<u8>) -> Self {
        Self {
            digest: Digest::sha256(&bytes),
            bytes: bytes.into(),
        }
    }
}

/// A manifest, its digest, and the numbers of the shared blobs it names.
#[derive(Clone, Debug)]
pub(crate) struct Manifest {
    pub(crate) content: Blob,
    pub(crate) blobs: Vec<usize>,
}

/// Everything there is to push.
#[derive(Debug)]
pub(crate) struct Contents {
    shared: Vec<Blob>,
}

impl Contents {
    pub(crate) fn new() -> Self {
        let shared = (0..SHARED_BLOBS)
            .map(|number| Blob::new(noise(shared_size(number), number as u64 + 1)))
            .collect();
        Self { shared }
    }

    /// A blob that any worker may push or delete.
    pub(crate) fn shared(&self, number: usize) -> &Blob {
        &self.shared[number]
    }

    /// A manifest that only this worker pushes or deletes, made of shared blobs.
    pub(crate) fn manifest(&self, worker: usize, number: usize) -> Manifest {
        let count = 1 + number % 3;
        let blobs: Vec<usize> = (0..=count)
            .map(|place| (worker * 7 + number * 5 + place * 11) % SHARED_BLOBS)
            .collect();
        let layers: Vec<Value> = blobs[1..].iter().map(|blob| self.layer(*blob)).collect();
        let json = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": self.layer(blobs[0]),
            "layers": layers,
            "annotations": { "worker": worker.to_string(), "number": number.to_string() },
        });
        Manifest {
            content: Blob::new(json.to_string().into_bytes()),
            blobs,
        }
    }

    fn layer(&self, number: usize) -> Value {
        let blob = self.shared(number);
        json!({
            "mediaType": "application/octet-stream",
            "digest": blob.digest,
            "size": blob.bytes.len(),
        })
    }
}

/// A blob that only this worker pushes or deletes.
pub(crate) fn private_blob(worker: usize, number: usize) -> Blob {
    let seed = 1_000 + (worker * 100 + number) as u64;
    Blob::new(noise(40_000 + number * 1_000_000, seed))
}

/// Most are small, as configs are; some take several writes.
fn shared_size(number: usize) -> usize {
    match number % 8 {
        7 => 2_500_000,
        6 => 300_000,
        _ => 200 + number * 700,
    }
}
