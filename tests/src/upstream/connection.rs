//! One connection to the origin: requests in, answers with their faults out.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::time::Duration;

use artifact::Digest;
use bytes::Bytes;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::request::Request;
use super::{Fault, State};

/// Bytes that are sent at a time.
const PIECE_BYTES: usize = 64 * 1024;
/// Bytes that an endless body sends before it gives up on the client.
const ENDLESS_BYTES: u64 = 1 << 30;

/// Whether the connection may be used for another request.
#[derive(PartialEq)]
enum After {
    KeepOpen,
    Close,
}

pub(super) async fn serve(stream: TcpStream, state: &State, address: SocketAddr) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    while let Some(request) = Request::read(&mut stream).await? {
        if answer(&mut stream, state, address, &request).await? == After::Close {
            return stream.shutdown().await;
        }
    }
    Ok(())
}

async fn answer(
    stream: &mut BufReader<TcpStream>,
    state: &State,
    address: SocketAddr,
    request: &Request,
) -> io::Result<After> {
    let path = request.path.split('?').next().unwrap_or_default();
    if path == "/token" {
        state.tokens.fetch_add(1, Ordering::SeqCst);
        let token = state.lock().token.clone().unwrap_or_default();
        return send_small(
            stream,
            200,
            "",
            format!("{{\"token\":\"{token}\"}}").as_bytes(),
        )
        .await;
    }
    let wanted = state.lock().token.clone();
    if let Some(token) = wanted
        && request.authorization.as_deref() != Some(&format!("Bearer {token}"))
    {
        let challenge = format!(
            "www-authenticate: Bearer realm=\"http://{address}/token\",service=\"test\"\r\n"
        );
        return send_small(stream, 401, &challenge, b"").await;
    }
    if let Some((_, name)) = path.rsplit_once("/manifests/") {
        return manifest(stream, state, request, name).await;
    }
    if let Some((_, digest)) = path.rsplit_once("/blobs/") {
        let found = state.lock().blobs.get(digest).cloned();
        return match found {
            Some(body) => blob(stream, state, request, &body).await,
            None => send_small(stream, 404, "", br#"{"errors":[{"code":"BLOB_UNKNOWN"}]}"#).await,
        };
    }
    let status = if path == "/v2/" { 200 } else { 404 };
    send_small(stream, status, "", b"{}").await
}

async fn manifest(
    stream: &mut BufReader<TcpStream>,
    state: &State,
    request: &Request,
    name: &str,
) -> io::Result<After> {
    state.manifests.fetch_add(1, Ordering::SeqCst);
    if let Some(status) = state.next_manifest_status() {
        return send_small(stream, status, "", b"").await;
    }
    let found = state.lock().manifests.get(name).cloned();
    let Some((media_type, body)) = found else {
        return send_small(
            stream,
            404,
            "",
            br#"{"errors":[{"code":"MANIFEST_UNKNOWN"}]}"#,
        )
        .await;
    };
    let announced = state.lock().announced_digest.clone();
    let digest = announced.unwrap_or_else(|| Digest::sha256(&body).to_string());
    let headers = format!("content-type: {media_type}\r\ndocker-content-digest: {digest}\r\n");
    let body = if request.method == "HEAD" {
        Bytes::new()
    } else {
        body
    };
    send_small(stream, 200, &headers, &body).await
}

async fn send_small(
    stream: &mut BufReader<TcpStream>,
    status: u16,
    headers: &str,
    body: &[u8],
) -> io::Result<After> {
    head(
        stream,
        status,
        &format!("{headers}content-length: {}\r\n", body.len()),
    )
    .await?;
    stream.write_all(body).await?;
    stream.flush().await?;
    Ok(After::KeepOpen)
}

async fn head(stream: &mut BufReader<TcpStream>, status: u16, headers: &str) -> io::Result<()> {
    let text = format!("HTTP/1.1 {status} Status\r\n{headers}\r\n");
    stream.write_all(text.as_bytes()).await
}

async fn blob(
    stream: &mut BufReader<TcpStream>,
    state: &State,
    request: &Request,
    blob: &Bytes,
) -> io::Result<After> {
    let length = blob.len() as u64;
    if request.method == "HEAD" {
        head(stream, 200, &format!("content-length: {length}\r\n")).await?;
        stream.flush().await?;
        return Ok(After::KeepOpen);
    }
    state.blobs.fetch_add(1, Ordering::SeqCst);
    let is_ranged = request.range(length).is_some();
    let fault = state
        .next_fault()
        .filter(|fault| is_ranged || !fault.is_of_ranges());
    let range = request
        .range(length)
        .filter(|_| fault != Some(Fault::IgnoreRange));
    let body = match &range {
        Some(range) => slice(blob, range),
        None => blob.clone(),
    };
    match &fault {
        None => {
            send(
                stream,
                state,
                &headers(range.as_ref(), length, body.len()),
                &body,
            )
            .await
        }
        Some(fault) => spoiled(stream, state, fault, range, blob, body).await,
    }
}

/// Status, `Content-Range` and `Content-Length` of an honest answer.
fn headers(range: Option<&Range<u64>>, total: u64, announced: usize) -> (u16, String) {
    match range {
        Some(Range { start, end }) => (
            206,
            format!(
                "content-range: bytes {start}-{}/{total}\r\ncontent-length: {announced}\r\n",
                end - 1
            ),
        ),
        None => (200, format!("content-length: {announced}\r\n")),
    }
}

async fn spoiled(
    stream: &mut BufReader<TcpStream>,
    state: &State,
    fault: &Fault,
    range: Option<Range<u64>>,
    blob: &Bytes,
    body: Bytes,
) -> io::Result<After> {
    let total = blob.len() as u64;
    let honest = headers(range.as_ref(), total, body.len());
    let half = body.slice(..body.len() / 2);
    match fault {
        Fault::IgnoreRange => return send(stream, state, &honest, &body).await,
        Fault::DropAtHalf => send(stream, state, &honest, &half).await?,
        Fault::AnnounceMore => {
            let lie = headers(None, total, body.len() + 4096);
            send(stream, state, &lie, &body).await?
        }
        Fault::AnnounceLess => {
            let lie = headers(None, total, half.len());
            send(stream, state, &lie, &half).await?
        }
        Fault::WrongOffset => {
            let start = range.map_or(0, |range| range.start) + 1;
            let other = start..total;
            let body = slice(blob, &other);
            send(
                stream,
                state,
                &headers(Some(&other), total, body.len()),
                &body,
            )
            .await?
        }
        Fault::Multipart => {
            let kind = "content-type: multipart/byteranges; boundary=x\r\ncontent-length: 0\r\n";
            send(stream, state, &(206, kind.to_owned()), b"").await?
        }
        Fault::WrongBytes => {
            let mut wrong = body.to_vec();
            if let Some(byte) = wrong.last_mut() {
                *byte ^= 1;
            }
            return send(stream, state, &honest, &wrong).await;
        }
        Fault::Endless => return endless(stream, &body).await,
        Fault::Stall => {
            send(stream, state, &honest, &half).await?;
            return std::future::pending().await;
        }
        Fault::Status(status) => {
            let wait = state.lock().retry_after;
            let wait = wait
                .map(|seconds| format!("retry-after: {seconds}\r\n"))
                .unwrap_or_default();
            return send_small(stream, *status, &wait, b"").await;
        }
        Fault::Slow(rate) => return slowly(stream, state, &honest, &body, *rate).await,
        Fault::Redirect(to) => {
            return send_small(stream, 307, &format!("location: {to}\r\n"), b"").await;
        }
        Fault::ContentEncoding => {
            let (status, mut headers) = honest;
            headers.push_str("content-encoding: gzip\r\n");
            send(stream, state, &(status, headers), &body).await?
        }
    };
    Ok(After::Close)
}

fn slice(blob: &Bytes, range: &Range<u64>) -> Bytes {
    let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(blob.len());
    blob.slice(index(range.start)..index(range.end))
}

async fn send(
    stream: &mut BufReader<TcpStream>,
    state: &State,
    (status, headers): &(u16, String),
    body: &[u8],
) -> io::Result<After> {
    head(stream, *status, headers).await?;
    for piece in body.chunks(PIECE_BYTES) {
        stream.write_all(piece).await?;
        state.bytes.fetch_add(piece.len() as u64, Ordering::SeqCst);
    }
    stream.flush().await?;
    Ok(After::KeepOpen)
}

/// Pieces with pauses between them.
async fn slowly(
    stream: &mut BufReader<TcpStream>,
    state: &State,
    (status, headers): &(u16, String),
    body: &[u8],
    rate: u64,
) -> io::Result<After> {
    head(stream, *status, headers).await?;
    for piece in body.chunks(PIECE_BYTES) {
        stream.write_all(piece).await?;
        stream.flush().await?;
        state.bytes.fetch_add(piece.len() as u64, Ordering::SeqCst);
        let pause = piece.len() as u64 * 1_000_000 / rate.max(1);
        tokio::time::sleep(Duration::from_micros(pause)).await;
    }
    Ok(After::KeepOpen)
}

async fn endless(stream: &mut BufReader<TcpStream>, body: &[u8]) -> io::Result<After> {
    head(stream, 200, "transfer-encoding: chunked\r\n").await?;
    let mut sent = 0;
    while sent < ENDLESS_BYTES {
        let piece = &body[..body.len().min(PIECE_BYTES)];
        stream
            .write_all(format!("{:x}\r\n", piece.len()).as_bytes())
            .await?;
        stream.write_all(piece).await?;
        stream.write_all(b"\r\n").await?;
        sent += piece.len().max(1) as u64;
    }
    Ok(After::Close)
}
