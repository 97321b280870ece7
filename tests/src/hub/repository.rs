//! A repository of Hugging Face: commits, branches, files, and who may read it.

use std::collections::BTreeMap;

use artifact::Digest;
use bytes::Bytes;

/// Where the bytes of a file are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// Large: in LFS, with a SHA-256, on the second host.
    Lfs,
    /// Small: in git itself, answered by the hub.
    Git,
}

/// Who may read a repository.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Everybody.
    #[default]
    Public,
    /// Those with the token; others are not told that it exists.
    Private,
    /// Everybody may look, those with the token may download.
    Gated,
}

#[derive(Clone, Debug)]
pub(super) struct File {
    pub(super) bytes: Bytes,
    pub(super) storage: Storage,
}

impl File {
    /// The SHA-256 of the content, in hexadecimal.
    pub(super) fn sha256(&self) -> String {
        Digest::sha256(&self.bytes).hex().to_string()
    }

    /// The object name in git; here merely one that looks like it and follows from the content.
    pub(super) fn oid(&self) -> String {
        self.sha256().chars().take(40).collect()
    }

    /// The entity tag, as the answer to a question about the file gives it.
    pub(super) fn etag(&self) -> String {
        match self.storage {
            Storage::Lfs => self.sha256(),
            Storage::Git => self.oid(),
        }
    }
}

pub(super) type Files = BTreeMap<String, File>;

#[derive(Debug, Default)]
pub(super) struct Repository {
    pub(super) access: Access,
    /// Branches and the commits that they are at.
    pub(super) branches: BTreeMap<String, String>,
    commits: BTreeMap<String, Files>,
}

impl Repository {
    pub(super) fn put(&mut self, path: &str, bytes: Bytes, storage: Storage) -> String {
        let mut files = self
            .files("main")
            .map(|(_, files)| files.clone())
            .unwrap_or_default();
        files.insert(path.to_owned(), File { bytes, storage });
        let mut text = String::new();
        for (path, file) in &files {
            text.push_str(&format!("{path} {}\n", file.sha256()));
        }
        let commit = Digest::sha256(text.as_bytes()).hex().to_string();
        let commit: String = commit.chars().take(40).collect();
        self.commits.insert(commit.clone(), files);
        self.branches.insert("main".to_owned(), commit.clone());
        commit
    }

    pub(super) fn branch(&mut self, name: &str) {
        if let Some(commit) = self.branches.get("main").cloned() {
            self.branches.insert(name.to_owned(), commit);
        }
    }

    /// The commit that a revision is, and its files.
    pub(super) fn files(&self, revision: &str) -> Option<(&str, &Files)> {
        let commit = self.branches.get(revision).map_or(revision, String::as_str);
        let (commit, files) = self.commits.get_key_value(commit)?;
        Some((commit, files))
    }
}
