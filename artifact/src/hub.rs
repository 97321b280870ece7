//! A repository as Hugging Face's clients see it: commits, branches and files instead of digests, tags
//! and layers. The registry's `/hf` and the node's view for the Hugging Face libraries name things by
//! the same rules, so that a client finds online and offline the same.

mod commit;
mod files;
mod origin;

use std::collections::HashMap;

use crate::digest::Digest;
use crate::reference::Tag;
pub use commit::{Commit, commit_of_tags};
pub use files::{HubFile, clean_path, label, of_manifest, with_suffix};
pub use origin::{HubOrigin, REVISION, SOURCE};

/// The default branch.
pub const MAIN: &str = "main";
/// Most files of one revision. A manifest of 4 MiB has room for about as many layers.
pub const MAX_FILES: usize = 10_000;

/// Where a tag stands among those that together are `main`: what people mean who name none is first.
#[must_use]
pub fn rank(tag: &Tag) -> u8 {
    match tag.as_str() {
        MAIN => 0,
        "latest" => 1,
        _ => 2,
    }
}

/// The files of several revisions as one: of files with one path and different content the first
/// keeps its name, the others get the name of their revision added.
pub fn together<'a>(parts: impl IntoIterator<Item = (&'a str, &'a [HubFile])>) -> Vec<HubFile> {
    let mut content_at: HashMap<String, Digest> = HashMap::new();
    let mut all = Vec::new();
    for (revision, files) in parts {
        for file in files {
            let mut file = file.clone();
            if content_at
                .get(&file.path)
                .is_some_and(|there| *there != file.digest)
            {
                file.path = with_suffix(&file.path, revision);
            }
            let is_new = !content_at.contains_key(&file.path);
            if is_new && all.len() < MAX_FILES {
                content_at.insert(file.path.clone(), file.digest);
                all.push(file);
            }
        }
    }
    all
}

/// Whether Hugging Face's clients accept a repository of this name: one part or two, of ASCII
/// letters, digits, `.`, `_` and `-`, with `--` and `..` nowhere (`huggingface_hub`,
/// `utils/_validators.py`).
#[must_use]
pub fn is_client_name(name: &str) -> bool {
    /// Longest part of a name.
    const MAX_PART: usize = 96;
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let is_part = |part: &str| {
        let bytes = part.as_bytes();
        let ends = bytes.first().into_iter().chain(bytes.last());
        !bytes.is_empty()
            && bytes.len() <= MAX_PART
            && ends.copied().all(is_word)
            && bytes
                .iter()
                .all(|byte| is_word(*byte) || matches!(byte, b'.' | b'-'))
    };
    name.split('/').count() <= 2
        && name.split('/').all(is_part)
        && !name.contains("--")
        && !name.contains("..")
        && !name.ends_with(".git")
}

#[cfg(test)]
mod tests {
    use crate::hub::is_client_name;

    #[test]
    fn names_are_those_that_the_python_library_accepts() {
        for good in ["foo", "foo/bar", "123", "Foo-BAR_foo.bar123/x_"] {
            assert!(is_client_name(good), "{good}");
        }
        let long = "x".repeat(97);
        for bad in [
            "", "a/b/c", "a/", "/a", ".a", "a.", "-a/b", "a-/b", "a--b", "a..b", "a.git", &long,
        ] {
            assert!(!is_client_name(bad), "{bad}");
        }
    }
}
