//! Why a request of Hugging Face's protocol is refused, beside what any registry refuses.

use artifact::{Digest, Repository};

/// Why a request of Hugging Face's protocol is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The repository has no such tag, branch or commit.
    #[error("repository {repository} has no revision {revision:?}")]
    RevisionUnknown {
        /// Where it was looked for.
        repository: Repository,
        /// What was looked for, shortened.
        revision: String,
    },
    /// The commit has no such file.
    #[error("commit {commit} has no file {path:?}")]
    EntryUnknown {
        /// What was looked for, shortened.
        path: String,
        /// Where it was looked for.
        commit: String,
    },
    /// A file cannot have this path.
    #[error("{path:?} cannot be the path of a file: use names joined by /, none of them . or ..")]
    PathInvalid {
        /// The path, shortened.
        path: String,
    },
    /// A commit names content that was not uploaded.
    #[error("the content of {path:?}, sha256:{oid}, is not in the repository: upload it first")]
    ContentMissing {
        /// The file.
        path: String,
        /// What it was said to have as its content.
        oid: String,
    },
    /// A commit was made for a revision that has changed since.
    #[error("the revision is at commit {actual} by now, not at {expected}: look at it again")]
    Moved {
        /// What the client has seen.
        expected: String,
        /// What it is.
        actual: String,
    },
    /// More than is accepted.
    #[error("more than {most} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many are accepted.
        most: usize,
    },
    /// A revision that nobody can commit to.
    #[error("revision {revision:?} cannot be changed: commit to a branch")]
    NotABranch {
        /// The revision, shortened.
        revision: String,
    },
    /// A branch that exists already.
    #[error("branch {branch:?} exists already")]
    BranchExists {
        /// The branch.
        branch: String,
    },
    /// The size that was said of content is not its size.
    #[error("{digest} has {actual} bytes, not {claimed}")]
    Size {
        /// The content.
        digest: Box<Digest>,
        /// What the client said.
        claimed: u64,
        /// What it is.
        actual: u64,
    },
}
