//! What the view shows: a pure function of the models in the cache, so that the same models give the
//! same view on every node, whatever order they came and went in.
//!
//! | model | repository | snapshot | refs |
//! | --- | --- | --- | --- |
//! | from Hugging Face | its name there | its commit there | `main`, or the branch that was asked for |
//! | from elsewhere | the last two parts of its name | the beginning of its digest | its tag; `main` is the tag `main`, else `latest`, else all tags together |
//!
//! A repository's folder shows models of one place only. Where several have one name, Hugging Face
//! itself goes first, then the others by host and repository in byte order.

use std::collections::{BTreeMap, BTreeSet};

use artifact::hub::{self, Commit, HubFile, HubOrigin, MAIN};
use artifact::reference::DEFAULT_TAG;
use artifact::{Digest, Manifest, Reference, Tag};

/// The hosts that are Hugging Face.
const HUB_HOSTS: [&str; 2] = ["huggingface.co", "hf.co"];
/// Longest name of a file or folder, in bytes, as file systems have it.
const MAX_NAME_BYTES: usize = 255;

/// A complete model of the cache.
#[derive(Clone, Debug)]
pub(super) struct Model {
    pub(super) reference: Reference,
    pub(super) digest: Digest,
    pub(super) manifest: Manifest,
    /// When it was pulled, RFC 3339.
    pub(super) pulled_at: String,
}

/// What is below the folder of one repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tree {
    /// Branches.
    pub(super) refs: BTreeMap<String, Commit>,
    /// Commits, each with the paths of its files.
    pub(super) snapshots: BTreeMap<Commit, BTreeMap<String, Digest>>,
}

/// A model with what the view calls it.
struct Named<'a> {
    model: &'a Model,
    repository: String,
    commit: Commit,
    is_from_hub: bool,
}

/// The repositories that these models make, by their names.
pub(super) fn trees(models: &[Model]) -> BTreeMap<String, Tree> {
    let mut by_name: BTreeMap<String, Vec<Named<'_>>> = BTreeMap::new();
    for model in models {
        let named = name(model);
        if hub::is_client_name(&named.repository) {
            by_name
                .entry(named.repository.clone())
                .or_default()
                .push(named);
        }
    }
    by_name
        .into_iter()
        .map(|(name, group)| (name, tree(&of_first_place(group))))
        .collect()
}

fn name(model: &Model) -> Named<'_> {
    let segments: Vec<&str> = model.reference.repository().segments().collect();
    let tail = &segments[segments.len().saturating_sub(2)..];
    let origin = HubOrigin::of(&model.manifest).filter(|origin| {
        // Whoever claims to be a repository there must at least be called like it here.
        let theirs = origin.name.rsplit('/');
        theirs
            .zip(tail.iter().rev())
            .all(|(their, our)| their.eq_ignore_ascii_case(our))
    });
    let is_from_hub = origin.is_some();
    let (repository, commit) = match origin {
        Some(origin) => (origin.name, origin.commit),
        None => (tail.join("/"), Commit::of_digest(&model.digest)),
    };
    Named {
        model,
        repository,
        commit,
        is_from_hub,
    }
}

