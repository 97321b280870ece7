//! Room: what is mirrored stays within its bound. What was not used for longest goes first; never
//! what is pinned or leased, nor what a repository that is not mirrored holds too, nor a document
//! that was made here.
//!
//! A blob that goes stays readable for whoever has it open, and comes back when somebody asks.

use std::collections::HashMap;
use std::time::Duration;

use artifact::{Digest, Repository};
use futures::TryStreamExt;
use jiff::Timestamp;

use crate::error::Error;
use crate::service::Registry;
use crate::service::mirrored::Mirrored;
use crate::store::key::RecordKey;
use crate::store::paging::{each, pages};
use crate::store::{Change, Page};

/// Entries of a page of a listing.
const PAGE: usize = 500;
/// Smaller blobs stay: they would free next to nothing, and among them are those that were made
/// here, which no upstream has.
const SMALL_BYTES: u64 = 1 << 20;
/// When something has to go, this share of the bound is made free, in percent, so that not every
/// fill has to look for room.
const SPARE_PERCENT: u64 = 5;

/// A mirrored blob.
struct Held {
    digest: Digest,
    size: u64,
    repositories: Vec<Repository>,
    last_use: Timestamp,
    is_pinned: bool,
}

impl Mirrored<'_> {
    /// Sees to it that a blob fits. Fails when the others cannot go.
    pub(super) async fn make_room(&self, digest: &Digest, size: u64) -> Result<(), Error> {
        let Some(limit) = self.mirror.settings.max_bytes else {
            return Ok(());
        };
        let full = || Error::MirrorFull {
            digest: Box::new(*digest),
            size,
            limit,
        };
        if size > limit {
            return Err(full());
        }
        let coming: u64 = self.mirror.fills.all().iter().map(|fill| fill.size()).sum();
        if self.registry.shrink_mirror(coming + size).await? {
            Ok(())
        } else {
            Err(full())
        }
    }

    /// Counts a blob that came in.
    pub(super) fn filled(&self, digest: &Digest, size: u64) {
        self.mirror.usage.touch(digest);
        self.mirror.usage.grew(size);
    }
}

impl Registry {
    /// Removes mirrored blobs until those that are left and `coming` bytes more are within the
    /// bound; `false` when that cannot be reached.
    pub(crate) async fn shrink_mirror(&self, coming: u64) -> Result<bool, Error> {
        let Some(mirror) = self.mirror() else {
            return Ok(true);
        };
        let Some(limit) = mirror.settings.max_bytes else {
            return Ok(true);
        };
        // One at a time: two would each free what only one of them needs.
        let _turn = mirror.usage.shrinking.lock().await;
        if let Some(held) = mirror.usage.held()
            && held.saturating_add(coming) <= limit
        {
            return Ok(true);
        }
        let mut blobs = self.mirrored_blobs().await?;
        let mut held: u64 = blobs.iter().map(|blob| blob.size).sum();
        mirror.usage.set_held(held);
        if held.saturating_add(coming) <= limit {
            return Ok(true);
        }
        let goal = limit.saturating_sub(limit / 100 * SPARE_PERCENT);
        blobs.sort_by_key(|blob| blob.last_use);
        // What was used a moment ago goes only where nothing else is left to go.
        for keep in [mirror.settings.keep, Duration::ZERO] {
            let mut stayed = Vec::new();
            for blob in blobs {
                if held.saturating_add(coming) <= goal {
                    break;
                }
                if self.evict(&blob, keep).await? {
                    held -= blob.size;
                    mirror.usage.set_held(held);
                } else {
                    stayed.push(blob);
                }
            }
            if held.saturating_add(coming) <= limit {
                break;
            }
            blobs = stayed;
        }
        Ok(held.saturating_add(coming) <= limit)
    }

    /// Counts the bytes of all mirrored blobs.
    pub(super) async fn count_mirrored(&self) -> Result<u64, Error> {
        let held = self.mirrored_blobs().await?;
        let bytes = held.iter().map(|blob| blob.size).sum();
        if let Some(mirror) = self.mirror() {
            mirror.usage.set_held(bytes);
        }
        Ok(bytes)
    }

    /// Everything that mirrored repositories hold, each content once.
    async fn mirrored_blobs(&self) -> Result<Vec<Held>, Error> {
        let mut blobs: HashMap<Digest, Held> = HashMap::new();
        let mut repositories = each(Page::first(PAGE), |page| self.index.repositories(page));
        while let Some(repository) = repositories.try_next().await? {
            let Some(mirrored) = self.mirrored(&repository) else {
                continue;
            };
            let is_pinned = mirrored.is_pinned();
            let mut links = pages(Page::first(PAGE), |page| {
                self.index.blobs(&repository, page)
            });
            while let Some(links) = links.try_next().await? {
                for (digest, record) in links {
                    let usage = &mirrored.mirror.usage;
                    let last_use = usage.last(&digest).unwrap_or(record.linked);
                    let held = blobs.entry(digest).or_insert_with(|| Held {
                        digest,
                        size: record.size,
                        repositories: Vec::new(),
                        last_use,
                        is_pinned: false,
                    });
                    held.repositories.push(repository.clone());
                    held.is_pinned |= is_pinned;
                }
            }
        }
        if let Some(mirror) = self.mirror() {
            mirror.usage.retain(|digest| blobs.contains_key(digest));
        }
        Ok(blobs.into_values().collect())
    }

    /// Takes a blob out of all mirrored repositories and out of the storage, unless something is
    /// in the way.
    async fn evict(&self, blob: &Held, keep: Duration) -> Result<bool, Error> {
        let now = self.index.now().await?;
        let is_in_use = now.duration_since(blob.last_use).unsigned_abs() < keep;
        let is_small = blob.size <= SMALL_BYTES;
        if is_small || blob.is_pinned || is_in_use {
            return Ok(false);
        }
        for repository in &blob.repositories {
            if self.is_made_here(repository, &blob.digest).await? {
                return Ok(false);
            }
        }
        for repository in &blob.repositories {
            let mut lock = self.lock_repository(repository, Some(&blob.digest)).await?;
            // Under the lock that whoever takes a lease holds.
            let leased = self.index.leased_until(&blob.digest).await?;
            if leased.is_some_and(|until| until > now) {
                return Ok(false);
            }
            let key = RecordKey::Blob(repository.clone(), blob.digest);
            self.change(lock.as_mut(), vec![Change::Remove(key)])
                .await?;
        }
        let _lock = self.lock_content(&blob.digest).await?;
        let is_needed =
            self.index.is_held(&blob.digest).await? || self.is_hold_unsettled(&blob.digest).await?;
        if is_needed {
            return Ok(true);
        }
        self.blobs.remove(&blob.digest).await?;
        tracing::info!(blob.digest = %blob.digest, bytes = blob.size, last_use = %blob.last_use, "a mirrored blob went to make room");
        Ok(true)
    }
}

impl Mirrored<'_> {
    fn is_pinned(&self) -> bool {
        let name = self.repository.as_str();
        let pinned = self.mirror.settings.pinned.iter();
        let mut matching = pinned.filter(|pattern| match pattern.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => name == pattern.as_str(),
        });
        matching.next().is_some()
    }
}
