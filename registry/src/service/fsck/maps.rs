//! Chunk maps, checked while their blobs are read: what a map says of its chunks must be so.

use artifact::Digest;
use artifact::chunk_map::{ChunkHasher, ChunkMap};

use crate::error::Error;
use crate::service::Registry;
use crate::service::fsck::Check;
use crate::service::fsck::report::{Finding, FsckEvent};
use crate::store::StoredBlob;

/// How the map beside a blob stands.
pub(super) enum MapState {
    /// There is none, or its blob is none of ours.
    Absent,
    /// It is a map of this blob, to be compared with what is read.
    Readable(Box<MapReading>),
    /// It is not: why.
    Damaged(String),
}

impl MapState {
    /// Takes the next bytes of the blob.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        if let Self::Readable(reading) = self {
            reading.update(bytes);
        }
    }
}

/// A map, and how far the bytes of its blob have come.
pub(super) struct MapReading {
    map: ChunkMap,
    hasher: ChunkHasher,
    at: u64,
    chunk: usize,
    /// The first chunk that is not what the map says.
    wrong: Option<usize>,
}

impl MapReading {
    fn new(map: ChunkMap) -> Self {
        Self {
            map,
            hasher: ChunkHasher::default(),
            at: 0,
            chunk: 0,
            wrong: None,
        }
    }

    fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.wrong.is_none() && self.chunk < self.map.len() {
            let end = self.map.range(self.chunk).end;
            let left = usize::try_from(end - self.at).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(left.min(bytes.len()));
            self.hasher.update(now);
            self.at += now.len() as u64;
            if self.at == end {
                if self.map.hash(self.chunk) != Some(self.hasher.finish()) {
                    self.wrong = Some(self.chunk);
                }
                self.chunk += 1;
            }
            bytes = later;
        }
    }
}

impl Registry {
    /// How the map beside a blob stands, before the blob is read.
    pub(super) async fn map_state(&self, blob: &StoredBlob) -> Result<MapState, Error> {
        let Some(bytes) = self.maps.map(&blob.digest).await? else {
            return Ok(MapState::Absent);
        };
        Ok(match ChunkMap::parse(&bytes) {
            Ok(map) if map.blob() != blob.digest => {
                MapState::Damaged(format!("it is of {}", map.blob()))
            }
            Ok(map) if map.size() != blob.size => {
                MapState::Damaged(format!("it is of {} bytes", map.size()))
            }
            Ok(map) => MapState::Readable(Box::new(MapReading::new(map))),
            Err(error) => MapState::Damaged(error.to_string()),
        })
    }
}

impl Check<'_> {
    /// Tells what is wrong with the map of a blob that is right, and removes it if that is asked for:
    /// it is made again when somebody wants it.
    pub(super) async fn check_map(&mut self, digest: &Digest, map: MapState) -> Result<(), Error> {
        let reason = match map {
            MapState::Absent => return Ok(()),
            MapState::Damaged(reason) => reason,
            MapState::Readable(reading) => match reading.wrong {
                Some(chunk) => format!("chunk {chunk} does not have its hash"),
                None => return Ok(()),
            },
        };
        let digest = *digest;
        self.found(Finding::DamagedMap { digest, reason }).await;
        if self.options.quarantine {
            let _lock = self.registry.lock_content(&digest).await?;
            self.registry.maps.forget_map(&digest).await?;
            self.outlet.tell(FsckEvent::MapRemoved { digest }).await;
        }
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use artifact::Digest;
    use artifact::chunk_map::{ChunkHash, ChunkMap};

    use crate::service::fsck::maps::MapReading;

    #[test]
    fn the_first_chunk_that_is_not_what_its_map_says_is_found_in_pieces_of_any_size() {
        let content = b"one two three";
        let chunks = [&b"one "[..], b"two ", b"three"];
        let chunks = chunks.map(|bytes| (bytes.len() as u64, ChunkHash::of(bytes)));
        let map = ChunkMap::new(Digest::sha256(content), chunks).unwrap();
        for piece in 1..=content.len() {
            let mut reading = MapReading::new(map.clone());
            content
                .chunks(piece)
                .for_each(|piece| reading.update(piece));
            assert_eq!(reading.wrong, None);
            let mut reading = MapReading::new(map.clone());
            let other = b"one twO three";
            other.chunks(piece).for_each(|piece| reading.update(piece));
            assert_eq!(reading.wrong, Some(1));
        }
    }
}
