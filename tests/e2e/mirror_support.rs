//! What the mirror's stories share: a registry that mirrors an origin with faults on demand.

use std::path::Path;

use artifact::Digest;
use reqwest::StatusCode;
use serde_json::Value;
use tests::upstream::Upstream;
use tests::{Builder, Server};

use crate::registry_support::Api;

/// Where the origin's model is in the mirror.
pub(crate) const MODEL: &str = "hub/test/model";

/// How a registry that mirrors these origins below `hub` is started.
pub(crate) fn mirror_of(origins: &[&Upstream]) -> Builder {
    let builder = Server::registry();
    origins.iter().fold(builder, |builder, origin| {
        let upstream = format!("hub=oci+http://{}", origin.address());
        builder.argument("--upstream").argument(&upstream)
    })
}

/// A registry that mirrors an origin below `hub`.
pub(crate) fn start(origin: &Upstream) -> Api {
    Api::on(mirror_of(&[origin]).start())
}

/// The same in a folder that outlives it.
pub(crate) fn start_in(origin: &Upstream, folder: &Path) -> Api {
    Api::on(mirror_of(&[origin]).data(folder).start())
}

impl Api {
    /// The manifest of the model in the mirror, by tag.
    pub(crate) async fn mirrored_manifest(&self, tag: &str) -> Value {
        let response = self.get(&format!("{MODEL}/manifests/{tag}")).await;
        assert_eq!(response.status(), StatusCode::OK);
        response.json().await.unwrap()
    }

    /// Asks for a blob of the model in the mirror.
    pub(crate) async fn mirrored_blob(&self, digest: &Digest) -> reqwest::Response {
        self.get(&format!("{MODEL}/blobs/{digest}")).await
    }
}

/// Whether the body came whole, and was right.
pub(crate) async fn is_right(response: reqwest::Response, digest: &Digest) -> bool {
    match response.bytes().await {
        Ok(bytes) => Digest::sha256(&bytes) == *digest,
        Err(_) => false,
    }
}
