//! Mirrors of Hugging Face behind `/hf`: whose name is meant, and which commit a manifest is of.

use std::sync::Arc;

use artifact::client::OriginKind;
use artifact::hub::{Commit, REVISION};
use artifact::{Manifest, Repository, Tag};

use crate::error::Error;
use crate::service::Registry;
use crate::service::hub::{Refusal, Snapshot};
use crate::service::manifests::{FoundManifest, ManifestReference};

impl Registry {
    /// The repositories that a client may mean by the name that it spells `id`, in the order in
    /// which they are tried: the one of this name, then those below mirrors of Hugging Face.
    pub(crate) fn hub_candidates(&self, id: &str, repository: &Repository) -> Vec<Repository> {
        let mut candidates = vec![repository.clone()];
        let Some(mirror) = self.mirror() else {
            return candidates;
        };
        // Hugging Face tells upper case from lower case, so its own spelling is handed on.
        mirror.note_spelling(repository, id);
        for route in mirror.routes.iter() {
            let is_hub = |kind: OriginKind| kind == OriginKind::HuggingFace;
            if !route.upstreams.iter().any(|it| is_hub(it.at().kind)) {
                continue;
            }
            let below = |name: &str| format!("{}/{name}", route.prefix.as_str());
            if let Ok(candidate) = Repository::parse(&below(repository.as_str())) {
                mirror.note_spelling(&candidate, &below(id));
                candidates.push(candidate);
            }
        }
        candidates
    }

    /// Whether there is such a repository, here or at an upstream.
    pub(crate) async fn has_hub_repository(&self, repository: &Repository) -> Result<bool, Error> {
        if self.index.has_repository(repository).await? {
            return Ok(true);
        }
        if self.mirrored(repository).is_none() {
            return Ok(false);
        }
        for name in ["main", "latest"] {
            let tag = ManifestReference::Tag(Tag::parse(name).map_err(Error::Name)?);
            match self.find_manifest(repository, &tag).await {
                Ok(_) => return Ok(true),
                Err(Error::ManifestUnknown { .. } | Error::Offline { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// A commit of a mirrored repository: what `main` was when it was asked for last, or what the
    /// upstream still knows by this name.
    pub(super) async fn mirrored_commit(
        &self,
        repository: &Repository,
        commit: &Commit,
    ) -> Result<Option<Arc<Snapshot>>, Error> {
        if self.mirrored(repository).is_none() {
            return Ok(None);
        }
        let tag = |name: &str| Tag::parse(name).map_err(Error::Name);
        let main = ManifestReference::Tag(tag("main")?);
        if let Ok(found) = self.find_held(repository, &main).await {
            let main = self.snapshot_of(repository, found).await?;
            if main.commit == *commit {
                return Ok(Some(main));
            }
        }
        match self
            .snapshot_of_tag(repository, &tag(commit.as_str())?)
            .await
        {
            Ok(found) => Ok(Some(found)),
            Err(Error::Hub(Refusal::RevisionUnknown { .. }) | Error::Offline { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// What the commit of a manifest is called: the upstream's name for it, if it was mirrored.
pub(super) fn commit_of(found: &FoundManifest, manifest: &Manifest) -> Commit {
    let named = manifest.annotations().get(REVISION);
    let upstream = named.filter(|_| found.record.is_mirrored);
    let upstream = upstream.and_then(|name| Commit::parse(name));
    upstream.unwrap_or_else(|| Commit::of_digest(&found.digest))
}
