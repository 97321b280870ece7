//! What `/hf` answers to requests for what is not there, and to requests meant to harm.

use artifact::Digest;
use serde_json::json;
use tests::upstream::noise;

use crate::hub_support::Hub;
use crate::registry_support::{header, raw_get};

const RAW: &str = "application/vnd.cncf.model.weight.v1.raw";
const CONFIG: &str = "application/vnd.cncf.model.config.v1+json";

async fn hub_with(files: &[(&str, &[u8])]) -> Hub {
    let hub = Hub::start();
    let layers: Vec<(&str, &[u8], Option<&str>)> = files
        .iter()
        .map(|(path, content)| (RAW, *content, Some(*path)))
        .collect();
    hub.push_layers("a/b", "main", CONFIG, &layers).await;
    hub
}

#[tokio::test]
async fn what_is_not_there_has_the_code_that_clients_go_by() {
    let hub = hub_with(&[("dir/x.bin", b"content")]).await;
    let commit = hub.json("api/models/a/b").await["sha"].clone();
    let commit = commit.as_str().unwrap();
    let zeros = "0".repeat(40);
    let long = "r".repeat(3_000);
    for (path, code) in [
        ("api/models/no/such", "RepoNotFound"),
        ("no/such/resolve/main/x", "RepoNotFound"),
        ("a--b/c..d/resolve/main/x", "RepoNotFound"),
        ("api/models/a/b/revision/none", "RevisionNotFound"),
        (&format!("api/models/a/b/tree/{zeros}"), "RevisionNotFound"),
        (
            &format!("a/b/resolve/{zeros}/dir/x.bin"),
            "RevisionNotFound",
        ),
        ("a/b/resolve/refs%2Fpr%2F1/dir/x.bin", "RevisionNotFound"),
        (&format!("a/b/resolve/{long}/x"), "RevisionNotFound"),
        ("a/b/resolve/main/none", "EntryNotFound"),
        ("a/b/resolve/main/dir", "EntryNotFound"),
        ("a/b/resolve/main/dir%2F..%2Fdir%2Fx.bin", "EntryNotFound"),
        ("a/b/resolve/main/%00", "EntryNotFound"),
        ("api/models/a/b/tree/main/none", "EntryNotFound"),
    ] {
        for response in [hub.get(path).await, hub.head(path).await] {
            assert_eq!(response.status(), 404, "{path}");
            assert_eq!(header(&response, "x-error-code"), code, "{path}");
            assert!(!header(&response, "x-error-message").is_empty());
            if code == "EntryNotFound" {
                assert_eq!(header(&response, "x-repo-commit"), commit, "{path}");
            }
        }
    }
    // A path that this client would clean up before it is sent.
    let address = hub.api.server.address();
    let (status, answer) = raw_get(address, "/hf/a/b/resolve/main/../../../x");
    assert_eq!(status, 404, "{answer}");
    let (status, answer) = raw_get(address, "/hf/a/b/resolve/main/%ff");
    assert_eq!(status, 404, "{answer}");
    let encoded = hub.get("a/b/resolve/main/dir%2Fx.bin").await;
    assert_eq!(encoded.status(), 200, "a slash may be encoded");
}

#[tokio::test]
async fn a_file_is_served_whole_in_ranges_and_not_again() {
    let content = noise(300_000, 74);
    let hub = hub_with(&[("x.bin", &content), ("empty", b"")]).await;
    let etag = format!("\"{}\"", Digest::sha256(&content).hex());
    let commit = hub.json("api/models/a/b").await["sha"].clone();
    for branch in ["main", commit.as_str().unwrap()] {
        let path = format!("a/b/resolve/{branch}/x.bin");
        for response in [hub.head(&path).await, hub.get(&path).await] {
            assert_eq!(response.status(), 200);
            assert_eq!(header(&response, "x-repo-commit"), commit.as_str().unwrap());
            assert_eq!(header(&response, "etag"), etag);
            assert_eq!(header(&response, "x-linked-etag"), etag);
            assert_eq!(header(&response, "x-linked-size"), "300000");
            assert_eq!(header(&response, "content-length"), "300000");
            assert_eq!(header(&response, "accept-ranges"), "bytes");
            assert!(header(&response, "content-disposition").contains("x.bin"));
            let unwanted = ["location", "link", "x-xet-hash", "x-xet-refresh-route"];
            let none = unwanted
                .iter()
                .all(|name| !response.headers().contains_key(*name));
            assert!(none, "{:?}", response.headers());
        }
    }
    let get = |name: &'static str, value: String| {
        let request = hub.request(reqwest::Method::GET, "a/b/resolve/main/x.bin");
        request.header(name, value).send()
    };
    let part = get("range", "bytes=1000-1999".to_owned()).await.unwrap();
    assert_eq!(part.status(), 206);
    assert_eq!(header(&part, "content-range"), "bytes 1000-1999/300000");
    assert_eq!(part.bytes().await.unwrap(), &content[1000..2000]);
    let beyond = get("range", "bytes=300000-".to_owned()).await.unwrap();
    assert_eq!(beyond.status(), 416);
    assert_eq!(header(&beyond, "content-range"), "bytes */300000");
    let known = get("if-none-match", etag.clone()).await.unwrap();
    assert_eq!(known.status(), 304);
    assert_eq!(header(&known, "etag"), etag);
    let empty = hub.get("a/b/raw/main/empty").await;
    assert_eq!(empty.status(), 200);
    assert_eq!(empty.bytes().await.unwrap(), "");
}

