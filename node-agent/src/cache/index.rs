//! Index: when each model was last asked for. It is kept in sled and never the truth: when it is
//! damaged it is thrown away, and what it knew counts as unknown.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use artifact::Reference;
use sled::Db;

use crate::error::Error;

/// Memory that sled may use for its page cache; its own default is a gibibyte.
const CACHE_BYTES: u64 = 4 * 1024 * 1024;

/// The index of one cache.
#[derive(Clone, Debug)]
pub(crate) struct Index {
    database: Db,
}

impl Index {
    /// Opens the index, or makes it anew when it cannot be read.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let database = open_database(path).or_else(|error| {
            tracing::warn!(path = %path.display(), %error, "the index is damaged and made anew");
            std::fs::remove_dir_all(path).map_err(|e| Error::storage("remove", path, e))?;
            open_database(path).map_err(|source| Error::Index {
                path: PathBuf::from(path),
                source,
            })
        })?;
        Ok(Self { database })
    }

    /// Notes that a model was asked for. Losing the note costs nothing but a worse guess later, so
    /// a failure is only logged.
    pub(crate) fn touch(&self, reference: &Reference, now: SystemTime) {
        let elapsed = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        if let Err(error) = self.database.insert(key(reference), &micros.to_be_bytes()) {
            tracing::warn!(%reference, %error, "the last use was not noted");
        }
    }

    /// When a model was last asked for, if that is known.
    pub(crate) fn last_used(&self, reference: &Reference) -> Option<SystemTime> {
        let value = self.database.get(key(reference)).ok()??;
        let micros = u64::from_be_bytes(value.as_ref().try_into().ok()?);
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_micros(micros))
    }

    /// Drops what is known of a model.
    pub(crate) fn forget(&self, reference: &Reference) {
        if let Err(error) = self.database.remove(key(reference)) {
            tracing::warn!(%reference, %error, "the last use was not dropped");
        }
    }
}

fn open_database(path: &Path) -> Result<Db, sled::Error> {
    sled::Config::new()
        .path(path)
        .cache_capacity(CACHE_BYTES)
        .mode(sled::Mode::LowSpace)
        .open()
}

/// The name without a digest beside a tag: the view has one place for both.
fn key(reference: &Reference) -> Vec<u8> {
    format!(
        "{}/{}\0{}",
        reference.registry(),
        reference.repository().as_str(),
        reference.view_name()
    )
    .into_bytes()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use std::time::{Duration, SystemTime};

    use artifact::Reference;

    use crate::cache::index::Index;

    #[test]
    fn a_damaged_index_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("index");
        let reference = Reference::parse("h:1/a/b:c").unwrap();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        {
            let index = Index::open(&path).unwrap();
            index.touch(&reference, now);
            assert_eq!(index.last_used(&reference), Some(now));
        }
        for entry in std::fs::read_dir(&path).unwrap() {
            let file = entry.unwrap().path();
            if file.is_file() {
                std::fs::write(file, b"not sled").unwrap();
            }
        }
        let index = Index::open(&path).unwrap();
        assert_eq!(index.last_used(&reference), None);
        index.touch(&reference, now);
        index.forget(&reference);
        assert_eq!(index.last_used(&reference), None);
    }
}
