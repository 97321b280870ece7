//! Answers: content by ranges, small bodies, and what a fault makes of them.

use std::io;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;

use super::{Fault, Faults, Request, Sent, Wire};

/// Bytes that are sent at a time.
const PIECE_BYTES: usize = 64 * 1024;
/// Bytes that an endless body sends before it gives up on the client.
const ENDLESS_BYTES: u64 = 1 << 30;

/// Whether the connection may be used for another request.
#[derive(PartialEq)]
pub(crate) enum After {
    KeepOpen,
    Close,
}

pub(crate) async fn send_small(
    stream: &mut Wire,
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

async fn head(stream: &mut Wire, status: u16, headers: &str) -> io::Result<()> {
    let text = format!("HTTP/1.1 {status} Status\r\n{headers}\r\n");
    stream.write_all(text.as_bytes()).await
}

/// Something that is sent by ranges.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Content<'a> {
    pub(crate) body: &'a Bytes,
    /// Headers that every answer about it has.
    pub(crate) headers: &'a str,
    /// What may be wrong with the answers.
    pub(crate) faults: &'a Faults,
    /// Where the bytes are counted.
    pub(crate) sent: &'a [&'a Sent],
}

impl Content<'_> {
    fn count(&self, bytes: usize) {
        for sent in self.sent {
            sent.add_bytes(bytes);
        }
    }
}

/// Answers a GET or HEAD of content.
pub(crate) async fn content(
    stream: &mut Wire,
    request: &Request,
    content: Content<'_>,
) -> io::Result<After> {
    let length = content.body.len() as u64;
    if request.is_head() {
        let headers = format!("{}content-length: {length}\r\n", content.headers);
        head(stream, 200, &headers).await?;
        stream.flush().await?;
        return Ok(After::KeepOpen);
    }
    for sent in content.sent {
        sent.add_request();
    }
    let is_ranged = request.range(length).is_some();
    let fault = content
        .faults
        .next(|fault| is_ranged || !fault.is_of_ranges());
    let range = request
        .range(length)
        .filter(|_| fault != Some(Fault::IgnoreRange));
    let body = match &range {
        Some(range) => slice(content.body, range),
        None => content.body.clone(),
    };
    match fault {
        None => {
            let head = headers(range.as_ref(), length, body.len());
            send(stream, &content, &head, &body).await
        }
        Some(fault) => spoiled(stream, request, &content, &fault, range, body).await,
    }
}

/// Answers with what a fault puts in the place of an answer.
pub(crate) async fn spoiled_small(
    stream: &mut Wire,
    request: &Request,
    faults: &Faults,
    fault: &Fault,
) -> io::Result<After> {
    match fault {
        Fault::Status(status) => {
            let wait = faults.retry_after();
            let wait = wait
                .map(|seconds| format!("retry-after: {seconds}\r\n"))
                .unwrap_or_default();
            send_small(stream, *status, &wait, b"").await
        }
        Fault::Redirect(to) => send_small(stream, 307, &format!("location: {to}\r\n"), b"").await,
        Fault::RedirectLoop => {
            let here = format!("location: {}\r\n", request.path);
            send_small(stream, 307, &here, b"").await
        }
        Fault::Page => {
            let page = b"<!DOCTYPE html><html><title>Sign in</title><body>Welcome.</body></html>";
            send_small(stream, 200, "content-type: text/html\r\n", page).await
        }
        Fault::Stall => std::future::pending().await,
        _ => {
            head(stream, 200, "content-length: 100\r\n").await?;
            stream.write_all(b"{").await?;
            Ok(After::Close)
        }
    }
}

