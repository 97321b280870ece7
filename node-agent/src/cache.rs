//! NodeCache: the node's folder of models. Blobs are complete and verified or not there; a model is
//! visible when its manifest link is in the plain view.
//!
//! Everything here blocks: callers in async code go through [`NodeCache::blocking`].

mod consumers;
mod evict;
pub(crate) mod folder;
mod health;
mod in_use;
pub(crate) mod index;
pub(crate) mod ingest;
mod leases;
pub(crate) mod maps;
mod mend;
mod pins;
mod probe;
mod room;
pub(crate) mod views;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use artifact::agent_api::{ModelEntry, ScrubStatus};
use artifact::catalog::{self, CatalogFault, timestamp};
use artifact::layout::TEMPORARY_PREFIX;
use artifact::manifest::MAX_MANIFEST_BYTES;
use artifact::{Algorithm, CacheLayout, Digest, Manifest, Reference};
use rustix::fs::Mode;
use tokio::sync::Notify;

use crate::error::Error;
use crate::metrics::Metrics;
use consumers::Consumers;
pub use evict::Held;
use folder::Folder;
use index::Index;
pub(crate) use leases::Lease;
use leases::Leases;
use maps::Maps;
use room::Promises;
pub(crate) use room::Reservation;
pub use room::{DiskOptions, Limit, Shortage};

const LOCK_FILE: &str = "agent.lock";
/// Marks a pinned model, in its folder of the plain view.
const PIN_FILE: &str = ".pinned";

/// The cache below one folder, held by this process alone. A clone is the same cache.
#[derive(Clone, Debug)]
pub struct NodeCache(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    layout: CacheLayout,
    root: Folder,
    blobs: Folder,
    sha256: Folder,
    sha512: Folder,
    ingest: Folder,
    maps: Maps,
    views_root: Folder,
    plain: Folder,
    ollama: Folder,
    huggingface: Folder,
    index: Index,
    leases: Leases,
    consumers: Consumers,
    metrics: Metrics,
    promises: Promises,
    options: DiskOptions,
    /// Held while room is made.
    making_room: Mutex<()>,
    /// Held while the views change, so that publishing and removing never mix.
    views: Mutex<()>,
    /// Held while the scrub has a blob open, and while it is asked who has.
    reading: Mutex<()>,
    /// Something was found damaged.
    damage: Notify,
    /// What the scrub tells of itself.
    scrub: Mutex<ScrubStatus>,
    /// The lock on the folder lasts as long as the file is open.
    lock: Mutex<File>,
}

impl NodeCache {
    /// Opens the cache below `root`, and makes it if need be; its disk is kept as `options` say.
    ///
    /// # Errors
    /// [`Error::Locked`] when another process has it open; [`Error::Storage`] when the folder
    /// cannot be used.
    pub fn open(root: &Path, options: DiskOptions) -> Result<Self, Error> {
        // Links in the views are relative, so the root may be named in any way; an absolute path
        // makes for better messages.
        let root = std::path::absolute(root).map_err(|e| Error::storage("find", root, e))?;
        let folder = Folder::open_root(&root)?;
        let lock = folder
            .lock(LOCK_FILE)?
            .ok_or_else(|| Error::Locked { root: root.clone() })?;
        let blobs = folder.child("blobs")?;
        let views = folder.child("views")?;
        let layout = CacheLayout::new(&root);
        let leases = Leases::default();
        let cache = Self(Arc::new(Inner {
            sha256: blobs.child(Algorithm::Sha256.as_str())?,
            sha512: blobs.child(Algorithm::Sha512.as_str())?,
            ingest: folder.child("ingest")?,
            maps: Maps::open(&folder)?,
            plain: views.child("plain")?,
            ollama: views.child("ollama")?,
            huggingface: views.child("huggingface")?,
            index: Index::open(&layout.index()),
            consumers: Consumers::read(&folder, &leases)?,
            leases,
            metrics: Metrics::default(),
            promises: Promises::default(),
            making_room: Mutex::new(()),
            views: Mutex::new(()),
            root: folder,
            layout,
            blobs,
            views_root: views,
            reading: Mutex::new(()),
            damage: Notify::new(),
            scrub: Mutex::new(ScrubStatus {
                rate: options.scrub_rate,
                ..ScrubStatus::default()
            }),
            options,
            lock: Mutex::new(lock),
        }));
        match cache
            .sweep_temporary()
            .and_then(|()| probe::check(&cache.0.ingest, &cache.0.sha256))
        {
            Ok(()) => {}
            // What is cached can be served all the same; readiness says why not more.
            Err(error) if error.is_temporary_for_writing() => {
                tracing::error!(error = %error.to_agent_error(), "the cache cannot be written to");
            }
            Err(error) => return Err(error),
        }
        views::settle(&cache);
        Ok(cache)
    }

