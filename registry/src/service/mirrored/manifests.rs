//! Manifests of mirrored repositories: when an upstream is asked, and what is done with its answer.

use std::sync::Arc;
use std::time::Duration;

use artifact::client::{self, Answer, Found, Known, Selector};
use artifact::{Digest, Repository, Tag};
use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::time::timeout;

use crate::error::Error;
use crate::mirror::Asked;
use crate::mirror::freshness::{Name, Seen};
use crate::service::manifests::{FoundManifest, ManifestReference, pointing, unknown};
use crate::service::mirrored::Mirrored;
use crate::service::{Registry, embedded};
use crate::store::Change;
use crate::store::records::ManifestRecord;

/// Who has something to serve waits no longer than this for an upstream to say whether it is still
/// right.
const STALE_AFTER: Duration = Duration::from_secs(3);

impl Mirrored<'_> {
    /// Finds a manifest. One with this digest never changes; a tag is asked for again when its time
    /// is over, and served as it was when nobody answers.
    pub(crate) async fn find_manifest(
        &self,
        reference: &ManifestReference,
    ) -> Result<FoundManifest, Error> {
        let held = match self.registry.find_held(self.repository, reference).await {
            Ok(found) if matches!(reference, ManifestReference::Digest(_)) => return Ok(found),
            Ok(found) => Some(found),
            Err(Error::ManifestUnknown { .. }) => None,
            Err(error) => return Err(error),
        };
        match held {
            Some(found) => self.renewed(reference, found).await,
            None => self.first(reference).await,
        }
    }

    /// Something that is not here yet.
    async fn first(&self, reference: &ManifestReference) -> Result<FoundManifest, Error> {
        let settings = &self.mirror.settings;
        let name = (self.repository.clone(), reference.clone());
        if let Some((age, Seen::Absent)) = self.mirror.freshness.get(&name)
            && age < settings.negative_ttl
        {
            return Err(unknown(self.repository, reference));
        }
        if settings.offline {
            return Err(self.offline(reference));
        }
        match self.ask(reference, None).await.map_err(Error::Shared)? {
            Asked::Here => self.registry.find_held(self.repository, reference).await,
            Asked::Absent => Err(unknown(self.repository, reference)),
        }
    }

    /// A tag that is here: asked for again if its time is over.
    async fn renewed(
        &self,
        reference: &ManifestReference,
        held: FoundManifest,
    ) -> Result<FoundManifest, Error> {
        let settings = &self.mirror.settings;
        if settings.offline {
            return Ok(held);
        }
        let name = (self.repository.clone(), reference.clone());
        let seen = self.mirror.freshness.get(&name);
        let mut etag = None;
        match seen {
            Some((age, Seen::Here { .. })) if age < settings.tag_ttl => return Ok(held),
            Some((age, Seen::Absent)) if age < settings.negative_ttl => return Ok(gone(held)),
            // Whoever waits for upstreams that are known to be down waits in vain.
            Some((_, Seen::Failed { reason })) if self.route.is_resting() => {
                return Ok(stale(held, &reason));
            }
            Some((_, Seen::Here { etag: known })) => etag = known,
            _ => {}
        }
        let known = Known {
            digest: held.digest,
            etag,
        };
        match timeout(STALE_AFTER, self.ask(reference, Some(known))).await {
            Ok(Ok(Asked::Here)) => self.registry.find_held(self.repository, reference).await,
            Ok(Ok(Asked::Absent)) => Ok(gone(held)),
            Ok(Err(error)) => Ok(stale(held, &error.chain())),
            Err(_) => Ok(stale(held, "its upstream has not answered yet")),
        }
    }

    /// Asks the upstreams, or joins somebody who is asking them.
    async fn ask(
        &self,
        reference: &ManifestReference,
        known: Option<Known>,
    ) -> Result<Asked, Arc<Error>> {
        let registry = self.mirror.registry().map_err(Arc::new)?;
        let name = (self.repository.clone(), reference.clone());
        let question = self
            .mirror
            .question(&name, || registry.ask_for(name.clone(), known));
        question.await
    }

    async fn ask_each(
        self,
        reference: ManifestReference,
        known: Option<Known>,
    ) -> Result<Asked, Error> {
        let name = (self.repository.clone(), reference.clone());
        let selector = match &reference {
            ManifestReference::Tag(tag) => Selector::Tag(tag.as_str().to_owned()),
            ManifestReference::Digest(digest) => Selector::Digest(*digest),
        };
        let mut failure = None;
        for upstream in self.route.in_turn() {
            let origin = self.mirror.origin(self.route, &upstream, self.repository);
            let origin = match origin.await {
                Ok(origin) => origin,
                Err(error) => {
                    failure = Some(error);
                    continue;
                }
            };
            upstream.asked();
            let etag = match origin.manifest(&selector, known.as_ref()).await {
                Ok(Answer::Unchanged { etag }) => etag,
                Ok(Answer::Found(found)) => {
                    self.keep(&reference, &found).await?;
                    found.etag
                }
                Err(error) => {
                    if is_about_this(&error) {
                        upstream.succeeded();
                    } else {
                        upstream.failed(&error);
                        failure = Some(Error::upstream(error));
                    }
                    continue;
                }
            };
            upstream.succeeded();
            self.mirror.freshness.note(name, Seen::Here { etag });
            return Ok(Asked::Here);
        }
        let Some(failure) = failure else {
            self.mirror.freshness.note(name, Seen::Absent);
            return Ok(Asked::Absent);
        };
        let reason = failure.chain();
        tracing::warn!(repository = %self.repository, %reference, error = reason, "no upstream answers");
        self.mirror.freshness.note(name, Seen::Failed { reason });
        Err(failure)
    }

    /// Stores what an upstream gave.
    async fn keep(&self, reference: &ManifestReference, found: &Found) -> Result<(), Error> {
        let registry = self.registry;
        for (digest, content) in &found.documents {
            registry
                .keep_document(self.repository, digest, content)
                .await?;
        }
        let tag = match reference {
            ManifestReference::Tag(tag) => Some(tag),
            ManifestReference::Digest(_) => None,
        };
        registry.keep_mirrored(self.repository, tag, found).await
    }
}

