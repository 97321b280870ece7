//! Evict: lets go what is needed least until there is room.
//!
//! In this order: blobs that no model names and downloads of which nothing was heard for an hour,
//! since they serve nobody; then whole models, the least recently used first. Never a model that is
//! pinned, leased, or open in some process.

use std::fmt;
use std::time::{Duration, SystemTime};

use artifact::agent_api::ModelEntry;
use artifact::{Algorithm, Digest};
use rustix::fs::{FileType, Stat};

use crate::cache::in_use::{self, SoleUse};
use crate::cache::{NodeCache, views};
use crate::error::Error;

/// How long what serves nobody is left alone even when room is needed: somebody may be about to use
/// it.
const IDLE: Duration = Duration::from_secs(3600);
const BLOCK_BYTES: u64 = 512;

/// The models that could not be evicted, and why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// How many are pinned.
    pub pinned: usize,
    /// How many are leased to a pull or to a consumer.
    pub leased: usize,
    /// How many are open in some process.
    pub in_use: usize,
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::default() {
            return Ok(());
        }
        let Self {
            pinned,
            leased,
            in_use,
        } = self;
        write!(
            f,
            "; models that may not go: {pinned} pinned, {leased} leased, {in_use} in use"
        )
    }
}

/// What making room came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Evicted {
    pub(crate) bytes: u64,
    pub(crate) held: Held,
}

impl NodeCache {
    /// Frees `wanted` bytes, or as many as may go.
    pub(super) fn make_room(&self, wanted: u64) -> Result<Evicted, Error> {
        let mut evicted = Evicted::default();
        if wanted == 0 {
            return Ok(evicted);
        }
        evicted.bytes = self.sweep(IDLE);
        if evicted.bytes >= wanted {
            return Ok(evicted);
        }
        self.end_expired_leases();
        let mut models = self.list()?;
        models.sort_by(|a, b| last_use(a).cmp(last_use(b)));
        for model in models {
            if evicted.bytes >= wanted {
                break;
            }
            if model.pinned {
                evicted.held.pinned += 1;
            } else if self.is_leased(&model) {
                evicted.held.leased += 1;
            } else if let Some(bytes) = self.evict(&model)? {
                evicted.bytes += bytes;
            } else {
                evicted.held.in_use += 1;
            }
        }
        Ok(evicted)
    }

    /// Takes a model out; nothing when somebody began to use it.
    fn evict(&self, model: &ModelEntry) -> Result<Option<u64>, Error> {
        let _changing = self.change_views();
        // It may have been pulled anew, or pinned, since the list was made.
        let Some(now) = self.find(&model.reference)? else {
            return Ok(Some(0));
        };
        if now.pinned || now.digest != model.digest {
            return Ok(None);
        }
        let Some(_alone) = self.take_alone(&now)? else {
            return Ok(None);
        };
        let bytes = self.take_out(&now)?;
        self.metrics().evicted(bytes);
        tracing::info!(
            reference = %model.reference, bytes, last_used = last_use(model),
            "a model was evicted to make room"
        );
        Ok(Some(bytes))
    }

    /// The blobs of a model for this process alone; nothing when somebody has one open. The
    /// manifest is left out: this process reads it whenever it lists its models.
    pub(super) fn take_alone(&self, model: &ModelEntry) -> Result<Option<Vec<SoleUse>>, Error> {
        let _reading = self.read_alone();
        let mut taken = Vec::new();
        let mut digests: Vec<Digest> = model.blobs.iter().map(|blob| blob.digest).collect();
        // A blob that is named twice must be opened once: a second opening would wait for the first.
        digests.sort_unstable();
        digests.dedup();
        for digest in digests {
            if let Some(file) = self.open_blob(&digest)? {
                match in_use::take(file, &digest.hex()) {
                    Some(alone) => taken.push(alone),
                    None => return Ok(None),
                }
            }
        }
        Ok(Some(taken))
    }

    /// Whether a pull or a consumer holds one of its blobs.
    pub(super) fn is_leased(&self, model: &ModelEntry) -> bool {
        let digests = model.blobs.iter().map(|blob| blob.digest);
        digests
            .chain([model.digest])
            .any(|digest| self.leases().include(&digest))
    }

