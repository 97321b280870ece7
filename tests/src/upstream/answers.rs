//! What the origin answers: tokens, manifests, blobs.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;

use artifact::Digest;
use bytes::Bytes;

use super::{State, chunk_maps};
use crate::wire::{After, Content, Faults, Request, Wire, content, send_small};

pub(super) async fn answer(
    wire: &mut Wire,
    state: &State,
    address: SocketAddr,
    request: &Request,
) -> io::Result<After> {
    let path = request.bare_path();
    if path == "/token" {
        state.tokens.add_request();
        let token = state.lock().token.clone().unwrap_or_default();
        let body = format!("{{\"token\":\"{token}\"}}");
        return send_small(wire, 200, "", body.as_bytes()).await;
    }
    let wanted = state.lock().token.clone();
    if let Some(token) = wanted
        && request.header("authorization") != Some(&format!("Bearer {token}"))
    {
        let challenge = format!(
            "www-authenticate: Bearer realm=\"http://{address}/token\",service=\"test\"\r\n"
        );
        return send_small(wire, 401, &challenge, b"").await;
    }
    if let Some((_, name)) = path.rsplit_once("/manifests/") {
        return manifest(wire, state, request, name).await;
    }
    if let Some((_, digest)) = path.rsplit_once("/blobs/") {
        let range = request.header("range").and_then(range_of);
        let (found, spares_small) = {
            let mut inner = state.lock();
            inner.asked.push((digest.to_owned(), range));
            (inner.blobs.get(digest).cloned(), inner.spares_small)
        };
        let Some(body) = found else {
            return send_small(wire, 404, "", br#"{"errors":[{"code":"BLOB_UNKNOWN"}]}"#).await;
        };
        let is_spared = spares_small && body.len() < 1 << 20;
        let none = Faults::default();
        let blob = Content {
            body: &body,
            headers: "",
            faults: if is_spared { &none } else { &state.faults },
            sent: &[&state.blobs],
        };
        return content(wire, request, blob).await;
    }
    if let Some((_, subject)) = path.rsplit_once("/referrers/") {
        let index = (state.lock().referrers.get(subject)).map(|found| chunk_maps::index(found));
        if let Some(index) = index {
            return send_small(wire, 200, "", index.as_bytes()).await;
        }
    }
    let status = if path == "/v2/" { 200 } else { 404 };
    send_small(wire, status, "", b"{}").await
}

/// `bytes=0-9` as a half-open range.
fn range_of(header: &str) -> Option<Range<u64>> {
    let (first, last) = header.strip_prefix("bytes=")?.split_once('-')?;
    Some(first.parse().ok()?..last.parse::<u64>().ok()? + 1)
}

async fn manifest(
    wire: &mut Wire,
    state: &State,
    request: &Request,
    name: &str,
) -> io::Result<After> {
    state.manifests.add_request();
    if let Some(status) = state.next_manifest_status() {
        let wait = state.faults.retry_after();
        let headers = wait.map(|seconds| format!("retry-after: {seconds}\r\n"));
        return send_small(wire, status, &headers.unwrap_or_default(), b"").await;
    }
    let found = state.lock().manifests.get(name).cloned();
    let Some((media_type, body)) = found else {
        let unknown = br#"{"errors":[{"code":"MANIFEST_UNKNOWN"}]}"#;
        return send_small(wire, 404, "", unknown).await;
    };
    let announced = state.lock().announced_digest.clone();
    let digest = announced.unwrap_or_else(|| Digest::sha256(&body).to_string());
    let headers = format!("content-type: {media_type}\r\ndocker-content-digest: {digest}\r\n");
    let body = if request.is_head() {
        Bytes::new()
    } else {
        state.manifest_bodies.add_request();
        body
    };
    send_small(wire, 200, &headers, &body).await
}
