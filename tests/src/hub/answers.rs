//! What the two hosts answer: which protocol a question is of, and signed URLs.

use std::io;
use std::net::SocketAddr;

use artifact::Digest;

use super::{State, huggingface, ollama};
use crate::wire::{After, Content, Fault, Request, Wire, content, send_small, spoiled_small};

/// A question at the first host.
pub(super) async fn question(
    wire: &mut Wire,
    state: &State,
    second: SocketAddr,
    request: &Request,
) -> io::Result<After> {
    let path = request.bare_path();
    let is_of_content = path.contains("/blobs/") || path.contains("/resolve/");
    let fault = if is_of_content {
        // What else is wrong with content shows at the second host.
        state.of_content.next(Fault::is_redirect)
    } else {
        state.of_questions.next(|_| true)
    };
    if let Some(fault) = fault {
        let faults = if is_of_content {
            &state.of_content
        } else {
            &state.of_questions
        };
        return spoiled_small(wire, request, faults, &fault).await;
    }
    match path.strip_prefix("/v2/") {
        Some(path) => ollama::answer(wire, state, second, request, path).await,
        None => huggingface::answer(wire, state, second, request).await,
    }
}

/// A URL at the second host that lets in whoever has it.
pub(super) fn sign(state: &State, second: SocketAddr, path: &str) -> String {
    format!(
        "http://{second}{path}?X-Amz-Expires=3600&X-Amz-Signature={}",
        signature(state, path)
    )
}

fn signature(state: &State, path: &str) -> String {
    let generation = state.lock().generation;
    let signed = Digest::sha256(format!("{generation} {path}").as_bytes());
    signed.hex().to_string()
}

/// A request for content at the second host.
pub(super) async fn signed(wire: &mut Wire, state: &State, request: &Request) -> io::Result<After> {
    let path = request.bare_path();
    if request.header("authorization").is_some() {
        state.lock().leaks += 1;
        let body = b"<Error><Code>InvalidArgument</Code><Message>Only one auth mechanism \
                     allowed</Message></Error>";
        return send_small(wire, 400, "content-type: application/xml\r\n", body).await;
    }
    if request.parameter("X-Amz-Signature") != Some(&signature(state, path)) {
        let body =
            b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>";
        return send_small(wire, 403, "content-type: application/xml\r\n", body).await;
    }
    let (name, body) = match path.strip_prefix("/blobs/") {
        Some(digest) => (digest.to_owned(), state.lock().blobs.get(digest).cloned()),
        None => huggingface::in_lfs(state, path),
    };
    let Some(body) = body else {
        return send_small(wire, 404, "", b"").await;
    };
    let sent = state.sent(&name);
    let found = Content {
        body: &body,
        headers: "accept-ranges: bytes\r\n",
        faults: &state.of_content,
        sent: &[&sent],
    };
    content(wire, request, found).await
}
