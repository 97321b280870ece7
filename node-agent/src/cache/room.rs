//! Room: what the disk has left, what is promised of it to downloads, and the marks that keep it from
//! ever becoming full.
//!
//! A pull reserves all that it needs before its first byte. What is promised and not yet on the disk
//! counts as used, so two pulls never count on the same bytes. The watermarks are where models
//! begin and cease to be evicted; they are soft, since a node whose disk is filled by others, or
//! whose models are all in use, still has to serve. The hard limits are `min_free` of the disk and
//! `cache_size`: what would pass these is refused.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use artifact::agent_api::DiskStatus;
use artifact::{Digest, Reference};

use crate::cache::NodeCache;
use crate::cache::evict::Held;
use crate::cache::folder::Disk;
use crate::cache::ingest::Ingest;
use crate::error::Error;

/// Free space that is left alone in any case: room for the documents and links of a model.
const SPARE_BYTES: u64 = 1024 * 1024;
/// Files that a pull may make beside its blobs: documents, links, folders.
const SPARE_INODES: u64 = 64;

/// How the disk is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskOptions {
    /// Percent of the disk in use from which models are evicted. Default 75.
    pub high_watermark: u8,
    /// Percent of the disk in use down to which they are. Default 65.
    pub low_watermark: u8,
    /// Percent of the disk, and of its inodes, that no pull may take. Default 5.
    pub min_free: u8,
    /// Bytes that the cache itself may take. Default: as many as the disk has.
    pub cache_size: Option<u64>,
    /// How long a download of which nothing is heard is kept. Default 7 days.
    pub keep_partial: Duration,
    /// Bytes a second that are read again to be hashed; 0 for none. Default 20 MB.
    pub scrub_rate: u64,
    /// Whether models may be evicted at all. Default true.
    pub evicts: bool,
}

impl Default for DiskOptions {
    fn default() -> Self {
        Self {
            high_watermark: 75,
            low_watermark: 65,
            min_free: 5,
            cache_size: None,
            keep_partial: Duration::from_secs(7 * 24 * 3600),
            scrub_rate: 20_000_000,
            evicts: true,
        }
    }
}

/// What stands in the way of a pull.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// The free space.
    Disk,
    /// The percentage that is kept free.
    MinFree(u8),
    /// The size that the cache may have.
    CacheSize(u64),
    /// The number of files that the file system can hold.
    Inodes,
}

/// Why a pull does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// Bytes that are missing here.
    pub needed: u64,
    /// Bytes that may be used for them.
    pub available: u64,
    /// What limits these.
    pub limit: Limit,
    /// The models that could not go.
    pub held: Held,
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            needed,
            available,
            limit,
            held,
        } = self;
        if *limit == Limit::Inodes {
            return write!(f, "the file system has too few inodes left{held}");
        }
        write!(f, "it needs {needed} bytes and {available} are free")?;
        match limit {
            Limit::Disk | Limit::Inodes => {}
            Limit::MinFree(percent) => write!(f, ", {percent} % of the disk kept so")?,
            Limit::CacheSize(bytes) => write!(f, " of the {bytes} that the cache may take")?,
        }
        write!(f, "{held}")
    }
}

/// What is promised to downloads.
#[derive(Clone, Debug, Default)]
pub(crate) struct Promises(Arc<Mutex<HashMap<Digest, Promise>>>);

#[derive(Debug)]
struct Promise {
    size: u64,
    pulls: usize,
}

/// Room for some blobs, kept until it is dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    promises: Promises,
    digests: Vec<Digest>,
}

impl Promises {
    fn give(&self, blobs: &[(Digest, u64)]) -> Reservation {
        let mut promises = self.lock();
        for (digest, size) in blobs {
            let promise = promises.entry(*digest).or_insert(Promise {
                size: *size,
                pulls: 0,
            });
            promise.pulls += 1;
        }
        Reservation {
            promises: self.clone(),
            digests: blobs.iter().map(|(digest, _)| *digest).collect(),
        }
    }

    /// The blobs, each once, however many pulls want it.
    fn blobs(&self) -> Vec<(Digest, u64)> {
        let promises = self.lock();
        promises
            .iter()
            .map(|(digest, promise)| (*digest, promise.size))
            .collect()
    }

    /// Whether a download of the blob is promised room.
    pub(crate) fn include(&self, digest: &Digest) -> bool {
        self.lock().contains_key(digest)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, Promise>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut promises = self.promises.lock();
        for digest in &self.digests {
            if let Some(promise) = promises.get_mut(digest) {
                promise.pulls -= 1;
                if promise.pulls == 0 {
                    promises.remove(digest);
                }
            }
        }
    }
}

