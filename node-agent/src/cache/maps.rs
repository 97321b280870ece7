//! The chunk maps of the blobs that are here: what a pull of another version needs to know to take
//! chunks from this node.
//!
//! They are hints. One that is lost costs a few more bytes from the network; one that is wrong costs
//! a copy whose hash does not fit.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::sync::Arc;

use artifact::chunk_map::{MAX_MAP_BYTES, MIN_MAPPED_BYTES};
use artifact::{Algorithm, ChunkHash, ChunkMap, Digest};
use rustix::fs::FileType;

use crate::cache::folder::Folder;
use crate::cache::{NodeCache, temporary_name};
use crate::error::Error;

/// A chunk that lies in some blob of the cache.
#[derive(Clone, Debug)]
pub(crate) struct LocalChunk {
    /// The number of the chunk in the blob that wants it.
    pub(crate) chunk: usize,
    /// The blob that has it.
    pub(crate) source: Arc<File>,
    /// Where it begins there, in bytes.
    pub(crate) from: u64,
}

/// The folders of chunk maps.
#[derive(Debug)]
pub(crate) struct Maps {
    parent: Folder,
    sha256: Folder,
    sha512: Folder,
}

impl Maps {
    /// Below the cache's root; made if need be.
    pub(crate) fn open(root: &Folder) -> Result<Self, Error> {
        let maps = root.child("maps")?;
        Ok(Self {
            sha256: maps.child(Algorithm::Sha256.as_str())?,
            sha512: maps.child(Algorithm::Sha512.as_str())?,
            parent: maps,
        })
    }

    /// The folders that are held open: the parent and the name of each.
    pub(super) fn folders<'a>(
        &'a self,
        root: &'a Folder,
    ) -> [(&'a Folder, &'static str, &'a Folder); 3] {
        [
            (root, "maps", &self.parent),
            (&self.parent, Algorithm::Sha256.as_str(), &self.sha256),
            (&self.parent, Algorithm::Sha512.as_str(), &self.sha512),
        ]
    }

    fn folder(&self, algorithm: Algorithm) -> &Folder {
        match algorithm {
            Algorithm::Sha256 => &self.sha256,
            Algorithm::Sha512 => &self.sha512,
        }
    }

    /// Drops the map of a blob that is gone.
    pub(crate) fn remove(&self, blob: &Digest) -> Result<bool, Error> {
        self.folder(blob.algorithm()).remove(&blob.hex())
    }

    /// The map of a blob, unless it is lost or damaged.
    pub(crate) fn read(&self, blob: &Digest) -> Result<Option<ChunkMap>, Error> {
        let folder = self.folder(blob.algorithm());
        let Some(file) = folder.read_file(&blob.hex())? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        let read = file.take(MAX_MAP_BYTES + 1).read_to_end(&mut bytes);
        read.map_err(|e| Error::storage("read", &folder.path().join(blob.hex()), e))?;
        let map = ChunkMap::parse(&bytes).ok();
        Ok(map.filter(|map| map.blob() == *blob))
    }

    /// The blobs that have a map.
    fn blobs(&self) -> Result<Vec<Digest>, Error> {
        let mut blobs = Vec::new();
        for algorithm in Algorithm::ALL {
            let entries = self.folder(algorithm).entries()?;
            let files = entries
                .iter()
                .filter(|(_, kind)| *kind == FileType::RegularFile);
            blobs.extend(files.filter_map(|(name, _)| Digest::from_hex(algorithm, name).ok()));
        }
        Ok(blobs)
    }
}

impl NodeCache {
    /// Keeps the map of a blob that is here. It is not synced: it can be lost.
    pub(crate) fn keep_map(&self, map: &ChunkMap) -> Result<(), Error> {
        let name = temporary_name();
        let path = self.ingest().path().join(&name);
        let mut file = self.ingest().open_file(&name)?;
        let target = self.maps().folder(map.blob().algorithm());
        file.write_all(&map.encode())
            .map_err(|e| Error::storage("write", &path, e))
            .and_then(|()| self.ingest().rename(&name, target, &map.blob().hex()))
            .inspect_err(|_| drop(self.ingest().remove(&name)))
    }

    /// Where chunks of `map` lie on this node: for each that is `wanted`, the first place found.
    pub(crate) fn local_chunks(
        &self,
        map: &ChunkMap,
        wanted: impl Fn(usize) -> bool,
    ) -> Result<Vec<LocalChunk>, Error> {
        let mut missing: HashMap<ChunkHash, Vec<usize>> = HashMap::new();
        for (chunk, (_, hash)) in map.chunks().enumerate() {
            if wanted(chunk) {
                missing.entry(hash).or_default().push(chunk);
            }
        }
        let mut found = Vec::new();
        for blob in self.maps().blobs()? {
            if missing.is_empty() {
                break;
            }
            // A damaged map, or one whose blob is gone, helps nobody and harms nobody.
            let Some(other) = self.maps().read(&blob)? else {
                continue;
            };
            self.take_from(&other, map, &mut missing, &mut found)?;
        }
        found.sort_by_key(|local: &LocalChunk| local.chunk);
        Ok(found)
    }

    /// Takes what one other blob has of the missing chunks.
    fn take_from(
        &self,
        other: &ChunkMap,
        map: &ChunkMap,
        missing: &mut HashMap<ChunkHash, Vec<usize>>,
        found: &mut Vec<LocalChunk>,
    ) -> Result<(), Error> {
        let mut source: Option<Arc<File>> = None;
        for (range, hash) in other.chunks() {
            let length = range.end - range.start;
            let fits = |chunk: &usize| {
                let wanted = map.range(*chunk);
                wanted.end - wanted.start == length
            };
            if !missing
                .get(&hash)
                .is_some_and(|chunks| chunks.iter().all(fits))
            {
                continue;
            }
            let source = match &source {
                Some(source) => source,
                None => {
                    let blob = other.blob();
                    if !self.has_blob(&blob, other.size())? {
                        return Ok(());
                    }
                    let Some(file) = self.open_blob(&blob)? else {
                        return Ok(());
                    };
                    source.insert(Arc::new(file))
                }
            };
            for chunk in missing.remove(&hash).unwrap_or_default() {
                found.push(LocalChunk {
                    chunk,
                    source: Arc::clone(source),
                    from: range.start,
                });
            }
        }
        Ok(())
    }
}

/// Whether a blob of that size is worth a map.
pub(crate) fn is_mapped(size: u64) -> bool {
    size >= MIN_MAPPED_BYTES
}
