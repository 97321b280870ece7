//! The Ollama view: what an unmodified Ollama expects below `OLLAMA_MODELS`.
//!
//! A model in Ollama's own dialect is shown as it is; for one in another dialect a manifest and a
//! config are derived and stored as blobs, with the same weights.

mod derive;

use std::collections::HashSet;
use std::path::Path;

use artifact::catalog;
use artifact::manifest::MAX_MANIFEST_BYTES;
use artifact::{Algorithm, Digest, Manifest, Reference};
use rustix::fs::FileType;

use crate::cache::folder::Folder;
use crate::cache::views::{place_link, plain};
use crate::cache::{NodeCache, link_target};
use crate::error::Error;
pub(super) use derive::derive;

const MANIFESTS: &str = "manifests";
const BLOBS: &str = "blobs";
/// Host, namespace, model and tag.
const PATH_PARTS: usize = 4;

/// What the view shows of a model.
#[derive(Debug)]
pub(super) struct Shown {
    manifest: Digest,
    blobs: Vec<Digest>,
}

/// Puts the links of a model in place, its manifest last. A model that Ollama cannot express is
/// left out.
pub(super) fn publish(
    cache: &NodeCache,
    reference: &Reference,
    shown: Option<&Shown>,
) -> Result<(), Error> {
    let (Some(shown), Some(path)) = (shown, path_of(cache, reference)) else {
        return Ok(());
    };
    let blobs = cache.0.ollama.child(BLOBS)?;
    for digest in &shown.blobs {
        // views/ollama/blobs/…
        place_link(cache, &blobs, &link_name(digest), &link_target(3, digest))?;
    }
    blobs.sync()?;
    let Some((tag, folders)) = path.split_last() else {
        return Ok(());
    };
    let mut folder = cache.0.ollama.child(MANIFESTS)?;
    for name in folders {
        folder = folder.child(name)?;
    }
    // views/ollama/manifests/<host>/<namespace>/<model>/<tag>
    place_link(cache, &folder, tag, &link_target(6, &shown.manifest))?;
    folder.sync()
}

/// Takes a model out of the view, its manifest first, and gives the blobs that it named.
pub(crate) fn remove(cache: &NodeCache, reference: &Reference) -> Result<Vec<Digest>, Error> {
    let (Some(path), Some(manifests)) = (
        path_of(cache, reference),
        cache.0.ollama.existing(MANIFESTS)?,
    ) else {
        return Ok(Vec::new());
    };
    let Some((tag, folders)) = path.split_last() else {
        return Ok(Vec::new());
    };
    let Some(folder) = plain::descend(&manifests, folders)? else {
        return Ok(Vec::new());
    };
    let Some(digest) = linked_digest(&folder, tag)? else {
        return Ok(Vec::new());
    };
    let mut named = blobs_of(cache, &digest)?;
    folder.remove(tag)?;
    folder.sync()?;
    drop(folder);
    plain::remove_empty_folders(&manifests, folders)?;
    remove_unshared_links(cache, &named)?;
    named.push(digest);
    Ok(named)
}

/// Makes the view show each model of the cache that it can, and nothing else.
pub(super) fn settle(cache: &NodeCache) -> Result<(), Error> {
    let mut expected = HashSet::new();
    for model in catalog::list(&cache.0.layout, |_| {})? {
        let Some(path) = path_of(cache, &model.reference) else {
            continue;
        };
        if !is_shown(cache, &path)?
            && let Some(manifest) = cache.manifest(&model.digest)?
        {
            let derived = derive(cache, &model.reference, &model.digest, &manifest)?;
            publish(cache, &model.reference, derived.as_ref())?;
        }
        expected.insert(path);
    }
    if let Some(manifests) = cache.0.ollama.existing(MANIFESTS)? {
        sweep_manifests(&manifests, &mut Vec::new(), &expected)?;
    }
    sweep_links(cache)
}

/// Whether there is a manifest at this path, with its blob.
fn is_shown(cache: &NodeCache, path: &[String]) -> Result<bool, Error> {
    let (Some((tag, folders)), Some(manifests)) =
        (path.split_last(), cache.0.ollama.existing(MANIFESTS)?)
    else {
        return Ok(false);
    };
    let Some(folder) = plain::descend(&manifests, folders)? else {
        return Ok(false);
    };
    let digest = linked_digest(&folder, tag)?;
    digest.map_or(Ok(false), |digest| {
        cache.open_blob(&digest).map(|blob| blob.is_some())
    })
}

