//! The first half of a run: a look over every repository and all stored content. What nothing
//! refers to is marked; nothing is removed.

use artifact::{Repository, Tag};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;

use crate::error::Error;
use crate::service::collect::guard::Share;
use crate::service::collect::report::{CollectEvent, CollectSummary, Collectable, Reason, Stay};
use crate::service::collect::standing::{Loose, Standing};
use crate::service::collect::{PAGE, Run};
use crate::service::retention::{CheckedRule, TagPolicy};
use crate::store::paging::each;
use crate::store::records::TagRecord;
use crate::store::{IndexLock, Mark, Page};

/// Blobs between two reports of how far the look has come.
const REPORT_EVERY: u64 = 1000;

/// What a run has seen: counts, and nothing that grows with what there is.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// What went; of a dry run, what would.
    pub(super) gone: CollectSummary,
    repositories: u64,
    blobs: u64,
    /// How much would go of the blobs, of the manifests, and of tags that a rule speaks of.
    blob_share: Share,
    manifest_share: Share,
    tag_share: Share,
}

impl Survey {
    /// Refuses when more of something would go than anybody would mean.
    pub(super) fn require_share(&self, percent: u8) -> Result<(), Error> {
        self.blob_share.require(percent, "blobs")?;
        self.manifest_share.require(percent, "manifests")?;
        self.tag_share.require(percent, "tags")
    }

    /// The sum of the run.
    pub(super) fn summary(&self) -> CollectSummary {
        CollectSummary {
            repositories: self.repositories,
            ..self.gone
        }
    }
}

