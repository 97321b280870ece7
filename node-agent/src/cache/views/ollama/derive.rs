//! Derives what the Ollama view shows of a model: its own manifest, or one made from its layers, its
//! Modelfile and the header of its weights.

use artifact::dialect::{self, Dialect, MAX_TEXT_BYTES, Parts, Source};
use artifact::gguf::Header;
use artifact::{Algorithm, Digest, Manifest, Reference};

use crate::cache::NodeCache;
use crate::cache::views::ollama::{Shown, path_of};
use crate::error::Error;

/// What the view will show; nothing when Ollama cannot run or name the model.
pub(in crate::cache) fn derive(
    cache: &NodeCache,
    reference: &Reference,
    digest: &Digest,
    manifest: &Manifest,
) -> Result<Option<Shown>, Error> {
    let is_sha256 = |digest: &Digest| digest.algorithm() == Algorithm::Sha256;
    if path_of(cache, reference).is_none() {
        return Ok(None);
    }
    if Dialect::of(manifest) == Dialect::Ollama {
        let is_runnable = dialect::weights_of(manifest).is_some()
            && is_sha256(digest)
            && manifest.blobs().all(|blob| is_sha256(&blob.digest));
        return Ok(is_runnable.then(|| Shown {
            manifest: *digest,
            blobs: manifest.blobs().map(|blob| blob.digest).collect(),
        }));
    }
    let source = Source {
        manifest,
        digest: *digest,
        parts: &read_parts(cache, manifest)?,
    };
    let derived = match dialect::derive(source, Dialect::Ollama) {
        Ok(derived) => derived,
        Err(reason) => {
            tracing::debug!(%reference, %reason, "not shown to Ollama");
            return Ok(None);
        }
    };
    for document in derived.documents.iter().chain([&derived.manifest]) {
        cache.store_document(&document.digest, &document.bytes)?;
    }
    Ok(Some(Shown {
        manifest: derived.manifest.digest,
        blobs: derived.blobs().collect(),
    }))
}

/// What of the model has to be read.
fn read_parts(cache: &NodeCache, manifest: &Manifest) -> Result<Parts, Error> {
    let mut parts = Parts::default();
    for text in dialect::texts_of(manifest) {
        if let Some(bytes) = cache.read_blob(&text.digest, MAX_TEXT_BYTES)? {
            parts.texts.insert(text.digest, bytes);
        }
    }
    if let Some(weights) = dialect::weights_of(manifest) {
        let file = cache.open_blob(&weights.digest)?;
        // A file that is no GGUF is shown all the same: Ollama says what is wrong with it.
        parts.header = file.and_then(|mut file| Header::read(&mut file, Some(weights.size)).ok());
    }
    Ok(parts)
}
