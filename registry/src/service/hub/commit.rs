//! Commits: files put, replaced and removed on a branch, as one new manifest under its tag.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use artifact::dialect::modelpack_manifest;
use artifact::hub::{Commit, HubFile, MAX_FILES};
use artifact::manifest::Descriptor;
use artifact::media_type::{self, modelpack};
use artifact::{Algorithm, Digest, Repository, Tag};
use bytes::Bytes;
use futures::stream;

use crate::error::Error;
use crate::service::hub::revision::Revision;
use crate::service::hub::{Reader, Refusal, Snapshot};
use crate::service::manifests::{ManifestReference, NewManifest};
use crate::service::{Registry, detached};
use crate::store::Change;

/// One change of a commit. The paths are clean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// A file with this content, which the repository holds.
    Put {
        /// Where.
        path: String,
        /// Its content.
        digest: Digest,
        /// Its size in bytes, if the client said so.
        size: Option<u64>,
    },
    /// No file there any more.
    DeleteFile(String),
    /// No files in that folder any more.
    DeleteFolder(String),
}

/// A commit to be made.
#[derive(Debug)]
pub(crate) struct NewCommit {
    /// Where.
    pub(crate) repository: Repository,
    /// The branch that it is put on.
    pub(crate) branch: Revision,
    /// What it begins with, if not with the branch: then the branch must not exist.
    pub(crate) from: Option<Revision>,
    /// The commit that the client has seen there, if it says so.
    pub(crate) parent: Option<String>,
    /// What changes, in order.
    pub(crate) operations: Vec<Operation>,
}

impl Registry {
    /// Makes a commit. Commits of one process wait for each other, so that none undoes another;
    /// where several replicas commit to one branch at once, clients say which `parent` they mean.
    pub(crate) async fn hub_commit(self: &Arc<Self>, new: NewCommit) -> Result<Commit, Error> {
        let registry = Arc::clone(self);
        detached(async move {
            let _turn = registry.hub_turn.lock().await;
            registry.commit_now(new).await
        })
        .await
    }

    async fn commit_now(self: &Arc<Self>, new: NewCommit) -> Result<Commit, Error> {
        let repository = &new.repository;
        self.refuse_if_mirrored(repository)?;
        let tag = tag_of(&new.branch)?;
        let base = self.base_of(&new, &tag).await?;
        let at = base.as_ref().map(|base| &base.commit);
        check_parent(new.parent.as_deref(), at)?;
        let mut files = base
            .as_ref()
            .map_or_else(Vec::new, |base| base.files.clone());
        for operation in new.operations {
            self.apply(repository, &mut files, operation).await?;
        }
        check_paths(&files)?;
        let layers: Vec<Descriptor> = files.iter().map(layer_of).collect();
        let (facts, annotations) = self.model_facts(repository, &files).await?;
        let (config, manifest) = modelpack_manifest(&layers, &facts, &annotations);
        self.hub_store(repository, config.bytes.into()).await?;
        let digest = manifest.digest;
        let tags = self.tags_along(repository, &tag, base.as_deref()).await?;
        self.put_manifest(NewManifest {
            repository: repository.clone(),
            reference: ManifestReference::Tag(tag),
            tags,
            content_type: Some(media_type::OCI_MANIFEST.to_owned()),
            content: manifest.bytes.into(),
        })
        .await?;
        Ok(Commit::of_digest(&digest))
    }

