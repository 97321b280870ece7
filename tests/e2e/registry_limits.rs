//! What one client may ask of the server: heads, bodies, time and connections, seen from outside
//! byte by byte.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use artifact::Digest;
use tests::upstream::noise;
use tests::{Server, eventually};

use crate::registry_support::{Api, raw, raw_get};

/// Long enough for a busy machine, and short against the defaults.
const PATIENCE: Duration = Duration::from_secs(20);

fn limited(arguments: &[&str]) -> Api {
    let mut server = Server::registry();
    for argument in arguments {
        server = server.argument(argument);
    }
    Api::on(server.start())
}

fn connect(api: &Api) -> TcpStream {
    let stream = TcpStream::connect(api.server.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Everything that comes until the server closes; fails when it does not close in time.
fn until_closed(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            Err(error) => panic!("the server did not close: {error}"),
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// H01: slowloris.
#[test]
fn a_head_that_does_not_end_is_cut_off() {
    let api = limited(&["--header-time", "1s"]);
    let mut stream = connect(&api);
    stream
        .write_all(b"GET /v2/ HTTP/1.1\r\nhost: x\r\nx-a:")
        .unwrap();
    let answer = until_closed(&mut stream);
    assert!(!answer.contains(" 200 "), "{answer}");
    assert_eq!(raw_get(api.server.address(), "/v2/").0, 200);
}

/// H01: a body that brings nothing, or a byte now and then; what came is kept.
#[tokio::test]
async fn a_body_that_stalls_or_drips_is_given_up_and_what_came_is_kept() {
    let api = limited(&["--body-idle", "1s"]);
    for is_dripping in [false, true] {
        let location = api.begin("a").await;
        let path = &location[location.find("/v2/").unwrap()..];
        let head = format!("PATCH {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n");
        let mut stream = connect(&api);
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&[7; 5000]).unwrap();
        let began = Instant::now();
        if is_dripping {
            let mut drops = stream.try_clone().unwrap();
            std::thread::spawn(move || {
                while drops.write_all(b"x").is_ok() {
                    #[expect(clippy::disallowed_methods, reason = "a slow client is the point")]
                    std::thread::sleep(Duration::from_millis(100));
                }
            });
        }
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 408");
        assert!(began.elapsed() < PATIENCE);
        let offset = api.offset(&location).await;
        assert!((5000..6000).contains(&offset), "{offset}");
    }
}

/// H01: a client that asks for much and reads nothing.
#[tokio::test]
async fn a_client_that_takes_nothing_of_its_answer_is_cut_off() {
    let api = limited(&["--write-idle", "1s"]);
    let content = noise(64_000_000, 9);
    let digest = api.push_blob("a", &content).await;
    let mut stream = connect(&api);
    let request = format!("GET /v2/a/blobs/{digest} HTTP/1.1\r\nhost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut first = [0; 12];
    stream.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    let open = "hayloft_registry_connections_open";
    eventually("the connection is cut", 20, async || {
        let text = raw_get(api.server.address(), "/metrics").1;
        let line = text.lines().find(|line| line.starts_with(open))?;
        // None but the one that asks: the idle one of the harness is closed as well.
        (line.rsplit(' ').next()? == "1").then_some(())
    })
    .await;
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(rest.len() < content.len(), "it was not cut off");

    // A slow reader that does take something goes on to the end.
    let slow = api.get(&format!("a/blobs/{digest}")).await;
    assert!(slow.bytes().await.unwrap() == content);
}

/// H03.
#[test]
fn heads_that_are_too_large_or_ambiguous_are_refused_and_the_connection_closed() {
    let api = limited(&["--header-size", "16KiB"]);
    let address = api.server.address();
    let large = format!("x-large: {}\r\n", "a".repeat(20_000));
    let huge = format!("x-huge: {}\r\n", "a".repeat(1_000_000));
    let many = "x-many: a\r\n".repeat(10_000);
    let twice = "content-length: 5\r\ncontent-length: 6\r\n".to_owned();
    let both = "transfer-encoding: gzip\r\ncontent-length: 5\r\n".to_owned();
    let folded = "x-a: b\r\n c: d\r\n".to_owned();
    let bare = "x-a: b\rc: d\r\n".to_owned();
    for fields in [large, huge, many, twice, both, folded, bare] {
        let request = format!("PUT /v2/ HTTP/1.1\r\nhost: x\r\n{fields}\r\nhello");
        let answer = raw(address, request.as_bytes());
        let status = answer.get(9..12).unwrap_or_default().to_owned();
        let shown: String = fields.chars().take(40).collect();
        assert!(
            ["400", "431"].contains(&status.as_str()),
            "{shown}: {answer}"
        );
        assert_eq!(raw_get(address, "/healthz").0, 200);
    }
    let long = format!("/v2/{}/tags/list", "a".repeat(20_000));
    assert!([400, 414, 431].contains(&raw_get(address, &long).0));
}

/// H03: what a proxy in front might read as a second request is never one here.
#[test]
fn a_request_with_two_lengths_smuggles_nothing() {
    let api = Api::start();
    let smuggled = "GET /v2/_catalog HTTP/1.1\r\nhost: x\r\n\r\n";
    let request = format!(
        "POST /v2/ HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}",
        5 + smuggled.len()
    );
    let answer = raw(api.server.address(), request.as_bytes());
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
}

/// H04.
#[test]
fn no_spelling_of_a_path_reaches_another_one() {
    let api = Api::start();
    let address = api.server.address();
    for path in [
        "/v2/%2e%2e/%2e%2e/etc/passwd",
        "/v2/a%2fb/tags/list",
        "/v2/a/..;/b/tags/list",
        "/v2/%252e/tags/list",
        "/v2/a%00/tags/list",
        "//v2/",
        "/v2/./tags/list",
    ] {
        let (status, answer) = raw_get(address, path);
        assert!([400, 404].contains(&status), "{path}: {answer}");
    }
    let (status, _) = raw_get(address, &format!("http://{address}/v2/"));
    assert_eq!(status, 200, "the absolute form is as good as the other");
}

/// H05.
#[test]
fn addresses_in_answers_are_the_configured_ones_whatever_a_client_claims() {
    let api = limited(&["--external-url", "https://models.example/"]);
    let request = "POST /v2/a/blobs/uploads/ HTTP/1.1\r\nhost: evil.example\r\nx-forwarded-host: evil.example\r\nx-forwarded-proto: http\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let answer = raw(api.server.address(), request.as_bytes());
    assert!(
        answer.contains("location: https://models.example/v2/a/"),
        "{answer}"
    );
    assert!(!answer.contains("evil"), "{answer}");

    let open = Api::start();
    let request = request.replace("evil.example", "evil.example/\"<x>");
    let answer = raw(open.server.address(), request.as_bytes());
    assert!(!answer.contains("<x>"), "{answer}");
}

/// H06.
#[tokio::test]
async fn hundred_thousand_ranges_cost_no_more_than_one() {
    let api = Api::start();
    let digest = api.push_blob("a", b"hello").await;
    let ranges: Vec<String> = (0..5_000).map(|at| format!("{at}-{at}")).collect();
    let ask = async |range: &str| {
        let request = api.client.get(api.url(&format!("a/blobs/{digest}")));
        request.header("range", range).send().await.unwrap()
    };
    let many = ask(&format!("bytes={}", ranges.join(","))).await;
    assert_eq!(many.status(), 200);
    assert_eq!(many.bytes().await.unwrap().as_ref(), b"hello");
    assert_eq!(ask("bytes=5-").await.status(), 416);
    assert_eq!(ask("bytes=-0").await.status(), 416);
}

/// H09.
#[tokio::test]
async fn idle_connections_make_room_and_health_answers_when_all_are_busy() {
    let api = limited(&["--connections", "4"]);
    let address = api.server.address().to_owned();
    let idle: Vec<TcpStream> = (0..40).map(|_| connect(&api)).collect();
    eventually("an idle one makes room", 10, async || {
        (raw_get(&address, "/v2/").0 == 200).then_some(())
    })
    .await;
    drop(idle);

    let mut busy = Vec::new();
    for _ in 0..4 {
        let head = "PUT /v2/a/manifests/v1 HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\
                    expect: 100-continue\r\n\r\n";
        let mut stream = connect(&api);
        stream.write_all(head.as_bytes()).unwrap();
        // Until then it counts as idle, and would make room for the questions below.
        let mut waiting = [0; 12];
        stream.read_exact(&mut waiting).unwrap();
        assert_eq!(&waiting, b"HTTP/1.1 100");
        busy.push(stream);
    }
    eventually("all places are busy", 10, async || {
        (raw_get(&address, "/v2/").0 == 503).then_some(())
    })
    .await;
    assert_eq!(raw_get(&address, "/healthz").0, 200);
    assert_eq!(raw_get(&address, "/readyz").0, 200);
    let refused = raw_get(&address, "/v2/").1;
    assert!(refused.to_lowercase().contains("retry-after"), "{refused}");
    drop(busy);
    eventually("there is room again", 10, async || {
        (raw_get(&address, "/v2/").0 == 200).then_some(())
    })
    .await;
}

/// H10: clients that close one half, or reset in the middle of a pull, leave nothing behind.
#[tokio::test]
async fn half_closed_and_reset_connections_leave_nothing_open() {
    let api = Api::start();
    let content = noise(3_000_000, 10);
    let digest = api.push_blob("a", &content).await;
    let process = format!("/proc/{}", api.server.id());
    let count = |what: &str| {
        std::fs::read_dir(format!("{process}/{what}"))
            .unwrap()
            .count()
    };
    let request = format!("GET /v2/a/blobs/{digest} HTTP/1.1\r\nhost: x\r\n\r\n");
    let pull = |read: usize| {
        let mut stream = connect(&api);
        stream.write_all(request.as_bytes()).unwrap();
        let mut taken = vec![0; read];
        stream.read_exact(&mut taken).unwrap();
        stream
    };
    // The threads that files are read by come with the first pulls.
    drop((0..20).map(pull).collect::<Vec<_>>());
    let open = "hayloft_registry_connections_open";
    let is_alone = async || {
        let text = raw_get(api.server.address(), "/metrics").1;
        let line = text.lines().find(|line| line.starts_with(open))?;
        // The harness's own connection, and the one that asks.
        (line.rsplit(' ').next()? == "2").then_some(())
    };
    eventually("they are gone", 20, is_alone).await;
    let before = count("fd");
    for read in (0..200).chain((1..20).map(|part| part * 150_000)) {
        // Closing with bytes unread resets.
        drop(pull(read));
        let half = pull(read.min(1000));
        half.shutdown(std::net::Shutdown::Write).unwrap();
        drop(half);
    }
    // One that still listens: hyper takes its end for the end of the connection.
    let mut half = pull(0);
    half.shutdown(std::net::Shutdown::Write).unwrap();
    let _ = until_closed(&mut half);
    drop(half);
    eventually("all of them are gone", 20, is_alone).await;
    eventually("their files are closed", 20, async || {
        (count("fd") <= before).then_some(())
    })
    .await;
    // Tokio keeps at most 512 threads for files, and ends those that rest.
    assert!(count("task") < 64, "{} threads", count("task"));
    let whole = api.get(&format!("a/blobs/{digest}")).await;
    assert!(whole.bytes().await.unwrap() == content);
}

/// A descriptor may carry its content: then it must be that content (P20).
#[tokio::test]
async fn data_in_a_descriptor_must_be_what_its_digest_says() {
    let api = Api::start();
    let _ = api.push_blob("a", b"{}").await;
    let _ = api.push_blob("a", b"layer").await;
    let put = async |data: serde_json::Value| {
        let mut manifest = crate::registry_support::image(&[b"layer"]);
        manifest["config"]["data"] = data;
        api.put_manifest("a", "v1", &manifest).await
    };
    for bad in ["e30K", "bGF5ZXI=", "", "%%%"] {
        let refused = put(bad.into()).await;
        assert_eq!(refused.status(), 400, "{bad}");
        let code = crate::registry_support::error_code(refused).await;
        assert_eq!(code, "MANIFEST_INVALID", "{bad}");
    }
    assert_eq!(put(7.into()).await.status(), 400);
    assert_eq!(put("e30=".into()).await.status(), 201);
    let digest = Digest::sha256(b"{}");
    assert_eq!(api.head(&format!("a/blobs/{digest}")).await.status(), 200);
}
