//! The plain view: `views/plain/<host>/<repository>/<tag>/model.gguf` and its neighbours.

use std::collections::{BTreeMap, HashMap, HashSet};

use artifact::agent_api::ModelBlob;
use artifact::catalog;
use artifact::dialect::Role;
use artifact::layout::{MANIFEST_FILE, MODEL_FILE};
use artifact::{CacheLayout, Digest, Manifest, Reference};
use rustix::fs::FileType;

use crate::cache::folder::Folder;
use crate::cache::views::place_link;
use crate::cache::{NodeCache, link_target};
use crate::error::Error;

/// Longest file name that is taken over from a manifest, in bytes.
const MAX_NAME_BYTES: usize = 200;

/// Puts the links of a model in place, the manifest last, and takes away those of an older one.
pub(super) fn publish(
    cache: &NodeCache,
    reference: &Reference,
    digest: &Digest,
    manifest: &Manifest,
) -> Result<(), Error> {
    let folder = make_folder(cache, reference)?;
    // `views/plain` and the host, the segments of the name, the tag.
    let levels = 3 + reference.repository().segments().count() + 1;
    let links = link_names(&catalog::blobs_of(manifest));
    for (name, blob) in &links {
        check_free(&folder, reference, name)?;
        place_link(cache, &folder, name, &link_target(levels, blob))?;
    }
    check_free(&folder, reference, MANIFEST_FILE)?;
    folder.sync()?;
    place_link(cache, &folder, MANIFEST_FILE, &link_target(levels, digest))?;
    for (name, kind) in folder.entries()? {
        let is_stale =
            kind == FileType::Symlink && name != MANIFEST_FILE && !links.contains_key(&name);
        if is_stale {
            folder.remove(&name)?;
        }
    }
    folder.sync()
}

/// Hides a model: its manifest goes first.
pub(crate) fn hide(plain: &Folder, reference: &Reference) -> Result<(), Error> {
    if let Some(folder) = existing_folder(plain, reference)? {
        folder.remove(MANIFEST_FILE)?;
        folder.sync()?;
    }
    Ok(())
}

/// Takes a model's links away, the manifest first, then the folders that became empty.
pub(crate) fn remove(plain: &Folder, reference: &Reference, pin: &str) -> Result<(), Error> {
    let Some(folder) = existing_folder(plain, reference)? else {
        return Ok(());
    };
    hide(plain, reference)?;
    folder.remove(pin)?;
    for (name, kind) in folder.entries()? {
        if kind == FileType::Symlink {
            folder.remove(&name)?;
        }
    }
    folder.sync()?;
    drop(folder);
    remove_empty_folders(plain, &path_of(reference))
}

/// Takes away the links of models that were being published or removed when the process ended, and
/// those that an older version of a model has left.
pub(super) fn settle(plain: &Folder, layout: &CacheLayout) -> Result<(), Error> {
    let wanted = catalog::list(layout, |_| {})?
        .into_iter()
        .map(|model| (path_of(&model.reference), link_names(&model.blobs)))
        .collect();
    sweep(plain, &mut Vec::new(), &wanted)
}

/// Removes the links below a folder that are not wanted, and the folders that become empty. Those of
/// a damaged model stay: its manifest says that it is meant to be here.
fn sweep(
    folder: &Folder,
    path: &mut Vec<String>,
    wanted: &HashMap<Vec<String>, BTreeMap<String, Digest>>,
) -> Result<(), Error> {
    let links = wanted.get(path);
    let is_published = folder.read_link(MANIFEST_FILE)?.is_some();
    for (name, kind) in folder.entries()? {
        let is_wanted = match links {
            Some(links) => name == MANIFEST_FILE || links.contains_key(&name),
            None => is_published,
        };
        if kind == FileType::Symlink && !is_wanted {
            folder.remove(&name)?;
        } else if path.len() <= catalog::MAX_DEPTH
            && let Some(child) = folder.existing(&name)?
        {
            path.push(name.clone());
            sweep(&child, path, wanted)?;
            path.pop();
            folder.remove_folder(&name)?;
        }
    }
    Ok(())
}

/// Removes the folders of a path from its end, as far as they are empty.
pub(super) fn remove_empty_folders(root: &Folder, path: &[String]) -> Result<(), Error> {
    for depth in (0..path.len()).rev() {
        let Some(parent) = descend(root, &path[..depth])? else {
            continue;
        };
        if !parent.remove_folder(&path[depth])? {
            break;
        }
    }
    Ok(())
}

/// The folder of a model, if there is one.
pub(crate) fn existing_folder(
    plain: &Folder,
    reference: &Reference,
) -> Result<Option<Folder>, Error> {
    descend(plain, &path_of(reference))
}

pub(super) fn descend(root: &Folder, path: &[String]) -> Result<Option<Folder>, Error> {
    let mut current: Option<Folder> = None;
    for name in path {
        match current.as_ref().unwrap_or(root).existing(name)? {
            Some(folder) => current = Some(folder),
            None => return Ok(None),
        }
    }
    match current {
        Some(folder) => Ok(Some(folder)),
        // An empty path is the root itself, opened anew.
        None => root.existing("."),
    }
}

