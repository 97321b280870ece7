//! What the registry's stories share: a client of the distribution API, and requests byte by byte.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use artifact::Digest;
use bytes::Bytes;
use reqwest::{RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tests::Server;

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A registry of its own and a client of it.
#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) server: Server,
    pub(crate) client: reqwest::Client,
}

impl Api {
    /// Starts a registry on fresh data.
    pub(crate) fn start() -> Self {
        Self::on(Server::registry().start())
    }

    /// Talks to a registry that runs.
    pub(crate) fn on(server: Server) -> Self {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { server, client }
    }

    /// The address of `path` below `/v2/`.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}/v2/{path}", self.server.url())
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.client.get(self.url(path)).send().await.unwrap()
    }

    pub(crate) async fn head(&self, path: &str) -> Response {
        self.client.head(self.url(path)).send().await.unwrap()
    }

    pub(crate) async fn delete(&self, path: &str) -> Response {
        self.client.delete(self.url(path)).send().await.unwrap()
    }

    pub(crate) async fn post(&self, path: &str) -> Response {
        self.client.post(self.url(path)).send().await.unwrap()
    }

    /// Opens an upload session; gives its address.
    pub(crate) async fn begin(&self, repository: &str) -> String {
        let response = self.post(&format!("{repository}/blobs/uploads/")).await;
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        header(&response, "location")
    }

    /// A request that appends a chunk at `start`.
    pub(crate) fn chunk(&self, location: &str, start: usize, content: &[u8]) -> RequestBuilder {
        let range = format!("{start}-{}", start + content.len() - 1);
        self.client
            .patch(location)
            .header("content-range", range)
            .body(content.to_vec())
    }

    /// Closes a session with the rest of its content.
    pub(crate) async fn close(&self, location: &str, digest: &Digest, rest: &[u8]) -> Response {
        self.client
            .put(format!("{location}?digest={digest}"))
            .body(rest.to_vec())
            .send()
            .await
            .unwrap()
    }

    /// The offset a session stands at.
    pub(crate) async fn offset(&self, location: &str) -> usize {
        let response = self.client.get(location).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::NO_CONTENT);
        header(&response, "upload-offset").parse().unwrap()
    }

    /// Pushes a blob.
    pub(crate) async fn push_blob(&self, repository: &str, content: &[u8]) -> Digest {
        let digest = Digest::sha256(content);
        let location = self.begin(repository).await;
        let response = self.close(&location, &digest, content).await;
        assert_eq!(response.status(), StatusCode::CREATED);
        digest
    }

    /// Puts a manifest, whatever comes of it.
    pub(crate) async fn put_manifest(
        &self,
        repository: &str,
        reference: &str,
        manifest: &Value,
    ) -> Response {
        let media_type = manifest["mediaType"].as_str().unwrap_or(OCI_MANIFEST);
        self.client
            .put(self.url(&format!("{repository}/manifests/{reference}")))
            .header("content-type", media_type)
            .body(manifest.to_string())
            .send()
            .await
            .unwrap()
    }

    /// Pushes an image of one layer under a tag; gives the digest of its manifest.
    pub(crate) async fn push_image(&self, repository: &str, tag: &str, layer: &[u8]) -> Digest {
        self.push_blob(repository, b"{}").await;
        self.push_blob(repository, layer).await;
        let manifest = image(&[layer]);
        let response = self.put_manifest(repository, tag, &manifest).await;
        assert_eq!(response.status(), StatusCode::CREATED);
        Digest::sha256(manifest.to_string().as_bytes())
    }
}

/// A header that must be there.
#[track_caller]
pub(crate) fn header(response: &Response, name: &str) -> String {
    let value = response.headers().get(name);
    let value = value.unwrap_or_else(|| panic!("no header {name} in {response:?}"));
    value.to_str().unwrap().to_owned()
}

/// The code of the first error of a refusal, which must be of the specification's form.
pub(crate) async fn error_code(response: Response) -> String {
    let body: Value = response.json().await.unwrap();
    let error = &body["errors"][0];
    assert!(error["message"].is_string(), "{body}");
    error["code"].as_str().unwrap().to_owned()
}

/// A descriptor of `content`.
pub(crate) fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({
        "mediaType": media_type,
        "digest": Digest::sha256(content),
        "size": content.len(),
    })
}

/// An image manifest with an empty config and these layers.
pub(crate) fn image(layers: &[&[u8]]) -> Value {
    let layers: Vec<Value> = layers
        .iter()
        .map(|layer| descriptor("application/octet-stream", layer))
        .collect();
    json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor("application/vnd.oci.empty.v1+json", b"{}"),
        "layers": layers,
    })
}

/// A request body that the test feeds piece by piece.
pub(crate) fn fed_body() -> (tokio::sync::mpsc::Sender<Bytes>, reqwest::Body) {
    let (sender, receiver) = tokio::sync::mpsc::channel::<Bytes>(4);
    let pieces = futures::stream::unfold(receiver, |mut receiver| async move {
        let piece = receiver.recv().await?;
        Some((Ok::<_, std::io::Error>(piece), receiver))
    });
    (sender, reqwest::Body::wrap_stream(pieces))
}

/// Sends these bytes as they are and gives everything that comes back until the server closes.
pub(crate) fn raw(address: &str, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let patience = Some(Duration::from_secs(20));
    stream.set_read_timeout(patience).unwrap();
    // A server that refuses early may reset the connection; its answer has come all the same.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// Status and body of a GET whose path reaches the server exactly as written here.
pub(crate) fn raw_get(address: &str, path: &str) -> (u16, String) {
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    let answer = raw(address, request.as_bytes());
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    (status.unwrap_or(0), answer)
}
