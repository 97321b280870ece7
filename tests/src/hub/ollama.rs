//! The Ollama library: manifests by tag, blobs by a redirect, nothing else.

use std::io;
use std::net::SocketAddr;

use artifact::Digest;
use artifact::media_type::{DOCKER_MANIFEST, ollama};
use bytes::Bytes;
use serde_json::json;

use super::{Inner, State, answers};
use crate::wire::{After, Request, Wire, chunked, send_small};

pub(super) fn put_model(
    inner: &mut Inner,
    name: &str,
    tag: &str,
    layers: &[(&str, Bytes)],
) -> Digest {
    let mut put = |media_type: &str, bytes: Bytes| {
        let digest = Digest::sha256(&bytes);
        let size = bytes.len();
        inner.blobs.insert(digest.to_string(), bytes);
        json!({ "mediaType": media_type, "digest": digest, "size": size })
    };
    let listed: Vec<_> = layers
        .iter()
        .map(|(media_type, bytes)| put(media_type, bytes.clone()))
        .collect();
    let config = json!({
        "model_format": "gguf",
        "model_family": "llama",
        "model_families": ["llama"],
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {
            "type": "layers",
            "diff_ids": listed.iter().map(|layer| layer["digest"].clone()).collect::<Vec<_>>(),
        },
    });
    let config = put(ollama::CONFIG, Bytes::from(config.to_string()));
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": config,
        "layers": listed,
    });
    let manifest = Bytes::from(manifest.to_string());
    let digest = Digest::sha256(&manifest);
    inner.manifests.insert(format!("{name}:{tag}"), manifest);
    digest
}

pub(super) async fn answer(
    wire: &mut Wire,
    state: &State,
    content: SocketAddr,
    request: &Request,
    path: &str,
) -> io::Result<After> {
    let unknown = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
    if let Some((name, tag)) = path.split_once("/manifests/") {
        let found = state
            .lock()
            .manifests
            .get(&format!("{name}:{tag}"))
            .cloned();
        return match found {
            Some(body) => {
                let headers = format!("content-type: {DOCKER_MANIFEST}\r\n");
                chunked(wire, request, &headers, &body).await
            }
            None => send_small(wire, 404, "", unknown).await,
        };
    }
    if let Some((_, digest)) = path.split_once("/blobs/") {
        let is_here = state.lock().blobs.contains_key(digest);
        if is_here {
            let url = answers::sign(state, content, &format!("/blobs/{digest}"));
            return send_small(wire, 307, &format!("location: {url}\r\n"), b"").await;
        }
    }
    send_small(
        wire,
        404,
        "content-type: text/plain\r\n",
        b"404 page not found",
    )
    .await
}
