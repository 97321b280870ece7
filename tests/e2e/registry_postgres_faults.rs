//! PostgreSQL stopped, killed, unreachable, read-only or at odds while a registry runs on it.

use artifact::Digest;
use reqwest::StatusCode;
use tests::upstream::noise;
use tests::{Builder, Postgres, Server, SmallDisk, eventually, hayloft_command, run, scratch};

use crate::registry_faults::{fill, holds_everything};
use crate::registry_support::{Api, error_code, header, image};

fn registry(folder: &tempfile::TempDir, postgres: &Postgres) -> Builder {
    Server::registry()
        .data(folder.path())
        .argument("--index")
        .argument(&postgres.url())
}

#[tokio::test]
async fn a_push_goes_on_after_postgres_was_killed_in_the_middle_of_it() {
    let (folder, mut postgres) = (scratch(), Postgres::start_with(&["fsync=on"]));
    let api = Api::on(registry(&folder, &postgres).start());
    fill(&api).await;
    let content = noise(3_000_000, 21);
    let digest = Digest::sha256(&content);
    let location = api.begin("a/b").await;
    let first = api.chunk(&location, 0, &content[..1_000_000]);
    assert_eq!(first.send().await.unwrap().status(), StatusCode::ACCEPTED);
    postgres.kill();
    // Bytes need no database; a commit does.
    let second = api.chunk(&location, 1_000_000, &content[1_000_000..]);
    assert_eq!(second.send().await.unwrap().status(), StatusCode::ACCEPTED);
    let refused = api.close(&location, &digest, b"").await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(header(&refused, "retry-after"), "5");
    for path in [
        format!("a/b/blobs/{digest}"),
        "a/b/manifests/one".to_owned(),
    ] {
        let refused = api.get(&path).await;
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE, "{path}");
        assert_eq!(error_code(refused).await, "UNKNOWN");
    }
    let ready = format!("{}/readyz", api.server.url());
    let ready = async || api.client.get(&ready).send().await.unwrap().status();
    assert_eq!(ready().await, StatusCode::SERVICE_UNAVAILABLE);
    postgres.restart();
    let closed = eventually("the push goes on by itself", 30, async || {
        let response = api.close(&location, &digest, b"").await;
        (response.status() == StatusCode::CREATED).then_some(())
    });
    closed.await;
    // Its answer is kept for some seconds.
    let is_ready = eventually("the registry is ready again", 30, async || {
        (ready().await == StatusCode::OK).then_some(())
    });
    is_ready.await;
    holds_everything(&api).await;
    let pulled = api.get(&format!("a/b/blobs/{digest}")).await;
    assert_eq!(pulled.bytes().await.unwrap(), content);
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_during_restarts_of_postgres_are_whole_or_refused() {
    let (folder, mut postgres) = (scratch(), Postgres::start_with(&["fsync=on"]));
    let api = Api::on(registry(&folder, &postgres).start());
    let _ = api.push_image("a", "first", b"layer").await;
    let manifest = image(&[b"layer"]);
    let (client, url) = (api.client.clone(), api.url("a/manifests/"));
    let text = manifest.to_string();
    let pushing = tokio::spawn(async move {
        let mut acknowledged = Vec::new();
        for round in 0..400 {
            let tag = format!("v{round}");
            let put = client.put(format!("{url}{tag}")).body(text.clone());
            let put = put.header("content-type", crate::registry_support::OCI_MANIFEST);
            match put.send().await.unwrap().status() {
                StatusCode::CREATED => acknowledged.push(tag),
                StatusCode::SERVICE_UNAVAILABLE => {}
                other => panic!("{other}"),
            }
        }
        acknowledged
    });
    let mut restarts = 0;
    while !pushing.is_finished() && restarts < 4 {
        if restarts % 2 == 0 {
            postgres.kill();
        }
        tokio::task::block_in_place(|| postgres.restart());
        restarts += 1;
    }
    let acknowledged = pushing.await.unwrap();
    assert!(!acknowledged.is_empty());
    for tag in &acknowledged {
        let kept = api.head(&format!("a/manifests/{tag}")).await;
        assert_eq!(kept.status(), StatusCode::OK, "{tag} was acknowledged");
    }
    // Nothing is left half-way, and the index is what the records say.
    eventually("all that was intended is settled", 30, async || {
        (postgres.sql("SELECT count(*) FROM hayloft.intents") == "0").then_some(())
    })
    .await;
    let records = folder.path().join("registry/records/a/_tags");
    let records = std::fs::read_dir(records).unwrap().count().to_string();
    assert_eq!(postgres.sql("SELECT count(*) FROM hayloft.tags"), records);
}

