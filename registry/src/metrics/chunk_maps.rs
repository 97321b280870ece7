//! What is counted of chunk maps.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::{Registry, Unit};

use crate::metrics::labels::{MapLabels, MapSource};

/// The counters of chunk maps.
#[derive(Debug, Default)]
pub(super) struct MapCounts {
    made: Family<MapLabels, Counter>,
    bytes: Family<MapLabels, Counter>,
    pub(super) reads: Counter,
    pub(super) published: Counter,
}

impl MapCounts {
    /// The map of a blob of this size was made and kept.
    pub(super) fn mapped(&self, source: MapSource, bytes: u64) {
        let labels = MapLabels { source };
        self.made.get_or_create(&labels).inc();
        self.bytes.get_or_create(&labels).inc_by(bytes);
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "chunk_maps",
            "Chunk maps made, by where the bytes came from",
            self.made.clone(),
        );
        registry.register_with_unit(
            "chunk_mapped",
            "Bytes of the blobs that chunk maps were made of",
            Unit::Bytes,
            self.bytes.clone(),
        );
        registry.register(
            "chunk_map_reads",
            "Blobs read because their chunk maps were wanted",
            self.reads.clone(),
        );
        registry.register(
            "chunk_maps_published",
            "Manifests that the chunk maps of their blobs were offered with",
            self.published.clone(),
        );
    }
}
