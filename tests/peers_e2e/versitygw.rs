//! versitygw: a real S3 server under the registry.

use std::path::Path;
use std::time::{Duration, Instant};

use artifact::Digest;
use bytes::Bytes;
use reqwest::StatusCode;
use tests::s3::{BUCKET, bucket_of, keys_below, registry_in};
use tests::upstream::noise;
use tests::{Builder, Server, eventually, scratch};

use crate::peer;

const KEY: &str = "root-key";
const SECRET: &str = "root-secret";

/// A running versitygw with one bucket.
struct Versitygw {
    folder: tempfile::TempDir,
    port: u16,
    child: std::process::Child,
}

impl Versitygw {
    async fn start() -> Self {
        let folder = scratch();
        std::fs::create_dir(folder.path().join(BUCKET)).unwrap();
        // It takes no port 0. Somebody else may take the port first: then it ends, and another
        // one is tried.
        for _ in 0..10 {
            let port = free_port();
            let mut child = peer::command("versitygw", folder.path())
                .env("ROOT_ACCESS_KEY", KEY)
                .env("ROOT_SECRET_KEY", SECRET)
                .arg("--port")
                .arg(format!("127.0.0.1:{port}"))
                .arg("posix")
                .arg(folder.path())
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null())
                .spawn()
                .unwrap();
            let listens = eventually("versitygw listens or ends", 20, || {
                let connected = std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
                let ended = child.try_wait().unwrap().is_some();
                std::future::ready((connected || ended).then_some(connected && !ended))
            });
            if listens.await {
                return Self {
                    folder,
                    port,
                    child,
                };
            }
        }
        panic!("versitygw does not start");
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn registry(&self, data: &Path) -> Builder {
        registry_in(&self.address(), KEY, SECRET).data(data)
    }

    fn keys(&self) -> Vec<String> {
        keys_below(&self.folder.path().join(BUCKET))
    }
}

