//! How something stands: whether anything refers to it, and if not, why it will go and after what
//! time. Asked twice about everything that goes: when it is marked, and under the locks.

use std::collections::HashSet;
use std::time::Duration;

use artifact::{Digest, Repository};
use jiff::Timestamp;

use crate::error::Error;
use crate::service::collect::Run;
use crate::service::collect::report::{Collectable, Reason};
use crate::store::Mark;
use crate::store::records::ManifestRecord;

/// A chain of subjects is followed this far; what hangs on a longer one stays.
const LONGEST_CHAIN: usize = 1000;

/// How something stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is not there (any more).
    Gone,
    /// Something refers to it.
    Needed,
    /// A manifest that nothing refers to, and that no rule lets go.
    Untagged,
    /// Nothing refers to it.
    Loose(Box<Loose>),
}

/// Something that nothing refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Loose {
    /// What it is.
    pub(super) item: Collectable,
    /// Why it goes in the end.
    pub(super) cause: Cause,
    /// How long it waits.
    pub(super) wait: Duration,
    /// Its size.
    pub(super) bytes: u64,
}

/// A [`Reason`] that does not know yet since when it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    Unreferenced,
    Unheld,
    Untagged { rule: String },
    SubjectGone { subject: Digest },
}

impl Cause {
    /// With the time.
    pub(super) fn since(&self, since: Timestamp) -> Reason {
        match self {
            Self::Unreferenced => Reason::Unreferenced { since },
            Self::Unheld => Reason::Unheld { since },
            Self::Untagged { rule } => Reason::Untagged {
                since,
                rule: rule.clone(),
            },
            Self::SubjectGone { subject } => Reason::SubjectGone {
                since,
                subject: *subject,
            },
        }
    }
}

impl Run<'_> {
    /// How something that is or was marked stands now.
    pub(super) async fn standing(&self, mark: &Mark) -> Result<Standing, Error> {
        let index = &self.registry.index;
        match mark {
            Mark::Link(repository, digest) => {
                let Some(record) = index.blob(repository, digest).await? else {
                    return Ok(Standing::Gone);
                };
                self.standing_of_blob(repository, digest, record.size).await
            }
            Mark::Manifest(repository, digest) => {
                let Some(record) = index.manifest(repository, digest).await? else {
                    return Ok(Standing::Gone);
                };
                self.standing_of_manifest(repository, digest, &record).await
            }
            Mark::Content(digest) => {
                let Some(size) = self.registry.blobs.stat(digest).await? else {
                    return Ok(Standing::Gone);
                };
                self.standing_of_content(digest, size).await
            }
        }
    }

    /// How a blob of a repository stands.
    pub(super) async fn standing_of_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
        bytes: u64,
    ) -> Result<Standing, Error> {
        let index = &self.registry.index;
        if index.manifest_naming(repository, digest).await?.is_some() {
            return Ok(Standing::Needed);
        }
        Ok(Standing::Loose(Box::new(Loose {
            item: Collectable::Blob {
                repository: repository.clone(),
                digest: *digest,
            },
            cause: Cause::Unreferenced,
            wait: self.grace,
            bytes,
        })))
    }

    /// How stored content stands.
    pub(super) async fn standing_of_content(
        &self,
        digest: &Digest,
        bytes: u64,
    ) -> Result<Standing, Error> {
        if self.is_held(digest).await? {
            return Ok(Standing::Needed);
        }
        Ok(Standing::Loose(Box::new(Loose {
            item: Collectable::Content { digest: *digest },
            cause: Cause::Unheld,
            wait: self.grace,
            bytes,
        })))
    }

    /// Whether any repository holds the content, or may: a record that was written while the index
    /// could not follow counts.
    pub(super) async fn is_held(&self, digest: &Digest) -> Result<bool, Error> {
        Ok(self.registry.index.is_held(digest).await?
            || self.registry.is_hold_unsettled(digest).await?)
    }

    /// How a manifest of a repository stands. It is needed while it has a tag, while an image
    /// index names it, and while it refers to a manifest that is needed. Any other one that refers
    /// to nothing stays too, since somebody may have pinned its digest, unless a rule lets it go.
    pub(super) async fn standing_of_manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
        record: &ManifestRecord,
    ) -> Result<Standing, Error> {
        if self.is_named(repository, digest).await? {
            return Ok(Standing::Needed);
        }
        let rule = self.registry.collector.retention.rule_of(repository);
        let untagged = rule.and_then(|rule| Some((rule, rule.untagged_after()?)));
        let (cause, wait) = match (record.subject, untagged) {
            (Some(subject), _) if self.leads_to_something(repository, subject).await? => {
                return Ok(Standing::Needed);
            }
            (Some(subject), _) => (Cause::SubjectGone { subject }, self.grace),
            (None, Some((rule, after))) => {
                let rule = rule.to_string();
                (Cause::Untagged { rule }, self.grace.max(after))
            }
            (None, None) => return Ok(Standing::Untagged),
        };
        Ok(Standing::Loose(Box::new(Loose {
            item: Collectable::Manifest {
                repository: repository.clone(),
                digest: *digest,
            },
            cause,
            wait,
            bytes: record.size,
        })))
    }

    /// Whether a tag points to the manifest or an image index names it.
    async fn is_named(&self, repository: &Repository, digest: &Digest) -> Result<bool, Error> {
        let index = &self.registry.index;
        Ok(!index.tags_of(repository, digest).await?.is_empty()
            || index.index_naming(repository, digest).await?.is_some())
    }

    /// Whether a chain of subjects that begins with `subject` ends at something that is there for
    /// its own sake. Each manifest has one subject at most, so this is a path and not a tree; a
    /// circle needs a forged store, and whatever hangs on one stays.
    async fn leads_to_something(
        &self,
        repository: &Repository,
        subject: Digest,
    ) -> Result<bool, Error> {
        let mut seen = HashSet::new();
        let mut next = Some(subject);
        while let Some(digest) = next {
            if !seen.insert(digest) || seen.len() > LONGEST_CHAIN {
                return Ok(true);
            }
            let found = self.registry.index.manifest(repository, &digest).await?;
            let Some(record) = found else {
                return Ok(false);
            };
            if self.is_named(repository, &digest).await? {
                return Ok(true);
            }
            next = record.subject;
        }
        Ok(true)
    }
}