impl Run<'_> {
    /// Looks over everything. Each page asks anew whether the turn is still ours.
    pub(super) async fn survey(
        &self,
        survey: &mut Survey,
        mut turn: Option<&mut (dyn IndexLock + '_)>,
    ) -> Result<(), Error> {
        survey.gone.dry_run = self.options.dry_run;
        let index = &self.registry.index;
        let mut repositories = each(Page::first(PAGE), |page| index.repositories(page));
        while let Some(repository) = repositories.try_next().await? {
            if let Some(turn) = turn.as_deref_mut() {
                turn.check().await?;
            }
            self.survey_tags(survey, &repository).await?;
            self.survey_manifests(survey, &repository).await?;
            self.survey_blobs(survey, &repository).await?;
            survey.repositories += 1;
            self.report(survey).await;
        }
        self.survey_content(survey, turn).await?;
        self.survey_leases(survey).await
    }

    async fn survey_tags(&self, survey: &mut Survey, repository: &Repository) -> Result<(), Error> {
        let Some((rule, policy)) = self.tag_policy(repository).await? else {
            return Ok(());
        };
        let mut tags = self.tags_of(repository);
        while let Some((tag, record)) = tags.try_next().await? {
            survey.tag_share.total += 1;
            if policy.keeps(&tag, record.updated) {
                continue;
            }
            let item = Collectable::Tag {
                repository: repository.clone(),
                tag,
                digest: record.digest,
            };
            if let Some(until) = self.leased_until(&record.digest).await? {
                self.stays(survey, item, Stay::Leased { until }).await;
                continue;
            }
            survey.tag_share.going += 1;
            let reason = Reason::Dropped {
                rule: rule.to_string(),
            };
            self.would_go(survey, item, reason, 0).await;
        }
        Ok(())
    }

    /// The rule that drops tags of the repository, after its first look over them.
    pub(super) async fn tag_policy(
        &self,
        repository: &Repository,
    ) -> Result<Option<(&CheckedRule, TagPolicy<'_>)>, Error> {
        let rule = self.registry.collector.retention.rule_of(repository);
        let Some((rule, mut survey)) = rule.and_then(|rule| Some((rule, rule.tags(self.now)?)))
        else {
            return Ok(None);
        };
        let mut tags = self.tags_of(repository);
        while let Some((tag, record)) = tags.try_next().await? {
            survey.see(&tag, record.updated);
        }
        Ok(Some((rule, survey.conclude())))
    }

    fn tags_of<'a>(
        &'a self,
        repository: &'a Repository,
    ) -> BoxStream<'a, Result<(Tag, TagRecord), Error>> {
        let index = &self.registry.index;
        each(Page::first(PAGE), |page| {
            index.tag_records(repository, page)
        })
    }

    async fn survey_manifests(
        &self,
        survey: &mut Survey,
        repository: &Repository,
    ) -> Result<(), Error> {
        let index = &self.registry.index;
        let mut manifests = each(Page::first(PAGE), |page| index.manifests(repository, page));
        while let Some((digest, record)) = manifests.try_next().await? {
            survey.manifest_share.total += 1;
            let standing = self
                .standing_of_manifest(repository, &digest, &record)
                .await?;
            let mark = Mark::Manifest(repository.clone(), digest);
            if standing == Standing::Untagged {
                let repository = repository.clone();
                let item = Collectable::Manifest { repository, digest };
                self.stays(survey, item, Stay::Untagged).await;
            } else if self.meet(survey, &mark, standing).await? {
                survey.manifest_share.going += 1;
            }
        }
        Ok(())
    }

    async fn survey_blobs(
        &self,
        survey: &mut Survey,
        repository: &Repository,
    ) -> Result<(), Error> {
        let index = &self.registry.index;
        let mut blobs = each(Page::first(PAGE), |page| index.blobs(repository, page));
        while let Some((digest, record)) = blobs.try_next().await? {
            survey.blob_share.total += 1;
            let standing = self
                .standing_of_blob(repository, &digest, record.size)
                .await?;
            let mark = Mark::Link(repository.clone(), digest);
            if self.meet(survey, &mark, standing).await? {
                survey.blob_share.going += 1;
            }
            self.see_blob(survey).await;
        }
        Ok(())
    }

    /// Content in no repository: from a crash between commit and link, or from a deletion.
    async fn survey_content(
        &self,
        survey: &mut Survey,
        mut turn: Option<&mut (dyn IndexLock + '_)>,
    ) -> Result<(), Error> {
        let mut stored = self.registry.blobs.list();
        let mut looked: usize = 0;
        while let Some(blob) = stored.next().await {
            let blob = blob?;
            looked += 1;
            if let Some(turn) = turn.as_deref_mut().filter(|_| looked.is_multiple_of(PAGE)) {
                turn.check().await?;
            }
            let standing = self.standing_of_content(&blob.digest, blob.size).await?;
            if standing != Standing::Needed {
                survey.blob_share.total += 1;
            }
            if self
                .meet(survey, &Mark::Content(blob.digest), standing)
                .await?
            {
                survey.blob_share.going += 1;
            }
            self.see_blob(survey).await;
        }
        Ok(())
    }

    /// Only a dry run looks for leases that have expired: a real one removes them right away.
    async fn survey_leases(&self, survey: &mut Survey) -> Result<(), Error> {
        if !self.options.dry_run {
            return Ok(());
        }
        let index = &self.registry.index;
        let mut leases = each(Page::first(PAGE), |page| index.leases(page));
        while let Some((repository, id, lease)) = leases.try_next().await? {
            if lease.expires <= self.now {
                let at = lease.expires;
                let item = Collectable::Lease { repository, id };
                self.would_go(survey, item, Reason::Expired { at }, 0).await;
            }
        }
        Ok(())
    }

    /// Marks what nothing refers to; `true` if it has been marked for long enough to go.
    async fn meet(
        &self,
        survey: &mut Survey,
        mark: &Mark,
        standing: Standing,
    ) -> Result<bool, Error> {
        let Standing::Loose(loose) = standing else {
            return Ok(false);
        };
        let Loose {
            item,
            cause,
            wait,
            bytes,
        } = *loose;
        if let Some(until) = self.leased_until(mark.digest()).await? {
            self.stays(survey, item, Stay::Leased { until }).await;
            return Ok(false);
        }
        let since = self.marked_since(mark).await?;
        if self.is_over(since, wait) {
            self.would_go(survey, item, cause.since(since), bytes).await;
            return Ok(true);
        }
        let until = self.end_of(since, wait);
        let reason = cause.since(since);
        self.stays(survey, item, Stay::Waiting { reason, until })
            .await;
        Ok(false)
    }

    /// Since when something is marked: from now on if it was not, or by a clock that was ahead.
    async fn marked_since(&self, mark: &Mark) -> Result<Timestamp, Error> {
        let index = &self.registry.index;
        let marked = index.marked(mark).await?;
        if let Some(since) = marked.filter(|since| *since <= self.now) {
            return Ok(since);
        }
        if !self.options.dry_run {
            index.mark(mark, self.now).await?;
        }
        Ok(self.now)
    }

    /// A dry run tells and counts what would go. A real one does when it has gone.
    async fn would_go(&self, survey: &mut Survey, item: Collectable, reason: Reason, bytes: u64) {
        if self.options.dry_run {
            survey.gone.count(&item, bytes);
            let event = CollectEvent::Goes {
                item,
                reason,
                bytes,
            };
            self.outlet.tell(event).await;
        }
    }

    /// Everything that stays is counted; a dry run tells it too.
    async fn stays(&self, survey: &mut Survey, item: Collectable, because: Stay) {
        survey.gone.keep(&because);
        if self.options.dry_run {
            self.outlet
                .tell(CollectEvent::Stays { item, because })
                .await;
        }
    }

    async fn see_blob(&self, survey: &mut Survey) {
        survey.blobs += 1;
        if survey.blobs.is_multiple_of(REPORT_EVERY) {
            self.report(survey).await;
        }
    }

    async fn report(&self, survey: &Survey) {
        let (repositories, blobs) = (survey.repositories, survey.blobs);
        let event = CollectEvent::Looked {
            repositories,
            blobs,
        };
        self.outlet.tell(event).await;
    }
}