    /// The paths of this cache.
    #[must_use]
    pub fn layout(&self) -> &CacheLayout {
        &self.0.layout
    }

    /// What happens in this cache is counted here.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Runs blocking work on this cache off the async threads.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let cache = self.clone();
        tokio::task::spawn_blocking(move || {
            cache.mend()?;
            work(&cache)
        })
        .await
        .unwrap_or_else(|panic| {
            Err(Error::Interrupted {
                what: format!("work on the cache ({panic})"),
            })
        })
    }

    /// The models, by name.
    ///
    /// # Errors
    /// [`Error::Catalog`] when the views cannot be read.
    pub fn list(&self) -> Result<Vec<ModelEntry>, Error> {
        let models = catalog::list(&self.0.layout, |fault| {
            tracing::warn!(error = %fault, "a model of the cache is damaged");
        })?;
        models
            .into_iter()
            .map(|model| self.complete(model))
            .collect()
    }

    /// The model of that name, if the cache has all of it.
    ///
    /// # Errors
    /// [`Error::Catalog`] when it is there but cannot be read.
    pub fn find(&self, reference: &Reference) -> Result<Option<ModelEntry>, Error> {
        let model = self.find_any(reference)?;
        // A reference with a tag and a digest means that digest, whatever the tag shows.
        let model = model.filter(|model| reference.digest().is_none_or(|d| *d == model.digest));
        model.map(|model| self.complete(model)).transpose()
    }

    /// What the plain view shows under that name, whatever digest the reference asks for.
    fn find_any(&self, reference: &Reference) -> Result<Option<ModelEntry>, Error> {
        match catalog::find(&self.0.layout, reference) {
            // As good as absent: a pull puts it right.
            Err(fault @ (CatalogFault::ForeignLink { .. } | CatalogFault::Manifest { .. })) => {
                tracing::warn!(%reference, error = %fault, "a model of the cache is damaged");
                Ok(None)
            }
            found => Ok(found?),
        }
    }

    /// Adds what is not in the manifest: last use and pin.
    fn complete(&self, mut model: ModelEntry) -> Result<ModelEntry, Error> {
        model.last_used = self.0.index.last_used(&model.reference).map(timestamp);
        model.pinned = match views::plain::existing_folder(&self.0.plain, &model.reference)? {
            Some(folder) => folder.stat(PIN_FILE)?.is_some(),
            None => false,
        };
        Ok(model)
    }

    /// Notes that a model was asked for.
    pub(crate) fn touch(&self, reference: &Reference) {
        self.0.index.touch(reference, SystemTime::now());
    }

    /// Pins a model, or lets it go. The pin is a file in the plain view, so it outlives the index.
    ///
    /// # Errors
    /// [`Error::NotCached`]; [`Error::Storage`].
    pub fn set_pinned(&self, reference: &Reference, pinned: bool) -> Result<ModelEntry, Error> {
        let _changing = self.change_views();
        let not_cached = || Error::NotCached {
            reference: Box::new(reference.clone()),
        };
        let mut model = self.find(reference)?.ok_or_else(not_cached)?;
        let folder =
            views::plain::existing_folder(&self.0.plain, reference)?.ok_or_else(not_cached)?;
        if pinned {
            // Empty: no longer one that the desired list has made.
            let file = folder.open_file(PIN_FILE)?;
            file.set_len(0)
                .map_err(|e| Error::storage("write", &folder.path().join(PIN_FILE), e))?;
        } else {
            folder.remove(PIN_FILE)?;
        }
        folder.sync()?;
        model.pinned = pinned;
        Ok(model)
    }

    /// Takes a model out of the views and deletes its blobs that no other model names and no pull
    /// is about to use.
    ///
    /// # Errors
    /// [`Error::NotCached`]; [`Error::Pinned`]; [`Error::InUse`] unless it goes by force;
    /// [`Error::Storage`].
    pub fn remove(&self, reference: &Reference, force: bool) -> Result<(), Error> {
        let _changing = self.change_views();
        let model = self.find(reference)?.ok_or_else(|| Error::NotCached {
            reference: Box::new(reference.clone()),
        })?;
        if model.pinned {
            return Err(Error::Pinned {
                reference: Box::new(reference.clone()),
            });
        }
        if force {
            return self.take_out(&model).map(drop);
        }
        let in_use = |by: String| Error::InUse {
            reference: Box::new(reference.clone()),
            by,
        };
        if let Some(holder) = self.lease_holder(reference) {
            return Err(in_use(holder));
        }
        // Held until the blobs are gone, so that nobody begins to use them in between.
        let _alone = self
            .take_alone(&model)?
            .ok_or_else(|| in_use("a process that has a file of it open".to_owned()))?;
        self.take_out(&model).map(drop)
    }

    /// Takes a model out of the views, then its blobs; gives the bytes that this freed. The views
    /// must be held.
    fn take_out(&self, model: &ModelEntry) -> Result<u64, Error> {
        let reference = &model.reference;
        let mut named = views::remove(self, reference, PIN_FILE)?;
        named.extend(model.blobs.iter().map(|blob| blob.digest));
        named.push(model.digest);
        self.0.index.forget(reference);
        self.delete_unnamed(named)
    }

    /// Deletes those of the given blobs that no model names any more, and gives the bytes that this
    /// freed. The views must be held.
    fn delete_unnamed(&self, mut candidates: Vec<Digest>) -> Result<u64, Error> {
        candidates.sort_unstable();
        candidates.dedup();
        let kept = views::named_blobs(self)?;
        candidates.retain(|digest| !kept.contains(digest));
        let mut freed = 0;
        for digest in candidates {
            self.0.leases.unless_held(&digest, || {
                let (blobs, name) = (self.blobs(digest.algorithm()), digest.hex());
                let bytes = blobs.stat(&name)?.map_or(0, |stat| evict::bytes_of(&stat));
                let gone = blobs.remove(&name)?;
                self.0.index.forget_blob(&digest);
                self.maps().remove(&digest)?;
                tracing::info!(blob.digest = %digest, gone, "a blob that no model names was deleted");
                freed += bytes;
                Ok(())
            })?;
        }
        Ok(freed)
    }

    /// Keeps blobs from being deleted for as long as the lease lives.
    pub(crate) fn lease(&self, digests: impl IntoIterator<Item = Digest>) -> Lease {
        self.0.leases.hold(digests)
    }

    /// Whether a complete blob of that size is here.
    pub(crate) fn has_blob(&self, digest: &Digest, size: u64) -> Result<bool, Error> {
        let found = self.blobs(digest.algorithm()).file_size(&digest.hex())?;
        Ok(found == Some(size))
    }

    /// A manifest that is here already, for references by digest.
    pub(crate) fn manifest(&self, digest: &Digest) -> Result<Option<Manifest>, Error> {
        let Some(raw) = self.read_blob(digest, MAX_MANIFEST_BYTES)? else {
            return Ok(None);
        };
        if Digest::of(digest.algorithm(), &raw) != *digest {
            return Ok(None);
        }
        Ok(Manifest::parse(raw, None).ok())
    }

    /// A small blob, whole; nothing when it is not here or longer than `limit` bytes.
    pub(crate) fn read_blob(
        &self,
        digest: &Digest,
        limit: usize,
    ) -> Result<Option<Vec<u8>>, Error> {
        let Some(file) = self.open_blob(digest)? else {
            return Ok(None);
        };
        let mut raw = Vec::new();
        file.take(limit as u64 + 1)
            .read_to_end(&mut raw)
            .map_err(|e| Error::storage("read", &self.0.layout.blob(digest), e))?;
        Ok((raw.len() <= limit).then_some(raw))
    }

    /// A complete blob, opened for reading.
    pub(crate) fn open_blob(&self, digest: &Digest) -> Result<Option<File>, Error> {
        self.blobs(digest.algorithm()).read_file(&digest.hex())
    }

    /// Stores a small document under its digest, durably. The caller computed the digest.
    pub(crate) fn store_document(&self, digest: &Digest, bytes: &[u8]) -> Result<(), Error> {
        if self.has_blob(digest, bytes.len() as u64)? {
            return Ok(());
        }
        let name = temporary_name();
        let path = self.0.ingest.path().join(&name);
        let mut file = self.0.ingest.open_file(&name)?;
        file.write_all(bytes)
            .and_then(|()| {
                rustix::fs::fchmod(file.as_fd(), Mode::from_raw_mode(0o444)).map_err(Into::into)
            })
            .and_then(|()| file.sync_all())
            .map_err(|e| Error::storage("write", &path, e))
            .inspect_err(|_| drop(self.0.ingest.remove(&name)))?;
        let blobs = self.blobs(digest.algorithm());
        self.0.ingest.rename(&name, blobs, &digest.hex())?;
        blobs.sync()
    }

    /// The folder of complete blobs.
    pub(crate) fn blobs(&self, algorithm: Algorithm) -> &Folder {
        match algorithm {
            Algorithm::Sha256 => &self.0.sha256,
            Algorithm::Sha512 => &self.0.sha512,
        }
    }

    /// The folder of downloads in progress and of links that are about to be renamed into place.
    pub(crate) fn ingest(&self) -> &Folder {
        &self.0.ingest
    }

    /// The chunk maps of blobs.
    pub(crate) fn maps(&self) -> &Maps {
        &self.0.maps
    }

    /// Whether the folder can be written to: what readiness means.
    pub(crate) fn check_writable(&self) -> Result<(), Error> {
        let name = temporary_name();
        self.0.ingest.open_file(&name)?;
        self.0.ingest.remove(&name).map(drop)
    }

    pub(crate) fn options(&self) -> &DiskOptions {
        &self.0.options
    }

    fn leases(&self) -> &Leases {
        &self.0.leases
    }

    fn consumers(&self) -> &Consumers {
        &self.0.consumers
    }

    fn root(&self) -> &Folder {
        &self.0.root
    }

    fn promises(&self) -> &Promises {
        &self.0.promises
    }

    /// For whoever opens a blob to look at it, and for whoever asks whether others have it open.
    pub(crate) fn read_alone(&self) -> MutexGuard<'_, ()> {
        let reading = &self.0.reading;
        reading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn make_room_alone(&self) -> MutexGuard<'_, ()> {
        let making = &self.0.making_room;
        making.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change_views(&self) -> MutexGuard<'_, ()> {
        // The guard protects files, not memory: a panic left nothing behind that a lock could mend.
        self.0.views.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes what a killed process left half made.
    fn sweep_temporary(&self) -> Result<(), Error> {
        for (name, _) in self.0.ingest.entries()? {
            // A map without its part belongs to a blob that was committed in the last instant.
            let is_widowed = match name.strip_suffix(".map") {
                Some(hex) => self.0.ingest.stat(&format!("{hex}.part"))?.is_none(),
                None => false,
            };
            if name.starts_with(TEMPORARY_PREFIX) || is_widowed {
                self.0.ingest.remove(&name)?;
            }
        }
        Ok(())
    }
}

/// A name that no reader looks at.
pub(crate) fn temporary_name() -> String {
    format!("{TEMPORARY_PREFIX}{}", uuid::Uuid::new_v4().simple())
}

/// `..` for each level below the root, then the path of the blob: a link target that holds wherever
/// the cache is mounted.
pub(crate) fn link_target(levels: usize, digest: &Digest) -> PathBuf {
    let mut target: PathBuf = std::iter::repeat_n("..", levels).collect();
    target.push(CacheLayout::blob_below_root(digest));
    target
}
