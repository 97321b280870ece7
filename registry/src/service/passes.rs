//! The key that passes are signed with: addresses that open one blob for a while.
//!
//! It lies beside the records, so that every replica on one storage signs with the same key and an
//! address outlives a restart. Whoever can read it there can read every blob there, too. A registry
//! that may not write, and finds no key, signs with one of its own until it ends.

use aws_lc_rs::rand;

use crate::error::Error;
use crate::service::Registry;

/// Its name beside the records. No repository begins with an underscore.
const NAME: &str = "_pass.key";
/// Bytes of a key: as many as the signature has.
pub(crate) const KEY_BYTES: usize = 32;

impl Registry {
    /// The key; made where there is none.
    pub(crate) async fn pass_key(&self) -> Result<[u8; KEY_BYTES], Error> {
        if let Some(key) = self.stored_pass_key().await? {
            return Ok(key);
        }
        let mut key = [0; KEY_BYTES];
        rand::fill(&mut key).map_err(|_| Error::Random)?;
        if self.is_read_only() {
            return Ok(key);
        }
        if self.records.create_aside(NAME, key.to_vec()).await? {
            return Ok(key);
        }
        // Another replica was first, or what is there is no key.
        match self.stored_pass_key().await? {
            Some(stored) => Ok(stored),
            None => {
                self.records.put_aside(NAME, key.to_vec()).await?;
                Ok(key)
            }
        }
    }

    async fn stored_pass_key(&self) -> Result<Option<[u8; KEY_BYTES]>, Error> {
        let stored = self.records.aside(NAME).await?;
        Ok(stored.and_then(|key| key.try_into().ok()))
    }
}