impl Drop for Versitygw {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// Opens an upload session; gives its path.
async fn begin(server: &Server) -> String {
    let url = format!("{}/v2/a/blobs/uploads/", server.url());
    let begun = client().post(url).send().await.unwrap();
    assert_eq!(begun.status(), StatusCode::ACCEPTED);
    let location = begun.headers()["location"].to_str().unwrap().to_owned();
    format!("/v2/{}", location.split_once("/v2/").unwrap().1)
}

async fn offset(server: &Server, path: &str) -> usize {
    let url = format!("{}{path}", server.url());
    let answer = client().get(url).send().await.unwrap();
    let offset = &answer.headers()["upload-offset"];
    offset.to_str().unwrap().parse().unwrap()
}

async fn close(server: &Server, path: &str, digest: &Digest, rest: &[u8]) {
    let url = format!("{}{path}?digest={digest}", server.url());
    let closed = client().put(url).body(rest.to_vec()).send().await.unwrap();
    assert_eq!(closed.status(), StatusCode::CREATED, "{}", server.log());
}

async fn pull(server: &Server, digest: &Digest) -> Bytes {
    let url = format!("{}/v2/a/blobs/{digest}", server.url());
    let answer = client().get(url).send().await.unwrap();
    answer.error_for_status().unwrap().bytes().await.unwrap()
}

#[tokio::test]
async fn the_store_over_versitygw_keeps_every_promise() {
    let s3 = Versitygw::start().await;
    let bucket = bucket_of(&s3.address(), KEY, SECRET);
    registry::blob_conformance::verify_bucket(&bucket).await;
}

#[tokio::test]
async fn a_blob_of_many_parts_is_pushed_and_pulled() {
    let s3 = Versitygw::start().await;
    let data = scratch();
    let server = s3.registry(data.path()).start();
    let content = noise(100_000_000, 1);
    let digest = Digest::sha256(&content);
    let path = begin(&server).await;
    close(&server, &path, &digest, &content).await;
    assert!(pull(&server, &digest).await == content, "by a redirect");
    let url = format!("{}/v2/a/blobs/{digest}", server.url());
    let direct = client().get(url).header("hayloft-redirect", "no");
    let direct = direct.header("range", "bytes=8388600-30000000");
    let part = direct.send().await.unwrap().bytes().await.unwrap();
    assert!(
        part == content[8_388_600..=30_000_000],
        "through the registry"
    );
}

#[tokio::test]
async fn another_process_goes_on_with_the_upload_of_one_that_was_killed() {
    let s3 = Versitygw::start().await;
    let (first, second) = (scratch(), scratch());
    let mut server = s3.registry(first.path()).start();
    let content = noise(60_000_000, 2);
    let path = begin(&server).await;
    let (sender, receiver) = tokio::sync::mpsc::channel::<Bytes>(4);
    let pieces = futures::stream::unfold(receiver, |mut receiver| async move {
        let piece = receiver.recv().await?;
        Some((Ok::<_, std::io::Error>(piece), receiver))
    });
    let request = client().patch(format!("{}{path}", server.url()));
    let request = request.body(reqwest::Body::wrap_stream(pieces)).send();
    let request = tokio::spawn(request);
    for piece in content[..50_000_000].chunks(500_000) {
        sender.send(Bytes::copy_from_slice(piece)).await.unwrap();
    }
    eventually("a checkpoint in the bucket", 30, async || {
        (offset(&server, &path).await > 0).then_some(())
    })
    .await;
    server.kill();
    assert!(request.await.unwrap().is_err());
    // On a data folder of its own: it waits until the bucket is free, then until the claim is.
    let server = s3.registry(second.path()).start();
    let digest = Digest::sha256(&content);
    let offset = eventually("the second registry serves", 60, async || {
        let url = format!("{}/readyz", server.url());
        let ready = client()
            .get(url)
            .send()
            .await
            .is_ok_and(|answer| answer.status() == 200);
        if ready {
            Some(offset(&server, &path).await)
        } else {
            None
        }
    })
    .await;
    assert!(offset > 0, "nothing was kept");
    close(&server, &path, &digest, &content[offset..]).await;
    assert!(pull(&server, &digest).await == content);
}

#[tokio::test]
async fn multipart_uploads_that_nobody_goes_on_with_are_given_up() {
    let s3 = Versitygw::start().await;
    let data = scratch();
    let server = s3
        .registry(data.path())
        .argument("--upload-expiry")
        .argument("2s");
    let server = server.start();
    let path = begin(&server).await;
    let request = client().patch(format!("{}{path}", server.url()));
    let sent = request.body(noise(20_000_000, 3)).send().await.unwrap();
    assert_eq!(sent.status(), StatusCode::ACCEPTED);
    // And one that no session knows, as a crash may leave it.
    let orphan = start_orphan(&s3);
    assert!(
        s3.keys().iter().any(|key| key.contains(&orphan)),
        "{:?}",
        s3.keys()
    );
    let deadline = Instant::now() + Duration::from_secs(30);
    eventually("no part is left", 30, async || {
        let keys = s3.keys();
        let left: Vec<_> = keys
            .iter()
            .filter(|key| key.contains(".sgwtmp/multipart"))
            .collect();
        assert!(left.is_empty() || Instant::now() < deadline, "{left:?}");
        (left.is_empty() && !keys.iter().any(|key| key.contains("/uploads/"))).then_some(())
    })
    .await;
}

/// Begins a multipart upload on our data, as another program would, and puts a part.
fn start_orphan(s3: &Versitygw) -> String {
    let key = "team/data/00000000-0000-4000-8000-000000000000";
    let url = format!("http://{}/{BUCKET}/{key}", s3.address());
    let begun = curl(&["-X", "POST", &format!("{url}?uploads=")]);
    let (_, id) = begun.split_once("<UploadId>").expect("an upload id");
    let (id, _) = id.split_once('<').expect("an upload id");
    let part = format!("{url}?partNumber=1&uploadId={id}");
    let content = tests::project_root().join("deny.toml");
    curl(&["-T", content.to_str().unwrap(), &part]);
    id.to_owned()
}

fn curl(arguments: &[&str]) -> String {
    let user = format!("{KEY}:{SECRET}");
    let signed = [
        "-sSf",
        "-H",
        "x-amz-content-sha256: UNSIGNED-PAYLOAD",
        "--aws-sigv4",
        "aws:amz:us-east-1:s3",
        "--user",
        &user,
    ];
    peer::output(
        std::process::Command::new("curl")
            .args(signed)
            .args(arguments),
    )
}
