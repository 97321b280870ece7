//! Digests of files that were pushed from this machine, so that pushing one again sends nothing.
//!
//! A push hashes a file while it sends it, so the digest is known only afterwards. It is kept here
//! under the file's identity (device, inode, size, time of change); a file that was written to
//! since has another one. Losing this costs a push its short cut and nothing else.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use artifact::Digest;

/// Most files that are remembered; beyond that the list starts anew.
const MAX_ENTRIES: usize = 4096;
/// Largest list that is read, in bytes.
const MAX_LIST_BYTES: u64 = 4 * 1024 * 1024;

/// The list, in the XDG cache folder.
pub(crate) struct KnownDigests {
    file: Option<PathBuf>,
    entries: BTreeMap<String, Digest>,
}

impl KnownDigests {
    /// Reads the list; an absent or damaged one is empty.
    pub(crate) fn open() -> Self {
        let file = list_file();
        let entries = file.as_deref().and_then(read).unwrap_or_default();
        Self { file, entries }
    }

    /// The digest of a file that has not changed since it was pushed.
    pub(crate) fn get(&self, path: &Path) -> Option<Digest> {
        let metadata = std::fs::metadata(path).ok()?;
        self.entries.get(&identity(&metadata)).copied()
    }

    /// Remembers a digest that was computed while the file was sent. `before` is what the file was
    /// when that began: a file that has changed since is not remembered.
    pub(crate) fn remember(&mut self, path: &Path, before: &Metadata, digest: Digest) {
        let unchanged = std::fs::metadata(path).is_ok_and(|now| identity(&now) == identity(before));
        if !unchanged {
            return;
        }
        if self.entries.len() >= MAX_ENTRIES {
            self.entries.clear();
        }
        self.entries.insert(identity(before), digest);
        if let Some(file) = &self.file
            && let Err(error) = write(file, &self.entries)
        {
            tracing::debug!(file = %file.display(), error = %error, "the list of known digests is not kept");
        }
    }
}

fn identity(metadata: &Metadata) -> String {
    format!(
        "{}:{}:{}:{}.{}:{}.{}",
        metadata.dev(),
        metadata.ino(),
        metadata.size(),
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.ctime(),
        metadata.ctime_nsec()
    )
}

fn list_file() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let base = variable("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(".cache")))?;
    Some(base.join("hayloft").join("digests.json"))
}

fn read(file: &Path) -> Option<BTreeMap<String, Digest>> {
    use std::io::Read;
    let mut text = String::new();
    let opened = std::fs::File::open(file).ok()?;
    opened.take(MAX_LIST_BYTES).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

/// Readers see the old list or the new one.
fn write(file: &Path, entries: &BTreeMap<String, Digest>) -> std::io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut temporary = tempfile::NamedTempFile::new_in(folder)?;
    serde_json::to_writer(&mut temporary, entries)?;
    temporary.flush()?;
    temporary.persist(file)?;
    Ok(())
}
