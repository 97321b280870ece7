//! Commits: the name of a state of a repository.

use std::fmt::{self, Write};

use crate::digest::Digest;
use crate::reference::Tag;

/// Characters of a commit's name, as git has it.
const COMMIT_LENGTH: usize = 40;

/// The name of a commit: 40 lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Commit(String);

impl Commit {
    /// Reads a commit's name; `None` if it is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let is_commit = text.len() == COMMIT_LENGTH && text.bytes().all(is_hex);
        is_commit.then(|| Self(text.to_owned()))
    }

    /// The commit that a manifest is: the beginning of its digest. Git's own names are no longer,
    /// and whoever could make two manifests with one beginning would harm nobody but themselves.
    #[must_use]
    pub fn of_digest(digest: &Digest) -> Self {
        let mut hex = digest.hex();
        hex.truncate(COMMIT_LENGTH);
        Self(hex)
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Commit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// What these tags together are called as one commit: it changes whenever one of them is set. They
/// must be in byte order.
#[must_use]
pub fn commit_of_tags(tags: &[(Tag, Digest)]) -> Commit {
    let mut canonical = String::new();
    for (tag, digest) in tags {
        // Writing to a string cannot fail.
        let _ = writeln!(canonical, "{}={digest}", tag.as_str());
    }
    Commit::of_digest(&Digest::sha256(canonical.as_bytes()))
}
