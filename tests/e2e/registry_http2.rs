//! H02: floods of HTTP/2 frames, written byte by byte. A connection that does nothing but cost is
//! closed, in bounded memory, and others never notice.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use tests::Server;

use crate::registry_support::{Api, raw_get};

/// What a client begins with: the preface and its own, empty settings.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// `:method GET`, `:scheme http`, `:path /v2/`, `:authority x`, without the dynamic table.
const GET: &[u8] = b"\x82\x86\x04\x04/v2/\x01\x01x";
/// The same for the PUT of a manifest, which waits for its body.
const PUT: &[u8] = b"\x02\x03PUT\x86\x04\x12/v2/a/manifests/v1\x01\x01x";
/// A bound for what a flood may make the process take.
const MEMORY_KIB: u64 = 128 * 1024;
/// Frames of a flood.
const MANY: u32 = 100_000;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// `:status 200`, as a field of the static table.
const STATUS_200: u8 = 0x88;
/// RFC 9113, section 7.
const ENHANCE_YOUR_CALM: u32 = 11;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The client's number of a stream.
fn stream(number: u32) -> u32 {
    number * 2 + 1
}

/// How a flood ended.
#[derive(Debug, Default)]
struct End {
    /// The error of the last GOAWAY frame.
    goaway: Option<u32>,
    /// Answers that came.
    answered: usize,
    /// Those with the status 200.
    good: usize,
}

/// Writes a flood until it is over or the server closes, and reads what comes until it closes.
fn flood(api: &Api, frames: impl Iterator<Item = Vec<u8>> + Send + 'static) -> End {
    let mut connection = TcpStream::connect(api.server.address()).unwrap();
    let patience = Some(Duration::from_secs(30));
    connection.set_read_timeout(patience).unwrap();
    let mut writing = connection.try_clone().unwrap();
    writing.set_write_timeout(patience).unwrap();
    let writer = std::thread::spawn(move || {
        let mut pieces = std::io::BufWriter::with_capacity(64 * 1024, &mut writing);
        let _ = pieces.write_all(PREFACE);
        for frame in frames {
            if pieces.write_all(&frame).is_err() {
                return;
            }
        }
        let _ = pieces.flush();
        drop(pieces);
        let _ = writing.shutdown(std::net::Shutdown::Write);
    });
    let mut end = End::default();
    let mut head = [0; 9];
    // A reset is a close too; a time-out is not.
    loop {
        match connection.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                panic!("the server neither answers nor closes")
            }
            Err(_) => break,
        }
        let length = usize::try_from(u32::from_be_bytes([0, head[0], head[1], head[2]])).unwrap();
        let mut payload = vec![0; length];
        if connection.read_exact(&mut payload).is_err() {
            break;
        }
        end.answered += usize::from(head[3] == HEADERS);
        end.good += usize::from(head[3] == HEADERS && payload.first() == Some(&STATUS_200));
        if head[3] == GOAWAY {
            end.goaway = payload[4..8].try_into().ok().map(u32::from_be_bytes);
        }
    }
    writer.join().unwrap();
    end
}

/// What every flood leaves: a registry that answers, in the memory it should have.
fn is_unharmed(api: &Api) {
    assert_eq!(raw_get(api.server.address(), "/v2/").0, 200);
    let status = std::fs::read_to_string(format!("/proc/{}/status", api.server.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.unwrap().trim().trim_end_matches(" kB");
    assert!(peak.parse::<u64>().unwrap() < MEMORY_KIB, "{peak} kB");
}

#[test]
fn streams_that_are_opened_and_reset_at_once_end_the_connection() {
    let api = Api::start();
    let end = flood(
        &api,
        (0..MANY).flat_map(|number| {
            let cancel = 8_u32.to_be_bytes();
            [
                frame(HEADERS, END_HEADERS | END_STREAM, stream(number), GET),
                frame(RESET, 0, stream(number), &cancel),
            ]
        }),
    );
    assert_eq!(end.goaway, Some(ENHANCE_YOUR_CALM), "{end:?}");
    is_unharmed(&api);
}

#[test]
fn a_hundred_thousand_streams_that_stay_open_end_the_connection() {
    let api = Api::start();
    let end = flood(
        &api,
        (0..MANY).map(|number| frame(HEADERS, END_HEADERS, stream(number), PUT)),
    );
    assert_eq!(end.goaway, Some(ENHANCE_YOUR_CALM), "{end:?}");
    is_unharmed(&api);
}

#[test]
fn a_head_that_goes_on_and_on_ends_the_connection() {
    let api = Api::start();
    // `x-a` and 4,000 letters, never the last frame of its head.
    let field = [&b"\x00\x03x-a\x7f\xa1\x1e"[..], &[b'a'; 4000]].concat();
    let first = frame(HEADERS, END_STREAM, 1, GET);
    let rest = (0..MANY).map(move |_| frame(CONTINUATION, 0, 1, &field));
    let end = flood(&api, std::iter::once(first).chain(rest));
    assert!(end.goaway.is_some(), "{end:?}");
    assert_eq!(end.answered, 0);
    is_unharmed(&api);
}

#[test]
fn a_small_head_that_unpacks_to_a_large_one_is_refused() {
    let api = Api::start();
    // A field of 4,000 bytes is put into the table once, and named 15,000 times by a byte.
    let field = [&b"\x40\x03x-a\x7f\xa1\x1e"[..], &[b'a'; 4000]].concat();
    let named = vec![0xbe_u8; 12_000];
    let head = [GET, &field, &named].concat();
    let bombs =
        (0..64).map(move |number| frame(HEADERS, END_HEADERS | END_STREAM, stream(number), &head));
    let end = flood(&api, bombs);
    assert_eq!(end.good, 0, "{end:?}");
    assert!(end.goaway.is_some() || end.answered > 0, "{end:?}");
    is_unharmed(&api);
}

#[test]
fn data_frames_without_data_keep_nothing_busy_but_their_own_connection() {
    let server = Server::registry().argument("--body-idle").argument("1s");
    let api = Api::on(server.start());
    let first = frame(HEADERS, END_HEADERS, 1, PUT);
    let rest = (0..MANY).map(|_| frame(DATA, 0, 1, b""));
    let end = flood(&api, std::iter::once(first).chain(rest));
    assert_eq!(end.good, 0, "{end:?}");
    is_unharmed(&api);
}
