//! Faults while pushing: nothing half-written is ever visible, nothing acknowledged is lost.

use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use artifact::Digest;
use bytes::Bytes;
use reqwest::StatusCode;
use tests::upstream::noise;
use tests::{Server, eventually, hayloft, run, scratch};

use crate::registry_support::{Api, error_code, fed_body, header, image, raw};

#[tokio::test]
async fn a_wrong_digest_is_refused_in_every_form_and_nothing_becomes_visible() {
    let api = Api::start();
    let digest = Digest::sha256(b"right");
    let single = api.url(&format!("a/blobs/uploads/?digest={digest}"));
    let single = api.client.post(single).body("wrong").send().await.unwrap();
    let location = api.begin("a").await;
    let put = api.close(&location, &digest, b"wrong").await;
    let location = api.begin("a").await;
    let _ = api.chunk(&location, 0, b"wro").send().await.unwrap();
    let chunked = api.close(&location, &digest, b"ng").await;
    for response in [single, put, chunked] {
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        assert_eq!(error_code(response).await, "DIGEST_INVALID");
    }
    assert_eq!(
        api.head(&format!("a/blobs/{digest}")).await.status(),
        StatusCode::NOT_FOUND
    );
    let session = api.client.get(&location).send().await.unwrap();
    assert_eq!(
        session.status(),
        StatusCode::NOT_FOUND,
        "the session has ended"
    );
    assert_eq!(files_below(&api.server.data().join("registry")), 0);
}

/// Blobs and upload data in a registry's folder.
fn files_below(registry: &Path) -> usize {
    let folders = ["blobs/sha256", "blobs/sha512", "uploads", "temporary"];
    let listed = folders.map(|folder| std::fs::read_dir(registry.join(folder)).unwrap().count());
    listed.iter().sum()
}