/// The models of the place that the name belongs to, by reference.
fn of_first_place(mut group: Vec<Named<'_>>) -> Vec<Named<'_>> {
    group.sort_by(|a, b| a.model.reference.cmp(&b.model.reference));
    let first = group.iter().map(|named| place(named.model)).min();
    let (kept, others): (Vec<_>, Vec<_>) = group
        .into_iter()
        .partition(|named| Some(place(named.model)) == first);
    for other in others {
        let (reference, repository) = (&other.model.reference, &other.repository);
        tracing::info!(%reference, repository, "not shown to Hugging Face's libraries: another place has this name");
    }
    kept
}

/// Where a model is from, in the order of precedence.
fn place(model: &Model) -> (bool, &str, &str) {
    let host = model.reference.registry();
    let repository = model.reference.repository().as_str();
    if HUB_HOSTS.contains(&host) {
        (false, HUB_HOSTS[0], repository)
    } else {
        (true, host, repository)
    }
}

fn tree(group: &[Named<'_>]) -> Tree {
    let mut tree = Tree::default();
    let files: Vec<Vec<HubFile>> = group.iter().map(|named| files_of(named, group)).collect();
    for (named, files) in group.iter().zip(&files) {
        tree.add(&named.commit, files);
    }
    branches_of_hub(group, &mut tree);
    branches_of_tags(group, &files, &mut tree);
    tree
}

/// The files of a model. Those that have no names are called after a tag, as online.
fn files_of(named: &Named<'_>, group: &[Named<'_>]) -> Vec<HubFile> {
    let digest = named.model.digest;
    let same = group.iter().filter(|other| other.model.digest == digest);
    let mut tags: Vec<Tag> = same
        .filter_map(|other| other.model.reference.tag().cloned())
        .collect();
    tags.sort();
    let label = hub::label(&tags, &digest);
    let reference = &named.model.reference;
    hub::of_manifest(&named.model.manifest, reference.repository(), &label)
}

/// What was asked for as a quantisation or without a tag was found on `main`; where `main` moved
/// between two pulls the later one knows better. Any other tag was a branch, a tag or a commit there.
fn branches_of_hub(group: &[Named<'_>], tree: &mut Tree) {
    let mut newest = None;
    for named in group.iter().filter(|named| named.is_from_hub) {
        let Some(tag) = named.model.reference.tag() else {
            continue;
        };
        if is_of_main(tag, &named.model.manifest) {
            newest = newest.max(Some((&named.model.pulled_at, &named.commit)));
        } else if tag.as_str() != named.commit.as_str() {
            let branch = tag.as_str().to_owned();
            tree.refs.insert(branch, named.commit.clone());
        }
    }
    if let Some((_, commit)) = newest {
        tree.refs.insert(MAIN.to_owned(), commit.clone());
    }
}

/// A model that was picked by its quantisation has nothing but GGUF files; a whole branch always has
/// something beside them.
fn is_of_main(tag: &Tag, manifest: &Manifest) -> bool {
    let is_gguf = |path: &str| path.to_ascii_lowercase().ends_with(".gguf");
    matches!(tag.as_str(), MAIN | DEFAULT_TAG)
        || manifest.layers().iter().all(|layer| {
            let path = artifact::dialect::file_name_of(layer);
            path.is_some_and(is_gguf)
        })
}

/// The registry's rule: a tag is a branch, and `main` is what people mean who name none.
fn branches_of_tags(group: &[Named<'_>], files: &[Vec<HubFile>], tree: &mut Tree) {
    let mut tagged = Vec::new();
    let mut untagged = BTreeSet::new();
    for (named, files) in group
        .iter()
        .zip(files)
        .filter(|(named, _)| !named.is_from_hub)
    {
        match named.model.reference.tag() {
            Some(tag) => {
                let branch = tag.as_str().to_owned();
                tree.refs
                    .entry(branch)
                    .or_insert_with(|| named.commit.clone());
                tagged.push((tag.clone(), named.model.digest, files.as_slice()));
            }
            None => {
                untagged.insert(&named.commit);
            }
        }
    }
    if tree.refs.contains_key(MAIN) {
        return;
    }
    let latest = tree.refs.get(DEFAULT_TAG).cloned();
    let main = latest.or_else(|| all_together(tagged, tree)).or_else(|| {
        // Nothing has a tag: what is here alone is meant.
        let only = untagged.first().filter(|_| untagged.len() == 1);
        only.map(|commit| (*commit).clone())
    });
    if let Some(commit) = main {
        tree.refs.insert(MAIN.to_owned(), commit);
    }
}

/// All tags as one commit, added to the tree where it is none of theirs.
fn all_together(mut tagged: Vec<(Tag, Digest, &[HubFile])>, tree: &mut Tree) -> Option<Commit> {
    tagged.sort_by(|(a, ..), (b, ..)| a.cmp(b));
    let pairs: Vec<_> = tagged
        .iter()
        .map(|(tag, digest, _)| (tag.clone(), *digest))
        .collect();
    let mut seen = BTreeSet::new();
    tagged.retain(|(_, digest, _)| seen.insert(*digest));
    if let [(_, only, _)] = tagged.as_slice() {
        return Some(Commit::of_digest(only));
    }
    if tagged.is_empty() {
        return None;
    }
    let commit = hub::commit_of_tags(&pairs);
    let parts = tagged.iter().map(|(tag, _, files)| (tag.as_str(), *files));
    tree.add(&commit, &hub::together(parts));
    Some(commit)
}

impl Tree {
    /// Whether there is nothing to show.
    pub(super) fn is_empty(&self) -> bool {
        self.refs.is_empty() && self.snapshots.is_empty()
    }

    /// Every blob that it shows.
    pub(super) fn blobs(&self) -> BTreeSet<Digest> {
        let files = self.snapshots.values().flat_map(BTreeMap::values);
        files.copied().collect()
    }

    /// Adds files to a commit. A path that no file can have beside those that are there is left out:
    /// one commit never mixes two contents.
    fn add(&mut self, commit: &Commit, files: &[HubFile]) {
        let shown = self.snapshots.entry(commit.clone()).or_default();
        for file in files {
            if has_room(shown, &file.path) {
                shown.entry(file.path.clone()).or_insert(file.digest);
            }
        }
    }
}

/// Whether a file can lie at `path`: none of its folders is a file, and it is itself no folder.
fn has_room(shown: &BTreeMap<String, Digest>, path: &str) -> bool {
    let folders = path.match_indices('/').map(|(end, _)| &path[..end]);
    let below = format!("{path}/");
    let is_folder = shown
        .range(below.clone()..)
        .next()
        .is_some_and(|(next, _)| next.starts_with(&below));
    !is_folder
        && path.split('/').all(|name| name.len() <= MAX_NAME_BYTES)
        && folders
            .into_iter()
            .all(|folder| !shown.contains_key(folder))
}

#[cfg(test)]
mod tests;
