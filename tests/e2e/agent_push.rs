//! The push of a blob over connections that break off: it goes on where the registry stopped, and
//! each byte is read and hashed once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use artifact::client::{RegistryClient, RegistryOptions, Transport, push_bytes, push_file};
use artifact::{Digest, Reference};
use tests::upstream::noise;
use tests::{CuttingProxy, Server, scratch};

use crate::agent_api::DebianRegistry;

const MIB: u64 = 1024 * 1024;

async fn client(address: &str, name: &str) -> RegistryClient {
    let reference = Reference::parse(&format!("{address}/{name}:1")).unwrap();
    RegistryClient::open(
        &Transport::default(),
        &reference,
        &RegistryOptions::default(),
    )
    .await
    .unwrap()
}

/// Pushes through a proxy that cuts, and checks what the registry then has.
async fn push_through_cuts(registry: &str, content: &[u8], cuts: usize) -> u64 {
    let proxy = CuttingProxy::start(registry, 9 * MIB, cuts).await;
    let folder = scratch();
    let path = folder.path().join("blob");
    std::fs::write(&path, content).unwrap();
    let told = Arc::new(AtomicU64::new(0));
    let tell = Arc::clone(&told);
    let through = client(&proxy.address().to_string(), "test/cut").await;
    let pushed = push_file(&through, &path, None, move |sent| {
        tell.store(sent, Ordering::SeqCst);
    })
    .await
    .unwrap();
    assert_eq!(pushed.digest, Digest::sha256(content));
    assert!(!pushed.existed);
    assert_eq!(proxy.cuts_left(), 0);
    assert_eq!(told.load(Ordering::SeqCst), content.len() as u64);
    let url = format!("http://{registry}/v2/test/cut/blobs/{}", pushed.digest);
    let stored = reqwest::get(url).await.unwrap().bytes().await.unwrap();
    assert_eq!(Digest::sha256(&stored), pushed.digest);
    proxy.forwarded()
}

#[tokio::test]
async fn a_push_goes_on_after_its_connection_broke() {
    let registry = Server::registry().start();
    let content = noise(48 << 20, 41);
    let forwarded = push_through_cuts(registry.address(), &content, 2).await;
    // A cut may lose what was on its way and what the registry had not made durable.
    let most = content.len() as u64 + 2 * 33 * MIB;
    assert!(forwarded <= most, "{forwarded} bytes went up");
}

#[tokio::test]
async fn a_push_to_debians_registry_goes_on_too() {
    let registry = DebianRegistry::start().await;
    let content = noise(24 << 20, 42);
    let _ = push_through_cuts(&registry.address, &content, 1).await;
}

#[tokio::test]
async fn what_the_registry_has_is_not_sent_again() {
    let registry = Server::registry().start();
    let registry = client(registry.address(), "test/twice").await;
    let content = noise(1 << 20, 43);
    let first = push_bytes(&registry, content.clone().into()).await.unwrap();
    let second = push_bytes(&registry, content.clone().into()).await.unwrap();
    assert_eq!((first.existed, second.existed), (false, true));
    let folder = scratch();
    let path = folder.path().join("blob");
    std::fs::write(&path, &content).unwrap();
    let known = push_file(&registry, &path, Some(first.digest), |_| {})
        .await
        .unwrap();
    assert!(known.existed);
    let unknown = push_file(&registry, &path, None, |_| {}).await.unwrap();
    assert_eq!((unknown.existed, unknown.digest), (false, first.digest));
    let empty = folder.path().join("empty");
    std::fs::write(&empty, b"").unwrap();
    let nothing = push_file(&registry, &empty, None, |_| {}).await.unwrap();
    assert_eq!(nothing.digest, Digest::sha256(b""));
}

#[tokio::test]
async fn a_folder_or_a_missing_file_is_not_pushed() {
    let registry = Server::registry().start();
    let registry = client(registry.address(), "test/bad").await;
    let folder = scratch();
    for path in [folder.path().to_owned(), folder.path().join("missing")] {
        let error = push_file(&registry, &path, None, |_| {}).await.unwrap_err();
        assert!(error.to_string().contains("cannot be sent"), "{error}");
    }
}
