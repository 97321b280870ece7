//! The second half of a run: what has been marked for the whole grace time goes.
//!
//! Everything is asked again under the locks of those who might still need it. Whoever commits,
//! links or mounts content holds its blob; whoever writes a record, a lease included, holds its
//! repository. So what is loose under both locks stays loose until it is gone.

use artifact::{Digest, Repository};
use futures::{StreamExt, TryStreamExt};

use crate::error::Error;
use crate::service::collect::report::{CollectEvent, Collectable, Reason};
use crate::service::collect::standing::{Loose, Standing};
use crate::service::collect::survey::Survey;
use crate::service::collect::{PAGE, Run};
use crate::store::key::RecordKey;
use crate::store::paging::{each, pages};
use crate::store::records::{ManifestRecord, TagRecord};
use crate::store::{Change, IndexLock, Mark, Page};

/// How often the marks are gone through: manifests that go leave blobs behind, which with a short
/// grace time can go in the same run. What is left after that is for the next one.
const PASSES: usize = 8;
/// Referrers that follow what went are remembered up to this number; the next run finds the rest.
const MOST_FOLLOWERS: usize = 10_000;

impl Run<'_> {
    /// Removes everything whose time is over.
    pub(super) async fn sweep(
        &self,
        survey: &mut Survey,
        turn: &mut (dyn IndexLock + '_),
    ) -> Result<(), Error> {
        self.sweep_leases(survey, turn).await?;
        self.sweep_tags(survey, turn).await?;
        for _ in 0..PASSES {
            let before = survey.gone.manifests;
            self.sweep_marks(survey, turn).await?;
            if survey.gone.manifests == before {
                break;
            }
        }
        self.sweep_maps(turn).await
    }

    async fn sweep_leases(
        &self,
        survey: &mut Survey,
        turn: &mut (dyn IndexLock + '_),
    ) -> Result<(), Error> {
        let index = &self.registry.index;
        let mut leases = pages(Page::first(PAGE), |page| index.leases(page));
        while let Some(leases) = leases.try_next().await? {
            turn.check().await?;
            for (repository, id, lease) in leases {
                if lease.expires > self.now {
                    continue;
                }
                if let Some(at) = self
                    .registry
                    .expire_lease(&repository, id, self.now)
                    .await?
                {
                    let item = Collectable::Lease { repository, id };
                    self.gone(survey, item, Reason::Expired { at }, 0).await;
                }
            }
        }
        Ok(())
    }

    async fn sweep_tags(
        &self,
        survey: &mut Survey,
        turn: &mut (dyn IndexLock + '_),
    ) -> Result<(), Error> {
        let index = &self.registry.index;
        let mut repositories = each(Page::first(PAGE), |page| index.repositories(page));
        while let Some(repository) = repositories.try_next().await? {
            self.sweep_tags_of(survey, &repository, turn).await?;
        }
        Ok(())
    }

    async fn sweep_tags_of(
        &self,
        survey: &mut Survey,
        repository: &Repository,
        turn: &mut (dyn IndexLock + '_),
    ) -> Result<(), Error> {
        let Some((rule, policy)) = self.tag_policy(repository).await? else {
            return Ok(());
        };
        let index = &self.registry.index;
        let mut tags = pages(Page::first(PAGE), |page| {
            index.tag_records(repository, page)
        });
        while let Some(tags) = tags.try_next().await? {
            turn.check().await?;
            for (tag, record) in tags {
                if policy.keeps(&tag, record.updated) {
                    continue;
                }
                if self.drop_tag(repository, &tag, &record).await? {
                    let item = Collectable::Tag {
                        repository: repository.clone(),
                        tag,
                        digest: record.digest,
                    };
                    let rule = rule.to_string();
                    self.gone(survey, item, Reason::Dropped { rule }, 0).await;
                }
            }
        }
        Ok(())
    }

    /// Removes a tag that is still what it was when the rule was asked.
    async fn drop_tag(
        &self,
        repository: &Repository,
        tag: &artifact::Tag,
        seen: &TagRecord,
    ) -> Result<bool, Error> {
        let registry = self.registry;
        let mut lock = registry.lock_repository(repository, None).await?;
        let is_as_seen = registry.index.tag(repository, tag).await?.as_ref() == Some(seen);
        if !is_as_seen || self.leased_until(&seen.digest).await?.is_some() {
            return Ok(false);
        }
        let key = RecordKey::Tag(repository.clone(), tag.clone());
        registry
            .change(lock.as_mut(), vec![Change::Remove(key)])
            .await?;
        // From now on, not from the next run on: that is when it lost its tag.
        self.mark_if_loose(Mark::Manifest(repository.clone(), seen.digest))
            .await?;
        Ok(true)
    }

    /// Goes through all marks once.
    async fn sweep_marks(
        &self,
        survey: &mut Survey,
        turn: &mut (dyn IndexLock + '_),
    ) -> Result<(), Error> {
        let index = &self.registry.index;
        let mut marks = pages(Page::first(PAGE), |page| index.marks(page));
        while let Some(marks) = marks.try_next().await? {
            // For each page, so that a collector that lost its turn removes no further.
            turn.check().await?;
            for (mark, _) in marks {
                self.sweep_mark(survey, mark).await?;
            }
        }
        Ok(())
    }

    /// Removes what a mark stands for, if its time is over, and what refers to nothing else.
    pub(super) async fn sweep_mark(&self, survey: &mut Survey, mark: Mark) -> Result<(), Error> {
        let mut followers = vec![mark];
        while let Some(mark) = followers.pop() {
            let has_gone = match &mark {
                Mark::Link(repository, digest) => {
                    self.drop_blob(survey, repository, digest).await?
                }
                Mark::Manifest(repository, digest) => {
                    self.drop_manifest(survey, repository, digest).await?
                }
                Mark::Content(digest) => self.drop_content(survey, digest).await?,
            };
            if let (true, Mark::Manifest(repository, digest)) = (has_gone, &mark) {
                self.follow(&mut followers, repository, digest).await?;
            }
        }
        Ok(())
    }

    /// The referrers of a manifest that went, to be looked at next.
    async fn follow(
        &self,
        followers: &mut Vec<Mark>,
        repository: &Repository,
        subject: &Digest,
    ) -> Result<(), Error> {
        let index = &self.registry.index;
        let room = MOST_FOLLOWERS.saturating_sub(followers.len());
        let mut referrers = each(Page::first(PAGE), |page| {
            index.referrers(repository, subject, page)
        })
        .take(room);
        while let Some((digest, _)) = referrers.try_next().await? {
            let mark = Mark::Manifest(repository.clone(), digest);
            self.mark_if_loose(mark.clone()).await?;
            followers.push(mark);
        }
        Ok(())
    }

    async fn drop_blob(
        &self,
        survey: &mut Survey,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<bool, Error> {
        let registry = self.registry;
        let mut lock = registry.lock_repository(repository, Some(digest)).await?;
        let mark = Mark::Link(repository.clone(), *digest);
        let Some((loose, reason)) = self.ripe(&mark).await? else {
            return Ok(false);
        };
        let key = RecordKey::Blob(repository.clone(), *digest);
        registry
            .change(lock.as_mut(), vec![Change::Remove(key)])
            .await?;
        registry.index.unmark(&mark).await?;
        let bytes = self.free_content(survey, digest).await?;
        self.gone(survey, loose.item, reason, bytes).await;
        Ok(true)
    }

    async fn drop_manifest(
        &self,
        survey: &mut Survey,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<bool, Error> {
        let registry = self.registry;
        let mut lock = registry.lock_repository(repository, Some(digest)).await?;
        let mark = Mark::Manifest(repository.clone(), *digest);
        let Some((loose, reason)) = self.ripe(&mark).await? else {
            return Ok(false);
        };
        let Some(record) = registry.index.manifest(repository, digest).await? else {
            return Ok(false);
        };
        // The subject first: whoever can still see it can list what refers to it.
        if let Some(subject) = record.subject
            && registry
                .index
                .manifest(repository, &subject)
                .await?
                .is_some()
        {
            return Ok(false);
        }
        let key = RecordKey::Manifest(repository.clone(), *digest);
        registry
            .change(lock.as_mut(), vec![Change::Remove(key)])
            .await?;
        registry.index.unmark(&mark).await?;
        self.mark_what_it_named(repository, &record).await?;
        let bytes = self.free_content(survey, digest).await?;
        self.gone(survey, loose.item, reason, bytes).await;
        Ok(true)
    }

    /// What a manifest named has its own grace time, which begins when the manifest goes.
    async fn mark_what_it_named(
        &self,
        repository: &Repository,
        record: &ManifestRecord,
    ) -> Result<(), Error> {
        for digest in &record.blobs {
            self.mark_if_loose(Mark::Link(repository.clone(), *digest))
                .await?;
        }
        for digest in &record.manifests {
            self.mark_if_loose(Mark::Manifest(repository.clone(), *digest))
                .await?;
        }
        Ok(())
    }

    async fn mark_if_loose(&self, mark: Mark) -> Result<(), Error> {
        let index = &self.registry.index;
        if index.marked(&mark).await?.is_none()
            && matches!(self.standing(&mark).await?, Standing::Loose(_))
        {
            index.mark(&mark, self.now).await?;
        }
        Ok(())
    }

    async fn drop_content(&self, survey: &mut Survey, digest: &Digest) -> Result<bool, Error> {
        let registry = self.registry;
        let _lock = registry.lock_content(digest).await?;
        let mark = Mark::Content(*digest);
        let Some((loose, reason)) = self.ripe(&mark).await? else {
            return Ok(false);
        };
        registry.blobs.remove(digest).await?;
        registry.index.unmark(&mark).await?;
        self.gone(survey, loose.item, reason, loose.bytes).await;
        Ok(true)
    }

    /// Removes the content of something that just left its repository, unless another one holds
    /// it; gives the bytes that became free. The caller holds the content. Nobody who needs it can
    /// find it any more, so it has no grace time of its own.
    async fn free_content(&self, survey: &mut Survey, digest: &Digest) -> Result<u64, Error> {
        let registry = self.registry;
        if self.is_held(digest).await? {
            return Ok(0);
        }
        let size = registry.blobs.stat(digest).await?.unwrap_or(0);
        if registry.blobs.remove(digest).await? {
            survey.gone.contents += 1;
        }
        registry.index.unmark(&Mark::Content(*digest)).await?;
        Ok(size)
    }

    /// What a mark stands for, if it may go now. The caller holds the locks. A mark on something
    /// that is needed, or that has gone, is taken away.
    async fn ripe(&self, mark: &Mark) -> Result<Option<(Loose, Reason)>, Error> {
        let index = &self.registry.index;
        let Some(since) = index.marked(mark).await? else {
            return Ok(None);
        };
        let loose = match self.standing(mark).await? {
            Standing::Loose(loose) => *loose,
            Standing::Gone | Standing::Needed | Standing::Untagged => {
                index.unmark(mark).await?;
                return Ok(None);
            }
        };
        if !self.is_over(since, loose.wait) || self.leased_until(mark.digest()).await?.is_some() {
            return Ok(None);
        }
        let reason = loose.cause.since(since);
        Ok(Some((loose, reason)))
    }

    /// Counts and tells what went.
    async fn gone(&self, survey: &mut Survey, item: Collectable, reason: Reason, bytes: u64) {
        tracing::info!(%item, %reason, bytes, "collected");
        survey.gone.count(&item, bytes);
        let event = CollectEvent::Goes {
            item,
            reason,
            bytes,
        };
        self.outlet.tell(event).await;
    }
}