impl Registry {
    /// Asks the upstreams of a mirrored repository, for whoever wants to know.
    fn ask_for(
        self: Arc<Self>,
        (repository, reference): Name,
        known: Option<Known>,
    ) -> BoxFuture<'static, Result<Asked, Error>> {
        Box::pin(async move {
            let mirrored = self.mirrored(&repository).ok_or(Error::Closing)?;
            mirrored.ask_each(reference, known).await
        })
    }

    async fn keep_document(
        &self,
        repository: &Repository,
        digest: &Digest,
        content: &Bytes,
    ) -> Result<(), Error> {
        if self.index.blob(repository, digest).await?.is_some() {
            return Ok(());
        }
        let mut lock = self.lock_content(digest).await?;
        self.blobs.put(digest, content.clone()).await?;
        let size = content.len() as u64;
        self.link_blob(lock.as_mut(), repository, digest, size)
            .await
    }

    async fn keep_mirrored(
        &self,
        repository: &Repository,
        tag: Option<&Tag>,
        found: &Found,
    ) -> Result<(), Error> {
        let digest = found.digest;
        let content = Bytes::copy_from_slice(found.manifest.raw());
        embedded::check(&content)?;
        let record = ManifestRecord {
            is_mirrored: true,
            ..ManifestRecord::of(&found.manifest)
        };
        let mut lock = self.lock_repository(repository, Some(&digest)).await?;
        let mut changes = Vec::new();
        changes.extend(self.missing_repository(repository).await?);
        let missing = self.missing_manifest(repository, digest, record.clone());
        if let Some(change) = missing.await? {
            self.blobs.put(&digest, content).await?;
            changes.push(change);
        }
        if let Some(tag) = tag {
            changes.extend(self.moved_tag(repository, tag, digest).await?);
        }
        self.change(lock.as_mut(), changes).await?;
        self.touch_manifest(repository, &digest, &record).await
    }

    /// The change that makes a tag point to a manifest, if it does not yet: a tag that is only
    /// found again costs no write.
    async fn moved_tag(
        &self,
        repository: &Repository,
        tag: &Tag,
        digest: Digest,
    ) -> Result<Option<Change>, Error> {
        let held = self.index.tag(repository, tag).await?;
        let is_there = held.is_some_and(|record| record.digest == digest);
        Ok((!is_there).then(|| pointing(repository, tag, digest)))
    }
}

/// Whether an upstream that says this is well, and has no such manifest.
fn is_about_this(error: &client::Error) -> bool {
    error.is_absent() || matches!(error, client::Error::Unsupported { .. })
}

/// Served as it was, because nobody could be asked.
fn stale(held: FoundManifest, reason: &str) -> FoundManifest {
    let warning = format!("served from the mirror as it was: {reason}");
    FoundManifest {
        warning: Some(warning.chars().take(1000).collect()),
        ..held
    }
}

/// Served although its upstream has it no more: what was mirrored once is not lost.
fn gone(held: FoundManifest) -> FoundManifest {
    let warning = "served from the mirror: its upstream has it no more".to_owned();
    FoundManifest {
        warning: Some(warning),
        ..held
    }
}
