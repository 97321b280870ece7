//! The models in a cache folder, read from its plain view: what the agent rebuilds its index from,
//! and what a runtime without an agent serves.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::agent_api::{ModelBlob, ModelEntry};
use crate::dialect::{self, Role};
use crate::digest::{Algorithm, Digest};
use crate::layout::{CacheLayout, MANIFEST_FILE};
use crate::manifest::{Descriptor, InvalidManifest, MAX_MANIFEST_BYTES, Manifest};
use crate::reference::Reference;

/// Deepest folder below `views/plain` that is looked at: a host, the segments of a name, a tag.
pub const MAX_DEPTH: usize = 132;

/// Why the models of a cache could not be listed, or one of them could not be read.
#[derive(Debug, thiserror::Error)]
pub enum CatalogFault {
    /// A file or folder of the cache could not be read.
    #[error("{path} cannot be read")]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A manifest in the cache is damaged.
    #[error("{path} is not a manifest")]
    Manifest {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: InvalidManifest,
    },
    /// A name in the plain view does not lead to a blob of this cache.
    #[error("{path} does not link to a blob of this cache")]
    ForeignLink {
        /// The link.
        path: PathBuf,
    },
}

/// Every model of the cache, by name. A model whose files are damaged or gone is left out and
/// told to `report`; the others are still listed.
///
/// # Errors
/// [`CatalogFault::Read`] when the plain view itself cannot be read. A cache without one is empty.
pub fn list(
    layout: &CacheLayout,
    report: impl FnMut(CatalogFault),
) -> Result<Vec<ModelEntry>, CatalogFault> {
    list_those(layout, |_| true, report)
}

/// The same for the models with references that are wanted: the manifests of others are not read.
///
/// # Errors
/// As [`list`].
pub fn list_those(
    layout: &CacheLayout,
    is_wanted: impl Fn(&Reference) -> bool,
    mut report: impl FnMut(CatalogFault),
) -> Result<Vec<ModelEntry>, CatalogFault> {
    let mut models = Vec::new();
    visit(layout, |reference| {
        let reference = is_wanted(&reference).then_some(reference);
        match reference.map_or(Ok(None), |reference| read(layout, reference)) {
            Ok(Some(model)) => models.push(model),
            Ok(None) => {}
            Err(fault) => report(fault),
        }
    })?;
    models.sort_by(|a, b| a.reference.cmp(&b.reference));
    Ok(models)
}

/// A model that the plain view shows and that cannot be read whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Its name.
    pub reference: Reference,
    /// The digest of its manifest, where what lies there is none.
    pub manifest: Option<Digest>,
    /// The link to its manifest leads out of the cache, or nowhere: no agent made it.
    pub is_foreign: bool,
}

/// The models that the plain view shows and that are not whole: a blob is gone, or has another size,
/// or the manifest is damaged. An agent takes a model's links away before its blobs, so none of this
/// is left by one that was killed.
///
/// # Errors
/// [`CatalogFault::Read`] when the plain view itself cannot be read.
pub fn broken(layout: &CacheLayout) -> Result<Vec<Broken>, CatalogFault> {
    let mut all = Vec::new();
    visit(layout, |reference| {
        let link = layout.plain_view_of(&reference).join(MANIFEST_FILE);
        let digest = match linked_digest(&link) {
            Ok(Some(digest)) => digest,
            Err(CatalogFault::ForeignLink { .. }) => {
                all.push(Broken {
                    reference,
                    manifest: None,
                    is_foreign: true,
                });
                return;
            }
            Ok(None) | Err(_) => return,
        };
        let manifest = match read(layout, reference.clone()) {
            Ok(None) => None,
            Err(CatalogFault::Manifest { .. } | CatalogFault::ForeignLink { .. }) => Some(digest),
            // Whole, or not to be judged for now.
            Ok(Some(_)) | Err(CatalogFault::Read { .. }) => return,
        };
        all.push(Broken {
            reference,
            manifest,
            is_foreign: false,
        });
    })?;
    Ok(all)
}

/// Calls `found` with every name under which the plain view has a link to a manifest.
fn visit(layout: &CacheLayout, mut found: impl FnMut(Reference)) -> Result<(), CatalogFault> {
    let mut pending = vec![(layout.plain_view(), 0)];
    while let Some((folder, depth)) = pending.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(read_fault(&folder, source)),
        };
        for entry in entries {
            let entry = entry.map_err(|source| read_fault(&folder, source))?;
            let kind = entry
                .file_type()
                .map_err(|source| read_fault(&entry.path(), source))?;
            if kind.is_dir() && depth < MAX_DEPTH {
                pending.push((entry.path(), depth + 1));
            } else if kind.is_symlink()
                && entry.file_name() == MANIFEST_FILE
                && let Some(reference) = reference_of(layout, &folder)
            {
                found(reference);
            }
        }
    }
    Ok(())
}

