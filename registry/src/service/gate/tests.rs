//! Tests of the gate on its own: whatever the pieces, the same verdict.
#![expect(clippy::unwrap_used, reason = "a test may stop")]

use artifact::Repository;
use artifact::gguf::Value;
use artifact::gguf::builder::GgufBuilder;
use uuid::Uuid;

use crate::config::{GgufPolicy, GgufRule};
use crate::service::gate::{Gate, Gates, Verdict};

fn tiny() -> Vec<u8> {
    GgufBuilder::tiny_llama("Tiny").build()
}

async fn verdict(file: &[u8], step: usize) -> Verdict {
    let mut gate = Gate::new(None);
    for piece in file.chunks(step) {
        let _ = gate.push(piece).await;
    }
    gate.finish(file.len() as u64)
}

fn is_refused(verdict: &Verdict, because: &str) -> bool {
    matches!(verdict, Verdict::Refused(reason) if reason.contains(because))
}

#[tokio::test]
async fn the_verdict_does_not_depend_on_the_pieces() {
    let good = tiny();
    let unsound = GgufBuilder::tiny_llama("t")
        .kv("llama.attention.head_count", Value::U32(7))
        .build();
    for step in [1, 3, 8, 100, 1 << 20] {
        let Verdict::Good(facts) = verdict(&good, step).await else {
            panic!("refused in pieces of {step}");
        };
        assert_eq!(facts.annotations["org.hayloft.gguf.name"], "Tiny");
        assert!(is_refused(&verdict(&unsound, step).await, "7 heads"));
        let cut_header = &good[..100];
        assert!(is_refused(&verdict(cut_header, step).await, "cut off"));
        let cut_weights = &good[..good.len() - 1];
        assert!(is_refused(&verdict(cut_weights, step).await, "cut off"));
    }
}

#[tokio::test]
async fn what_only_begins_like_a_gguf_file_passes() {
    let texts: [&[u8]; 6] = [
        b"",
        b"GGUF",
        b"GGUF\x03",
        b"GGUF is a format for models",
        b"GGUF\0\0\0\0 and more",
        b"PK\x03\x04",
    ];
    for text in texts {
        assert_eq!(verdict(text, 3).await, Verdict::NotGguf, "{text:?}");
    }
}

#[tokio::test]
async fn where_the_size_is_known_a_cut_off_file_shows_with_its_header() {
    let file = tiny();
    let size = file.len() as u64;
    let mut gate = Gate::new(Some(size - 1));
    let header = &file[..file.len() - 600];
    let refused = gate.push(header).await.unwrap_err();
    assert!(refused.contains("cut off"), "{refused}");
}

#[tokio::test]
async fn a_session_goes_on_only_where_its_gate_has_seen_everything() {
    let gates = Gates::new(Vec::new());
    let repository = Repository::parse("a").unwrap();
    let file = tiny();
    let id = Uuid::from_u128(1);
    let mut gate = gates.enter(&repository, id, 0).unwrap();
    gate.push(&file[..50]).await.unwrap();
    gates.keep(id, gate);
    assert!(gates.enter(&repository, id, 49).is_none());
    assert!(gates.enter(&repository, id, 50).is_none(), "it was taken");
    let mut gate = gates.enter(&repository, id, 0).unwrap();
    gate.push(&file[..50]).await.unwrap();
    gates.keep(id, gate);
    let mut gate = gates.enter(&repository, id, 50).unwrap();
    gate.push(&file[50..]).await.unwrap();
    assert!(matches!(gate.finish(file.len() as u64), Verdict::Good(_)));
}

#[test]
fn the_longest_pattern_has_the_policy() {
    let rule = |repositories: &str, policy| GgufRule {
        repositories: repositories.to_owned(),
        policy,
    };
    let gates = Gates::new(vec![
        rule("*", GgufPolicy::Warn),
        rule("scratch/*", GgufPolicy::Off),
        rule("scratch/checked", GgufPolicy::Refuse),
    ]);
    let of = |name: &str| gates.policy(&Repository::parse(name).unwrap());
    assert_eq!(of("team/x"), GgufPolicy::Warn);
    assert_eq!(of("scratch/x"), GgufPolicy::Off);
    assert_eq!(of("scratch/checked"), GgufPolicy::Refuse);
    let name = Repository::parse("x").unwrap();
    assert_eq!(Gates::default().policy(&name), GgufPolicy::Refuse);
}