#[tokio::test]
async fn a_change_that_the_index_did_not_follow_is_settled_without_a_further_push() {
    let (folder, postgres) = (scratch(), Postgres::start());
    let api = Api::on(registry(&folder, &postgres).start());
    let _ = api.push_image("a", "first", b"layer").await;
    // From here on every record is written, and the index cannot follow.
    let _ = postgres.sql("ALTER TABLE hayloft.tags RENAME TO away");
    let refused = api.put_manifest("a", "second", &image(&[b"layer"])).await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(
        folder
            .path()
            .join("registry/records/a/_tags/second")
            .exists()
    );
    let _ = postgres.sql("ALTER TABLE hayloft.away RENAME TO tags");
    eventually("the index follows the record", 30, async || {
        let response = api.head("a/manifests/second").await;
        (response.status() == StatusCode::OK).then_some(())
    })
    .await;
    assert_eq!(postgres.sql("SELECT count(*) FROM hayloft.intents"), "0");
}

#[tokio::test]
async fn a_read_only_database_serves_pulls_and_refuses_pushes() {
    let (folder, postgres) = (scratch(), Postgres::start());
    let api = Api::on(registry(&folder, &postgres).start());
    fill(&api).await;
    let _ = postgres.sql("ALTER SYSTEM SET default_transaction_read_only = on");
    let _ = postgres.sql("SELECT pg_reload_conf()");
    let refused = eventually("the database is read-only", 20, async || {
        let response = api.put_manifest("a/b", "two", &image(&[b"two"])).await;
        (response.status() != StatusCode::CREATED).then_some(response)
    })
    .await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(header(&refused, "retry-after"), "5");
    holds_everything(&api).await;
    let _ = postgres.sql("ALTER SYSTEM RESET default_transaction_read_only");
    let _ = postgres.sql("SELECT pg_reload_conf()");
    eventually("pushes work again", 20, async || {
        let response = api.put_manifest("a/b", "two", &image(&[b"two"])).await;
        (response.status() == StatusCode::CREATED).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_database_whose_disk_is_full_refuses_pushes_and_goes_on_when_there_is_room() {
    let disk = SmallDisk::mount(256);
    let (folder, postgres) = (scratch(), Postgres::start_on(&disk));
    let api = Api::on(registry(&folder, &postgres).start());
    fill(&api).await;
    disk.fill();
    let mut acknowledged = Vec::new();
    let refused = loop {
        // There is some room left within the pages that the tables have.
        assert!(acknowledged.len() < 2000, "the disk does not fill up");
        let tag = format!("v{}", acknowledged.len());
        let response = api.put_manifest("a/b", &tag, &image(&[b"two"])).await;
        if response.status() != StatusCode::CREATED {
            break response;
        }
        acknowledged.push(tag);
    };
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(header(&refused, "retry-after"), "5");
    let pulled = api.get("a/b/manifests/one").await;
    assert_eq!(pulled.text().await.unwrap(), image(&[b"one"]).to_string());
    disk.free();
    eventually("pushes work again", 30, async || {
        let response = api.put_manifest("a/b", "later", &image(&[b"two"])).await;
        (response.status() == StatusCode::CREATED).then_some(())
    })
    .await;
    for tag in &acknowledged {
        let kept = api.head(&format!("a/b/manifests/{tag}")).await;
        assert_eq!(kept.status(), StatusCode::OK, "{tag} was acknowledged");
    }
}

#[tokio::test]
async fn a_database_that_cannot_be_reached_is_told_without_its_password() {
    let folder = scratch();
    let url = "postgres://hayloft:geheim@127.0.0.1:1/hayloft";
    let mut reindex = hayloft_command(["registry", "reindex", "--data"]);
    reindex.arg(folder.path()).env("HAYLOFT_INDEX", url);
    let told = run(&mut reindex);
    let all = format!("{}{}", told.stdout, told.stderr);
    assert!(!all.contains("geheim"), "{all}");
    let told = told.failed();
    assert!(told.contains("database"), "{told}");
}