/// Removes the manifests of models that are not in the cache, and the folders that become empty.
fn sweep_manifests(
    folder: &Folder,
    path: &mut Vec<String>,
    expected: &HashSet<Vec<String>>,
) -> Result<(), Error> {
    for (name, kind) in folder.entries()? {
        path.push(name.clone());
        if kind == FileType::Symlink && !expected.contains(path) {
            folder.remove(&name)?;
        } else if path.len() < PATH_PARTS
            && let Some(child) = folder.existing(&name)?
        {
            sweep_manifests(&child, path, expected)?;
            folder.remove_folder(&name)?;
        }
        path.pop();
    }
    Ok(())
}

/// Removes the links to blobs that no manifest of the view names.
fn sweep_links(cache: &NodeCache) -> Result<(), Error> {
    let mut named = HashSet::new();
    named_blobs(cache, &mut named)?;
    let named: HashSet<String> = named.iter().map(link_name).collect();
    let Some(blobs) = cache.0.ollama.existing(BLOBS)? else {
        return Ok(());
    };
    for (name, kind) in blobs.entries()? {
        if kind == FileType::Symlink && !named.contains(&name) {
            blobs.remove(&name)?;
        }
    }
    Ok(())
}

/// Removes the links to blobs that no manifest of the view names any more.
fn remove_unshared_links(cache: &NodeCache, candidates: &[Digest]) -> Result<(), Error> {
    let mut shared = HashSet::new();
    named_blobs(cache, &mut shared)?;
    let Some(blobs) = cache.0.ollama.existing(BLOBS)? else {
        return Ok(());
    };
    for digest in candidates.iter().filter(|digest| !shared.contains(digest)) {
        blobs.remove(&link_name(digest))?;
    }
    blobs.sync()
}

/// Adds every blob that a manifest of the view names, and the manifests themselves.
pub(super) fn named_blobs(cache: &NodeCache, named: &mut HashSet<Digest>) -> Result<(), Error> {
    let Some(manifests) = cache.0.ollama.existing(MANIFESTS)? else {
        return Ok(());
    };
    let mut pending = vec![manifests];
    while let Some(folder) = pending.pop() {
        for (name, kind) in folder.entries()? {
            if kind == FileType::Directory {
                pending.extend(folder.existing(&name)?);
            } else if let Some(digest) = linked_digest(&folder, &name)? {
                named.extend(blobs_of(cache, &digest)?);
                named.insert(digest);
            }
        }
    }
    Ok(())
}

fn blobs_of(cache: &NodeCache, digest: &Digest) -> Result<Vec<Digest>, Error> {
    let raw = cache.read_blob(digest, MAX_MANIFEST_BYTES)?;
    let manifest = raw.and_then(|raw| Manifest::parse(raw, None).ok());
    Ok(manifest
        .map(|manifest| manifest.blobs().map(|blob| blob.digest).collect())
        .unwrap_or_default())
}

/// The digest in the target of a link into `blobs/sha256`.
fn linked_digest(folder: &Folder, name: &str) -> Result<Option<Digest>, Error> {
    let target = folder.read_link(name)?;
    let hex = target
        .as_deref()
        .and_then(Path::file_name)
        .and_then(|name| name.to_str());
    Ok(hex.and_then(|hex| Digest::from_hex(Algorithm::Sha256, hex).ok()))
}

fn link_name(digest: &Digest) -> String {
    format!("{}-{}", digest.algorithm(), digest.hex())
}

/// Host, namespace, model and tag; nothing when Ollama cannot read the name back from its path.
fn path_of(cache: &NodeCache, reference: &Reference) -> Option<Vec<String>> {
    /// Longest part of a name that Ollama accepts.
    const MAX_PART: usize = 80;
    let manifests = cache.0.layout.ollama_view().join(MANIFESTS);
    let path = cache.0.layout.ollama_view_manifest(reference)?;
    let parts: Vec<String> = path
        .strip_prefix(manifests)
        .ok()?
        .iter()
        .map(|part| part.to_str().map(str::to_owned))
        .collect::<Option<_>>()?;
    let is_readable = parts.len() == PATH_PARTS
        && !parts[1].contains('.')
        && parts[1..].iter().all(|part| part.len() <= MAX_PART);
    is_readable.then_some(parts)
}
