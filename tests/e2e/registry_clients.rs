//! Real clients of a registry: skopeo in both directions, curl with ranges.

use std::path::Path;
use std::process::Command;

use artifact::Digest;
use serde_json::Value;
use tests::upstream::noise;
use tests::{run, scratch};

use crate::registry_support::{Api, header};

fn skopeo(arguments: &[&str]) -> String {
    run(Command::new("skopeo").args(arguments)).succeeded()
}

/// An image of one layer as skopeo's `dir:` transport keeps it.
pub(crate) fn image_folder(folder: &Path, layer: &[u8]) {
    let config =
        br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
    let config_digest = Digest::sha256(config);
    let layer_digest = Digest::sha256(layer);
    std::fs::write(folder.join(config_digest.hex()), config).unwrap();
    std::fs::write(folder.join(layer_digest.hex()), layer).unwrap();
    std::fs::write(folder.join("version"), "Directory Transport Version: 1.1\n").unwrap();
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": crate::registry_support::OCI_MANIFEST,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": config_digest,
            "size": config.len(),
        },
        "layers": [{
            "mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": layer_digest,
            "size": layer.len(),
        }],
    });
    std::fs::write(folder.join("manifest.json"), manifest.to_string()).unwrap();
}

#[tokio::test]
async fn skopeo_copies_in_and_out_inspects_lists_and_deletes() {
    let api = Api::start();
    let folder = scratch();
    let layer = noise(3_000_000, 12);
    image_folder(folder.path(), &layer);
    let source = format!("dir:{}", folder.path().display());
    let target = format!("docker://{}/team/image", api.server.address());
    let insecure = "--dest-tls-verify=false";
    for tag in ["v1", "v2"] {
        let to = format!("{target}:{tag}");
        let _ = skopeo(&["copy", insecure, "--preserve-digests", &source, &to]);
    }
    let tagged = format!("{target}:v1");
    let described = skopeo(&["inspect", "--tls-verify=false", &tagged]);
    let described: Value = serde_json::from_str(&described).unwrap();
    let pushed = api.head("team/image/manifests/v1").await;
    assert_eq!(
        described["Digest"],
        header(&pushed, "docker-content-digest")
    );
    let listed = skopeo(&["list-tags", "--tls-verify=false", &target]);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed["Tags"], serde_json::json!(["v1", "v2"]));
    let back = scratch();
    let to = format!("dir:{}", back.path().display());
    let _ = skopeo(&["copy", "--src-tls-verify=false", &tagged, &to]);
    let blob = back.path().join(Digest::sha256(&layer).hex());
    assert_eq!(std::fs::read(blob).unwrap(), layer);
    let again = format!("docker://{}/other/image:v1", api.server.address());
    let both = ["copy", "--src-tls-verify=false", insecure, &tagged, &again];
    let _ = skopeo(&both);
    let _ = skopeo(&["delete", "--tls-verify=false", &tagged]);
    assert_eq!(api.head("team/image/manifests/v1").await.status(), 404);
    assert_eq!(api.head("other/image/manifests/v1").await.status(), 200);
}

#[tokio::test]
async fn curl_pulls_in_ranges_and_resumes() {
    let api = Api::start();
    let content = noise(1_000_000, 13);
    let digest = api.push_blob("a", &content).await;
    let url = api.url(&format!("a/blobs/{digest}"));
    let folder = scratch();
    let file = folder.path().join("blob");
    std::fs::write(&file, &content[..400_000]).unwrap();
    let path = file.to_str().unwrap();
    let resumed = run(Command::new("curl").args(["-sSf", "-C", "-", "-o", path, &url]));
    let _ = resumed.succeeded();
    assert_eq!(std::fs::read(&file).unwrap(), content);
}