/// The model that the plain view shows under `reference`, or nothing.
///
/// # Errors
/// [`CatalogFault`] when it is there but cannot be read.
pub fn find(
    layout: &CacheLayout,
    reference: &Reference,
) -> Result<Option<ModelEntry>, CatalogFault> {
    // Read back from its place, since a name with a tag and a digest is shown under the digest.
    let shown = reference_of(layout, &layout.plain_view_of(reference));
    shown.map_or(Ok(None), |reference| read(layout, reference))
}

/// Reads the model that is shown under `reference`. Nothing when it has no manifest, or when a blob
/// of it is missing.
fn read(layout: &CacheLayout, reference: Reference) -> Result<Option<ModelEntry>, CatalogFault> {
    let link = layout.plain_view_of(&reference).join(MANIFEST_FILE);
    let Some(digest) = linked_digest(&link)? else {
        return Ok(None);
    };
    let path = layout.blob(&digest);
    // A link in a blob's place is no blob, wherever it leads.
    let metadata = match fs::symlink_metadata(&path) {
        Ok(metadata) if !metadata.is_file() => return Ok(None),
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(read_fault(&path, source)),
    };
    if metadata.len() > MAX_MANIFEST_BYTES as u64 {
        return Err(CatalogFault::ForeignLink { path: link });
    }
    let raw = match fs::read(&path) {
        Ok(raw) => raw,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(read_fault(&path, source)),
    };
    let manifest = Manifest::parse(raw, None).map_err(|source| CatalogFault::Manifest {
        path: path.clone(),
        source,
    })?;
    let blobs = blobs_of(&manifest);
    let is_whole = |blob: &ModelBlob| {
        fs::symlink_metadata(layout.blob(&blob.digest))
            .is_ok_and(|found| found.is_file() && found.len() == blob.size)
    };
    if !blobs.iter().all(is_whole) {
        return Ok(None);
    }
    let pulled_at = match fs::symlink_metadata(&link).and_then(|link| link.modified()) {
        Ok(pulled_at) => pulled_at,
        // It was taken out since.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(read_fault(&link, source)),
    };
    Ok(Some(ModelEntry {
        reference,
        digest,
        size: blobs.iter().map(|blob| blob.size).sum(),
        pulled_at: timestamp(pulled_at),
        last_used: None,
        pinned: false,
        blobs,
    }))
}

/// Config and layers of a model's manifest, each with its role.
#[must_use]
pub fn blobs_of(manifest: &Manifest) -> Vec<ModelBlob> {
    let config = manifest
        .config()
        .map(|config| model_blob(config, Role::Config));
    let layers = manifest
        .layers()
        .iter()
        .map(|layer| model_blob(layer, dialect::role_of(layer)));
    config.into_iter().chain(layers).collect()
}

fn model_blob(descriptor: &Descriptor, role: Role) -> ModelBlob {
    ModelBlob {
        digest: descriptor.digest,
        size: descriptor.size,
        role,
        media_type: descriptor.media_type.clone(),
        file_name: dialect::file_name_of(descriptor).map(str::to_owned),
    }
}

/// `views/plain/<host>/<repository>/<tag>` read back as a reference.
fn reference_of(layout: &CacheLayout, folder: &Path) -> Option<Reference> {
    let below = folder.strip_prefix(layout.plain_view()).ok()?;
    let parts: Vec<&str> = below
        .iter()
        .map(|part| part.to_str())
        .collect::<Option<_>>()?;
    let (name, view_name) = (parts.split_last()?.1.join("/"), parts.last()?);
    let pinned = Algorithm::ALL.iter().find_map(|algorithm| {
        let hex = view_name
            .strip_prefix(algorithm.as_str())?
            .strip_prefix('-')?;
        Digest::from_hex(*algorithm, hex).ok()
    });
    let text = match pinned {
        Some(digest) => format!("{name}@{digest}"),
        None => format!("{name}:{view_name}"),
    };
    Reference::parse(&text).ok()
}

/// The digest a link into `blobs/` names, read from its target without following it.
fn linked_digest(link: &Path) -> Result<Option<Digest>, CatalogFault> {
    let target = match fs::read_link(link) {
        Ok(target) => target,
        // Not a directory: a file of another model has the name of this one's folder.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(None);
        }
        Err(source) => return Err(read_fault(link, source)),
    };
    let mut parts = target.iter().rev().map(|part| part.to_str());
    let digest = parts
        .next()
        .flatten()
        .zip(parts.next().flatten())
        .and_then(|(hex, algorithm)| Digest::from_hex(algorithm.parse().ok()?, hex).ok());
    digest.map(Some).ok_or_else(|| CatalogFault::ForeignLink {
        path: link.to_owned(),
    })
}

fn read_fault(path: &Path, source: io::Error) -> CatalogFault {
    CatalogFault::Read {
        path: path.to_owned(),
        source,
    }
}

/// A point in time as RFC 3339, in UTC, to the microsecond: what Python's `fromisoformat` reads.
#[must_use]
pub fn timestamp(time: std::time::SystemTime) -> String {
    jiff::Timestamp::try_from(time).map_or_else(
        |_| jiff::Timestamp::UNIX_EPOCH.to_string(),
        |stamp| format!("{stamp:.6}"),
    )
}