    /// Deletes what serves nobody and has not for so long; gives the bytes that this freed. A failure
    /// is only told: whoever needs room looks on among the models.
    pub(crate) fn sweep(&self, idle: Duration) -> u64 {
        [
            self.sweep_downloads(idle),
            self.sweep_unnamed(idle),
            self.sweep_quarantine(idle),
        ]
            .into_iter()
            .map(|swept| {
                swept.unwrap_or_else(|error| {
                    tracing::warn!(error = %error.to_agent_error(), "what nobody uses could not be deleted");
                    0
                })
            })
            .sum()
    }

    /// Deletes downloads that nobody wants now and that were not written to for so long.
    fn sweep_downloads(&self, idle: Duration) -> Result<u64, Error> {
        let mut freed = 0;
        for (name, kind) in self.ingest().entries()? {
            let Some((digest, stat)) = digest_of_part(&name).zip(self.ingest().stat(&name)?) else {
                continue;
            };
            if kind == FileType::RegularFile
                && !self.promises().include(&digest)
                && !self.leases().include(&digest)
                && is_idle(&stat, idle)
            {
                self.ingest().remove(&format!("{}.map", digest.hex()))?;
                self.ingest().remove(&name)?;
                tracing::info!(blob.digest = %digest, "a download that nobody went on with was deleted");
                freed += bytes_of(&stat);
            }
        }
        Ok(freed)
    }

    /// Deletes blobs that no model names: left by a pull that failed, or by a tag that moved while
    /// its old blobs were leased.
    fn sweep_unnamed(&self, idle: Duration) -> Result<u64, Error> {
        let _changing = self.change_views();
        let named = views::named_blobs(self)?;
        let mut candidates = Vec::new();
        for algorithm in Algorithm::ALL {
            let blobs = self.blobs(algorithm);
            for (name, _) in blobs.entries()? {
                let Ok(digest) = Digest::from_hex(algorithm, &name) else {
                    continue;
                };
                let is_left = !named.contains(&digest)
                    && blobs.stat(&name)?.is_some_and(|stat| is_idle(&stat, idle));
                if is_left {
                    candidates.push(digest);
                }
            }
        }
        if candidates.is_empty() {
            return Ok(0);
        }
        self.delete_unnamed(candidates)
    }

    /// Bytes that the cache takes: complete blobs and downloads in progress.
    pub(crate) fn used_bytes(&self) -> Result<u64, Error> {
        let folders = Algorithm::ALL.map(|algorithm| self.blobs(algorithm));
        let mut bytes: u64 = 0;
        for folder in folders.into_iter().chain([self.ingest()]) {
            for (name, _) in folder.entries()? {
                bytes += folder.stat(&name)?.map_or(0, |stat| bytes_of(&stat));
            }
        }
        Ok(bytes)
    }
}

/// When a model was last asked for, or pulled where that is not known. Both are written alike, so
/// that they compare as text.
fn last_use(model: &ModelEntry) -> &str {
    model.last_used.as_deref().unwrap_or(&model.pulled_at)
}

fn digest_of_part(name: &str) -> Option<Digest> {
    let hex = name.strip_suffix(".part")?;
    Algorithm::ALL
        .into_iter()
        .find_map(|algorithm| Digest::from_hex(algorithm, hex).ok())
}

/// A file whose time lies in the future, after a clock was set back, is not idle.
fn is_idle(stat: &Stat, idle: Duration) -> bool {
    seconds_since(stat.st_mtime).is_some_and(|age| age >= idle)
}

/// The time since a second that a file has; nothing when it lies in the future.
pub(super) fn seconds_since(second: i64) -> Option<Duration> {
    let second = Duration::from_secs(u64::try_from(second).unwrap_or(0));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap_or_default().checked_sub(second)
}

/// What the disk gets back when the file goes.
pub(super) fn bytes_of(stat: &Stat) -> u64 {
    u64::try_from(stat.st_blocks)
        .unwrap_or(0)
        .saturating_mul(BLOCK_BYTES)
}
