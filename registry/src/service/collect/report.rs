//! What a collection reports: each thing that goes and why, what stays although nothing refers to
//! it, and the sum. As NDJSON these are the answer of `POST /v2/_hayloft/collect`.

use std::fmt;

use artifact::{Digest, Repository, Tag};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::service::events::Told;

/// Something that a collection can take away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Collectable {
    /// A tag; what it points to stays at first.
    Tag {
        /// Its repository.
        repository: Repository,
        /// Its name.
        tag: Tag,
        /// What it points to.
        digest: Digest,
    },
    /// A manifest of a repository.
    Manifest {
        /// Its repository.
        repository: Repository,
        /// Its digest.
        digest: Digest,
    },
    /// A blob of a repository. Its content goes with the last repository that holds it.
    Blob {
        /// Its repository.
        repository: Repository,
        /// Its digest.
        digest: Digest,
    },
    /// Stored content that no repository holds.
    Content {
        /// Its digest.
        digest: Digest,
    },
    /// A lease.
    Lease {
        /// Its repository.
        repository: Repository,
        /// Its name.
        id: Uuid,
    },
}

impl fmt::Display for Collectable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag {
                repository, tag, ..
            } => write!(f, "tag {repository}:{tag}"),
            Self::Manifest { repository, digest } => write!(f, "manifest {repository}@{digest}"),
            Self::Blob { repository, digest } => write!(f, "blob {repository}@{digest}"),
            Self::Content { digest } => write!(f, "content {digest}"),
            Self::Lease { repository, id } => write!(f, "lease {repository} {id}"),
        }
    }
}

/// Why something goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum Reason {
    /// No manifest of its repository names the blob.
    Unreferenced {
        /// When a collection saw that first.
        since: Timestamp,
    },
    /// No repository holds the content.
    Unheld {
        /// When a collection saw that first.
        since: Timestamp,
    },
    /// The retention rule of its repository does not keep the tag.
    Dropped {
        /// The rule.
        rule: String,
    },
    /// The manifest has no tag, no image index names it, and the rule does not keep such ones.
    Untagged {
        /// When a collection saw that first.
        since: Timestamp,
        /// The rule.
        rule: String,
    },
    /// The manifest refers to one that is not there.
    SubjectGone {
        /// When a collection saw that first.
        since: Timestamp,
        /// What it refers to.
        subject: Digest,
    },
    /// The lease has expired.
    Expired {
        /// When.
        at: Timestamp,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreferenced { since } => {
                write!(f, "no manifest has named it since {}", second(*since))
            }
            Self::Unheld { since } => {
                write!(f, "no repository has held it since {}", second(*since))
            }
            Self::Dropped { rule } => write!(f, "dropped by {rule}"),
            Self::Untagged { since, rule } => {
                write!(f, "untagged since {}, {rule}", second(*since))
            }
            Self::SubjectGone { since, subject } => {
                let since = second(*since);
                write!(f, "its subject {subject} has been gone since {since}")
            }
            Self::Expired { at } => write!(f, "expired {}", second(*at)),
        }
    }
}

/// Why something stays although nothing refers to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "stays", rename_all = "snake_case")]
pub enum Stay {
    /// Its grace time is not over.
    Waiting {
        /// Why it will go.
        reason: Reason,
        /// When, if nothing touches it until then.
        until: Timestamp,
    },
    /// Somebody holds a lease on it.
    Leased {
        /// When the last lease on it ends.
        until: Timestamp,
    },
    /// A manifest without a tag, and no rule that lets it go.
    Untagged,
}

impl fmt::Display for Stay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waiting { reason, until } => {
                write!(f, "waits until {}: {reason}", second(*until))
            }
            Self::Leased { until } => write!(f, "leased until {}", second(*until)),
            Self::Untagged => f.write_str("untagged, and no rule lets it go"),
        }
    }
}

