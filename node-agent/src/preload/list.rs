//! The desired list: a file in TOML, read again when its content changes.
//!
//! ```toml
//! [[model]]
//! reference = "registry.example/team/model:q4"
//! pin = true          # never evicted while it is listed; the default
//! plain_http = false
//! ```

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use artifact::ModelName;
use serde::Deserialize;
use toml::Spanned;

/// Longest file that is read, in bytes: what a `ConfigMap` may hold.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// Most models of one list.
const MAX_MODELS: usize = 1_000;

/// A model that is to be on the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) name: ModelName,
    /// Whether it is pinned while it is listed.
    pub(crate) pin: bool,
    /// Whether its registry is spoken to in plain HTTP.
    pub(crate) plain_http: bool,
}

/// The file, and what it said last.
#[derive(Debug)]
pub(super) struct ListFile {
    path: PathBuf,
    seen: Option<Result<String, String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default, rename = "model")]
    models: Vec<Spanned<Entry>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    reference: String,
    #[serde(default = "pinned_by_default")]
    pin: bool,
    #[serde(default, alias = "plain-http")]
    plain_http: bool,
}

fn pinned_by_default() -> bool {
    true
}

impl ListFile {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            seen: None,
        }
    }

    /// What the file says, or why it says nothing; `None` when that has not changed since the last
    /// look. The content is compared and not a time: in a mounted `ConfigMap` the file is a link to a
    /// folder that is swapped as a whole.
    pub(super) fn look(&mut self) -> Option<Result<Vec<Wanted>, String>> {
        let content = read(&self.path).map_err(|reason| format!("it cannot be read: {reason}"));
        if self.seen.as_ref() == Some(&content) {
            return None;
        }
        let said = content.clone().and_then(|text| parse(&text));
        self.seen = Some(content);
        Some(said)
    }
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    File::open(path)?
        .take(MAX_FILE_BYTES + 1)
        .read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(std::io::Error::other("it is longer than 1 MiB"));
    }
    Ok(text)
}

/// Reads a list; the error names the line.
pub(super) fn parse(text: &str) -> Result<Vec<Wanted>, String> {
    let at = |offset: usize| {
        1 + text
            .bytes()
            .take(offset)
            .filter(|byte| *byte == b'\n')
            .count()
    };
    let document: Document = toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(1, |span| at(span.start));
        format!("line {line}: {}", error.message().replace('\n', " "))
    })?;
    if document.models.len() > MAX_MODELS {
        return Err(format!("it names more than {MAX_MODELS} models"));
    }
    let mut seen = HashSet::new();
    let mut list = Vec::new();
    for entry in document.models {
        let line = at(entry.span().start);
        let entry = entry.into_inner();
        let name = ModelName::parse(&entry.reference)
            .map_err(|error| format!("line {line}: {:?}: {error}", entry.reference))?;
        if !seen.insert(name.folded()) {
            return Err(format!("line {line}: {name} is listed twice"));
        }
        list.push(Wanted {
            name,
            pin: entry.pin,
            plain_http: entry.plain_http,
        });
    }
    Ok(list)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use crate::preload::list::{ListFile, parse};

    #[test]
    fn models_are_pinned_unless_the_list_says_otherwise() {
        let list = parse(
            "[[model]]\nreference = \"hf.co/Org/Tiny:Q8_0\"\n\
             [[model]]\nreference = \"h:1/a/b\"\npin = false\nplain_http = true\n",
        )
        .unwrap();
        assert_eq!(list[0].name.as_str(), "hf.co/Org/Tiny:Q8_0");
        assert!(list[0].pin && !list[0].plain_http);
        assert!(!list[1].pin && list[1].plain_http);
        assert_eq!(parse("").unwrap(), []);
    }

    #[test]
    fn a_list_that_is_wrong_says_where() {
        let twice = "[[model]]\nreference = \"h:1/a/b\"\n\n[[model]]\nreference = \"H:1/A/b\"\n";
        for (text, wanted) in [
            (
                "[[model]]\nreferense = \"h:1/a/b\"\n",
                "line 2: unknown field `referense`",
            ),
            (
                "[[models]]\n",
                "line 1: unknown field `models`, expected `model`",
            ),
            ("[[model]]\npin = true\n", "missing field `reference`"),
            ("[[model]]\nreference = \"../x\"\n", "line 1: \"../x\""),
            ("[[model]\n", "line 1"),
            (twice, "line 4: H:1/A/b is listed twice"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(wanted), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_file_is_told_when_its_content_changes_and_when_it_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list.toml");
        let mut file = ListFile::new(&path);
        assert!(file.look().unwrap().unwrap_err().contains("cannot be read"));
        assert!(file.look().is_none());
        std::fs::write(&path, "").unwrap();
        assert_eq!(file.look().unwrap().unwrap(), []);
        std::fs::write(&path, "").unwrap();
        assert!(file.look().is_none());
        std::fs::write(&path, vec![b'#'; 2 * 1024 * 1024]).unwrap();
        assert!(file.look().unwrap().unwrap_err().contains("1 MiB"));
    }
}
