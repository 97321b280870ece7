//! Metrics: what the registry counts, and the text that Prometheus reads.
//!
//! Label sets are fixed: nothing that a client sends ever becomes a label, so that nobody can fill
//! the memory of the registry or of Prometheus with names.

mod chunk_maps;
pub(crate) mod labels;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use chunk_maps::MapCounts;
use labels::{
    CollectionLabels, CollectionOutcome, Fault, FaultLabels, MapSource, RequestLabels, Route,
    RouteLabels, StatusClass, UploadEvent, UploadLabels, Verb,
};

/// Upper bounds of the latency buckets, in seconds: a manifest takes well under a millisecond, an
/// upload minutes.
const SECONDS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 120.0, 600.0,
];

/// Everything that is counted. A clone counts into the same.
#[derive(Clone, Debug)]
pub(crate) struct Metrics(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    latency: Family<RouteLabels, Histogram, fn() -> Histogram>,
    request_bytes: Family<RouteLabels, Counter>,
    response_bytes: Family<RouteLabels, Counter>,
    uploads: Family<UploadLabels, Counter>,
    open_uploads: Gauge,
    stored_bytes: Gauge<i64, AtomicI64>,
    stored_blobs: Gauge<i64, AtomicI64>,
    collections: Family<CollectionLabels, Counter>,
    collected_blobs: Counter,
    collected_bytes: Counter,
    collected_at: Gauge<f64, AtomicU64>,
    maps: MapCounts,
    faults: Family<FaultLabels, Counter>,
    connections: Gauge,
    accepted: Counter,
    refused: Counter,
}

impl Metrics {
    /// Counters that stand at zero.
    pub(crate) fn new() -> Self {
        let mut counts = Counts {
            registry: Registry::with_prefix("hayloft_registry"),
            requests: Family::default(),
            latency: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            request_bytes: Family::default(),
            response_bytes: Family::default(),
            uploads: Family::default(),
            open_uploads: Gauge::default(),
            stored_bytes: Gauge::default(),
            stored_blobs: Gauge::default(),
            collections: Family::default(),
            collected_blobs: Counter::default(),
            collected_bytes: Counter::default(),
            collected_at: Gauge::default(),
            maps: MapCounts::default(),
            faults: Family::default(),
            connections: Gauge::default(),
            accepted: Counter::default(),
            refused: Counter::default(),
        };
        counts.register_traffic();
        counts.register_storage();
        counts.maps.register(&mut counts.registry);
        Self(Arc::new(counts))
    }

    /// The text that Prometheus reads, in the OpenMetrics format.
    ///
    /// # Errors
    /// Never for text in memory, but the encoder has the type for it.
    pub(crate) fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.0.registry)?;
        Ok(text)
    }

    /// A request was answered: after this time its answer began.
    pub(crate) fn answered(&self, route: Route, method: Verb, status: StatusClass, took: Duration) {
        let labels = RequestLabels {
            route,
            method,
            status,
        };
        self.0.requests.get_or_create(&labels).inc();
        let labels = RouteLabels { route, method };
        self.0
            .latency
            .get_or_create(&labels)
            .observe(took.as_secs_f64());
    }

    /// The counter of bytes received in request bodies.
    pub(crate) fn request_bytes(&self, route: Route, method: Verb) -> Counter {
        let labels = RouteLabels { route, method };
        self.0.request_bytes.get_or_create_owned(&labels)
    }

    /// The counter of bytes sent in response bodies.
    pub(crate) fn response_bytes(&self, route: Route, method: Verb) -> Counter {
        let labels = RouteLabels { route, method };
        self.0.response_bytes.get_or_create_owned(&labels)
    }

    /// Something happened to this many upload sessions.
    pub(crate) fn upload(&self, event: UploadEvent, sessions: u64) {
        let labels = UploadLabels { event };
        self.0.uploads.get_or_create(&labels).inc_by(sessions);
    }

    /// So many upload sessions receive at this moment: counts one more until it is dropped.
    pub(crate) fn receiving(&self) -> Counted {
        Counted::new(self.0.open_uploads.clone())
    }

    /// What a look at the whole storage found.
    pub(crate) fn stored(&self, blobs: u64, bytes: u64) {
        let clamp = |number| i64::try_from(number).unwrap_or(i64::MAX);
        self.0.stored_blobs.set(clamp(blobs));
        self.0.stored_bytes.set(clamp(bytes));
    }

    /// A collection has ended, having removed so much.
    pub(crate) fn collected(&self, outcome: CollectionOutcome, blobs: u64, bytes: u64) {
        let labels = CollectionLabels { outcome };
        self.0.collections.get_or_create(&labels).inc();
        self.0.collected_blobs.inc_by(blobs);
        self.0.collected_bytes.inc_by(bytes);
        if outcome == CollectionOutcome::Completed {
            let now = jiff::Timestamp::now().as_duration().as_secs_f64();
            self.0.collected_at.set(now);
        }
    }

    /// The chunk map of a blob of this size was made and kept.
    pub(crate) fn mapped(&self, source: MapSource, bytes: u64) {
        self.0.maps.mapped(source, bytes);
    }

    /// A blob is read because its chunk map is wanted.
    pub(crate) fn blob_read_for_map(&self) {
        self.0.maps.reads.inc();
    }

    /// Chunk maps were offered with their manifest.
    pub(crate) fn maps_published(&self) {
        self.0.maps.published.inc();
    }

    /// An operation failed inside the registry.
    pub(crate) fn fault(&self, part: Fault) {
        let labels = FaultLabels { part };
        self.0.faults.get_or_create(&labels).inc();
    }

    /// A connection was accepted; it counts as open until the value is dropped.
    pub(crate) fn connected(&self) -> Counted {
        self.0.accepted.inc();
        Counted::new(self.0.connections.clone())
    }

    /// A connection was closed to make room, or found none.
    pub(crate) fn displaced(&self) {
        self.0.refused.inc();
    }
}