impl NodeCache {
    /// Keeps room for blobs that are to be fetched for `reference`, and makes it if need be.
    ///
    /// # Errors
    /// [`Error::NoSpace`] when they do not fit, whatever may go.
    pub(crate) fn reserve(
        &self,
        reference: &Reference,
        blobs: &[(Digest, u64)],
    ) -> Result<Reservation, Error> {
        // One at a time: two pulls that make room for themselves would both evict for both.
        let _making = self.make_room_alone();
        let reservation = self.promises().give(blobs);
        let needed = self.unwritten(blobs)?;
        if needed == 0 {
            return Ok(reservation);
        }
        let mut freed = 0;
        let mut held = Held::default();
        if self.options().evicts {
            let wanted = self.excess(self.options().high_watermark)?;
            let evicted = self.make_room(wanted)?;
            (freed, held) = (evicted.bytes, evicted.held);
        }
        match self.shortage(needed, freed)? {
            None => Ok(reservation),
            Some((available, limit)) => Err(Error::NoSpace {
                reference: Box::new(reference.clone()),
                shortage: Box::new(Shortage {
                    needed,
                    available,
                    limit,
                    held,
                }),
                root: self.layout().root().to_owned(),
            }),
        }
    }

    /// Evicts down to the low mark when the disk is above the high one.
    pub(crate) fn keep_below_marks(&self) -> Result<(), Error> {
        let options = self.options();
        if !options.evicts {
            return Ok(());
        }
        let _making = self.make_room_alone();
        if self.excess(options.high_watermark)? == 0 {
            return Ok(());
        }
        let wanted = self.excess(options.low_watermark)?;
        let evicted = self.make_room(wanted)?;
        if evicted.bytes < wanted {
            tracing::warn!(
                wanted,
                freed = evicted.bytes,
                "the disk stays above its low mark{}",
                evicted.held
            );
        }
        Ok(())
    }

    /// Bytes promised to downloads and not yet taken from the disk.
    pub(crate) fn reserved_bytes(&self) -> Result<u64, Error> {
        self.unwritten(&self.promises().blobs())
    }

    /// Bytes that would have to go for the disk to be at a mark, what is promised counted as used,
    /// and for the cache to have its size.
    fn excess(&self, percent: u8) -> Result<u64, Error> {
        let disk = self.disk()?;
        let reserved = self.reserved_bytes()?;
        let mark = percent_of(disk.usable(), percent);
        let mut excess = disk.used.saturating_add(reserved).saturating_sub(mark);
        if let Some(size) = self.options().cache_size {
            let size = percent_of(size, low_share(self.options(), percent));
            let used = self.used_bytes()?.saturating_add(reserved);
            excess = excess.max(used.saturating_sub(size));
        }
        Ok(excess)
    }

    /// What stands in the way of what is promised, and the bytes that may be used for it.
    fn shortage(&self, needed: u64, freed: u64) -> Result<Option<(u64, Limit)>, Error> {
        let disk = self.disk()?;
        let options = self.options();
        let others = self.reserved_bytes()?.saturating_sub(needed);
        let kept = percent_of(disk.usable(), options.min_free);
        let free = disk
            .available
            .saturating_sub(others.saturating_add(SPARE_BYTES));
        if needed > free.saturating_sub(kept) {
            let limit = match needed > free {
                true => Limit::Disk,
                false => Limit::MinFree(options.min_free),
            };
            // Some file systems give space back a moment after the file is gone.
            let soon = free.saturating_add(freed).saturating_sub(kept);
            if freed == 0 || needed > soon {
                return Ok(Some((free.saturating_sub(kept), limit)));
            }
        }
        if let Some(size) = options.cache_size {
            let left = size.saturating_sub(self.used_bytes()?.saturating_add(others));
            if needed > left {
                return Ok(Some((left, Limit::CacheSize(size))));
            }
        }
        // A model is a handful of files: evicting some would free next to no inodes.
        let kept = percent_of(disk.inodes, options.min_free);
        if disk.inodes > 0 && disk.free_inodes < kept.saturating_add(SPARE_INODES) {
            return Ok(Some((disk.available, Limit::Inodes)));
        }
        Ok(None)
    }

    /// Bytes of these blobs that the disk has not given yet.
    fn unwritten(&self, blobs: &[(Digest, u64)]) -> Result<u64, Error> {
        let mut unwritten: u64 = 0;
        for (digest, size) in blobs {
            if !self.has_blob(digest, *size)? {
                let taken = Ingest::reserved_bytes(self.ingest(), digest)?;
                unwritten = unwritten.saturating_add(size.saturating_sub(taken));
            }
        }
        Ok(unwritten)
    }

    /// How full the disk is, and how far it may be filled.
    pub(crate) fn disk_status(&self) -> Result<DiskStatus, Error> {
        let disk = self.0.root.disk()?;
        Ok(DiskStatus {
            total: disk.usable(),
            free: disk.available,
            cached: self.used_bytes()?,
            reserved: self.reserved_bytes()?,
            high_watermark: self.options().high_watermark,
            low_watermark: self.options().low_watermark,
        })
    }

    /// The space of the cache's disk.
    pub(crate) fn disk(&self) -> Result<Disk, Error> {
        self.0.root.disk()
    }
}

/// The limit of the cache's own size is its high mark; its low one is as far below as the disk's.
fn low_share(options: &DiskOptions, percent: u8) -> u8 {
    100 - options.high_watermark.saturating_sub(percent).min(100)
}

fn percent_of(bytes: u64, percent: u8) -> u64 {
    u64::try_from(u128::from(bytes) * u128::from(percent) / 100).unwrap_or(u64::MAX)
}
