//! Ingest: one blob on its way into the cache. While it is here nothing can see it; it becomes
//! visible under its digest only by [`Ingest::commit`], which the caller calls after the digest of
//! the bytes on disk was found right.

use std::sync::Arc;

use artifact::Digest;
use artifact::client::partial::{self, ChunkState, Division, Fault, PartFile};
use rustix::fs::Mode;

use crate::cache::NodeCache;
use crate::cache::folder::Folder;
use crate::error::Error;

/// Mode of a complete blob: read-only for everybody.
const BLOB_MODE: u32 = 0o444;

/// A blob that is being written.
#[derive(Debug)]
pub(crate) struct Ingest {
    cache: NodeCache,
    part: Arc<PartFile>,
}

impl Ingest {
    /// Opens what an earlier run left of the blob, divided as it was, or starts anew. The disk
    /// space for all of it is taken here, so that a full disk shows before the first byte.
    pub(crate) fn open(
        cache: &NodeCache,
        digest: Digest,
        size: u64,
    ) -> Result<(Self, Vec<ChunkState>), Error> {
        let folder = cache.ingest();
        let (part, map) = names(&digest);
        let in_cache = |part| Self {
            cache: cache.clone(),
            part: Arc::new(part),
        };
        let is_left = |name: &str| Ok::<_, Error>(folder.file_size(name)?.is_some());
        if is_left(&part)?
            && is_left(&map)?
            && let Some((part, states)) = PartFile::resume(
                digest,
                size,
                folder.open_file(&part)?,
                folder.open_file(&map)?,
            )
            .map_err(|fault| failed(cache, &digest, fault))?
        {
            return Ok((in_cache(part), states));
        }
        folder.remove(&map)?;
        folder.remove(&part)?;
        let division = Division::even(size);
        let states = vec![ChunkState::Absent; division.count()];
        let created = PartFile::create(
            digest,
            division,
            folder.open_file(&part)?,
            folder.open_file(&map)?,
        )
        .map_err(|fault| failed(cache, &digest, fault))
        .inspect_err(|_| drop(folder.remove(&part)))?;
        Ok((in_cache(created), states))
    }

    /// The same bytes divided in another way.
    pub(crate) fn divide(
        self,
        states: &[ChunkState],
        division: Division,
    ) -> Result<(Self, Vec<ChunkState>), Error> {
        let Self { cache, part } = self;
        let digest = part.digest();
        // Nothing else holds it before the download begins.
        let part = Arc::try_unwrap(part).map_err(|_| stopped())?;
        let (part, states) = part
            .divide(states, division)
            .map_err(|fault| failed(&cache, &digest, fault))?;
        let part = Arc::new(part);
        Ok((Self { cache, part }, states))
    }

    /// Bytes of the disk that an earlier run has taken for the blob already.
    pub(crate) fn reserved_bytes(folder: &Folder, digest: &Digest) -> Result<u64, Error> {
        let stat = folder.stat(&names(digest).0)?;
        let blocks = stat.and_then(|stat| u64::try_from(stat.st_blocks).ok());
        Ok(blocks.unwrap_or(0).saturating_mul(512))
    }

    /// The file and the map of its chunks.
    pub(crate) fn part(&self) -> &Arc<PartFile> {
        &self.part
    }

    /// Makes the blob visible under its digest. Its bytes must have that digest.
    pub(crate) fn commit(&self) -> Result<(), Error> {
        let file = self.part.file();
        rustix::fs::fchmod(file, Mode::from_raw_mode(BLOB_MODE))
            .map_err(|e| self.fault("make read-only", e))?;
        file.sync_all().map_err(|e| self.fault("sync", e))?;
        let digest = self.part.digest();
        let (part, map) = names(&digest);
        let blobs = self.cache.blobs(digest.algorithm());
        self.cache.ingest().rename(&part, blobs, &digest.hex())?;
        blobs.sync()?;
        self.cache.ingest().remove(&map)?;
        Ok(())
    }

    /// Throws away everything, for bytes that turned out wrong.
    pub(crate) fn discard(&self) -> Result<(), Error> {
        Self::discard_of(&self.cache, &self.part.digest())
    }

    /// Throws away what there is of a blob that nobody works on.
    pub(crate) fn discard_of(cache: &NodeCache, digest: &Digest) -> Result<(), Error> {
        let (part, map) = names(digest);
        cache.ingest().remove(&map)?;
        cache.ingest().remove(&part)?;
        Ok(())
    }

    /// Why the download of the blob ended.
    pub(crate) fn broken(&self, error: partial::Error) -> Error {
        match error {
            partial::Error::Disk(fault) => failed(&self.cache, &self.part.digest(), fault),
            partial::Error::Stopped => stopped(),
        }
    }

    fn fault(&self, action: &'static str, source: impl Into<std::io::Error>) -> Error {
        let source = source.into();
        failed(&self.cache, &self.part.digest(), Fault { action, source })
    }
}

/// The writer has ended; the pipeline that it belongs to knows why.
pub(crate) fn stopped() -> Error {
    Error::Interrupted {
        what: "the writer of the download".to_owned(),
    }
}

fn failed(cache: &NodeCache, digest: &Digest, fault: Fault) -> Error {
    let path = cache.layout().ingest_part(digest);
    Error::storage(fault.action, &path, fault.source)
}

/// File names of a download in progress. Two algorithms never share a name: their hexadecimal parts
/// differ in length.
fn names(digest: &Digest) -> (String, String) {
    let hex = digest.hex();
    (format!("{hex}.part"), format!("{hex}.map"))
}
