//! `/hf` before a mirror of Hugging Face: clients call its repositories by their own names, and get
//! their own commits.

use serde_json::json;
use tests::hub::{Hub as Upstream, Storage};
use tests::{Server, scratch};

use crate::hub_support::{Hub, small_model, story};

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_of_hugging_face_is_there_under_its_own_name() {
    let upstream = Upstream::start().await;
    let model = small_model("Tiny");
    upstream.put_file("Org/Tiny", "config.json", "{}", Storage::Git);
    let commit = upstream.put_file("Org/Tiny", "tiny-Q8_0.gguf", model.clone(), Storage::Lfs);
    let mirror = format!("up=hf+http://{}", upstream.address());
    let server = Server::registry().argument("--upstream").argument(&mirror);
    let hub = Hub::on(server.start());
    let home = scratch();
    let told = story(&hub.endpoint(), home.path(), &["snapshot", "Org/Tiny"]);
    assert_eq!(
        told["files"],
        json!({ "config.json": 2, "tiny-Q8_0.gguf": model.len() })
    );
    let folder = told["folder"].as_str().unwrap();
    assert!(folder.ends_with(&commit), "{folder} is not of {commit}");
    let before = upstream.bytes();
    let again = scratch();
    let told = story(&hub.endpoint(), again.path(), &["snapshot", "Org/Tiny"]);
    assert_eq!(told["files"].as_object().unwrap().len(), 2);
    assert_eq!(upstream.bytes(), before, "nothing is fetched twice");
    // By the name that it has in the registry, by a quantisation, and what is not there at all.
    let file = hub.get("up/Org/Tiny/resolve/main/tiny-Q8_0.gguf").await;
    assert_eq!(file.bytes().await.unwrap(), model);
    let file = hub.get("Org/Tiny/resolve/Q8_0/tiny-Q8_0.gguf").await;
    assert_eq!(file.bytes().await.unwrap(), model);
    let absent = hub.get("api/models/Org/None").await;
    assert_eq!(absent.status(), 404);
    let refs = hub.json("api/models/Org/Tiny/refs").await;
    assert_eq!(refs["branches"][0]["targetCommit"], commit.as_str());
    let pushed = hub
        .post("api/models/up/org/tiny/commit/main", String::new())
        .await;
    assert_eq!(pushed.status(), 405);
    upstream.stop().await;
    let alone = scratch();
    let told = story(&hub.endpoint(), alone.path(), &["snapshot", "Org/Tiny"]);
    assert!(told["folder"].as_str().unwrap().ends_with(&commit));
}