#[tokio::test]
async fn long_lists_come_in_pages() {
    let names: Vec<String> = (0..1_200)
        .map(|number| format!("d/{number:04}.txt"))
        .collect();
    let files: Vec<(&str, &[u8])> = names
        .iter()
        .map(|name| (name.as_str(), b"same".as_slice()))
        .collect();
    let hub = hub_with(&files).await;
    let first = hub.get("api/models/a/b/tree/main?recursive=true").await;
    let link = header(&first, "link");
    let first: serde_json::Value = first.json().await.unwrap();
    assert_eq!(first.as_array().unwrap().len(), 1_000);
    let next = link.split(['<', '>']).nth(1).unwrap();
    let second = hub.api.client.get(next).send().await.unwrap();
    assert!(!second.headers().contains_key("link"));
    let second: serde_json::Value = second.json().await.unwrap();
    // The folder is an entry, too.
    assert_eq!(second.as_array().unwrap().len(), 201);
    for name in ["one", "two", "three"] {
        hub.push(&format!("team/{name}:latest"));
    }
    let page = hub.get("api/models?author=team&limit=2").await;
    let link = header(&page, "link");
    let ids = |page: &serde_json::Value| -> Vec<String> {
        let models = page.as_array().unwrap().iter();
        models
            .map(|model| model["id"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(ids(&page.json().await.unwrap()), ["team/one", "team/three"]);
    let next = link.split(['<', '>']).nth(1).unwrap();
    let rest = hub.api.client.get(next).send().await.unwrap();
    assert_eq!(ids(&rest.json().await.unwrap()), ["team/two"]);
    let found = hub.json("api/models?search=THREE").await;
    assert_eq!(ids(&found), ["team/three"]);
    assert_eq!(hub.get("api/models?limit=x").await.status(), 400);
}

#[tokio::test]
async fn main_is_the_tag_else_latest_else_all_tags_together() {
    let hub = Hub::start();
    let push = |tag: &'static str, content: &'static [u8]| {
        let layers = [(RAW, content, Some("m.bin"))];
        let hub = &hub;
        async move { hub.push_layers("a/b", tag, CONFIG, &layers).await }
    };
    let files = || async {
        let info = hub.json("api/models/a/b").await;
        let siblings = info["siblings"].as_array().unwrap().clone();
        let name = |file: &serde_json::Value| file["rfilename"].as_str().unwrap().to_owned();
        siblings.iter().map(name).collect::<Vec<_>>()
    };
    push("q4", b"four").await;
    assert_eq!(files().await, ["m.bin"]);
    push("q8", b"eight").await;
    assert_eq!(files().await, ["m.bin", "m-q8.bin"]);
    let eight = hub.get("a/b/resolve/main/m-q8.bin").await;
    assert_eq!(eight.bytes().await.unwrap(), "eight");
    push("latest", b"last").await;
    assert_eq!(files().await, ["m.bin"]);
    let last = hub.get("a/b/resolve/main/m.bin").await;
    assert_eq!(last.bytes().await.unwrap(), "last");
    push("main", b"main").await;
    let main = hub.get("a/b/resolve/refs%2Fheads%2Fmain/m.bin").await;
    assert_eq!(main.bytes().await.unwrap(), "main");
    let four = hub.get("a/b/resolve/q4/m.bin").await;
    assert_eq!(four.bytes().await.unwrap(), "four");
}

#[tokio::test]
async fn names_of_one_and_of_many_segments_are_reached() {
    let hub = Hub::start();
    for name in ["single", "a/b/c/d"] {
        let layers = [(RAW, b"x".as_slice(), Some("x"))];
        hub.push_layers(name, "main", CONFIG, &layers).await;
        let file = hub.get(&format!("{name}/resolve/main/x")).await;
        assert_eq!(file.bytes().await.unwrap(), "x", "{name}");
        let info = hub.json(&format!("api/models/{name}")).await;
        assert_eq!(info["id"], json!(name));
    }
}
