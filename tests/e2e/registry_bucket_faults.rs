//! A bucket that fails: what was acknowledged is there, what could not be stored is reported.

use artifact::Digest;
use reqwest::{Response, StatusCode};
use tests::upstream::noise;
use tests::{Fault, FaultProxy, S3Server, eventually};

use crate::registry_support::{Api, error_code};

/// A registry behind a bucket that fails on demand.
struct Faulty {
    s3: S3Server,
    proxy: FaultProxy,
    api: Api,
}

impl Faulty {
    fn start() -> Self {
        let s3 = S3Server::start();
        let proxy = FaultProxy::start(&s3.address());
        let api = Api::on(s3.registry_through(proxy.address()).start());
        Self { s3, proxy, api }
    }

    /// Pushes in one request, whatever comes of it.
    async fn push(&self, content: &[u8]) -> (Digest, Response) {
        let digest = Digest::sha256(content);
        let location = self.api.begin("a").await;
        (digest, self.api.close(&location, &digest, content).await)
    }

    /// The blob as a client gets it through the registry.
    async fn pull(&self, digest: &Digest) -> Option<Vec<u8>> {
        let request = self
            .api
            .client
            .get(self.api.url(&format!("a/blobs/{digest}")));
        let response = request
            .header("hayloft-redirect", "no")
            .send()
            .await
            .unwrap();
        match response.status() {
            StatusCode::OK => Some(response.bytes().await.unwrap().to_vec()),
            StatusCode::NOT_FOUND => None,
            status => panic!("{status}"),
        }
    }

    /// Pushes with this fault in the way, which must be met, and must not show.
    async fn survives(&self, size: usize, method: &'static str, part: &str, fault: Fault) {
        let before = self.proxy.met();
        self.proxy.inject(method, part, 1, fault.clone());
        let content = noise(size, before as u64 + 100);
        let (digest, response) = self.push(&content).await;
        let said = format!("{method} {part} {fault:?}\n{}", self.api.server.log());
        assert_eq!(response.status(), StatusCode::CREATED, "{said}");
        assert_eq!(
            self.proxy.met(),
            before + 1,
            "the fault was not met: {said}"
        );
        assert!(self.pull(&digest).await == Some(content), "{said}");
    }
}

const LARGE: usize = 20_000_000;
const MIDDLE: usize = 1_000_000;
const SMALL: usize = 1_000;

#[tokio::test]
async fn refused_requests_are_tried_again() {
    let faulty = Faulty::start();
    for status in [500, 503] {
        for part in [
            "partNumber=1",
            "uploads",
            "uploadId",
            "/state",
            "/blobs/",
            "/records/",
        ] {
            faulty
                .survives(LARGE, "*", part, Fault::Refuse(status))
                .await;
        }
        faulty
            .survives(MIDDLE, "PUT", "/data/", Fault::Refuse(status))
            .await;
        faulty
            .survives(SMALL, "PUT", "/blobs/", Fault::Refuse(status))
            .await;
    }
    faulty
        .proxy
        .inject("*", "", 8, Fault::RefuseAs(503, "SlowDown"));
    let content = noise(LARGE, 1);
    let (digest, response) = faulty.push(&content).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    assert!(faulty.pull(&digest).await == Some(content));
}

#[tokio::test]
async fn what_was_stored_but_answered_with_an_error_counts_as_stored() {
    let faulty = Faulty::start();
    for fault in [
        Fault::StoreButAnswer(500),
        Fault::StoreButAnswer(503),
        Fault::LoseAnswer,
    ] {
        let at_complete = ("POST", "uploadId=");
        for (size, (method, part)) in [
            (LARGE, at_complete),
            (LARGE, ("PUT", "partNumber=2")),
            (LARGE, ("PUT", "/state")),
            (LARGE, ("PUT", "/blobs/")),
            (MIDDLE, ("PUT", "/data/")),
            (SMALL, ("PUT", "/blobs/")),
        ] {
            faulty.survives(size, method, part, fault.clone()).await;
        }
    }
}

#[tokio::test]
async fn an_error_in_the_body_of_a_200_is_an_error() {
    let faulty = Faulty::start();
    faulty
        .survives(LARGE, "POST", "uploadId=", Fault::ErrorInBody)
        .await;
}

#[tokio::test]
async fn a_conflict_of_conditional_puts_is_tried_again() {
    let faulty = Faulty::start();
    let conflict = Fault::RefuseAs(409, "ConditionalRequestConflict");
    faulty
        .survives(SMALL, "PUT", "/blobs/", conflict.clone())
        .await;
    faulty.survives(LARGE, "PUT", "/blobs/", conflict).await;
}

#[tokio::test]
async fn a_push_that_cannot_be_stored_is_refused_and_can_be_tried_again() {
    let faulty = Faulty::start();
    for (size, part) in [(SMALL, "/blobs/"), (MIDDLE, "/data/"), (LARGE, "/blobs/")] {
        faulty
            .proxy
            .inject("PUT", part, 1_000, Fault::RefuseAs(403, "AccessDenied"));
        let content = noise(size, 2);
        let digest = Digest::sha256(&content);
        let location = faulty.api.begin("a").await;
        let refused = faulty.api.close(&location, &digest, &content).await;
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE, "{part}");
        assert_eq!(error_code(refused).await, "UNKNOWN");
        faulty.proxy.heal();
        let path = format!("a/blobs/{digest}");
        assert_eq!(faulty.api.head(&path).await.status(), StatusCode::NOT_FOUND);
        // What arrived is kept: the session only needs to be closed again.
        let offset = faulty.api.offset(&location).await;
        let closed = faulty
            .api
            .close(&location, &digest, &content[offset..])
            .await;
        assert_eq!(closed.status(), StatusCode::CREATED, "{part} {offset}");
        assert!(faulty.pull(&digest).await == Some(content));
    }
}

