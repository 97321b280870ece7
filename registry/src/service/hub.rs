//! A repository as Hugging Face's clients see it: revisions, commits and files instead of tags,
//! digests and layers.
//!
//! Nothing is stored for it. A tag is a branch, the manifest that it points to a commit, and a layer
//! a file under the path that it was packed with. The SHA-256 that Hugging Face names a large file by
//! is the digest of the layer, so both worlds share every byte.

pub(crate) mod commit;
pub(crate) mod facts;
pub(crate) mod memory;
mod mirrored;
mod refusal;
pub(crate) mod revision;
mod union;

use std::sync::Arc;

use artifact::hub::{Commit, HubFile, label, of_manifest};
use artifact::manifest::Descriptor;
use artifact::{Digest, Manifest, Repository, Tag};
use jiff::Timestamp;

use crate::error::Error;
use crate::service::Registry;
use crate::service::hub::revision::Revision;
use crate::service::manifests::{FoundManifest, ManifestReference};
use crate::store::Page;

pub use refusal::Refusal;

/// Most tags of one repository that are looked at for its branches and for the union of them.
pub(crate) const MAX_TAGS: usize = 1_000;

/// The files of one commit.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// What the commit is called.
    pub(crate) commit: Commit,
    /// Its files, in the order of the layers.
    pub(crate) files: Vec<HubFile>,
    /// When it was pushed, or its tag set last.
    pub(crate) updated: Timestamp,
    /// The config of the manifest, or of the first of several.
    pub(crate) config: Option<Descriptor>,
    /// The manifest, if it is made of one alone.
    pub(crate) manifest: Option<Digest>,
    /// Why it may not be what an upstream has now, if it may not.
    pub(crate) warning: Option<String>,
}

impl Snapshot {
    /// The file at `path`.
    pub(crate) fn file(&self, path: &str) -> Result<&HubFile, Error> {
        let found = self.files.iter().find(|file| file.path == path);
        found.ok_or_else(|| {
            Error::Hub(Refusal::EntryUnknown {
                path: path.chars().take(200).collect(),
                commit: self.commit.to_string(),
            })
        })
    }

    /// Whether some file lies in this folder; the root always exists.
    pub(crate) fn has_folder(&self, path: &str) -> bool {
        path.is_empty() || self.files.iter().any(|file| file.is_below(path))
    }
}

/// Who asks for `main`: clients differ in what they make of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    /// Takes all files of a revision: Hugging Face's libraries.
    Whole,
    /// Looks for one quantisation among all files of `main`: llama.cpp.
    Picking,
}

impl Registry {
    /// The files of a revision.
    pub(crate) async fn snapshot(
        &self,
        repository: &Repository,
        revision: &Revision,
        reader: Reader,
    ) -> Result<Arc<Snapshot>, Error> {
        match revision {
            Revision::Main => self.main_of(repository, reader).await,
            Revision::Tag(tag) => self.snapshot_of_tag(repository, tag).await,
            Revision::Commit(commit) => self.snapshot_of_commit(repository, commit).await,
        }
    }

    /// The branches of a repository: `main`, then its tags.
    pub(crate) async fn branches(
        &self,
        repository: &Repository,
        reader: Reader,
    ) -> Result<Vec<(String, Commit)>, Error> {
        let main = self.main_of(repository, reader).await?;
        let mut branches = vec![("main".to_owned(), main.commit.clone())];
        if self.mirrored(repository).is_some() {
            // The tags here are those that were asked for, and parts of `main` among them.
            return Ok(branches);
        }
        for (tag, record) in self.hub_tags(repository).await? {
            if tag.as_str() != "main" {
                branches.push((tag.as_str().to_owned(), Commit::of_digest(&record)));
            }
        }
        Ok(branches)
    }

