//! Listings of mirrored repositories: what is here, and what the upstream says there is.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use artifact::{Digest, Manifest, Tag};
use tokio::time::timeout;

use crate::error::Error;
use crate::service::manifests::ManifestReference;
use crate::service::mirrored::Mirrored;
use crate::store::Page;

/// Most tags that are taken over of one repository.
const MOST_TAGS: usize = 10_000;
/// Most referrers that are brought in for one manifest.
const MOST_REFERRERS: usize = 100;
/// A listing waits no longer than this for an upstream.
const PATIENCE: Duration = Duration::from_secs(10);

impl Mirrored<'_> {
    /// Tags in byte order: those that are here and those of the upstream, as far as it tells.
    pub(crate) async fn tags(&self, page: Page) -> Result<Vec<Tag>, Error> {
        let local = Page::first(MOST_TAGS);
        let mut tags: BTreeSet<Tag> = self
            .registry
            .index
            .tags(self.repository, local)
            .await?
            .into_iter()
            .collect();
        let upstream = self.tags_at_upstream().await;
        let is_known = !tags.is_empty() || upstream.is_some();
        if !is_known && !self.registry.index.has_repository(self.repository).await? {
            return Err(Error::RepositoryUnknown {
                repository: self.repository.clone(),
            });
        }
        tags.extend(upstream.iter().flat_map(|tags| tags.iter().cloned()));
        let after = page.after.unwrap_or_default();
        let rest = tags.into_iter().filter(|tag| tag.as_str() > after.as_str());
        Ok(rest.take(page.limit).collect())
    }

    /// What the upstream listed lately; nothing when it does not list, or cannot be asked.
    async fn tags_at_upstream(&self) -> Option<Arc<Vec<Tag>>> {
        let settings = &self.mirror.settings;
        if let Some(listed) = self.mirror.listed(self.repository, settings.tag_ttl) {
            return Some(listed);
        }
        if settings.offline || self.route.is_resting() {
            return None;
        }
        for upstream in self.route.in_turn() {
            let asking = async {
                let origin = self.mirror.origin(self.route, &upstream, self.repository);
                let tags = origin.await?.tags(MOST_TAGS).await;
                tags.map_err(Error::upstream)
            };
            match timeout(PATIENCE, asking).await {
                Ok(Ok(names)) => {
                    // Names that no tag can have here cannot be asked for here either.
                    let tags = names.iter().filter_map(|name| Tag::parse(name).ok());
                    let tags = Arc::new(tags.collect::<Vec<_>>());
                    self.mirror.note_listed(self.repository, Arc::clone(&tags));
                    return Some(tags);
                }
                Ok(Err(error)) => {
                    tracing::debug!(repository = %self.repository, error = error.chain(), "an upstream does not list its tags");
                }
                Err(_) => {}
            }
        }
        None
    }

    /// Brings in the manifests that refer to one, as far as an upstream tells of them: a signature
    /// or a bill of materials can be found here as it is there.
    pub(crate) async fn bring_referrers(&self, subject: &Digest) {
        let settings = &self.mirror.settings;
        if settings.offline || self.route.is_resting() {
            return;
        }
        if !self
            .mirror
            .is_due(self.repository, subject, settings.tag_ttl)
        {
            return;
        }
        let bringing = async {
            for upstream in self.route.in_turn() {
                let origin = self.mirror.origin(self.route, &upstream, self.repository);
                let Ok(origin) = origin.await else {
                    continue;
                };
                if let Ok(Some(index)) = origin.referrers(subject).await
                    && let Ok(index) = Manifest::parse(index.to_vec(), None)
                {
                    self.bring_each(&index).await;
                    return;
                }
            }
        };
        if timeout(PATIENCE, bringing).await.is_err() {
            tracing::debug!(repository = %self.repository, %subject, "the upstream is slow to list referrers");
        }
    }

    async fn bring_each(&self, index: &Manifest) {
        for named in index.manifests().iter().take(MOST_REFERRERS) {
            let reference = ManifestReference::Digest(named.digest);
            if let Err(error) = self.find_manifest(&reference).await {
                tracing::debug!(repository = %self.repository, digest = %named.digest, error = error.chain(), "a referrer cannot be had");
            }
        }
    }
}
