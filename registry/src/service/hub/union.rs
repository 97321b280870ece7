//! All tags of a repository as one commit: what `main` is where nobody set a tag of this name.

use std::sync::Arc;

use artifact::{Repository, hub};

use crate::error::Error;
use crate::service::Registry;
use crate::service::hub::Snapshot;
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
        let commit = hub::commit_of_tags(&tags);
        if let Some(kept) = self.hub_memory.get(repository, &commit) {
            return Ok(kept);
        }
        tags.sort_by_key(|(tag, _)| (hub::rank(tag), tag.clone()));
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
            files: hub::together(
                parts
                    .iter()
                    .map(|(tag, part)| (tag.as_str(), part.files.as_slice())),
            ),
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
