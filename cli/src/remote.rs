//! Parts of a model that are read from its registry without pulling it.

use anyhow::{Context, Result};
use artifact::client::fetch::Mode;
use artifact::client::{BlobSource, RegistryClient, RetryPolicy};
use artifact::dialect::{self, MAX_TEXT_BYTES, Parts};
use artifact::gguf::{self, Header};
use artifact::manifest::{Descriptor, Manifest};

/// Bytes of a GGUF file asked for first; tokenizers take up to about 11 MiB.
const FIRST_BYTES: u64 = 1024 * 1024;

/// Reads as much of the blob's beginning as its header needs.
pub(crate) async fn read_header(registry: &RegistryClient, layer: &Descriptor) -> Result<Header> {
    let mut start = Vec::new();
    let mut wanted = FIRST_BYTES;
    loop {
        read_to(registry, layer, &mut start, wanted).await?;
        match Header::parse(&start, Some(layer.size)) {
            Ok(header) => return Ok(header),
            Err(gguf::Error::Truncated { .. })
                if wanted < layer.size && wanted < gguf::MAX_HEADER_BYTES =>
            {
                wanted = (wanted * 4).min(gguf::MAX_HEADER_BYTES);
            }
            Err(error) => {
                return Err(error).with_context(|| format!("{} is not a GGUF file", layer.digest));
            }
        }
    }
}

/// Reads what another dialect of the model is made from.
pub(crate) async fn read_parts(registry: &RegistryClient, manifest: &Manifest) -> Result<Parts> {
    let mut parts = Parts::default();
    for text in dialect::texts_of(manifest) {
        if text.size <= MAX_TEXT_BYTES as u64 {
            let mut content = Vec::new();
            read_to(registry, text, &mut content, text.size).await?;
            parts.texts.insert(text.digest, content);
        }
    }
    if let Some(weights) = dialect::weights_of(manifest) {
        parts.header = match read_header(registry, weights).await {
            Ok(header) => Some(header),
            // Weights that are no GGUF file have nothing to tell, in any dialect.
            Err(error) if error.is::<gguf::Error>() => None,
            Err(error) => return Err(error),
        };
    }
    Ok(parts)
}

/// Reads on until `start` has the first `wanted` bytes of the blob.
async fn read_to(
    registry: &RegistryClient,
    blob: &Descriptor,
    start: &mut Vec<u8>,
    wanted: u64,
) -> Result<()> {
    let retry = RetryPolicy::default();
    let source = BlobSource::new(registry.clone(), blob.digest, blob.size, retry);
    let range = start.len() as u64..wanted.min(blob.size);
    if range.is_empty() {
        return Ok(());
    }
    let mut reader = source.reader(range, Mode::Ranges);
    while let Some((_, bytes)) = reader
        .next()
        .await
        .with_context(|| format!("reading the start of {}", blob.digest))?
    {
        start.extend_from_slice(&bytes);
    }
    Ok(())
}
