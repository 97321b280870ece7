//! The Hugging Face view: a folder for `HF_HUB_CACHE`, as `huggingface_hub` lays out its own.
//!
//! ```text
//! models--<namespace>--<name>/
//!   refs/<branch>                the name of a commit
//!   snapshots/<commit>/<path>    links to ../../blobs/<etag>
//!   blobs/<etag>                 links to the blobs of the cache, by their SHA-256
//! ```

mod shown;
mod wanted;

use std::collections::BTreeMap;

use artifact::catalog;
use artifact::{Manifest, Reference};
use rustix::fs::FileType;

use crate::cache::NodeCache;
use crate::error::Error;
use wanted::{Model, Tree};

/// What the name of a repository's folder begins with.
const PREFIX: &str = "models--";

/// Makes the view show what the cache has of the repositories that this model may be in, as if
/// `without` was not there.
pub(super) fn update(
    cache: &NodeCache,
    reference: &Reference,
    without: Option<&Reference>,
) -> Result<(), Error> {
    let last = last_segment(reference);
    let has_name = |other: &Reference| last_segment(other) == last && Some(other) != without;
    bring_to(cache, has_name, |name| {
        let folder_end = name.rsplit("--").next().unwrap_or(name);
        folder_end.eq_ignore_ascii_case(last)
    })
}

/// Makes all of the view show what the cache has.
pub(super) fn settle(cache: &NodeCache) -> Result<(), Error> {
    bring_to(cache, |_| true, |_| true)
}

/// Shows the models with these references, and nothing else in the folders with these names.
fn bring_to(
    cache: &NodeCache,
    is_wanted: impl Fn(&Reference) -> bool,
    is_concerned: impl Fn(&str) -> bool,
) -> Result<(), Error> {
    let mut trees: BTreeMap<String, Tree> = wanted::trees(&models(cache, is_wanted)?)
        .into_iter()
        .map(|(name, tree)| (format!("{PREFIX}{}", name.replace('/', "--")), tree))
        .collect();
    for (name, kind) in cache.0.huggingface.entries()? {
        if kind == FileType::Directory && name.starts_with(PREFIX) && is_concerned(&name) {
            trees.entry(name).or_default();
        }
    }
    for (name, tree) in &trees {
        shown::show(cache, name, tree)?;
    }
    Ok(())
}

/// The complete models with their manifests. One that is damaged is not shown.
fn models(cache: &NodeCache, is_wanted: impl Fn(&Reference) -> bool) -> Result<Vec<Model>, Error> {
    let mut models = Vec::new();
    let listed = catalog::list_those(&cache.0.layout, is_wanted, |fault| {
        tracing::debug!(error = %fault, "a damaged model is not shown");
    })?;
    for entry in listed {
        let manifest: Option<Manifest> = cache.manifest(&entry.digest)?;
        models.extend(manifest.map(|manifest| Model {
            reference: entry.reference,
            digest: entry.digest,
            manifest,
            pulled_at: entry.pulled_at,
        }));
    }
    Ok(models)
}

/// What the names of one repository have in common, whatever place it is at: `name` of
/// `host/namespace/name:tag`.
fn last_segment(reference: &Reference) -> &str {
    reference
        .repository()
        .segments()
        .next_back()
        .unwrap_or_default()
}
