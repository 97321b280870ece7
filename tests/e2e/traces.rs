//! Traces as a collector sees them: one trace from the command line through agent and registry.
//!
//! The collector runs in the test's own process and has to answer while a command runs to its end:
//! hence several threads.

use std::time::Instant;

use serde_json::Value;
use tests::{Collector, ReceivedSpan, Server, eventually, fixture, hayloft_command, run};

/// Spans are sent as soon as they have ended, not after five seconds.
const AT_ONCE: (&str, &str) = ("OTEL_BSP_SCHEDULE_DELAY", "20");

fn traced(command: &mut std::process::Command, collector: &str) -> String {
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", collector);
    run(command).succeeded()
}

/// The first span that is as wanted, with all spans of its trace, once those are complete.
async fn trace_with(
    collector: &Collector,
    what: &str,
    is_complete: impl Fn(&[ReceivedSpan]) -> bool,
) -> Vec<ReceivedSpan> {
    eventually(what, 20, || async {
        let spans = collector.spans();
        let mut traces: Vec<&String> = spans.iter().map(|span| &span.trace).collect();
        traces.sort();
        traces.dedup();
        let of = |trace: &String| -> Vec<ReceivedSpan> {
            let own = spans.iter().filter(|span| span.trace == *trace);
            own.cloned().collect()
        };
        traces.into_iter().map(of).find(|trace| is_complete(trace))
    })
    .await
}

fn has(trace: &[ReceivedSpan], service: &str, name: &str) -> bool {
    let mut spans = trace.iter();
    spans.any(|span| span.service == service && span.name == name)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_and_a_pull_are_one_trace_each_across_all_who_took_part() {
    let collector = Collector::start().await;
    let registry = Server::registry()
        .argument("--otlp-endpoint")
        .argument(&collector.url())
        .environment(AT_ONCE.0, AT_ONCE.1)
        .start();
    let agent = Server::agent()
        .environment("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url())
        .environment("OTEL_SERVICE_NAME", "node-7")
        .environment(AT_ONCE.0, AT_ONCE.1)
        .start();
    let reference = format!("{}/demo/traced:1", registry.address());
    let model = fixture("hay-tiny-q8_0.gguf");
    let mut push = hayloft_command(["push", model.to_str().unwrap(), &reference]);
    let _ = traced(&mut push, &collector.url());
    let pushed = trace_with(&collector, "the push as one trace", |trace| {
        has(trace, "hayloft", "hayloft push")
            && has(trace, "hayloft-registry", "PATCH upload")
            && has(trace, "hayloft-registry", "PUT upload")
            && has(trace, "hayloft-registry", "PUT manifest")
    })
    .await;
    let manifest = pushed
        .iter()
        .find(|span| span.name == "PUT manifest")
        .unwrap();
    assert_eq!(manifest.attributes["repository"], "demo/traced");
    assert_eq!(manifest.attributes["http.response.status_code"], "201");
    assert!(manifest.attributes["blob.digest"].starts_with("sha256:"));

    let mut pull = hayloft_command(["pull", &reference, "--agent", &agent.url()]);
    let _ = traced(&mut pull, &collector.url());
    let pulled = trace_with(&collector, "the pull as one trace", |trace| {
        has(trace, "hayloft", "hayloft pull")
            && trace.iter().any(|span| span.service == "node-7")
            && has(trace, "hayloft-registry", "GET manifest")
            && has(trace, "hayloft-registry", "GET blob")
    })
    .await;
    assert_ne!(pulled[0].trace, pushed[0].trace);
    // Every span but the first is part of another one of the same trace.
    for span in pulled.iter().filter(|span| span.name != "hayloft pull") {
        let mut others = pulled.iter();
        assert!(others.any(|other| other.id == span.parent), "{span:?}");
    }
    let sent: u64 = pulled
        .iter()
        .filter(|span| span.name == "GET blob")
        .map(|span| span.attributes["bytes"].parse::<u64>().unwrap())
        .sum();
    assert!(sent >= std::fs::metadata(&model).unwrap().len(), "{sent}");

    // The log names the trace.
    let log = registry.log();
    let mut lines = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let named = lines.any(|line| {
        line["target"] == "registry::access" && line["span"]["trace_id"] == *pushed[0].trace
    });
    assert!(named, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callers_trace_is_continued_and_named_in_the_log_even_without_a_collector() {
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    let collector = Collector::start().await;
    let with = Server::registry()
        .environment(
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            &format!("{}/v1/traces", collector.url()),
        )
        .environment(AT_ONCE.0, AT_ONCE.1)
        .start();
    let without = Server::registry().start();
    for server in [&with, &without] {
        let request = reqwest::Client::new()
            .get(format!("{}/v2/", server.url()))
            .header("traceparent", format!("00-{TRACE}-b7ad6b7169203331-01"));
        assert_eq!(request.send().await.unwrap().status(), 200);
        assert!(server.log().contains(TRACE), "{}", server.log());
    }
    let spans = trace_with(&collector, "the caller's trace", |trace| {
        trace[0].trace == TRACE
    })
    .await;
    assert_eq!(spans[0].parent, "b7ad6b7169203331");
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_are_flushed_at_the_end_and_a_dead_collector_disturbs_nobody() {
    let collector = Collector::start().await;
    // Nothing is sent by itself within this test: only the end flushes.
    let mut server = Server::registry()
        .environment("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url())
        .environment("OTEL_BSP_SCHEDULE_DELAY", "600000")
        .start();
    let answer = reqwest::get(format!("{}/v2/", server.url())).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(collector.spans().is_empty());
    assert_eq!(server.terminate(), Some(0));
    assert_eq!(collector.spans().len(), 1, "{:?}", collector.spans());

    let nobody = collector.url();
    drop(collector);
    let mut server = Server::registry()
        .environment("OTEL_EXPORTER_OTLP_ENDPOINT", &nobody)
        .environment(AT_ONCE.0, AT_ONCE.1)
        .start();
    for _ in 0..20 {
        let answer = reqwest::get(format!("{}/v2/", server.url())).await.unwrap();
        assert_eq!(answer.status(), 200);
    }
    eventually("the loss is told", 20, || async {
        server
            .log()
            .contains("the collector takes no spans")
            .then_some(())
    })
    .await;
    let began = Instant::now();
    assert_eq!(server.terminate(), Some(0));
    assert!(began.elapsed().as_secs() < 10, "{:?}", began.elapsed());
    let told = server.log().matches("takes no spans").count();
    assert_eq!(told, 1, "{}", server.log());
}