#[tokio::test]
async fn a_full_bucket_is_reported_as_full() {
    let faulty = Faulty::start();
    let full = Fault::RefuseAs(403, "QuotaExceeded");
    faulty.proxy.inject("PUT", "partNumber", 1_000, full);
    let (digest, refused) = faulty.push(&noise(LARGE, 3)).await;
    assert_eq!(refused.status(), StatusCode::INSUFFICIENT_STORAGE);
    let text = refused.text().await.unwrap();
    assert!(text.contains("storage is full"), "{text}");
    assert_eq!(faulty.pull(&digest).await, None);
}

#[tokio::test]
async fn parts_that_are_not_what_was_sent_are_never_acknowledged() {
    let faulty = Faulty::start();
    faulty
        .proxy
        .inject("PUT", "partNumber=1", 1, Fault::ChangeETag);
    let content = noise(LARGE, 4);
    let digest = Digest::sha256(&content);
    let (_, response) = faulty.push(&content).await;
    let status = response.status();
    let path = format!("a/blobs/{digest}");
    if status == StatusCode::CREATED {
        // A server that does not compare ETags: then the content must be right.
        assert!(faulty.pull(&digest).await == Some(content));
    } else {
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(faulty.api.head(&path).await.status(), StatusCode::NOT_FOUND);
    }
    // An ETag is never taken for a digest.
    faulty
        .survives(MIDDLE, "PUT", "/data/", Fault::ChangeETag)
        .await;
}

#[tokio::test]
async fn downloads_go_on_after_the_bucket_breaks_off() {
    let faulty = Faulty::start();
    let content = noise(LARGE, 5);
    let (digest, _) = faulty.push(&content).await;
    faulty
        .proxy
        .inject("GET", "/data/", 3, Fault::CutAnswerAfter(3_000_000));
    faulty.proxy.inject("GET", "/data/", 1, Fault::Refuse(503));
    assert!(faulty.pull(&digest).await == Some(content));
    assert_eq!(faulty.proxy.met(), 4);
}

#[tokio::test]
async fn a_download_that_cannot_go_on_is_cut_off_and_never_ends_short() {
    let faulty = Faulty::start();
    let (digest, _) = faulty.push(&noise(LARGE, 6)).await;
    faulty
        .proxy
        .inject("GET", "/data/", 1, Fault::CutAnswerAfter(3_000_000));
    faulty
        .proxy
        .inject("GET", "/data/", 1_000, Fault::RefuseAs(403, "AccessDenied"));
    let request = faulty
        .api
        .client
        .get(faulty.api.url(&format!("a/blobs/{digest}")));
    let response = request
        .header("hayloft-redirect", "no")
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert!(
        response.bytes().await.is_err(),
        "a short body passed for a blob"
    );
}

#[tokio::test]
async fn a_registry_without_its_bucket_is_not_ready() {
    let mut faulty = Faulty::start();
    let ready = format!("{}/readyz", faulty.api.server.url());
    let status = async |url: &str| reqwest::get(url).await.unwrap().status();
    assert_eq!(status(&ready).await, StatusCode::OK);
    faulty
        .proxy
        .inject("*", "/probe/", 1_000, Fault::RefuseAs(403, "AccessDenied"));
    eventually("the registry is not ready", 20, async || {
        (status(&ready).await == StatusCode::SERVICE_UNAVAILABLE).then_some(())
    })
    .await;
    faulty.proxy.heal();
    eventually("the registry is ready again", 20, async || {
        (status(&ready).await == StatusCode::OK).then_some(())
    })
    .await;
    faulty.api.server.kill();
    drop(faulty.s3);
}

#[tokio::test]
async fn a_bucket_that_ignores_conditions_is_found_out_at_the_start() {
    let s3 = S3Server::open_to_all();
    let proxy = FaultProxy::start(&s3.address());
    proxy.inject("PUT", "", 100_000, Fault::DropConditions);
    let registry = s3
        .registry_through(proxy.address())
        .argument("--storage-option")
        .argument("aws_skip_signature=true");
    let api = Api::on(registry.start());
    let content = noise(LARGE, 7);
    let digest = api.push_blob("a", &content).await;
    let found = api.head(&format!("a/blobs/{digest}")).await;
    assert_eq!(found.status(), StatusCode::OK);
    let log = api.server.log();
    assert!(log.contains("ignores conditional puts"), "{log}");
    drop(api);
    let folder = tests::scratch();
    let endpoint = format!("aws_endpoint=http://{}", proxy.address());
    let mut replica = tests::hayloft_command(["registry", "--listen", "127.0.0.1:0", "--data"]);
    replica
        .arg(folder.path())
        .args(["--storage", "s3://models/other"])
        .args(["--storage-option", &endpoint])
        .args(["--storage-option", "aws_skip_signature=true"])
        .args(["--index", "postgres://nobody@127.0.0.1:1/none"]);
    let said = tests::run(&mut replica).failed();
    assert!(said.contains("ignores conditional puts"), "{said}");
}
