//! `push`: a GGUF file or a folder with a Modelfile into a registry, in ModelPack form.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use artifact::client::{RegistryClient, RegistryOptions, Transport, push_bytes, push_file};
use artifact::dialect::modelpack_manifest;
use artifact::manifest::Descriptor;
use artifact::{Digest, Reference};
use bytesize::ByteSize;
use serde_json::json;

use crate::args::{Output, PushArgs};
use crate::endpoint;
use crate::known_digests::KnownDigests;
use crate::listing;
use crate::package::{Package, Part, Source};
use crate::progress::Progress;
use crate::report::Interrupted;

pub(crate) async fn push(args: &PushArgs) -> Result<()> {
    let reference = Reference::parse(&args.reference)?;
    let package = Package::read(&args.path)?;
    let options = RegistryOptions {
        plain_http: args.plain_http,
        credentials: endpoint::stored_logins(),
    };
    let registry = RegistryClient::open(&Transport::default(), &reference, &options).await?;
    let pushed = tokio::select! {
        pushed = push_package(&registry, &package) => {
            pushed.with_context(|| format!("pushing {} to {reference}", args.path.display()))?
        }
        _ = tokio::signal::ctrl_c() => return Err(Interrupted.into()),
    };
    match args.output.output {
        Output::Json => listing::print_json(&json!({
            "reference": reference,
            "digest": pushed.digest,
            "size": pushed.size,
            "sent": pushed.sent,
        })),
        Output::Text => {
            say!(
                "{reference} {}: {} sent",
                pushed.digest,
                ByteSize(pushed.sent)
            )?;
            Ok(())
        }
    }
}

/// What a push came to.
struct Pushed {
    digest: Digest,
    size: u64,
    sent: u64,
}

/// Layers, then the config, then the manifest: nothing is visible before it is whole.
async fn push_package(registry: &RegistryClient, package: &Package) -> Result<Pushed> {
    let mut layers = Vec::new();
    let mut sent = 0;
    for part in &package.parts {
        let (layer, existed) = push_part(registry, part).await?;
        sent += if existed { 0 } else { layer.size };
        layers.push(layer);
    }
    let digest = push_manifest(registry, &layers, package).await?;
    Ok(Pushed {
        digest,
        size: layers.iter().map(|layer| layer.size).sum(),
        sent,
    })
}

async fn push_part(registry: &RegistryClient, part: &Part) -> Result<(Descriptor, bool)> {
    let pushed = match &part.source {
        Source::Bytes(bytes) => push_bytes(registry, bytes.clone().into()).await?,
        Source::File(path, size) => push_weights(registry, &part.name, path, *size).await?,
    };
    Ok((part.descriptor(pushed.digest, pushed.size), pushed.existed))
}

async fn push_weights(
    registry: &RegistryClient,
    name: &str,
    path: &Path,
    size: u64,
) -> Result<artifact::client::PushedBlob> {
    // The digest is known only when all is sent, so the file's name stands for the blob.
    let key = Digest::sha256(name.as_bytes());
    let mut known = KnownDigests::open();
    let before =
        std::fs::metadata(path).with_context(|| format!("{} cannot be read", path.display()))?;
    let progress = Arc::new(Mutex::new(Progress::new()));
    lock(&progress).begin(key, &format!("pushing {name}"), size);
    let told = Arc::clone(&progress);
    let advance = move |bytes| lock(&told).advance(&key, bytes);
    let pushed = push_file(registry, path, known.get(path), advance).await?;
    lock(&progress).finish(&key);
    if !pushed.existed {
        known.remember(path, &before, pushed.digest);
    }
    Ok(pushed)
}

async fn push_manifest(
    registry: &RegistryClient,
    layers: &[Descriptor],
    package: &Package,
) -> Result<Digest> {
    let (config, manifest) = modelpack_manifest(layers, &package.facts, &package.annotations);
    push_bytes(registry, config.bytes.into()).await?;
    registry
        .put_manifest(&manifest.bytes, manifest.media_type)
        .await?;
    Ok(manifest.digest)
}

/// Progress is only shown: what a panicking thread left of it is good enough.
fn lock(progress: &Mutex<Progress>) -> std::sync::MutexGuard<'_, Progress> {
    progress.lock().unwrap_or_else(PoisonError::into_inner)
}