/// Answers in chunked coding, without saying how long it is.
pub(crate) async fn chunked(
    stream: &mut Wire,
    request: &Request,
    headers: &str,
    body: &[u8],
) -> io::Result<After> {
    let headers = format!("{headers}transfer-encoding: chunked\r\n");
    head(stream, 200, &headers).await?;
    if !request.is_head() {
        let size = format!("{:x}\r\n", body.len());
        stream.write_all(size.as_bytes()).await?;
        stream.write_all(body).await?;
        stream.write_all(b"\r\n0\r\n\r\n").await?;
    }
    stream.flush().await?;
    Ok(After::KeepOpen)
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
    stream: &mut Wire,
    request: &Request,
    content: &Content<'_>,
    fault: &Fault,
    range: Option<Range<u64>>,
    body: Bytes,
) -> io::Result<After> {
    let total = content.body.len() as u64;
    let honest = headers(range.as_ref(), total, body.len());
    let half = body.slice(..body.len() / 2);
    match fault {
        Fault::IgnoreRange => return send(stream, content, &honest, &body).await,
        Fault::DropAtHalf => send(stream, content, &honest, &half).await?,
        Fault::AnnounceMore => {
            let lie = headers(None, total, body.len() + 4096);
            send(stream, content, &lie, &body).await?
        }
        Fault::AnnounceLess => {
            let lie = headers(None, total, half.len());
            send(stream, content, &lie, &half).await?
        }
        Fault::WrongOffset => {
            let start = range.map_or(0, |range| range.start) + 1;
            let other = start..total;
            let body = slice(content.body, &other);
            send(
                stream,
                content,
                &headers(Some(&other), total, body.len()),
                &body,
            )
            .await?
        }
        Fault::Multipart => {
            let kind = "content-type: multipart/byteranges; boundary=x\r\ncontent-length: 0\r\n";
            send(stream, content, &(206, kind.to_owned()), b"").await?
        }
        Fault::WrongBytes => {
            let mut wrong = body.to_vec();
            if let Some(byte) = wrong.last_mut() {
                *byte ^= 1;
            }
            return send(stream, content, &honest, &wrong).await;
        }
        Fault::Endless => return endless(stream, &body).await,
        Fault::Stall => {
            send(stream, content, &honest, &half).await?;
            return std::future::pending().await;
        }
        Fault::Status(_) | Fault::Redirect(_) | Fault::RedirectLoop | Fault::Page => {
            return spoiled_small(stream, request, content.faults, fault).await;
        }
        Fault::Slow(rate) => return slowly(stream, content, &honest, &body, *rate).await,
        Fault::ContentEncoding => {
            let (status, mut headers) = honest;
            headers.push_str("content-encoding: gzip\r\n");
            send(stream, content, &(status, headers), &body).await?
        }
    };
    Ok(After::Close)
}

fn slice(blob: &Bytes, range: &Range<u64>) -> Bytes {
    let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(blob.len());
    blob.slice(index(range.start)..index(range.end))
}

async fn send(
    stream: &mut Wire,
    content: &Content<'_>,
    (status, headers): &(u16, String),
    body: &[u8],
) -> io::Result<After> {
    head(stream, *status, &format!("{}{headers}", content.headers)).await?;
    for piece in body.chunks(PIECE_BYTES) {
        stream.write_all(piece).await?;
        content.count(piece.len());
    }
    stream.flush().await?;
    Ok(After::KeepOpen)
}

/// Pieces with pauses between them.
async fn slowly(
    stream: &mut Wire,
    content: &Content<'_>,
    (status, headers): &(u16, String),
    body: &[u8],
    rate: u64,
) -> io::Result<After> {
    head(stream, *status, &format!("{}{headers}", content.headers)).await?;
    for piece in body.chunks(PIECE_BYTES) {
        stream.write_all(piece).await?;
        stream.flush().await?;
        content.count(piece.len());
        let pause = piece.len() as u64 * 1_000_000 / rate.max(1);
        tokio::time::sleep(Duration::from_micros(pause)).await;
    }
    Ok(After::KeepOpen)
}

async fn endless(stream: &mut Wire, body: &[u8]) -> io::Result<After> {
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