    /// What the commit begins with; `None` for a repository that does not exist yet.
    async fn base_of(&self, new: &NewCommit, tag: &Tag) -> Result<Option<Arc<Snapshot>>, Error> {
        let repository = &new.repository;
        if new.from.is_some() && self.index.tag(repository, tag).await?.is_some() {
            let branch = tag.as_str().to_owned();
            return Err(Error::Hub(Refusal::BranchExists { branch }));
        }
        let start = new.from.as_ref().unwrap_or(&new.branch);
        match self.snapshot(repository, start, Reader::Whole).await {
            Ok(base) => Ok(Some(base)),
            // As with any push, the first one makes the repository.
            Err(Error::RepositoryUnknown { .. }) if *start == Revision::Main => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// `latest`, what people mean who name no tag, goes along with `main` as long as nobody set it
    /// to something else.
    async fn tags_along(
        &self,
        repository: &Repository,
        tag: &Tag,
        base: Option<&Snapshot>,
    ) -> Result<Vec<Tag>, Error> {
        if tag.as_str() != "main" {
            return Ok(Vec::new());
        }
        let latest = Tag::default();
        let set = self.index.tag(repository, &latest).await?;
        let before = base.and_then(|base| base.manifest);
        let goes_along = set.is_none_or(|record| Some(record.digest) == before);
        Ok(goes_along.then_some(latest).into_iter().collect())
    }

    async fn apply(
        &self,
        repository: &Repository,
        files: &mut Vec<HubFile>,
        operation: Operation,
    ) -> Result<(), Error> {
        match operation {
            Operation::Put { path, digest, size } => {
                let stored = self.content_of(repository, &path, &digest, size).await?;
                let media_type = kind_of(&path).to_owned();
                let role = artifact::dialect::Role::Other;
                let file = HubFile {
                    path,
                    digest,
                    size: stored,
                    role,
                    media_type,
                };
                match files.iter_mut().find(|there| there.path == file.path) {
                    Some(there) => *there = file,
                    None => files.push(file),
                }
            }
            Operation::DeleteFile(path) => remove(files, &path, |file| file.path == path)?,
            Operation::DeleteFolder(path) => remove(files, &path, |file| file.is_below(&path))?,
        }
        if files.len() > MAX_FILES {
            return Err(Error::Hub(Refusal::TooMany {
                what: "files in one revision",
                most: MAX_FILES,
            }));
        }
        Ok(())
    }

    /// The size of content that the repository must hold.
    async fn content_of(
        &self,
        repository: &Repository,
        path: &str,
        digest: &Digest,
        claimed: Option<u64>,
    ) -> Result<u64, Error> {
        let Some(record) = self.index.blob(repository, digest).await? else {
            return Err(Error::Hub(Refusal::ContentMissing {
                path: path.chars().take(200).collect(),
                oid: digest.hex(),
            }));
        };
        match claimed.filter(|claimed| *claimed != record.size) {
            Some(claimed) => Err(Error::Hub(Refusal::Size {
                digest: Box::new(*digest),
                claimed,
                actual: record.size,
            })),
            None => Ok(record.size),
        }
    }

    /// Stores content that came with a commit.
    pub(crate) async fn hub_store(
        self: &Arc<Self>,
        repository: &Repository,
        content: Bytes,
    ) -> Result<Digest, Error> {
        let digest = Digest::sha256(&content);
        if self.index.blob(repository, &digest).await?.is_none() {
            let id = self.begin_upload(repository, Algorithm::Sha256).await?;
            let mut body = stream::iter([Ok(content)]);
            let finished = self.finish_upload(repository, id, None, digest, &mut body);
            finished.await?;
        }
        Ok(digest)
    }

    /// Makes a repository with nothing in it; `false` when there is one.
    pub(crate) async fn create_repository(
        self: &Arc<Self>,
        repository: &Repository,
    ) -> Result<bool, Error> {
        self.refuse_if_mirrored(repository)?;
        let registry = Arc::clone(self);
        let repository = repository.clone();
        detached(async move {
            let mut lock = registry.lock_repository(&repository, None).await?;
            let missing: Vec<Change> = registry
                .missing_repository(&repository)
                .await?
                .into_iter()
                .collect();
            let is_new = !missing.is_empty();
            registry.change(lock.as_mut(), missing).await?;
            Ok(is_new)
        })
        .await
    }
}

/// The tag behind a branch.
fn tag_of(branch: &Revision) -> Result<Tag, Error> {
    match branch {
        Revision::Main => Tag::parse("main").map_err(Error::Name),
        Revision::Tag(tag) => Ok(tag.clone()),
        Revision::Commit(commit) => Err(Error::Hub(Refusal::NotABranch {
            revision: commit.to_string(),
        })),
    }
}

fn check_parent(expected: Option<&str>, actual: Option<&Commit>) -> Result<(), Error> {
    let Some(expected) = expected else {
        return Ok(());
    };
    // As git does, people shorten the names of commits.
    let is_it = |commit: &Commit| expected.len() >= 7 && commit.as_str().starts_with(expected);
    if actual.is_some_and(is_it) {
        return Ok(());
    }
    Err(Error::Hub(Refusal::Moved {
        expected: expected.chars().take(40).collect(),
        actual: actual.map_or_else(|| "none".to_owned(), ToString::to_string),
    }))
}

fn remove(
    files: &mut Vec<HubFile>,
    path: &str,
    goes: impl Fn(&HubFile) -> bool,
) -> Result<(), Error> {
    let before = files.len();
    files.retain(|file| !goes(file));
    if files.len() < before {
        return Ok(());
    }
    Err(Error::Hub(Refusal::EntryUnknown {
        path: path.chars().take(200).collect(),
        commit: String::new(),
    }))
}

/// No file may be where another one needs a folder.
fn check_paths(files: &[HubFile]) -> Result<(), Error> {
    let paths: HashSet<&str> = files.iter().map(|file| file.path.as_str()).collect();
    for file in files {
        for (at, _) in file.path.match_indices('/') {
            if paths.contains(&file.path[..at]) {
                let path = file.path.chars().take(200).collect();
                return Err(Error::Hub(Refusal::PathInvalid { path }));
            }
        }
    }
    Ok(())
}

/// The layer that a file becomes. Layers of other dialects get the type that their path calls for.
fn layer_of(file: &HubFile) -> Descriptor {
    let is_ours = file.media_type.starts_with("application/vnd.cncf.model.");
    let media_type = if is_ours {
        file.media_type.as_str()
    } else {
        kind_of(&file.path)
    };
    Descriptor {
        media_type: media_type.to_owned(),
        digest: file.digest,
        size: file.size,
        artifact_type: None,
        annotations: BTreeMap::from([(modelpack::FILEPATH.to_owned(), file.path.clone())]),
        is_foreign: false,
    }
}

/// The layer type that ModelPack has for a file of this name.
fn kind_of(path: &str) -> &'static str {
    let name = path.rsplit('/').next().unwrap_or(path).to_ascii_lowercase();
    let ending = name.rsplit('.').next().unwrap_or_default();
    match ending {
        "gguf" | "safetensors" | "bin" | "pt" | "pth" | "onnx" | "h5" | "msgpack" => {
            modelpack::WEIGHT_RAW
        }
        "md" | "txt" | "png" | "jpg" | "pdf" => modelpack::DOC_RAW,
        _ if name.starts_with("license") || name.starts_with("readme") => modelpack::DOC_RAW,
        _ => modelpack::WEIGHT_CONFIG_RAW,
    }
}

#[cfg(test)]
mod tests {
    use artifact::Digest;
    use artifact::dialect::Role;
    use artifact::hub::{Commit, HubFile};
    use artifact::media_type::modelpack;