#[tokio::test]
async fn chunks_out_of_order_are_416_with_the_place_to_go_on_from() {
    let api = Api::start();
    let location = api.begin("a").await;
    let _ = api.chunk(&location, 0, b"hello").send().await.unwrap();
    for start in [6, 0, 3] {
        let refused = api.chunk(&location, start, b"xyz").send().await.unwrap();
        assert_eq!(
            refused.status(),
            StatusCode::RANGE_NOT_SATISFIABLE,
            "{start}"
        );
        assert_eq!(header(&refused, "range"), "0-4");
        assert_eq!(header(&refused, "location"), location);
        assert_eq!(error_code(refused).await, "BLOB_UPLOAD_INVALID");
    }
    let digest = Digest::sha256(b"hello world");
    let late = api.client.put(format!("{location}?digest={digest}"));
    let late = late
        .header("content-range", "9-10")
        .body("ld")
        .send()
        .await
        .unwrap();
    assert_eq!(late.status(), StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(api.offset(&location).await, 5);
    let _ = api.chunk(&location, 5, b" world").send().await.unwrap();
    let response = api.close(&location, &digest, b"").await;
    assert_eq!(response.status(), StatusCode::CREATED);
}

#[tokio::test]
async fn content_ranges_that_make_no_sense_are_refused() {
    let api = Api::start();
    let location = api.begin("a").await;
    for range in [
        "4-0",
        "-1-3",
        "a-b",
        "0-99",
        "0-18446744073709551616",
        "5",
        "bytes=0-4",
    ] {
        let request = api.client.patch(&location).header("content-range", range);
        let response = request.body("hello").send().await.unwrap();
        let status = response.status();
        assert_eq!(status, StatusCode::BAD_REQUEST, "{range}");
        assert_eq!(api.offset(&location).await, 0);
    }
    let (sender, body) = fed_body();
    let request = api
        .client
        .patch(&location)
        .header("content-range", "0-9")
        .body(body);
    let patch = tokio::spawn(request.send());
    sender
        .send(Bytes::from_static(b"longer than ten bytes"))
        .await
        .unwrap();
    drop(sender);
    assert_eq!(
        patch.await.unwrap().unwrap().status(),
        StatusCode::BAD_REQUEST
    );
    assert_eq!(
        api.offset(&location).await,
        0,
        "a chunk of another length leaves nothing"
    );
}

/// The part of an address after the host.
fn path_of(location: &str) -> &str {
    let rest = location.strip_prefix("http://").unwrap();
    &rest[rest.find('/').unwrap()..]
}

#[tokio::test]
async fn a_short_upload_is_not_committed_and_goes_on_from_what_arrived() {
    let api = Api::start();
    let content = noise(1_000_000, 8);
    let digest = Digest::sha256(&content);
    let location = api.begin("a").await;
    for method in ["PATCH", "PUT"] {
        let begin = api.offset(&location).await;
        let mut stream = TcpStream::connect(api.server.address()).unwrap();
        let head = format!(
            "{method} {}?digest={digest} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n",
            path_of(&location),
            content.len() - begin,
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&content[begin..begin + 300_000]).unwrap();
        drop(stream);
        eventually("what arrived is durable", 20, async || {
            (api.offset(&location).await == begin + 300_000).then_some(())
        })
        .await;
        assert_eq!(
            api.head(&format!("a/blobs/{digest}")).await.status(),
            StatusCode::NOT_FOUND
        );
    }
    let response = api.close(&location, &digest, &content[600_000..]).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    let pulled = api.get(&format!("a/blobs/{digest}")).await;
    assert_eq!(pulled.bytes().await.unwrap(), content);
}

#[tokio::test]
async fn bytes_beyond_content_length_never_reach_the_blob() {
    let api = Api::start();
    let digest = Digest::sha256(b"hello");
    let location = api.begin("a").await;
    let request = format!(
        "PUT {}?digest={digest} HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello, and more\r\n\r\n",
        path_of(&location)
    );
    let answer = raw(api.server.address(), request.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    assert!(
        answer.contains("HTTP/1.1 400"),
        "what follows is no request: {answer}"
    );
    let pulled = api.get(&format!("a/blobs/{digest}")).await;
    assert_eq!(pulled.text().await.unwrap(), "hello");
}

#[tokio::test]
async fn of_two_writers_to_one_session_one_wins() {
    let api = Api::start();
    let location = api.begin("a").await;
    let (sender, body) = fed_body();
    let first = tokio::spawn(api.client.patch(&location).body(body).send());
    let content = noise(70_000_000, 14);
    for piece in content.chunks(1_000_000) {
        sender.send(Bytes::copy_from_slice(piece)).await.unwrap();
    }
    eventually("the first writer has the session", 60, async || {
        (api.offset(&location).await > 0).then_some(())
    })
    .await;
    let second = api.chunk(&location, 0, b"second").send().await.unwrap();
    assert_eq!(second.status(), StatusCode::RANGE_NOT_SATISFIABLE);
    drop(sender);
    assert_eq!(first.await.unwrap().unwrap().status(), StatusCode::ACCEPTED);
    let digest = Digest::sha256(&content);
    assert_eq!(
        api.close(&location, &digest, b"").await.status(),
        StatusCode::CREATED
    );
}

#[tokio::test]
async fn two_pushes_of_one_blob_leave_one_whole_blob() {
    let api = Api::start();
    let content = noise(2_000_000, 9);
    let digest = Digest::sha256(&content);
    let (first, second) = (api.begin("a").await, api.begin("a").await);
    let (left, right) = tokio::join!(
        api.close(&first, &digest, &content),
        api.close(&second, &digest, &content)
    );
    assert_eq!(
        (left.status(), right.status()),
        (StatusCode::CREATED, StatusCode::CREATED)
    );
    let pulled = api.get(&format!("a/blobs/{digest}")).await;
    assert_eq!(pulled.bytes().await.unwrap(), content);
    assert_eq!(files_below(&api.server.data().join("registry")), 1);
}

#[tokio::test]
async fn a_push_killed_in_the_middle_goes_on_after_the_restart() {
    let folder = scratch();
    let mut api = Api::on(Server::registry().data(folder.path()).start());
    let _ = api.push_image("a", "kept", b"layer").await;
    let content = noise(120_000_000, 10);
    let digest = Digest::sha256(&content);
    let location = api.begin("a").await;
    let (sender, body) = fed_body();
    let patch = tokio::spawn(api.client.patch(&location).body(body).send());
    for piece in content[..100_000_000].chunks(1_000_000) {
        sender.send(Bytes::copy_from_slice(piece)).await.unwrap();
    }
    eventually("some of it is durable", 60, async || {
        (api.offset(&location).await > 0).then_some(())
    })
    .await;
    api.server.kill();
    assert!(patch.await.unwrap().is_err());
    drop(sender);

    let api = Api::on(Server::registry().data(folder.path()).start());
    let location = format!("{}{}", api.server.url(), path_of(&location));
    let begin = api.offset(&location).await;
    assert!(begin > 0 && begin <= 100_000_000, "{begin}");
    assert_eq!(
        api.head(&format!("a/blobs/{digest}")).await.status(),
        StatusCode::NOT_FOUND
    );
    let rest = api
        .chunk(&location, begin, &content[begin..])
        .send()
        .await
        .unwrap();
    assert_eq!(rest.status(), StatusCode::ACCEPTED);
    let response = api.close(&location, &digest, b"").await;
    assert_eq!(response.status(), StatusCode::CREATED);
    let pulled = api
        .get(&format!("a/blobs/{digest}"))
        .await
        .bytes()
        .await
        .unwrap();
    assert_eq!(Digest::sha256(&pulled), digest);
    let kept = api.get("a/manifests/kept").await;
    assert_eq!(kept.text().await.unwrap(), image(&[b"layer"]).to_string());
}

#[tokio::test]
async fn a_finished_chunk_is_not_lost_by_kill_9() {
    let folder = scratch();
    let mut api = Api::on(Server::registry().data(folder.path()).start());
    let location = api.begin("a").await;
    let _ = api.chunk(&location, 0, b"hello").send().await.unwrap();
    api.server.kill();
    let api = Api::on(Server::registry().data(folder.path()).start());
    let location = format!("{}{}", api.server.url(), path_of(&location));
    assert_eq!(api.offset(&location).await, 5);
    let digest = Digest::sha256(b"hello world");
    let response = api.close(&location, &digest, b" world").await;
    assert_eq!(response.status(), StatusCode::CREATED);
}

/// Everything a registry answers about what [`fill`] put there.
pub(crate) async fn holds_everything(api: &Api) {
    for tag in ["one", "two"] {
        let response = api.get(&format!("a/b/manifests/{tag}")).await;
        let layer = tag.as_bytes();
        assert_eq!(response.text().await.unwrap(), image(&[layer]).to_string());
        let blob = Digest::sha256(layer);
        let response = api.get(&format!("a/b/blobs/{blob}")).await;
        assert_eq!(response.bytes().await.unwrap(), layer);
    }
    let response = api.head("a/b/manifests/gone").await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    let tags: serde_json::Value = api.get("a/b/tags/list").await.json().await.unwrap();
    assert_eq!(tags["tags"], serde_json::json!(["one", "two"]));
    let subject = Digest::sha256(image(&[b"one"]).to_string().as_bytes());
    let list = api.get(&format!("a/b/referrers/{subject}")).await;
    let list: serde_json::Value = list.json().await.unwrap();
    assert_eq!(list["manifests"].as_array().unwrap().len(), 1);
}

/// Pushes two images, a referrer, and a tag that is deleted again.
pub(crate) async fn fill(api: &Api) {
    for tag in ["one", "two", "gone"] {
        let _ = api.push_image("a/b", tag, tag.as_bytes()).await;
    }
    let subject = image(&[b"one"]).to_string();
    let mut referrer = image(&[b"two"]);
    referrer["subject"] = crate::registry_support::descriptor(
        crate::registry_support::OCI_MANIFEST,
        subject.as_bytes(),
    );
    let digest = Digest::sha256(referrer.to_string().as_bytes());
    let pushed = api
        .put_manifest("a/b", &digest.to_string(), &referrer)
        .await;
    assert_eq!(pushed.status(), StatusCode::CREATED);
    let _ = api.delete("a/b/manifests/gone").await;
}

#[tokio::test]
async fn everything_acknowledged_is_there_after_a_stop_and_after_a_kill() {
    let folder = scratch();
    let mut api = Api::on(Server::registry().data(folder.path()).start());
    fill(&api).await;
    holds_everything(&api).await;
    assert_eq!(api.server.terminate(), Some(0));
    let mut api = Api::on(Server::registry().data(folder.path()).start());
    holds_everything(&api).await;
    api.server.kill();
    let api = Api::on(Server::registry().data(folder.path()).start());
    holds_everything(&api).await;
}

#[tokio::test]
async fn a_lost_or_damaged_index_loses_nothing() {
    let folder = scratch();
    let registry = folder.path().join("registry");
    let mut api = Api::on(Server::registry().data(folder.path()).start());
    fill(&api).await;
    let older = scratch();
    copy(&registry.join("index"), older.path());
    assert_eq!(api.server.terminate(), Some(0));
    for damage in ["deleted", "truncated", "flipped", "flipped once", "older"] {
        let index = registry.join("index");
        match damage {
            "deleted" => std::fs::remove_dir_all(&index).unwrap(),
            "truncated" => std::fs::write(index.join("db"), b"").unwrap(),
            "older" => {
                std::fs::remove_dir_all(&index).unwrap();
                copy(&older.path().join("index"), &registry);
            }
            "flipped once" => {
                // At several places, and each is put right before the next.
                let whole = std::fs::read(index.join("db")).unwrap();
                for part in 0..4 {
                    let mut bytes = whole.clone();
                    bytes[whole.len() * part / 4 + 40] ^= 0x10;
                    std::fs::write(index.join("db"), bytes).unwrap();
                    let api = Api::on(Server::registry().data(folder.path()).start());
                    holds_everything(&api).await;
                }
            }
            _ => {
                let mut bytes = std::fs::read(index.join("db")).unwrap();
                for byte in bytes.iter_mut().step_by(100) {
                    *byte ^= 0x55;
                }
                std::fs::write(index.join("db"), bytes).unwrap();
            }
        }
        let mut api = Api::on(Server::registry().data(folder.path()).start());
        holds_everything(&api).await;
        assert_eq!(api.server.terminate(), Some(0), "{damage}");
    }
}

fn copy(from: &Path, to: &Path) {
    let copied = run(Command::new("cp").arg("-r").arg(from).arg(to));
    let _ = copied.succeeded();
}

#[tokio::test]
async fn reindex_rebuilds_the_index_and_refuses_while_a_registry_runs() {
    let folder = scratch();
    let data = folder.path().to_str().unwrap();
    let mut api = Api::on(Server::registry().data(folder.path()).start());
    fill(&api).await;
    let refused = hayloft(&["registry", "reindex", "--data", data]).failed();
    assert!(refused.contains("in use"), "{refused}");
    assert_eq!(api.server.terminate(), Some(0));
    std::fs::remove_dir_all(folder.path().join("registry/index")).unwrap();
    let said = hayloft(&["registry", "reindex", "--data", data]).succeeded();
    assert!(
        said.contains("1 repositories") && said.contains("2 tags"),
        "{said}"
    );
    let api = Api::on(Server::registry().data(folder.path()).start());
    holds_everything(&api).await;
}

#[tokio::test]
async fn two_registries_cannot_use_one_folder() {
    let folder = scratch();
    let _first = Server::registry().data(folder.path()).start();
    let data = folder.path().to_str().unwrap();
    let second = hayloft(&["registry", "--data", data, "--listen", "127.0.0.1:0"]).failed();
    assert!(second.contains("in use"), "{second}");
}