fn make_folder(cache: &NodeCache, reference: &Reference) -> Result<Folder, Error> {
    let mut folder: Option<Folder> = None;
    for name in path_of(reference) {
        let parent = folder.as_ref().unwrap_or(&cache.0.plain);
        // What is there under this name, if it is no folder, is a link of another model.
        if let Some(stat) = parent.stat(&name)?
            && FileType::from_raw_mode(stat.st_mode) != FileType::Directory
        {
            return Err(collision(parent, reference, &name));
        }
        folder = Some(parent.child(&name)?);
    }
    folder.ok_or_else(|| collision(&cache.0.plain, reference, "."))
}

fn check_free(folder: &Folder, reference: &Reference, name: &str) -> Result<(), Error> {
    match folder.stat(name)? {
        Some(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
            Err(collision(folder, reference, name))
        }
        _ => Ok(()),
    }
}

fn collision(folder: &Folder, reference: &Reference, name: &str) -> Error {
    Error::NameCollision {
        reference: Box::new(reference.clone()),
        path: folder.path().join(name),
    }
}

fn path_of(reference: &Reference) -> Vec<String> {
    let mut path = vec![reference.registry().to_owned()];
    path.extend(reference.repository().segments().map(str::to_owned));
    path.push(reference.view_name());
    path
}

/// A file name for each blob: the first weights are `model.gguf`; the rest keep the names they were
/// packed under where these are safe and free, and are called by their roles otherwise.
fn link_names(blobs: &[ModelBlob]) -> BTreeMap<String, Digest> {
    let mut names = BTreeMap::new();
    let mut taken: HashSet<String> =
        HashSet::from([MODEL_FILE.to_owned(), MANIFEST_FILE.to_owned()]);
    let weights: Vec<_> = blobs
        .iter()
        .filter(|blob| blob.role == Role::Model)
        .collect();
    if let Some(first) = weights.first() {
        names.insert(MODEL_FILE.to_owned(), first.digest);
    }
    // The parts of a split model find each other by name, so the first one keeps its own as well.
    let is_split = weights.len() > 1;
    for blob in blobs {
        if blob.role == Role::Model && !is_split {
            continue;
        }
        let packed = blob.file_name.as_deref().filter(|name| is_safe(name));
        let wanted = packed.unwrap_or_else(|| role_name(blob.role));
        let name = (0..)
            .map(|count| numbered(wanted, count))
            .find(|name| !taken.contains(name));
        if let Some(name) = name {
            taken.insert(name.clone());
            names.insert(name, blob.digest);
        }
    }
    names
}

fn numbered(name: &str, count: u32) -> String {
    match (count, name.rsplit_once('.')) {
        (0, _) => name.to_owned(),
        (_, Some((stem, extension))) if !stem.is_empty() => format!("{stem}-{count}.{extension}"),
        _ => format!("{name}-{count}"),
    }
}

fn is_safe(name: &str) -> bool {
    name.len() <= MAX_NAME_BYTES
        && !name.starts_with('.')
        && !name.contains('/')
        && !name.chars().any(char::is_control)
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Config => "config.json",
        Role::Model => "weights.gguf",
        Role::Projector => "projector.gguf",
        Role::Adapter => "adapter.gguf",
        Role::Modelfile => "Modelfile",
        Role::Template => "template",
        Role::ChatTemplate => "chat-template.jinja",
        Role::System => "system",
        Role::Params => "params.json",
        Role::Messages => "messages.json",
        Role::License => "license",
        Role::Other => "file",
    }
}

#[cfg(test)]
mod tests {
    use artifact::Digest;
    use artifact::agent_api::ModelBlob;
    use artifact::dialect::Role;

    use crate::cache::views::plain::link_names;

    fn blob(role: Role, content: &str, file_name: Option<&str>) -> ModelBlob {
        ModelBlob {
            digest: Digest::sha256(content.as_bytes()),
            size: 1,
            role,
            media_type: String::new(),
            file_name: file_name.map(str::to_owned),
        }
    }

    #[test]
    fn hostile_and_doubled_names_get_names_of_their_own() {
        let names = link_names(&[
            blob(Role::Config, "c", None),
            blob(Role::Model, "m", Some("weights-7b.gguf")),
            blob(Role::Other, "1", Some(".pinned")),
            blob(Role::Other, "2", Some("model.gguf")),
            blob(Role::Other, "3", Some("README.md")),
            blob(Role::License, "4", Some("README.md")),
            blob(Role::Other, "5", Some("manifest.json")),
        ]);
        let names: Vec<_> = names.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "README-1.md",
                "README.md",
                "config.json",
                "file",
                "manifest-1.json",
                "model-1.gguf",
                "model.gguf"
            ]
        );
    }

    #[test]
    fn the_parts_of_a_split_model_keep_their_names() {
        let names = link_names(&[
            blob(Role::Model, "a", Some("m-00001-of-00002.gguf")),
            blob(Role::Model, "b", Some("m-00002-of-00002.gguf")),
        ]);
        assert_eq!(names["model.gguf"], names["m-00001-of-00002.gguf"]);
        assert_eq!(names.len(), 3);
    }
}
