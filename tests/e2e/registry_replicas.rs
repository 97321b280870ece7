//! Two replicas over one bucket and one PostgreSQL: whatever one does, the other has.

use artifact::Digest;
use futures::future::join_all;
use reqwest::StatusCode;
use tests::Postgres;
use tests::s3::S3Server;
use tests::upstream::noise;

use crate::registry_faults::{fill, holds_everything};
use crate::registry_support::{Api, header, image};

/// What the replicas share.
pub(crate) struct Shared {
    pub(crate) bucket: S3Server,
    pub(crate) postgres: Postgres,
}

impl Shared {
    pub(crate) fn start() -> Self {
        Self {
            bucket: S3Server::start(),
            postgres: Postgres::start(),
        }
    }

    /// One more replica.
    pub(crate) fn replica(&self) -> Api {
        let builder = self.bucket.registry().argument("--index");
        Api::on(builder.argument(&self.postgres.url()).start())
    }

    /// Two that start at the same instant, on a bucket and a database that nobody has used.
    pub(crate) fn two_at_once(&self) -> (Api, Api) {
        std::thread::scope(|scope| {
            let one = scope.spawn(|| self.replica());
            let other = self.replica();
            (one.join().unwrap(), other)
        })
    }
}

#[tokio::test]
async fn what_one_replica_takes_the_other_serves() {
    let shared = Shared::start();
    let (one, other) = shared.two_at_once();
    fill(&one).await;
    holds_everything(&other).await;
    let deleted = other.delete("a/b/manifests/two").await;
    assert_eq!(deleted.status(), StatusCode::ACCEPTED);
    let gone = one.head("a/b/manifests/two").await;
    assert_eq!(gone.status(), StatusCode::NOT_FOUND);
    // A third that starts later believes the database.
    let third = shared.replica();
    let kept = third.get("a/b/manifests/one").await;
    assert_eq!(kept.text().await.unwrap(), image(&[b"one"]).to_string());
    assert!(!third.server.log().contains("compared the database"));
}

#[tokio::test]
async fn an_upload_goes_on_at_another_replica() {
    let shared = Shared::start();
    let (mut one, other) = shared.two_at_once();
    let content = noise(20_000_000, 31);
    let digest = Digest::sha256(&content);
    let location = one.begin("a").await;
    let path = location.replace(&one.server.url(), "");
    let first = one.chunk(&location, 0, &content[..9_000_000]);
    assert_eq!(first.send().await.unwrap().status(), StatusCode::ACCEPTED);
    one.server.kill();
    let location = format!("{}{path}", other.server.url());
    assert_eq!(other.offset(&location).await, 9_000_000);
    let second = other.chunk(&location, 9_000_000, &content[9_000_000..]);
    assert_eq!(second.send().await.unwrap().status(), StatusCode::ACCEPTED);
    let closed = other.close(&location, &digest, b"").await;
    assert_eq!(closed.status(), StatusCode::CREATED);
    let pulled = shared.replica().get(&format!("a/blobs/{digest}")).await;
    assert_eq!(pulled.bytes().await.unwrap(), content);
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_of_the_same_through_both_while_both_collect_lose_nothing() {
    let shared = Shared::start();
    let (one, other) = shared.two_at_once();
    let apis = [&one, &other];
    let pushes = join_all((0..24_usize).map(|round| async move {
        let api = apis[round % 2];
        // Every blob and every tag is pushed through both at the same time.
        let layer = noise(50_000, u64::try_from(round / 2).unwrap());
        let digest = api
            .push_image("team/model", &format!("v{}", round / 2), &layer)
            .await;
        let manifest = image(&[&layer]);
        let latest = api.put_manifest("team/model", "latest", &manifest).await;
        assert_eq!(latest.status(), StatusCode::CREATED);
        digest
    }));
    let collections = join_all((0..8_usize).map(|round| async move {
        let response = apis[round % 2]
            .post("_hayloft/collect?grace=60&force")
            .await;
        assert_ne!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        response.text().await.unwrap()
    }));
    let (pushed, _) = tokio::join!(pushes, collections);
    for (round, digest) in pushed.iter().enumerate() {
        for api in apis {
            let tag = format!("team/model/manifests/v{}", round / 2);
            let found = api.head(&tag).await;
            assert_eq!(found.status(), StatusCode::OK, "{tag}");
            assert_eq!(header(&found, "docker-content-digest"), digest.to_string());
        }
        let layer = noise(50_000, u64::try_from(round / 2).unwrap());
        let blob = format!("team/model/blobs/{}", Digest::sha256(&layer));
        assert_eq!(one.get(&blob).await.bytes().await.unwrap(), layer);
    }
    let latest = async |api: &Api| {
        header(
            &api.head("team/model/manifests/latest").await,
            "docker-content-digest",
        )
    };
    assert_eq!(latest(&one).await, latest(&other).await);
    assert_eq!(
        shared.postgres.sql("SELECT count(*) FROM hayloft.intents"),
        "0"
    );
}

#[tokio::test]
async fn a_lost_database_is_filled_again_from_the_bucket_alone() {
    let shared = Shared::start();
    let (mut one, mut other) = shared.two_at_once();
    fill(&one).await;
    for api in [&mut one, &mut other] {
        assert_eq!(api.server.terminate(), Some(0));
    }
    let _ = shared.postgres.sql("DROP SCHEMA hayloft CASCADE");
    let (one, other) = shared.two_at_once();
    holds_everything(&one).await;
    holds_everything(&other).await;
    let compared = [&one, &other].map(|api| api.server.log().contains("compared the database"));
    assert_eq!(
        compared.iter().filter(|compared| **compared).count(),
        1,
        "one compares, the other waits for it"
    );
}
