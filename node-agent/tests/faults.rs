//! Origins that lie, break off, stall and send other bytes: a clear error or a good blob, never
//! anything between.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::time::Duration;

use artifact::agent_api::{AgentErrorCode, EnsureRequest, ModelEntry};
use artifact::client::{RetryPolicy, Timeouts};
use artifact::{CacheLayout, Digest, Reference};
use node_agent::{Config, Error, LocalNode};
use tests::upstream::{Fault, Upstream, noise};

const MIB: usize = 1024 * 1024;

/// Waits of milliseconds instead of seconds.
fn impatient(folder: &std::path::Path) -> Config {
    let mut config = Config::new(folder);
    config.pull.retry = RetryPolicy {
        attempts: 4,
        first_delay: Duration::from_millis(5),
        max_delay: Duration::from_millis(20),
    };
    config.pull.transport.timeouts = Timeouts {
        connect: Duration::from_secs(5),
        stall: Duration::from_millis(400),
    };
    config
}

struct Case {
    origin: Upstream,
    reference: Reference,
    weights: Vec<u8>,
    folder: tempfile::TempDir,
    node: LocalNode,
}

impl Case {
    async fn with_weights(weights: Vec<u8>) -> Self {
        let origin = Upstream::start().await;
        let reference = origin.add_model("1", weights.clone());
        let folder = tests::scratch();
        let node = LocalNode::open(impatient(folder.path())).await.unwrap();
        Self {
            origin,
            reference,
            weights,
            folder,
            node,
        }
    }

    async fn ensure(&self) -> Result<ModelEntry, Error> {
        let request = EnsureRequest {
            reference: self.reference.clone(),
            plain_http: false,
            name: None,
        };
        self.node.ensure(&request, &mut |_| {}).await
    }

    /// The pull succeeded and the bytes are right.
    async fn assert_good(&self) {
        self.ensure().await.unwrap();
        let layout = CacheLayout::new(self.folder.path());
        let bytes =
            std::fs::read(layout.plain_view_of(&self.reference).join("model.gguf")).unwrap();
        assert_eq!(Digest::sha256(&bytes), Digest::sha256(&self.weights));
    }

    /// The pull failed in that way and nothing of the model is visible.
    async fn assert_bad(&self, code: AgentErrorCode) -> String {
        let error = self.ensure().await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert_eq!(self.node.list().await.unwrap(), []);
        let layout = CacheLayout::new(self.folder.path());
        assert!(!layout.blob(&Digest::sha256(&self.weights)).exists());
        assert!(!layout.plain_view_of(&self.reference).exists());
        error.to_agent_error().message
    }
}

#[tokio::test]
async fn an_origin_that_drops_at_half_is_asked_for_the_rest() {
    let case = Case::with_weights(noise(9 * MIB, 1)).await;
    // Half of the last byte is nothing, so it must end some time.
    case.origin.set_fault_times(Fault::DropAtHalf, 9);
    case.assert_good().await;
    let sent = case.origin.counts().bytes;
    assert!(sent < 9 * MIB as u64 + 4096, "{sent} bytes were sent");
}

#[tokio::test]
async fn an_origin_without_ranges_is_read_in_one_stream() {
    let case = Case::with_weights(noise(40 * MIB, 2)).await;
    case.origin.set_fault(Fault::IgnoreRange);
    case.assert_good().await;
}

#[tokio::test]
async fn answers_about_other_bytes_are_dropped_and_the_whole_is_asked_for() {
    for fault in [Fault::WrongOffset, Fault::Multipart] {
        let case = Case::with_weights(noise(20 * MIB, 3)).await;
        case.origin.set_fault_times(fault, 3);
        case.assert_good().await;
    }
}

#[tokio::test]
async fn a_lie_about_the_length_ends_the_pull_with_the_sizes_in_the_message() {
    for fault in [Fault::AnnounceMore, Fault::AnnounceLess] {
        let case = Case::with_weights(noise(5 * MIB, 4)).await;
        case.origin.set_fault(fault);
        let message = case.assert_bad(AgentErrorCode::Corrupt).await;
        assert!(message.contains("announces"), "{message}");
    }
}

#[tokio::test]
async fn a_body_without_end_is_cut_at_the_size_of_the_blob() {
    let case = Case::with_weights(noise(MIB + 17, 5)).await;
    case.origin.set_fault(Fault::Endless);
    let message = case.assert_bad(AgentErrorCode::Corrupt).await;
    assert!(message.contains("more than"), "{message}");
}

#[tokio::test]
async fn wrong_bytes_are_fetched_once_more_and_then_refused() {
    let case = Case::with_weights(noise(6 * MIB, 6)).await;
    // The small config comes first and is spoiled too.
    case.origin.set_fault_times(Fault::WrongBytes, 1);
    case.assert_good().await;
    let case = Case::with_weights(noise(6 * MIB, 7)).await;
    case.origin.set_fault(Fault::WrongBytes);
    let message = case.assert_bad(AgentErrorCode::Corrupt).await;
    assert!(message.contains("sha256:"), "{message}");
    let leftovers = std::fs::read_dir(CacheLayout::new(case.folder.path()).ingest()).unwrap();
    assert_eq!(leftovers.count(), 0);
    case.origin.clear_fault();
    case.assert_good().await;
}

#[tokio::test]
async fn an_origin_that_is_busy_is_asked_again_and_not_for_ever() {
    for status in [429, 503] {
        let case = Case::with_weights(noise(MIB, 8)).await;
        case.origin.set_fault_times(Fault::Status(status), 2);
        case.assert_good().await;
        let case = Case::with_weights(noise(MIB, 9)).await;
        case.origin.set_fault(Fault::Status(status));
        case.assert_bad(AgentErrorCode::Unreachable).await;
    }
}

