//! Registries whose index is in PostgreSQL: the main path, moving there and back, and an index
//! that was emptied, put back or mixed up.

use std::path::Path;
use std::time::{Duration, Instant};

use artifact::Digest;
use reqwest::StatusCode;
use tests::{Builder, Postgres, Server, eventually, hayloft, scratch};

use crate::registry_faults::{fill, holds_everything};
use crate::registry_support::{Api, image};

/// A registry in `folder` with its index in `postgres`.
fn registry(folder: &Path, postgres: &Postgres) -> Builder {
    Server::registry()
        .data(folder)
        .argument("--index")
        .argument(&postgres.url())
}

#[tokio::test]
async fn everything_acknowledged_is_in_postgres_after_a_stop_and_after_a_kill() {
    let (folder, postgres) = (scratch(), Postgres::start());
    let mut api = Api::on(registry(folder.path(), &postgres).start());
    fill(&api).await;
    holds_everything(&api).await;
    assert_eq!(api.server.terminate(), Some(0));
    let mut api = Api::on(registry(folder.path(), &postgres).start());
    holds_everything(&api).await;
    api.server.kill();
    let api = Api::on(registry(folder.path(), &postgres).start());
    holds_everything(&api).await;
    assert!(
        !api.server.log().contains("compared the database"),
        "a kill is no reason to read all records: {}",
        api.server.log()
    );
    assert!(!folder.path().join("registry/index").exists());
}

#[tokio::test]
async fn moving_from_sled_to_postgres_and_back_is_a_reindex() {
    let (folder, postgres) = (scratch(), Postgres::start());
    let data = folder.path().to_str().unwrap();
    let mut api = Api::on(Server::registry().data(folder.path()).start());
    fill(&api).await;
    assert_eq!(api.server.terminate(), Some(0));
    let url = postgres.url();
    let reindex = ["registry", "reindex", "--data", data, "--index"];
    let said = hayloft(&[&reindex[..], &[&url]].concat()).succeeded();
    assert!(
        said.contains("1 repositories") && said.contains("2 tags"),
        "{said}"
    );
    let mut api = Api::on(registry(folder.path(), &postgres).start());
    holds_everything(&api).await;
    assert!(!api.server.log().contains("compared"), "it was done before");
    let _ = api.push_image("a/b", "three", b"three").await;
    let _ = api.delete("a/b/manifests/three").await;
    let _ = api.push_image("later", "v1", b"later").await;
    assert_eq!(api.server.terminate(), Some(0));
    let said = hayloft(&[&reindex[..], &["sled"]].concat()).succeeded();
    assert!(said.contains("2 repositories"), "{said}");
    let mut api = Api::on(Server::registry().data(folder.path()).start());
    holds_everything(&api).await;
    let later = api.get("later/manifests/v1").await;
    assert_eq!(later.text().await.unwrap(), image(&[b"later"]).to_string());
    // And without a reindex: a registry that starts with another index than before looks itself.
    assert_eq!(api.server.terminate(), Some(0));
    let api = Api::on(registry(folder.path(), &postgres).start());
    holds_everything(&api).await;
}

#[tokio::test]
async fn a_database_that_was_emptied_or_put_back_loses_nothing() {
    let (folder, postgres) = (scratch(), Postgres::start());
    let mut api = Api::on(registry(folder.path(), &postgres).start());
    let _ = api.push_image("a/b", "one", b"before").await;
    let _ = api.push_image("gone", "v1", b"gone").await;
    let older = postgres.dump();
    fill(&api).await;
    let _ = api.delete("gone/manifests/v1").await;
    for damage in [
        "older",
        "dropped",
        "emptied",
        "half emptied",
        "schema dropped",
    ] {
        assert_eq!(api.server.terminate(), Some(0));
        match damage {
            "older" => postgres.restore(&older),
            "dropped" => drop(postgres.sql("DROP TABLE hayloft.tags, hayloft.state")),
            "emptied" => drop(postgres.sql(
                "TRUNCATE hayloft.repositories, hayloft.manifests, hayloft.manifest_content,
                 hayloft.tags, hayloft.blobs, hayloft.state, hayloft.changes",
            )),
            "half emptied" => {
                drop(
                    postgres.sql("DELETE FROM hayloft.tags; UPDATE hayloft.changes SET count = 0"),
                );
            }
            _ => drop(postgres.sql("DROP SCHEMA hayloft CASCADE")),
        }
        api = Api::on(registry(folder.path(), &postgres).start());
        holds_everything(&api).await;
        let gone = api.head("gone/manifests/v1").await;
        assert_eq!(gone.status(), StatusCode::NOT_FOUND, "{damage}");
    }
}

#[tokio::test]
async fn a_database_that_is_put_back_under_a_running_registry_is_put_in_order() {
    let (folder, postgres) = (scratch(), Postgres::start());
    let api = Api::on(registry(folder.path(), &postgres).start());
    let _ = api.push_image("early", "v1", b"early").await;
    let older = postgres.dump();
    fill(&api).await;
    postgres.restore(&older);
    let found = async || {
        let response = api.get("a/b/manifests/one").await;
        (response.status() == StatusCode::OK).then_some(())
    };
    eventually("what the older copy lacks is found again", 60, found).await;
    eventually("the comparison has ended", 60, async || {
        api.server
            .log()
            .contains("compared the database")
            .then_some(())
    })
    .await;
    holds_everything(&api).await;
    let _ = postgres.sql("DROP SCHEMA hayloft CASCADE");
    eventually("the dropped tables are there again", 60, found).await;
    let pushed = api.put_manifest("a/b", "more", &image(&[b"one"])).await;
    assert_eq!(pushed.status(), StatusCode::CREATED);
}

