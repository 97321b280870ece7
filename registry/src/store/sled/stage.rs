//! Turning changes of records into one batch of changes of the tree.

use sled::Batch;

use crate::error::Error;
use crate::store::Change;
use crate::store::key::RecordKey;
use crate::store::records::{Entry, LeaseRecord, ManifestRecord, TagRecord};
use crate::store::sled::remake::failed;
use crate::store::sled::{SledIndex, keys};

impl SledIndex {
    /// Makes all changes or none. Two changes of one record in one call must not differ: each is
    /// compared with what is stored, not with the other.
    pub(super) fn apply_now(&self, changes: &[Change]) -> Result<(), Error> {
        let mut batch = Batch::default();
        for change in changes {
            batch.remove(keys::intent(&change.key()));
            match change {
                Change::Put(entry) => self.stage_put(&mut batch, entry)?,
                Change::Remove(key) => self.stage_remove(&mut batch, key)?,
            }
        }
        self.db().apply_batch(batch).map_err(failed)
    }

    fn stage_put(&self, batch: &mut Batch, entry: &Entry) -> Result<(), Error> {
        let key = entry.key();
        // What followed from the record before may not follow from the new one.
        self.stage_remove(batch, &key)?;
        let json = entry.to_json().map_err(Error::index)?;
        batch.insert(keys::record(&key), json);
        match entry {
            Entry::Repository(..) => {}
            Entry::Manifest(repository, digest, record) => {
                for key in keys::of_manifest(repository, digest, record) {
                    batch.insert(key, vec![]);
                }
            }
            Entry::Tag(repository, tag, record) => {
                batch.insert(keys::tag_of(repository, &record.digest, tag), vec![]);
            }
            Entry::Blob(repository, digest, _) => {
                batch.insert(keys::holder(digest, repository), vec![]);
            }
            Entry::Lease(repository, id, record) => {
                let expires = serde_json::to_vec(&record.expires).map_err(Error::index)?;
                for key in keys::of_lease(repository, *id, record) {
                    batch.insert(key, expires.clone());
                }
            }
        }
        Ok(())
    }

    fn stage_remove(&self, batch: &mut Batch, key: &RecordKey) -> Result<(), Error> {
        let stored = keys::record(key);
        match key {
            RecordKey::Repository(_) => {}
            RecordKey::Manifest(repository, digest) => {
                if let Some(record) = self.get::<ManifestRecord>(&stored)? {
                    for key in keys::of_manifest(repository, digest, &record) {
                        batch.remove(key);
                    }
                }
            }
            RecordKey::Tag(repository, tag) => {
                if let Some(record) = self.get::<TagRecord>(&stored)? {
                    batch.remove(keys::tag_of(repository, &record.digest, tag));
                }
            }
            RecordKey::Blob(repository, digest) => batch.remove(keys::holder(digest, repository)),
            RecordKey::Lease(repository, id) => {
                if let Some(record) = self.get::<LeaseRecord>(&stored)? {
                    for key in keys::of_lease(repository, *id, &record) {
                        batch.remove(key);
                    }
                }
            }
        }
        batch.remove(stored);
        Ok(())
    }
}
