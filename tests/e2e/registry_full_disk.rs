//! A full disk: pushes are refused, pulls go on, and with room all is well again.

use std::cell::Cell;

use artifact::Digest;
use reqwest::StatusCode;
use serde_json::Value;
use tests::upstream::noise;
use tests::{Server, SmallDisk, eventually};

use crate::registry_dialects::{MODELFILE, as_ollama, push};
use crate::registry_support::{Api, header, image};

#[tokio::test]
async fn a_full_disk_refuses_the_push_keeps_the_rest_and_lets_it_go_on_later() {
    let disk = SmallDisk::mount(48);
    let data = disk.path();
    let api = Api::on(Server::registry().data(data).start());
    let _ = api.push_image("a", "kept", b"layer").await;
    let filler = data.join("filler");
    std::fs::write(&filler, vec![0; 30_000_000]).unwrap();
    let content = noise(30_000_000, 11);
    let digest = Digest::sha256(&content);
    let location = api.begin("a").await;
    let first = api
        .chunk(&location, 0, &content[..4_000_000])
        .send()
        .await
        .unwrap();
    assert_eq!(first.status(), StatusCode::ACCEPTED);
    let full = api
        .chunk(&location, 4_000_000, &content[4_000_000..])
        .send()
        .await
        .unwrap();
    assert_eq!(full.status(), StatusCode::INSUFFICIENT_STORAGE);
    let said = full.text().await.unwrap();
    assert!(said.contains("storage is full"), "{said}");
    assert_eq!(api.offset(&location).await, 4_000_000);
    assert_eq!(
        api.head(&format!("a/blobs/{digest}")).await.status(),
        StatusCode::NOT_FOUND
    );
    let kept = api.get("a/manifests/kept").await;
    assert_eq!(kept.text().await.unwrap(), image(&[b"layer"]).to_string());
    let monolithic = api.begin("a").await;
    let refused = api.close(&monolithic, &digest, &content).await;
    assert_eq!(refused.status(), StatusCode::INSUFFICIENT_STORAGE);
    std::fs::remove_file(&filler).unwrap();
    let rest = api
        .chunk(&location, 4_000_000, &content[4_000_000..])
        .send()
        .await
        .unwrap();
    assert_eq!(rest.status(), StatusCode::ACCEPTED);
    let response = api.close(&location, &digest, b"").await;
    assert_eq!(response.status(), StatusCode::CREATED);
}

#[tokio::test]
async fn a_full_disk_does_not_keep_a_client_from_its_own_dialect() {
    let disk = SmallDisk::mount(32);
    let api = Api::on(Server::registry().data(disk.path()).start());
    push(&api, "team/hay:1", Some(MODELFILE));
    disk.fill();
    let url = api.url("team/hay/manifests/1");
    let pulled = as_ollama(api.client.get(&url)).send().await.unwrap();
    let pulled: Value = pulled.error_for_status().unwrap().json().await.unwrap();
    let mut blobs: Vec<_> = pulled["layers"].as_array().unwrap().iter().collect();
    blobs.push(&pulled["config"]);
    for blob in blobs {
        let digest = blob["digest"].as_str().unwrap();
        let content = api.get(&format!("team/hay/blobs/{digest}")).await;
        let content = content.bytes().await.unwrap();
        assert_eq!(Digest::sha256(&content).to_string(), digest);
    }
    // With room again it is stored, and what is said to be here can be relied on.
    disk.free();
    let config = pulled["config"]["digest"].as_str().unwrap();
    let head = api.head(&format!("team/hay/blobs/{config}")).await;
    assert_eq!(head.status(), StatusCode::OK);
    let stored = disk.path().join("registry/blobs/sha256");
    let stored = stored.join(config.trim_start_matches("sha256:"));
    assert!(stored.is_file());
    let again = as_ollama(api.client.get(&url)).send().await.unwrap();
    let digest = header(&again, "docker-content-digest");
    let listed = api.get(&format!("team/hay/manifests/{digest}")).await;
    assert_eq!(listed.json::<Value>().await.unwrap(), pulled);
}

#[tokio::test]
async fn a_disk_without_room_for_records_refuses_the_manifest() {
    let disk = SmallDisk::mount(16);
    let data = disk.path();
    let api = Api::on(Server::registry().data(data).start());
    let digest = api.push_image("a", "kept", b"layer").await;
    let manifest = image(&[b"layer", b"layer"]);
    disk.fill();
    let refused = api.put_manifest("a", "new", &manifest).await;
    assert_eq!(refused.status(), StatusCode::INSUFFICIENT_STORAGE);
    assert_eq!(
        api.head("a/manifests/new").await.status(),
        StatusCode::NOT_FOUND
    );
    let kept = api.head(&format!("a/manifests/{digest}")).await;
    assert_eq!(kept.status(), StatusCode::OK);
    disk.free();
    let accepted = api.put_manifest("a", "new", &manifest).await;
    assert_eq!(accepted.status(), StatusCode::CREATED);
}

/// sled gives up for good when it cannot write; the registry must not.
#[tokio::test]
async fn an_index_that_met_a_full_disk_works_again_when_there_is_room() {
    let disk = SmallDisk::mount(16);
    let data = disk.path();
    let mut api = Api::on(Server::registry().data(data).start());
    let kept = api.push_image("a", "kept", b"layer").await;
    let manifest = image(&[b"layer"]);
    for number in 0..TAGS {
        let put = api.put_manifest("a", &tag(number), &manifest).await;
        assert_eq!(put.status(), StatusCode::CREATED);
    }
    disk.fill();
    // Removing a record gives room, which is taken again; to note it, the index needs some.
    let next = Cell::new(0);
    let refused = eventually("the index meets the full disk", 30, async || {
        let number = next.replace(next.get() + 1);
        assert!(number < TAGS, "the index never needed room");
        let deleted = api.delete(&format!("a/manifests/{}", tag(number))).await;
        disk.fill();
        match deleted.status() {
            StatusCode::ACCEPTED => None,
            StatusCode::INSUFFICIENT_STORAGE => Some(number),
            other => panic!("{other}"),
        }
    })
    .await;
    let pulled = api.get(&format!("a/manifests/{kept}")).await;
    assert_eq!(pulled.status(), StatusCode::OK);
    disk.free();
    // Whether the refused one took effect, nobody was promised.
    let deleted = api
        .delete(&format!("a/manifests/{}", tag(refused)))
        .await
        .status();
    assert!(
        [StatusCode::ACCEPTED, StatusCode::NOT_FOUND].contains(&deleted),
        "{deleted}"
    );
    let log = api.server.log();
    assert!(log.contains("made anew from the records"), "{log}");
    api.push_image("a", "new", b"new").await;
    let mut expected = vec!["kept".to_owned(), "new".to_owned()];
    expected.extend((refused + 1..TAGS).map(tag));
    let listed = async |api: &Api| -> Vec<String> {
        let list: Value = api.get("a/tags/list").await.json().await.unwrap();
        serde_json::from_value(list["tags"].clone()).unwrap()
    };
    assert_eq!(listed(&api).await, expected);
    assert_eq!(api.server.terminate(), Some(0));
    let api = Api::on(Server::registry().data(data).start());
    assert_eq!(listed(&api).await, expected);
    assert!(!data.join("registry/index-remade").exists());
}

/// Enough that deleting them all fills several pages of the index.
const TAGS: usize = 300;

fn tag(number: usize) -> String {
    format!("tag-{number:03}")
}
