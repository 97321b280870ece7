//! All tags of a repository as one commit: what `main` is where nobody set a tag of this name.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;

use artifact::{Digest, Repository, Tag};

use crate::error::Error;
use crate::service::Registry;
use crate::service::hub::files::{self, HubFile};
use crate::service::hub::revision::Commit;
use crate::service::hub::{MAX_FILES, Snapshot};
use crate::service::manifests::{FoundManifest, ManifestReference};

impl Registry {
    /// The files of all tags, `main` and `latest` first. Of files with one path and different
    /// content the first keeps its name, the others get their tag added.
    pub(crate) async fn union_of(&self, repository: &Repository) -> Result<Arc<Snapshot>, Error> {
        let mut tags = self.hub_tags(repository).await?;
        if tags.is_empty() && !self.index.has_repository(repository).await? {
            return Err(Error::RepositoryUnknown {
                repository: repository.clone(),
            });
        }
        let commit = commit_of(&tags);
        if let Some(kept) = self.hub_memory.get(repository, &commit) {
            return Ok(kept);
        }
        tags.sort_by_key(|(tag, _)| (rank(tag), tag.clone()));
        let mut parts = Vec::new();
        let mut seen = Vec::new();
        for (tag, digest) in &tags {
            if seen.contains(digest) {
                continue;
            }
            seen.push(*digest);
            let reference = ManifestReference::Digest(*digest);
            match self.find_manifest(repository, &reference).await {
                Ok(found) => parts.push((tag.clone(), self.part(repository, found).await?)),
                // Deleted a moment ago.
                Err(Error::ManifestUnknown { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        if let [(_, only)] = parts.as_slice() {
            return Ok(Arc::clone(only));
        }
        let updated = parts.iter().map(|(_, part)| part.updated).max();
        let snapshot = Arc::new(Snapshot {
            commit,
            config: parts.iter().find_map(|(_, part)| part.config.clone()),
            updated: updated.unwrap_or_default(),
            files: together(&parts),
            manifest: None,
            warning: None,
        });
        self.hub_memory.keep(repository, &snapshot);
        Ok(snapshot)
    }

    async fn part(
        &self,
        repository: &Repository,
        found: FoundManifest,
    ) -> Result<Arc<Snapshot>, Error> {
        self.snapshot_of(repository, found).await
    }
}

/// What the commit of these tags is called: it changes whenever one of them is set.
fn commit_of(tags: &[(Tag, Digest)]) -> Commit {
    let mut canonical = String::new();
    for (tag, digest) in tags {
        // Writing to a string cannot fail.
        let _ = writeln!(canonical, "{}={digest}", tag.as_str());
    }
    Commit::of_digest(&Digest::sha256(canonical.as_bytes()))
}

/// The tag that people mean when they name none comes first.
fn rank(tag: &Tag) -> u8 {
    match tag.as_str() {
        "main" => 0,
        "latest" => 1,
        _ => 2,
    }
}

fn together(parts: &[(Tag, Arc<Snapshot>)]) -> Vec<HubFile> {
    let mut content_at: HashMap<String, Digest> = HashMap::new();
    let mut all = Vec::new();
    for (tag, part) in parts {
        for file in &part.files {
            let mut file = file.clone();
            if content_at
                .get(&file.path)
                .is_some_and(|there| *there != file.digest)
            {
                file.path = files::with_suffix(&file.path, tag.as_str());
            }
            let is_new = !content_at.contains_key(&file.path);
            if is_new && all.len() < MAX_FILES {
                content_at.insert(file.path.clone(), file.digest);
                all.push(file);
            }
        }
    }
    all
}
