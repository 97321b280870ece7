//! Metrics: what the agent counts, and the text that Prometheus reads.
//!
//! Label sets are closed: nothing that a client sends ever becomes a label.

use std::sync::Arc;
use std::time::Duration;

use artifact::agent_api::{PreloadState, PreloadStatus};
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

/// Upper bounds of the buckets of `ensure`, in seconds: a hit takes a millisecond, a miss minutes.
const SECONDS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0, 300.0, 1200.0, 3600.0,
];

/// An enum whose variants are the values of a label, each with its text.
macro_rules! label {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl EncodeLabelValue for $name {
            fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
                match self { $(Self::$variant => $text,)+ }.encode(encoder)
            }
        }
    };
}

label! {
    /// How asking for a model ended.
    Ensured {
        /// All of it was on the node.
        Hit = "hit",
        /// Some of it was fetched.
        Miss = "miss",
        /// Not at all.
        Failed = "failed",
    }
}

label! {
    /// Where bytes of a download came from.
    Source {
        /// A registry or another place that the model's name leads to.
        Origin = "origin",
        /// Another blob on this node.
        Local = "local",
        /// Another node.
        Peer = "peer",
    }
}

label! {
    /// What did not have its digest.
    Verified {
        /// A chunk of a blob.
        Chunk = "chunk",
        /// A blob.
        Blob = "blob",
        /// A chunk map.
        Map = "map",
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    operation: Arc<str>,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EnsureLabels {
    outcome: Ensured,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SourceLabels {
    source: Source,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VerifyLabels {
    what: Verified,
}

/// Everything that is counted. A clone counts into the same.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    ensured: Family<EnsureLabels, Counter>,
    ensure: Family<EnsureLabels, Histogram, fn() -> Histogram>,
    fetched: Family<SourceLabels, Counter>,
    downloads: Gauge,
    verify_failures: Family<VerifyLabels, Counter>,
    evicted: Counter,
    evicted_bytes: Counter,
    scrubbed: Counter,
    scrub_failures: Counter,
    cache: Gauge,
    disk_free: Gauge,
    disk_total: Gauge,
    leases: Gauge,
    preload: Family<StateLabels, Gauge>,
    preload_problem: Gauge,
}

impl Default for Metrics {
    /// Counters that stand at zero.
    fn default() -> Self {
        let mut counts = Counts {
            registry: Registry::with_prefix("hayloft_agent"),
            requests: Family::default(),
            ensured: Family::default(),
            ensure: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            fetched: Family::default(),
            downloads: Gauge::default(),
            verify_failures: Family::default(),
            evicted: Counter::default(),
            evicted_bytes: Counter::default(),
            scrubbed: Counter::default(),
            scrub_failures: Counter::default(),
            cache: Gauge::default(),
            disk_free: Gauge::default(),
            disk_total: Gauge::default(),
            leases: Gauge::default(),
            preload: Family::default(),
            preload_problem: Gauge::default(),
        };
        counts.register_traffic();
        counts.register_disk();
        counts.register_preload();
        Self(Arc::new(counts))
    }
}

impl Metrics {
    /// The text that Prometheus reads, in the OpenMetrics format.
    ///
    /// # Errors
    /// Never for text in memory, but the encoder has the type for it.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.0.registry)?;
        Ok(text)
    }

    /// A request was answered. Both names come from closed sets.
    pub(crate) fn answered(&self, operation: Arc<str>, outcome: &'static str) {
        let labels = RequestLabels { operation, outcome };
        self.0.requests.get_or_create(&labels).inc();
    }

    /// A model was asked for, and that took so long.
    pub fn ensured(&self, outcome: Ensured, took: Duration) {
        let labels = EnsureLabels { outcome };
        self.0.ensured.get_or_create(&labels).inc();
        let seconds = self.0.ensure.get_or_create(&labels);
        seconds.observe(took.as_secs_f64());
    }

    /// So many bytes of a download came from there.
    pub fn fetched(&self, source: Source, bytes: u64) {
        let labels = SourceLabels { source };
        self.0.fetched.get_or_create(&labels).inc_by(bytes);
    }

    /// A download runs: it counts as long as the value lives.
    #[must_use]
    pub fn downloading(&self) -> Counted {
        Counted::new(self.0.downloads.clone())
    }

    /// Bytes came that are not what was asked for.
    pub fn verify_failed(&self, what: Verified) {
        let labels = VerifyLabels { what };
        self.0.verify_failures.get_or_create(&labels).inc();
    }

    /// A model was removed to make room, and its deleted blobs had so many bytes.
    pub fn evicted(&self, bytes: u64) {
        self.0.evicted.inc();
        self.0.evicted_bytes.inc_by(bytes);
    }

    /// So many bytes of cached blobs were read and hashed again.
    pub fn scrubbed(&self, bytes: u64) {
        self.0.scrubbed.inc_by(bytes);
    }

    /// A cached blob no longer had its digest.
    pub fn scrub_failed(&self) {
        self.0.scrub_failures.inc();
    }

    /// Bytes that the cache takes.
    pub fn cache_bytes(&self, bytes: u64) {
        set(&self.0.cache, bytes);
    }

    /// The disk of the cache: bytes that may still be used, and bytes that can be used at all.
    pub fn disk(&self, free: u64, total: u64) {
        set(&self.0.disk_free, free);
        set(&self.0.disk_total, total);
    }

    /// How far the node is with the desired list.
    pub(crate) fn preload(&self, status: &PreloadStatus) {
        for state in PreloadState::NAMES {
            let models = status.models.iter();
            let count = models.filter(|model| model.state.as_str() == state).count();
            set(
                &self.0.preload.get_or_create(&StateLabels { state }),
                count as u64,
            );
        }
        set(&self.0.preload_problem, u64::from(status.problem.is_some()));
    }

    /// Leases that are held.
    pub fn leases(&self, held: u64) {
        set(&self.0.leases, held);
    }
}

fn set(gauge: &Gauge, number: u64) {
    gauge.set(i64::try_from(number).unwrap_or(i64::MAX));
}

impl Counts {
    fn register_traffic(&mut self) {
        let registry = &mut self.registry;
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        registry.register("build", "What runs here", Info::new(version));
        registry.register("requests", "Requests answered", self.requests.clone());
        registry.register(
            "models_ensured",
            "Models asked for, by how that ended",
            self.ensured.clone(),
        );
        registry.register_with_unit(
            "ensure",
            "Time from asking for a model to having it",
            Unit::Seconds,
            self.ensure.clone(),
        );
        registry.register_with_unit(
            "fetched",
            "Bytes of downloads, by where they came from",
            Unit::Bytes,
            self.fetched.clone(),
        );
        registry.register(
            "downloads_in_progress",
            "Blobs that are being downloaded",
            self.downloads.clone(),
        );
        registry.register(
            "verify_failures",
            "Bytes that came and were not what was asked for, by what they were to be",
            self.verify_failures.clone(),
        );
    }

    fn register_disk(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "evicted",
            "Models removed to make room",
            self.evicted.clone(),
        );
        registry.register_with_unit(
            "evicted",
            "Bytes of blobs removed to make room",
            Unit::Bytes,
            self.evicted_bytes.clone(),
        );
        registry.register_with_unit(
            "scrubbed",
            "Bytes of cached blobs hashed again",
            Unit::Bytes,
            self.scrubbed.clone(),
        );
        registry.register(
            "scrub_failures",
            "Cached blobs that no longer had their digest",
            self.scrub_failures.clone(),
        );
        registry.register_with_unit(
            "cache",
            "Bytes that the cache takes",
            Unit::Bytes,
            self.cache.clone(),
        );
        registry.register_with_unit(
            "disk_free",
            "Bytes of the disk that may still be used",
            Unit::Bytes,
            self.disk_free.clone(),
        );
        registry.register_with_unit(
            "disk_total",
            "Bytes of the disk that can be used at all",
            Unit::Bytes,
            self.disk_total.clone(),
        );
        registry.register("leases", "Leases that are held", self.leases.clone());
    }
}

impl Counts {
    fn register_preload(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "preload_models",
            "Models of the desired list, by how far they are",
            self.preload.clone(),
        );
        registry.register(
            "preload_list_faulty",
            "1 while the file of the desired list is not a good list, and the last good one counts",
            self.preload_problem.clone(),
        );
    }
}

