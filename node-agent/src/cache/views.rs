//! Views: the names under which models are seen, all of them links into `blobs/`.
//!
//! A model appears when the last of its names is renamed into place, and disappears with the first
//! one removed: the manifest, in the Hugging Face view the branch. The plain view is the truth; the
//! others follow from it and from what the blobs say, and are made to again at every start, so a
//! process that was killed in between leaves nothing behind for long.

pub(crate) mod huggingface;
pub(crate) mod ollama;
pub(crate) mod plain;

use std::collections::HashSet;

use artifact::catalog;
use artifact::{Digest, Manifest, Reference};

use crate::cache::folder::Folder;
use crate::cache::{NodeCache, temporary_name};
use crate::error::Error;

/// Shows a model whose blobs are all here. What its name showed before is taken out first; the
/// blobs of that which nothing names any more are deleted.
pub(crate) fn publish(
    cache: &NodeCache,
    reference: &Reference,
    digest: &Digest,
    manifest: &Manifest,
) -> Result<(), Error> {
    let _changing = cache.change_views();
    let derived = ollama::derive(cache, reference, digest, manifest)?;
    let previous = cache.find_any(reference)?;
    let mut left = Vec::new();
    if previous
        .as_ref()
        .is_some_and(|model| model.digest != *digest)
    {
        left = ollama::remove(cache, reference)?;
        plain::hide(&cache.0.plain, reference)?;
    }
    plain::publish(cache, reference, digest, manifest)?;
    ollama::publish(cache, reference, derived.as_ref())?;
    huggingface::update(cache, reference, None)?;
    if let Some(previous) = previous.filter(|model| model.digest != *digest) {
        left.extend(previous.blobs.iter().map(|blob| blob.digest));
        left.push(previous.digest);
        cache.delete_unnamed(left)?;
    }
    Ok(())
}

/// Takes a model out of all views, in the opposite order, and gives the blobs that they named beside
/// its own. The views must be held.
pub(super) fn remove(
    cache: &NodeCache,
    reference: &Reference,
    pin: &str,
) -> Result<Vec<Digest>, Error> {
    huggingface::update(cache, reference, Some(reference))?;
    let named = ollama::remove(cache, reference)?;
    plain::remove(&cache.0.plain, reference, pin)?;
    Ok(named)
}

/// Completes or sweeps what a killed process left half made. A view that cannot be, for instance on
/// a full disk, is told and left: what is in it is still right.
pub(super) fn settle(cache: &NodeCache) {
    let _changing = cache.change_views();
    for (view, settled) in [
        ("plain", plain::settle(&cache.0.plain, &cache.0.layout)),
        ("ollama", ollama::settle(cache)),
        ("huggingface", huggingface::settle(cache)),
    ] {
        if let Err(error) = settled {
            tracing::warn!(view, %error, "a view could not be made good");
        }
    }
}

/// Every blob that some view names. The Hugging Face view names no others than the plain one.
pub(super) fn named_blobs(cache: &NodeCache) -> Result<HashSet<Digest>, Error> {
    let mut named = HashSet::new();
    // A damaged model is not listed, and still names its blobs: then nothing is deleted at all.
    let mut damaged = None;
    for model in catalog::list(&cache.0.layout, |fault| damaged = Some(fault))? {
        named.insert(model.digest);
        named.extend(model.blobs.iter().map(|blob| blob.digest));
    }
    if let Some(fault) = damaged {
        return Err(fault.into());
    }
    ollama::named_blobs(cache, &mut named)?;
    Ok(named)
}

/// Puts a link in place under its final name at once, over what is there.
fn place_link(
    cache: &NodeCache,
    folder: &Folder,
    name: &str,
    target: &std::path::Path,
) -> Result<(), Error> {
    if folder.read_link(name)?.as_deref() == Some(target) {
        return Ok(());
    }
    let temporary = temporary_name();
    cache.ingest().link(target, &temporary)?;
    cache
        .ingest()
        .rename(&temporary, folder, name)
        .inspect_err(|_| drop(cache.ingest().remove(&temporary)))
}