impl Counts {
    fn register_traffic(&mut self) {
        let registry = &mut self.registry;
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        registry.register("build", "What runs here", Info::new(version));
        registry.register("requests", "Requests answered", self.requests.clone());
        registry.register_with_unit(
            "request_duration",
            "Time from a request's head to its answer's",
            Unit::Seconds,
            self.latency.clone(),
        );
        registry.register_with_unit(
            "received",
            "Bytes of request bodies",
            Unit::Bytes,
            self.request_bytes.clone(),
        );
        registry.register_with_unit(
            "sent",
            "Bytes of response bodies",
            Unit::Bytes,
            self.response_bytes.clone(),
        );
        registry.register(
            "connections_open",
            "Connections open",
            self.connections.clone(),
        );
        registry.register("connections", "Connections accepted", self.accepted.clone());
        registry.register(
            "connections_displaced",
            "Connections closed because their number is limited",
            self.refused.clone(),
        );
    }

    fn register_storage(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "upload_sessions",
            "Upload sessions by what became of them",
            self.uploads.clone(),
        );
        registry.register(
            "uploads_receiving",
            "Requests that send a part of a blob at this moment",
            self.open_uploads.clone(),
        );
        registry.register_with_unit(
            "storage",
            "Bytes stored in blobs, when last counted",
            Unit::Bytes,
            self.stored_bytes.clone(),
        );
        registry.register(
            "storage_blobs",
            "Blobs stored, when last counted",
            self.stored_blobs.clone(),
        );
        registry.register(
            "collections",
            "Collections by outcome",
            self.collections.clone(),
        );
        registry.register(
            "collected_blobs",
            "Blobs removed by collections",
            self.collected_blobs.clone(),
        );
        registry.register_with_unit(
            "collected",
            "Bytes removed by collections",
            Unit::Bytes,
            self.collected_bytes.clone(),
        );
        registry.register_with_unit(
            "last_collection_timestamp",
            "When the last collection went through",
            Unit::Seconds,
            self.collected_at.clone(),
        );
        registry.register(
            "faults",
            "Operations that failed inside the registry",
            self.faults.clone(),
        );
    }
}

/// One more in a gauge, until it is dropped.
#[derive(Debug)]
pub(crate) struct Counted(Gauge);

impl Counted {
    fn new(gauge: Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use std::time::Duration;

    use crate::metrics::Metrics;
    use crate::metrics::labels::{CollectionOutcome, Fault, Route, StatusClass, Verb};

    #[test]
    fn what_was_counted_is_told() {
        let metrics = Metrics::new();
        let took = Duration::from_millis(2);
        metrics.answered(Route::Blob, Verb::Get, StatusClass::Success, took);
        metrics.response_bytes(Route::Blob, Verb::Get).inc_by(7);
        metrics.stored(3, 4_000);
        metrics.collected(CollectionOutcome::Completed, 2, 100);
        metrics.fault(Fault::Index);
        let connection = metrics.connected();
        let text = metrics.text().unwrap();
        for line in [
            r#"hayloft_registry_requests_total{route="blob",method="GET",status="2xx"} 1"#,
            r#"hayloft_registry_sent_bytes_total{route="blob",method="GET"} 7"#,
            "hayloft_registry_storage_bytes 4000",
            "hayloft_registry_storage_blobs 3",
            "hayloft_registry_collected_bytes_total 100",
            r#"hayloft_registry_faults_total{part="index"} 1"#,
            "hayloft_registry_connections_open 1",
            "# EOF",
        ] {
            assert!(text.lines().any(|other| other == line), "{line}:\n{text}");
        }
        drop(connection);
        let text = metrics.text().unwrap();
        assert!(text.contains("hayloft_registry_connections_open 0"));
    }
}
