//! Revisions: how a client names a state of a repository.

use artifact::Tag;
use artifact::hub::Commit;

/// How a request names a state of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Revision {
    /// The default branch.
    Main,
    /// A branch: a tag of the repository.
    Tag(Tag),
    /// A commit.
    Commit(Commit),
}

impl Revision {
    /// Reads a revision, decoded already; `None` when it can be the name of none.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let name = text.strip_prefix("refs/heads/").unwrap_or(text);
        if name == "main" {
            return Some(Self::Main);
        }
        if let Some(commit) = Commit::parse(name) {
            return Some(Self::Commit(commit));
        }
        Tag::parse(name).ok().map(Self::Tag)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use artifact::hub::Commit;
    use artifact::{Digest, Tag};

    use crate::service::hub::revision::Revision;

    #[test]
    fn revisions_are_main_tags_and_commits_and_nothing_else() {
        let commit = Commit::of_digest(&Digest::sha256(b"x"));
        let text = commit.to_string();
        assert_eq!(Revision::parse(&text), Some(Revision::Commit(commit)));
        assert_eq!(Revision::parse("main"), Some(Revision::Main));
        assert_eq!(Revision::parse("refs/heads/main"), Some(Revision::Main));
        let tag = Revision::Tag(Tag::parse("Q4_K_M").unwrap());
        assert_eq!(Revision::parse("Q4_K_M"), Some(tag));
        let upper = Revision::Tag(Tag::parse(&text.to_uppercase()).unwrap());
        assert_eq!(Revision::parse(&text.to_uppercase()), Some(upper));
        for bad in ["", "..", "refs/pr/1", "a/b", "a b", &"x".repeat(129)] {
            assert_eq!(Revision::parse(bad), None, "{bad}");
        }
    }
}
