//! Parts of a model that are read where it is without pulling it.

use anyhow::{Context, Result};
use artifact::ModelName;
use artifact::client::fetch::Mode;
use artifact::client::{BlobSource, RegistryClient, RetryPolicy, Selector};
use artifact::dialect::{self, MAX_TEXT_BYTES, Parts};
use artifact::gguf::{self, Header};
use artifact::manifest::{Descriptor, Manifest};
use artifact::reference::DEFAULT_TAG;

/// Bytes of a GGUF file asked for first; tokenizers take up to about 11 MiB.
const FIRST_BYTES: u64 = 1024 * 1024;

/// Which manifest a name asks for.
pub(crate) fn selector_of(name: &ModelName) -> Selector {
    let reference = name.reference();
    match (reference.digest(), reference.tag()) {
        (Some(digest), _) => Selector::Digest(*digest),
        (None, Some(tag)) => Selector::Tag(tag.as_str().to_owned()),
        (None, None) => Selector::Tag(DEFAULT_TAG.to_owned()),
    }
}

/// Reads as much of the blob's beginning as its header needs.
pub(crate) async fn read_header(source: &BlobSource) -> Result<Header> {
    let mut start = Vec::new();
    let mut wanted = FIRST_BYTES;
    loop {
        read_to(source, &mut start, wanted).await?;
        match Header::parse(&start, Some(source.size())) {
            Ok(header) => return Ok(header),
            Err(gguf::Error::Truncated { .. })
                if wanted < source.size() && wanted < gguf::MAX_HEADER_BYTES =>
            {
                wanted = (wanted * 4).min(gguf::MAX_HEADER_BYTES);
            }
            Err(error) => {
                let digest = source.digest();
                return Err(error).with_context(|| format!("{digest} is not a GGUF file"));
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
            read_to(&source(registry, text), &mut content, text.size).await?;
            parts.texts.insert(text.digest, content);
        }
    }
    if let Some(weights) = dialect::weights_of(manifest) {
        parts.header = match read_header(&source(registry, weights)).await {
            Ok(header) => Some(header),
            // Weights that are no GGUF file have nothing to tell, in any dialect.
            Err(error) if error.is::<gguf::Error>() => None,
            Err(error) => return Err(error),
        };
    }
    Ok(parts)
}

fn source(registry: &RegistryClient, blob: &Descriptor) -> BlobSource {
    let retry = RetryPolicy::default();
    BlobSource::new(registry.clone(), blob.digest, blob.size, retry)
}

/// Reads on until `start` has the first `wanted` bytes of the blob.
async fn read_to(source: &BlobSource, start: &mut Vec<u8>, wanted: u64) -> Result<()> {
    let range = start.len() as u64..wanted.min(source.size());
    if range.is_empty() {
        return Ok(());
    }
    let mut reader = source.reader(range, Mode::Ranges);
    while let Some((_, bytes)) = reader
        .next()
        .await
        .with_context(|| format!("reading the start of {}", source.digest()))?
    {
        start.extend_from_slice(&bytes);
    }
    Ok(())
}