/// A time to the second, which is what people compare.
fn second(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// What happens in a collection, one by one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum CollectEvent {
    /// It has begun.
    Began {
        /// Whether it only looks.
        dry_run: bool,
        /// Grace time in seconds.
        grace_seconds: u64,
        /// The time that ages are counted to.
        now: Timestamp,
    },
    /// How far the look over everything has come.
    Looked {
        /// Repositories seen.
        repositories: u64,
        /// Blobs seen: those of repositories, then stored content.
        blobs: u64,
    },
    /// Something went, or would go.
    Goes {
        /// What.
        item: Collectable,
        /// Why.
        reason: Reason,
        /// Its size: in a dry run what may become free, else what did.
        bytes: u64,
    },
    /// Something stays although nothing refers to it; told by a dry run only.
    Stays {
        /// What.
        item: Collectable,
        /// Why.
        because: Stay,
    },
    /// It is done.
    Done {
        /// The sum.
        summary: CollectSummary,
    },
    /// It was given up.
    Failed {
        /// Why.
        message: String,
    },
}

impl Told for CollectEvent {
    fn is_failure(&self) -> bool {
        matches!(self, Self::Failed { .. })
    }
}

/// The sum of a collection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectSummary {
    /// Whether it only looked; then the counts say what would go.
    pub dry_run: bool,
    /// Repositories seen.
    pub repositories: u64,
    /// Tags that went.
    pub tags: u64,
    /// Manifests that went.
    pub manifests: u64,
    /// Blobs that went out of repositories.
    pub blobs: u64,
    /// Contents that went from the storage.
    pub contents: u64,
    /// Leases that went.
    pub leases: u64,
    /// Bytes that became free; of a dry run, bytes that may.
    pub bytes: u64,
    /// Things that wait for the end of their grace time.
    pub waiting: u64,
    /// Things that stay because of a lease.
    pub leased: u64,
    /// Manifests without a tag that no rule lets go.
    pub untagged: u64,
}

impl CollectSummary {
    /// Whether everything stayed.
    pub(crate) fn removed_nothing(&self) -> bool {
        self.tags + self.manifests + self.blobs + self.contents + self.leases == 0
    }

    /// Adds something that goes.
    pub(crate) fn count(&mut self, item: &Collectable, bytes: u64) {
        match item {
            Collectable::Tag { .. } => self.tags += 1,
            Collectable::Manifest { .. } => self.manifests += 1,
            Collectable::Blob { .. } => self.blobs += 1,
            Collectable::Content { .. } => self.contents += 1,
            Collectable::Lease { .. } => self.leases += 1,
        }
        self.bytes += bytes;
    }

    /// Adds something that stays.
    pub(crate) fn keep(&mut self, because: &Stay) {
        match because {
            Stay::Waiting { .. } => self.waiting += 1,
            Stay::Leased { .. } => self.leased += 1,
            Stay::Untagged => self.untagged += 1,
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use artifact::{Digest, Repository};
    use jiff::Timestamp;
    use serde_json::json;

    use crate::service::collect::report::{CollectEvent, Collectable, Reason, Stay};

    #[test]
    fn events_are_lines_of_json_that_are_read_back() {
        let digest = Digest::sha256(b"x");
        let repository = Repository::parse("team/llama").unwrap();
        let event = CollectEvent::Stays {
            item: Collectable::Blob { repository, digest },
            because: Stay::Waiting {
                reason: Reason::Unreferenced {
                    since: Timestamp::UNIX_EPOCH,
                },
                until: Timestamp::from_second(86_400).unwrap(),
            },
        };
        let written = serde_json::to_value(&event).unwrap();
        let expected = json!({
            "event": "stays",
            "item": { "kind": "blob", "repository": "team/llama", "digest": digest },
            "because": {
                "stays": "waiting",
                "reason": { "why": "unreferenced", "since": "1970-01-01T00:00:00Z" },
                "until": "1970-01-02T00:00:00Z",
            },
        });
        assert_eq!(written, expected);
        assert_eq!(
            serde_json::from_value::<CollectEvent>(written).unwrap(),
            event
        );
    }
}