#[tokio::test]
async fn a_manifest_that_is_refused_for_a_moment_is_asked_for_again() {
    let case = Case::with_weights(noise(MIB, 18)).await;
    case.origin.refuse_manifests(503, 2);
    case.assert_good().await;
    case.origin.refuse_manifests(403, 1);
    let error = case.ensure().await.unwrap_err();
    assert_eq!(error.code(), AgentErrorCode::Denied, "{error}");
    // What is here is served while the registry is down, without waiting for it.
    case.origin.refuse_manifests(503, usize::MAX);
    let before = case.origin.counts().manifests;
    case.ensure().await.unwrap();
    assert_eq!(case.origin.counts().manifests, before + 1);
}

#[tokio::test]
async fn what_a_kill_left_beside_a_committed_blob_is_swept() {
    let case = Case::with_weights(noise(MIB, 19)).await;
    case.assert_good().await;
    let layout = CacheLayout::new(case.folder.path());
    let map = layout.ingest_map(&Digest::sha256(&case.weights));
    std::fs::write(&map, b"left over").unwrap();
    std::fs::write(layout.ingest().join(".tmp-1"), b"left over").unwrap();
    drop(case.node);
    LocalNode::open(Config::new(case.folder.path()))
        .await
        .unwrap();
    assert_eq!(std::fs::read_dir(layout.ingest()).unwrap().count(), 0);
}

#[tokio::test]
async fn an_origin_that_stalls_is_left_and_asked_for_the_rest() {
    let case = Case::with_weights(noise(3 * MIB, 10)).await;
    case.origin.set_fault_times(Fault::Stall, 2);
    case.assert_good().await;
}

#[tokio::test]
async fn what_was_fetched_before_a_failure_is_not_fetched_again() {
    let case = Case::with_weights(noise(96 * MIB, 12)).await;
    // Good answers, until the origin fails whatever is asked from then on.
    case.origin.set_fault(Fault::Slow(40 * MIB as u64));
    let pull = case.ensure();
    let cut = async {
        case.origin.wait_for_bytes(40 * MIB as u64).await;
        case.origin.set_fault(Fault::Status(500));
        std::future::pending::<()>().await;
    };
    tokio::select! {
        ended = pull => assert!(ended.is_err()),
        () = cut => {}
    }
    let sent = case.origin.counts().bytes;
    case.origin.clear_fault();
    case.assert_good().await;
    let again = case.origin.counts().bytes - sent;
    // At most the chunk that each connection was in the middle of is fetched twice.
    let missing = (96 * MIB as u64).saturating_sub(sent);
    assert!(
        again <= missing + 16 * MIB as u64 + 4096,
        "{again} bytes again, {missing} missing"
    );
}

#[tokio::test]
async fn a_redirect_is_followed_a_few_times_and_not_in_circles() {
    let case = Case::with_weights(noise(MIB, 13)).await;
    let elsewhere = Upstream::start().await;
    let digest = elsewhere.add_blob(case.weights.clone());
    let url = format!("http://{}/v2/other/blobs/{digest}", elsewhere.address());
    case.origin.set_fault(Fault::Redirect(url));
    // The config has another digest: it is not there, and the pull says so.
    let error = case.ensure().await.unwrap_err();
    assert_eq!(error.code(), AgentErrorCode::Corrupt, "{error}");
    let case = Case::with_weights(noise(MIB, 14)).await;
    let circle = format!("http://{}/v2/test/model/blobs/x", case.origin.address());
    case.origin.add_blob(b"x".to_vec());
    case.origin.set_fault(Fault::Redirect(circle));
    case.assert_bad(AgentErrorCode::NotFound).await;
}

#[tokio::test]
async fn a_blob_in_a_content_encoding_is_refused() {
    let case = Case::with_weights(noise(MIB, 15)).await;
    case.origin.set_fault(Fault::ContentEncoding);
    let message = case.assert_bad(AgentErrorCode::Corrupt).await;
    assert!(message.contains("Content-Encoding"), "{message}");
}

#[tokio::test]
async fn a_manifest_with_another_digest_than_announced_is_refused() {
    let case = Case::with_weights(noise(MIB, 16)).await;
    case.origin
        .announce_digest(&Digest::sha256(b"something else").to_string());
    case.assert_bad(AgentErrorCode::Corrupt).await;
    assert_eq!(case.origin.counts().blobs, 0);
}

#[tokio::test]
async fn a_model_that_cannot_fit_is_refused_before_its_first_byte() {
    let case = Case::with_weights(noise(MIB, 17)).await;
    let config = case.origin.add_blob(b"{}".to_vec());
    let layer = Digest::sha256(b"never sent");
    let body = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",
           "artifactType":"application/vnd.cncf.model.manifest.v1+json",
           "config":{{"mediaType":"application/vnd.cncf.model.config.v1+json","digest":"{config}","size":2}},
           "layers":[{{"mediaType":"application/vnd.cncf.model.weight.v1.raw","digest":"{layer}","size":4503599627370496}}]}}"#
    );
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let reference = case
        .origin
        .add_manifest("huge", media_type, body.into_bytes());
    let request = EnsureRequest {
        reference,
        plain_http: false,
        name: None,
    };
    let error = case.node.ensure(&request, &mut |_| {}).await.unwrap_err();
    assert_eq!(error.code(), AgentErrorCode::NoSpace, "{error}");
    assert!(error.to_string().contains("4503599627370498"), "{error}");
    assert_eq!(case.origin.counts().blobs, 0);
}
