//! Logs to standard error, and spans to an OpenTelemetry collector if one is named.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::ArgMatches;
use clap::parser::ValueSource;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};
use url::Url;

use crate::args::values::web_url;

/// Spans that were not sent yet have this long when the process ends.
const FLUSH: Duration = Duration::from_secs(3);
/// Whose spans are exported: ours. Those of the HTTP client would include the export itself.
const TARGETS: [&str; 5] = ["hayloft", "artifact", "registry", "node_agent", "runtime"];
/// Verbs that run until they are told to stop.
const ROLES: [&str; 4] = ["serve", "registry", "agent", "runtime"];

/// What has to be closed at the end.
#[derive(Debug)]
pub(crate) struct Telemetry(Option<SdkTracerProvider>);

impl Telemetry {
    /// Starts logging, and tracing if `endpoint` names a collector. To be called outside of any
    /// async runtime: the exporter's HTTP client is a blocking one. (With an async client the
    /// exporter's own thread finds no runtime, and every span is lost.)
    pub(crate) fn start(verb: &str, endpoint: Option<&Url>) -> Result<Self> {
        let role = ROLES.contains(&verb).then_some(verb);
        opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
        let provider = endpoint.map(|url| provider(role, url)).transpose()?;
        let spans = provider.as_ref().map(|provider| {
            tracing_opentelemetry::layer()
                .with_tracer(provider.tracer("hayloft"))
                .with_location(false)
                .with_threads(false)
                .with_tracked_inactivity(false)
                .with_filter(
                    Targets::new().with_targets(TARGETS.map(|name| (name, LevelFilter::INFO))),
                )
        });
        tracing_subscriber::registry()
            .with(log(role.is_some()))
            .with(spans)
            .init();
        Ok(Self(provider))
    }

    /// Sends what was not sent yet.
    pub(crate) fn finish(self) {
        // A collector that does not answer was reported when it stopped to.
        let _ = self.0.map(|provider| provider.shutdown_with_timeout(FLUSH));
    }
}

/// The span of a whole verb; a role has one for each request instead.
pub(crate) fn span(verb: Option<&str>) -> tracing::Span {
    match verb {
        Some(verb) if !ROLES.contains(&verb) => {
            tracing::info_span!("verb", otel.name = format!("hayloft {verb}"))
        }
        _ => tracing::Span::none(),
    }
}

/// Roles log text on a terminal and JSON otherwise. Verbs log warnings only, as text.
/// `HAYLOFT_LOG` takes tracing's filter syntax, such as `debug` or `registry=trace`.
fn log(is_role: bool) -> Box<dyn Layer<Registry> + Send + Sync> {
    // llama.cpp tells some hundred lines at "info" for every model it loads.
    let default = if is_role {
        "info,llama-cpp-2=warn"
    } else {
        "warn"
    };
    let filter = EnvFilter::try_from_env("HAYLOFT_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() || !is_role {
        layer.with_filter(filter).boxed()
    } else {
        // The innermost span has the fields that matter; the list would repeat them.
        let layer = layer.json().with_span_list(false);
        layer.with_filter(filter).boxed()
    }
}

/// Where spans go: the flag, else `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`, else
/// `OTEL_EXPORTER_OTLP_ENDPOINT`, else the configuration file. Only the second names the whole
/// path; nowhere at all with `OTEL_SDK_DISABLED=true` or `OTEL_TRACES_EXPORTER=none`.
pub(crate) fn endpoint(said: Option<&ArgMatches>) -> Result<Option<Url>> {
    let variable = |name| {
        std::env::var(name)
            .ok()
            .filter(|value: &String| !value.is_empty())
    };
    let is_off = variable("OTEL_SDK_DISABLED")
        .is_some_and(|value| value.eq_ignore_ascii_case("true"))
        || variable("OTEL_TRACES_EXPORTER").is_some_and(|value| value == "none");
    if is_off {
        return Ok(None);
    }
    let configured = said.and_then(|said| {
        let url = said.try_get_one::<Url>("otlp_endpoint").ok()??;
        let is_flag = said.value_source("otlp_endpoint") == Some(ValueSource::CommandLine);
        Some((url.clone(), is_flag))
    });
    if let Some((url, true)) = &configured {
        return Ok(Some(below(url)));
    }
    let named = |name: &'static str| {
        let url = variable(name).map(|text| web_url(&text).map_err(anyhow::Error::msg));
        url.transpose().context(name)
    };
    if let Some(url) = named("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")? {
        return Ok(Some(url));
    }
    if let Some((url, _)) = &configured {
        return Ok(Some(below(url)));
    }
    // Verbs have no flag for it.
    Ok(named("OTEL_EXPORTER_OTLP_ENDPOINT")?.map(|url| below(&url)))
}

/// The path for spans below a collector's address.
fn below(base: &Url) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}/v1/traces", base.path().trim_end_matches('/')));
    url
}

fn provider(role: Option<&str>, endpoint: &Url) -> Result<SdkTracerProvider> {
    let exporter = SpanExporter::builder()
        .with_http()
        .with_endpoint(endpoint.as_str())
        .build()
        .context("traces cannot be sent")?;
    let exporter = Watched {
        exporter,
        is_failing: AtomicBool::new(false),
    };
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(resource(role))
        .build())
}

/// Who we are: `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES`, else the role.
fn resource(role: Option<&str>) -> Resource {
    let resource = Resource::builder();
    let is_named = std::env::var_os("OTEL_SERVICE_NAME").is_some_and(|name| !name.is_empty());
    if is_named {
        return resource.build();
    }
    let name = match role {
        Some("serve") | None => "hayloft".to_owned(),
        Some(role) => format!("hayloft-{role}"),
    };
    resource.with_service_name(name).build()
}

/// Tells once that spans are being lost, and once that they no longer are. The library itself
/// would be silent, or repeat itself every few seconds.
#[derive(Debug)]
struct Watched {
    exporter: SpanExporter,
    is_failing: AtomicBool,
}

impl Watched {
    fn note(&self, outcome: &OTelSdkResult) {
        let was_failing = self.is_failing.swap(outcome.is_err(), Ordering::Relaxed);
        match outcome {
            Err(error) if !was_failing => {
                tracing::warn!(%error, "the collector takes no spans; they are dropped until it does");
            }
            Ok(()) if was_failing => tracing::info!("the collector takes spans again"),
            _ => {}
        }
    }
}

impl opentelemetry_sdk::trace::SpanExporter for Watched {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let outcome = self.exporter.export(batch).await;
        self.note(&outcome);
        outcome
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