    use crate::service::hub::commit::{check_parent, check_paths, kind_of, layer_of};

    fn file(path: &str) -> HubFile {
        HubFile {
            path: path.to_owned(),
            digest: Digest::sha256(b"x"),
            size: 1,
            role: Role::Other,
            media_type: "application/vnd.ollama.image.model".to_owned(),
        }
    }

    #[test]
    fn files_become_layers_of_the_kind_that_their_name_says() {
        assert_eq!(kind_of("a/M.GGUF"), modelpack::WEIGHT_RAW);
        assert_eq!(kind_of("LICENSE"), modelpack::DOC_RAW);
        assert_eq!(kind_of("tokenizer.json"), modelpack::WEIGHT_CONFIG_RAW);
        let layer = layer_of(&file("tiny.gguf"));
        assert_eq!(layer.media_type, modelpack::WEIGHT_RAW);
        assert_eq!(layer.annotations[modelpack::FILEPATH], "tiny.gguf");
    }

    #[test]
    fn no_file_stands_where_another_one_needs_a_folder() {
        assert!(check_paths(&[file("a/b"), file("a/c"), file("ab")]).is_ok());
        assert!(check_paths(&[file("a/b/c"), file("a/b")]).is_err());
    }

    #[test]
    fn a_parent_may_be_shortened_but_must_be_the_commit_that_is_there() {
        let commit = Commit::of_digest(&Digest::sha256(b"x"));
        let name = commit.to_string();
        assert!(check_parent(None, None).is_ok());
        assert!(check_parent(Some(&name), Some(&commit)).is_ok());
        assert!(check_parent(Some(&name[..7]), Some(&commit)).is_ok());
        for wrong in ["", &name[..6], "0000000"] {
            assert!(check_parent(Some(wrong), Some(&commit)).is_err());
        }
        assert!(check_parent(Some(&name), None).is_err());
    }
}