#[tokio::test]
async fn two_registries_do_not_share_a_database() {
    let (folder, other, postgres) = (scratch(), scratch(), Postgres::start());
    let mut api = Api::on(registry(folder.path(), &postgres).start());
    fill(&api).await;
    let other = other.path().to_str().unwrap();
    let url = postgres.url();
    let refused = hayloft(&["registry", "reindex", "--data", other, "--index", &url]).failed();
    assert!(refused.contains("another registry"), "{refused}");
    holds_everything(&api).await;
    // One that has ended may be followed by another.
    assert_eq!(api.server.terminate(), Some(0));
    let said = hayloft(&["registry", "reindex", "--data", other, "--index", &url]).succeeded();
    assert!(said.contains("0 repositories"), "{said}");
    // And the first, coming back, takes what is its own from its records.
    let api = Api::on(registry(folder.path(), &postgres).start());
    holds_everything(&api).await;
}

#[tokio::test]
async fn damaged_records_are_counted_and_the_rest_is_served() {
    let (folder, postgres) = (scratch(), Postgres::start());
    let data = folder.path().to_str().unwrap();
    let mut api = Api::on(registry(folder.path(), &postgres).start());
    fill(&api).await;
    let _ = api.push_image("a/b", "broken", b"broken").await;
    assert_eq!(api.server.terminate(), Some(0));
    let record = folder.path().join("registry/records/a/b/_tags/broken");
    std::fs::write(record, b"{\"digest\":").unwrap();
    for index in [postgres.url().as_str(), "sled"] {
        let said = hayloft(&["registry", "reindex", "--data", data, "--index", index]).succeeded();
        assert!(said.contains("1 records are damaged"), "{said}");
    }
    let _ = postgres.sql("DROP SCHEMA hayloft CASCADE");
    let api = Api::on(registry(folder.path(), &postgres).start());
    holds_everything(&api).await;
    let broken = api.head("a/b/manifests/broken").await;
    assert_eq!(broken.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn listings_go_on_from_page_to_page() {
    let (folder, postgres) = (scratch(), Postgres::start());
    let api = Api::on(registry(folder.path(), &postgres).start());
    let digest = api.push_image("team/model", "v0", b"layer").await;
    let manifest = image(&[b"layer"]);
    for tag in ["B", "a-1", "a.1", "a_1", "b", "v1"] {
        let pushed = api.put_manifest("team/model", tag, &manifest).await;
        assert_eq!(pushed.status(), StatusCode::CREATED);
    }
    let mut found: Vec<String> = Vec::new();
    loop {
        let last = found.last().map(|last| format!("&last={last}"));
        let path = format!("team/model/tags/list?n=2{}", last.unwrap_or_default());
        let list: serde_json::Value = api.get(&path).await.json().await.unwrap();
        let tags = list["tags"].as_array().unwrap();
        if tags.is_empty() {
            break;
        }
        found.extend(tags.iter().map(|tag| tag.as_str().unwrap().to_owned()));
    }
    // In byte order, as sled has it, whatever the database's own order is.
    assert_eq!(found, ["B", "a-1", "a.1", "a_1", "b", "v0", "v1"]);
    assert_eq!(digest, Digest::sha256(manifest.to_string().as_bytes()));
}

/// The registry's answer takes 4 MiB at most, because a client may hold it to that.
const PAGE_BYTES: usize = 4 * 1024 * 1024;

#[tokio::test]
async fn a_hundred_thousand_referrers_come_in_pages_of_bounded_size() {
    let (folder, postgres) = (scratch(), Postgres::start());
    let api = Api::on(registry(folder.path(), &postgres).start());
    fill(&api).await;
    // As many again of the one that is there, under other digests.
    let _ = postgres.sql(
        "INSERT INTO hayloft.manifests
         SELECT repository, 'sha256:' || lpad(to_hex(number), 64, '0'), subject, record
         FROM hayloft.manifests, generate_series(1, 99999) number WHERE subject IS NOT NULL;
         ANALYZE hayloft.manifests",
    );
    let subject = Digest::sha256(image(&[b"one"]).to_string().as_bytes());
    let first = format!("/v2/a/b/referrers/{subject}");
    for (filter, expected) in [("", 100_000), ("?artifactType=none", 0)] {
        let mut next = Some(format!("{first}{filter}"));
        let (mut found, mut longest) = (0, Duration::ZERO);
        while let Some(path) = next {
            let url = format!("{}{path}", api.server.url());
            let began = Instant::now();
            let page = api.client.get(url).send().await.unwrap();
            assert_eq!(page.status(), StatusCode::OK);
            let link = page.headers().get("link").cloned();
            let body = page.bytes().await.unwrap();
            longest = longest.max(began.elapsed());
            assert!(body.len() <= PAGE_BYTES, "{}", body.len());
            let list: serde_json::Value = serde_json::from_slice(&body).unwrap();
            found += list["manifests"].as_array().unwrap().len();
            next = link.map(|link| {
                let link = link.to_str().unwrap();
                let (path, _) = link.trim_start_matches('<').split_once('>').unwrap();
                path.to_owned()
            });
        }
        assert_eq!(found, expected, "{filter}");
        // A page costs what is on it, not what there is: seconds would be a scan of everything.
        assert!(longest < Duration::from_secs(5), "{filter}: {longest:?}");
    }
}