/// One more in a gauge, until it is dropped.
#[derive(Debug)]
pub struct Counted(Gauge);

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

    use crate::metrics::{Ensured, Metrics, Source, Verified};

    #[test]
    fn what_was_counted_is_told() {
        let metrics = Metrics::default();
        metrics.answered("pin_model".into(), "conflict");
        metrics.ensured(Ensured::Hit, Duration::from_millis(2));
        metrics.fetched(Source::Local, 7);
        metrics.verify_failed(Verified::Chunk);
        metrics.evicted(100);
        metrics.disk(3, 4_000);
        let download = metrics.downloading();
        let text = metrics.text().unwrap();
        for line in [
            r#"hayloft_agent_requests_total{operation="pin_model",outcome="conflict"} 1"#,
            r#"hayloft_agent_models_ensured_total{outcome="hit"} 1"#,
            r#"hayloft_agent_ensure_seconds_bucket{le="0.0025",outcome="hit"} 1"#,
            r#"hayloft_agent_fetched_bytes_total{source="local"} 7"#,
            r#"hayloft_agent_verify_failures_total{what="chunk"} 1"#,
            "hayloft_agent_evicted_total 1",
            "hayloft_agent_evicted_bytes_total 100",
            "hayloft_agent_disk_free_bytes 3",
            "hayloft_agent_disk_total_bytes 4000",
            "hayloft_agent_downloads_in_progress 1",
            "# EOF",
        ] {
            assert!(text.lines().any(|other| other == line), "{line}:\n{text}");
        }
        drop(download);
        let text = metrics.text().unwrap();
        assert!(text.contains("hayloft_agent_downloads_in_progress 0"));
    }
}
