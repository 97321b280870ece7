//! A disk that fails to sync: the kernel's own EIO, put there by strace.

use std::process::{Child, Command, Stdio};

use reqwest::StatusCode;
use tests::{eventually, scratch};

use crate::registry_support::{Api, error_code, image};
use tests::Server;

/// Makes every fsync of a process fail while it lives.
struct FailingDisk(Child);

impl FailingDisk {
    async fn of(server: &Server) -> Self {
        let process = server.id();
        let syncs = "fsync,fdatasync";
        let child = Command::new("strace")
            .args(["-f", "-qq", "-o", "/dev/null"])
            .args(["-e", &format!("trace={syncs}")])
            .args(["-e", &format!("inject={syncs}:error=EIO")])
            .args(["-p", &process.to_string()])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        eventually("strace is attached to every thread", 20, async || {
            let tasks = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
            let mut statuses = tasks
                .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("status")).ok());
            let all = statuses.all(|status| !status.contains("TracerPid:\t0\n"));
            all.then_some(())
        })
        .await;
        Self(child)
    }
}

impl Drop for FailingDisk {
    fn drop(&mut self) {
        let _ = tests::ask_to_end(self.0.id());
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn after_a_failed_sync_nothing_is_taken_in_until_a_restart() {
    let data = scratch();
    let mut api = Api::on(Server::registry().data(data.path()).start());
    let kept = api.push_blob("a", b"kept").await;
    let ready = format!("{}/readyz", api.server.url());
    let status = async |url: &str| reqwest::get(url).await.unwrap().status();
    assert_eq!(status(&ready).await, StatusCode::OK);
    let location = api.begin("a").await;
    let failing = FailingDisk::of(&api.server).await;
    let digest = artifact::Digest::sha256(b"lost");
    let refused = api.close(&location, &digest, b"lost").await;
    assert_eq!(refused.status(), StatusCode::INTERNAL_SERVER_ERROR);
    drop(failing);
    // The disk says that all is well again, which proves nothing.
    eventually("the registry is not ready", 20, async || {
        (status(&ready).await == StatusCode::SERVICE_UNAVAILABLE).then_some(())
    })
    .await;
    let refused = api.post("a/blobs/uploads/").await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(error_code(refused).await, "UNKNOWN");
    let read = api.get(&format!("a/blobs/{kept}")).await;
    assert_eq!(read.text().await.unwrap(), "kept");
    let lost = api.head(&format!("a/blobs/{digest}")).await;
    assert_eq!(lost.status(), StatusCode::NOT_FOUND);

    assert_eq!(api.server.terminate(), Some(0));
    let api = Api::on(Server::registry().data(data.path()).start());
    assert_eq!(api.push_blob("a", b"lost").await, digest);
    let read = api.get(&format!("a/blobs/{kept}")).await;
    assert_eq!(read.text().await.unwrap(), "kept");
}

#[tokio::test]
async fn a_record_that_the_disk_does_not_keep_is_not_acknowledged_and_nothing_after_it_is() {
    for change in ["put", "delete"] {
        let data = scratch();
        let mut api = Api::on(Server::registry().data(data.path()).start());
        for tag in ["kept", "other"] {
            let _ = api.push_image("a", tag, b"kept").await;
        }
        let failing = FailingDisk::of(&api.server).await;
        // Its content is there, so that only the record of the tag is written, or removed.
        let refused = match change {
            "put" => api.put_manifest("a", "lost", &image(&[b"kept"])).await,
            _ => api.delete("a/manifests/kept").await,
        };
        let failed = StatusCode::INTERNAL_SERVER_ERROR;
        assert_eq!(refused.status(), failed, "{change}");
        drop(failing);
        let log = api.server.log();
        assert!(log.contains("the store is degraded"), "{change}: {log}");
        for refused in [
            api.put_manifest("a", "later", &image(&[b"kept"])).await,
            api.delete("a/manifests/other").await,
            api.post("a/blobs/uploads/").await,
        ] {
            let status = refused.status();
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{change}");
        }
        for (tag, status) in [("later", 404), ("other", 200)] {
            let found = api.head(&format!("a/manifests/{tag}")).await;
            assert_eq!(found.status(), status, "{change}");
        }

        assert_eq!(api.server.terminate(), Some(0), "{change}");
        let api = Api::on(Server::registry().data(data.path()).start());
        let pushed = api.put_manifest("a", "lost", &image(&[b"kept"])).await;
        assert_eq!(pushed.status(), StatusCode::CREATED, "{change}");
    }
}
