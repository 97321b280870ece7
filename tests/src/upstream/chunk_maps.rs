//! Chunk maps that the origin offers as referrers of a manifest, good ones and bad ones.

use artifact::chunk_map::{CHUNK_MAP, CHUNK_MAPS, Cutter, MAP_OF};
use artifact::media_type::{OCI_EMPTY, OCI_INDEX, OCI_MANIFEST};
use artifact::{ChunkMap, Digest};
use bytes::Bytes;
use serde_json::{Value, json};

use super::Upstream;

/// The chunk map of some bytes.
///
/// # Panics
/// When they are too short for one.
#[must_use]
pub fn chunk_map_of(blob: &[u8]) -> ChunkMap {
    let mut cutter = Cutter::new();
    cutter.update(blob);
    cutter
        .finish(Digest::sha256(blob))
        .expect("a blob of 1 MiB or more")
}

impl Upstream {
    /// Offers maps, each of the blob before it, as a referrer of the manifest `subject`.
    pub fn offer_maps(&self, subject: &Digest, maps: &[(Digest, Bytes)]) {
        self.offer_maps_changed(subject, maps, |_| {});
    }

    /// As [`Upstream::offer_maps`], with a change to the manifest that offers them.
    pub fn offer_maps_changed(
        &self,
        subject: &Digest,
        maps: &[(Digest, Bytes)],
        change: impl FnOnce(&mut Value),
    ) {
        let layers = maps.iter().map(|(blob, map)| {
            json!({
                "mediaType": CHUNK_MAP,
                "digest": self.add_blob(map.clone()),
                "size": map.len(),
                "annotations": { MAP_OF: blob },
            })
        });
        let mut manifest = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": CHUNK_MAPS,
            "config": { "mediaType": OCI_EMPTY, "digest": self.add_blob("{}"), "size": 2 },
            "layers": layers.collect::<Vec<_>>(),
            "subject": { "mediaType": OCI_MANIFEST, "digest": subject, "size": 1 },
        });
        change(&mut manifest);
        let bytes = Bytes::from(manifest.to_string());
        let digest = Digest::sha256(&bytes);
        let entry = json!({
            "mediaType": OCI_MANIFEST,
            "digest": digest,
            "size": bytes.len(),
            "artifactType": CHUNK_MAPS,
        });
        let held = (OCI_MANIFEST.to_owned(), bytes);
        let mut inner = self.state.lock();
        inner.manifests.insert(digest.to_string(), held);
        drop(inner);
        self.list_referrer(subject, entry);
    }

    /// Lists a descriptor among the referrers of `subject`.
    pub fn list_referrer(&self, subject: &Digest, entry: Value) {
        let mut inner = self.state.lock();
        let entries = inner.referrers.entry(subject.to_string()).or_default();
        entries.push(entry);
    }

    /// Forgets the referrers of every manifest.
    pub fn clear_referrers(&self) {
        self.state.lock().referrers.clear();
    }
}

/// All of them, whatever type was asked for, as a registry may do.
pub(super) fn index(entries: &[Value]) -> String {
    let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries });
    index.to_string()
}
