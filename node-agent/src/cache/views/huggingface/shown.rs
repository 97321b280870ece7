//! One repository's folder on the disk, brought to what it is to show: what is new first and the
//! branches after it, then what is gone, the branches first. Whoever follows a branch meanwhile finds
//! all of one commit.
//!
//! Nothing is synced here: the view follows from the plain one, and is made good at the next start.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use artifact::Digest;
use rustix::fs::{FileType, Mode};

use crate::cache::folder::Folder;
use crate::cache::views::huggingface::wanted::Tree;
use crate::cache::views::place_link;
use crate::cache::{NodeCache, link_target, temporary_name};
use crate::error::Error;

const REFS: &str = "refs";
const BLOBS: &str = "blobs";
const SNAPSHOTS: &str = "snapshots";
/// Mode of a branch's file: read-only for everybody, as blobs are.
const REF_MODE: u32 = 0o444;
/// More than the name of a commit, which is all that a branch's file may hold.
const MAX_REF_BYTES: u64 = 64;

/// Makes the folder of that name show `tree`; an empty tree takes it away.
pub(super) fn show(cache: &NodeCache, name: &str, tree: &Tree) -> Result<(), Error> {
    let view = &cache.0.huggingface;
    if !tree.is_empty() {
        add(cache, &folder_at(view, name)?, tree)?;
    }
    let Some(repository) = view.existing(name)? else {
        return Ok(());
    };
    sweep(&repository, tree)?;
    drop(repository);
    view.remove_folder(name).map(drop)
}

/// Puts in place what is missing.
fn add(cache: &NodeCache, repository: &Folder, tree: &Tree) -> Result<(), Error> {
    let blobs = folder_at(repository, BLOBS)?;
    for digest in tree.blobs() {
        // views/huggingface/<repository>/blobs/…
        place_link(cache, &blobs, &digest.hex(), &link_target(4, &digest))?;
    }
    let snapshots = folder_at(repository, SNAPSHOTS)?;
    for (commit, files) in &tree.snapshots {
        let snapshot = folder_at(&snapshots, commit.as_str())?;
        for (path, digest) in files {
            add_file(cache, &snapshot, path, digest)?;
        }
    }
    let refs = folder_at(repository, REFS)?;
    for (branch, commit) in &tree.refs {
        place_ref(cache, &refs, branch, commit.as_str())?;
    }
    Ok(())
}

/// The link of a file, which leads to the repository's own `blobs/`: what the libraries expect.
fn add_file(
    cache: &NodeCache,
    snapshot: &Folder,
    path: &str,
    digest: &Digest,
) -> Result<(), Error> {
    let mut names: Vec<&str> = path.split('/').collect();
    let Some(file) = names.pop() else {
        return Ok(());
    };
    let mut target: PathBuf = std::iter::repeat_n("..", names.len() + 2).collect();
    target.extend([BLOBS, digest.hex().as_str()]);
    let mut folder: Option<Folder> = None;
    for name in names {
        folder = Some(folder_at(folder.as_ref().unwrap_or(snapshot), name)?);
    }
    place_link(
        cache,
        folder.as_ref().unwrap_or(snapshot),
        file,
        Path::new(&target),
    )
}

/// The folder of that name; whatever else is there, such as a link that somebody planted, goes.
fn folder_at(parent: &Folder, name: &str) -> Result<Folder, Error> {
    let found = parent.stat(name)?;
    if found.is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) != FileType::Directory) {
        parent.remove(name)?;
    }
    parent.child(name)
}

/// A branch: a file with the name of its commit, under its final name at once.
fn place_ref(cache: &NodeCache, refs: &Folder, branch: &str, commit: &str) -> Result<(), Error> {
    if refs.file_size(branch)?.is_some() {
        let mut text = String::new();
        let file = refs.read_file(branch)?;
        let read = file.map(|file| file.take(MAX_REF_BYTES).read_to_string(&mut text));
        if matches!(read, Some(Ok(_))) && text == commit {
            return Ok(());
        }
    }
    let ingest = cache.ingest();
    let temporary = temporary_name();
    let mut file = ingest.open_file(&temporary)?;
    file.write_all(commit.as_bytes())
        .and_then(|()| {
            rustix::fs::fchmod(file.as_fd(), Mode::from_raw_mode(REF_MODE)).map_err(Into::into)
        })
        .map_err(|e| Error::storage("write", &ingest.path().join(&temporary), e))
        .and_then(|()| ingest.rename(&temporary, refs, branch))
        .inspect_err(|_| drop(ingest.remove(&temporary)))
}

/// Takes away what the tree does not have.
fn sweep(repository: &Folder, tree: &Tree) -> Result<(), Error> {
    if let Some(refs) = repository.existing(REFS)? {
        for (name, kind) in refs.entries()? {
            // A branch without its commit is what the libraries call a corrupted cache.
            if kind != FileType::Directory && !tree.refs.contains_key(&name) {
                refs.remove(&name)?;
            }
        }
    }
    if let Some(snapshots) = repository.existing(SNAPSHOTS)? {
        let wanted: BTreeMap<&str, _> = tree
            .snapshots
            .iter()
            .map(|(commit, files)| (commit.as_str(), files))
            .collect();
        let none = BTreeMap::new();
        for (name, _) in snapshots.entries()? {
            if let Some(snapshot) = snapshots.existing(&name)? {
                let files = wanted.get(name.as_str()).copied().unwrap_or(&none);
                sweep_files(&snapshot, "", files)?;
                snapshots.remove_folder(&name)?;
            }
        }
    }
    if let Some(blobs) = repository.existing(BLOBS)? {
        let wanted: BTreeSet<String> = tree.blobs().iter().map(Digest::hex).collect();
        for (name, kind) in blobs.entries()? {
            if kind == FileType::Symlink && !wanted.contains(&name) {
                blobs.remove(&name)?;
            }
        }
    }
    for name in [REFS, SNAPSHOTS, BLOBS] {
        repository.remove_folder(name)?;
    }
    Ok(())
}

/// Removes the links below a folder that are not wanted, and the folders that become empty. What is
/// neither was not made here, and stays.
fn sweep_files(
    folder: &Folder,
    prefix: &str,
    wanted: &BTreeMap<String, Digest>,
) -> Result<(), Error> {
    for (name, kind) in folder.entries()? {
        let path = format!("{prefix}{name}");
        if kind == FileType::Symlink && !wanted.contains_key(&path) {
            folder.remove(&name)?;
        } else if let Some(child) = folder.existing(&name)? {
            sweep_files(&child, &format!("{path}/"), wanted)?;
            folder.remove_folder(&name)?;
        }
    }
    Ok(())
}