    /// The tags of a repository with what they point to, up to [`MAX_TAGS`] of them.
    pub(crate) async fn hub_tags(
        &self,
        repository: &Repository,
    ) -> Result<Vec<(Tag, Digest)>, Error> {
        let page = Page::first(MAX_TAGS);
        let records = self.index.tag_records(repository, page).await?;
        let pairs = records
            .into_iter()
            .map(|(tag, record)| (tag, record.digest));
        Ok(pairs.collect())
    }

    /// `main` is the tag of this name, else `latest`, else all tags together. Who picks a file by
    /// its quantisation gets all tags together in any case.
    async fn main_of(
        &self,
        repository: &Repository,
        reader: Reader,
    ) -> Result<Arc<Snapshot>, Error> {
        // At Hugging Face all quantisations lie on one branch.
        let is_mirrored = self.mirrored(repository).is_some();
        if reader == Reader::Whole || is_mirrored {
            for name in ["main", "latest"] {
                let tag = Tag::parse(name).map_err(Error::Name)?;
                match self.snapshot_of_tag(repository, &tag).await {
                    Err(Error::Hub(Refusal::RevisionUnknown { .. })) => {}
                    found => return found,
                }
            }
        }
        self.union_of(repository).await
    }

    async fn snapshot_of_tag(
        &self,
        repository: &Repository,
        tag: &Tag,
    ) -> Result<Arc<Snapshot>, Error> {
        let reference = ManifestReference::Tag(tag.clone());
        match self.find_manifest(repository, &reference).await {
            Ok(found) => self.snapshot_of(repository, found).await,
            Err(Error::ManifestUnknown { .. }) => Err(unknown(repository, tag.as_str())),
            Err(error) => Err(error),
        }
    }

    /// A commit is the beginning of a manifest's digest, or one that was made from several
    /// manifests a while ago, or one that a mirrored manifest names.
    async fn snapshot_of_commit(
        &self,
        repository: &Repository,
        commit: &Commit,
    ) -> Result<Arc<Snapshot>, Error> {
        if let Some(kept) = self.hub_memory.get(repository, commit) {
            return Ok(kept);
        }
        // Digests are listed in order, so what begins with the commit follows it at once.
        let page = Page {
            after: Some(format!("sha256:{commit}")),
            limit: 1,
        };
        let listed = self.index.manifests(repository, page).await?;
        if let Some((digest, record)) = listed.into_iter().next()
            && Commit::of_digest(&digest) == *commit
        {
            let found = FoundManifest::new(digest, record);
            return self.snapshot_of(repository, found).await;
        }
        if let Some(mirrored) = self.mirrored_commit(repository, commit).await? {
            return Ok(mirrored);
        }
        // After a restart, or asked of another replica.
        let union = self.union_of(repository).await?;
        if union.commit == *commit {
            return Ok(union);
        }
        Err(unknown(repository, commit.as_str()))
    }

    /// The files of one manifest.
    async fn snapshot_of(
        &self,
        repository: &Repository,
        found: FoundManifest,
    ) -> Result<Arc<Snapshot>, Error> {
        let manifest = self.manifest_of(repository, &found).await?;
        let tags = self.index.tags_of(repository, &found.digest).await?;
        let label = label(&tags, &found.digest);
        Ok(Arc::new(Snapshot {
            commit: mirrored::commit_of(&found, &manifest),
            files: of_manifest(&manifest, repository, &label),
            updated: found.record.pushed,
            config: manifest.config().cloned(),
            manifest: Some(found.digest),
            warning: found.warning,
        }))
    }

    /// The manifest itself.
    async fn manifest_of(
        &self,
        repository: &Repository,
        found: &FoundManifest,
    ) -> Result<Manifest, Error> {
        let content = self.manifest_content(repository, &found.digest).await?;
        Manifest::parse(content.to_vec(), Some(&found.record.media_type))
            .map_err(Error::ManifestInvalid)
    }
}

fn unknown(repository: &Repository, revision: &str) -> Error {
    Error::Hub(Refusal::RevisionUnknown {
        repository: repository.clone(),
        revision: revision.chars().take(200).collect(),
    })
}
