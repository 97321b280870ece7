//! The chunks of a model's blobs, as its registry offers them.

use anyhow::{Context, Result};
use artifact::ChunkMap;
use artifact::client::{Found, Origin};
use bytesize::ByteSize;
use serde_json::{Value, json};

use crate::args::Output;
use crate::listing;

/// The maps of all blobs that there are maps of, in the order of the manifest.
pub(super) async fn read(origin: &Origin, found: &Found) -> Result<Vec<ChunkMap>> {
    let asking = "reading its chunk maps";
    let offered = origin.chunk_maps(&found.digest).await.context(asking)?;
    let mut maps: Vec<ChunkMap> = Vec::new();
    for blob in found.manifest.blobs() {
        let map = offered.of(&blob.digest, blob.size).await.context(asking)?;
        // A manifest may name a blob twice.
        maps.extend(map.filter(|map| maps.iter().all(|known| known.blob() != map.blob())));
    }
    Ok(maps)
}

pub(super) fn json(maps: &[ChunkMap]) -> Value {
    maps.iter().map(json_of).collect()
}

fn json_of(map: &ChunkMap) -> Value {
    let lengths = Lengths::of(map);
    let chunks = map.chunks().map(|(range, hash)| {
        json!({
            "offset": range.start,
            "length": range.end - range.start,
            "blake3": hash.to_string(),
        })
    });
    json!({
        "blob": map.blob(),
        "size": map.size(),
        "count": map.len(),
        "min_length": lengths.min,
        "median_length": lengths.median,
        "max_length": lengths.max,
        "chunks": chunks.collect::<Vec<_>>(),
    })
}

pub(super) fn print(maps: &[ChunkMap]) -> Result<()> {
    say!()?;
    if maps.is_empty() {
        say!("no chunk maps: where it comes from offers none of it")?;
        return Ok(());
    }
    let rows = maps.iter().map(|map| {
        let lengths = Lengths::of(map);
        let mut row = vec![map.blob().to_string(), map.len().to_string()];
        row.extend(
            [lengths.min, lengths.median, lengths.max].map(|bytes| ByteSize(bytes).to_string()),
        );
        row
    });
    let columns = ["BLOB", "CHUNKS", "SHORTEST", "MEDIAN", "LONGEST"];
    listing::print(Output::Text, &(), &columns, rows.collect())?;
    for map in maps {
        say!()?;
        say!("{}", map.blob())?;
        let rows = map.chunks().map(|(range, hash)| {
            let length = range.end - range.start;
            vec![
                range.start.to_string(),
                length.to_string(),
                hash.to_string(),
            ]
        });
        let columns = ["OFFSET", "LENGTH", "BLAKE3"];
        listing::print(Output::Text, &(), &columns, rows.collect())?;
    }
    Ok(())
}

/// How long chunks are, in bytes.
struct Lengths {
    min: u64,
    median: u64,
    max: u64,
}

impl Lengths {
    fn of(map: &ChunkMap) -> Self {
        let chunks = map.chunks().map(|(range, _)| range.end - range.start);
        let mut lengths: Vec<u64> = chunks.collect();
        lengths.sort_unstable();
        Self {
            min: lengths.first().copied().unwrap_or_default(),
            median: lengths.get(lengths.len() / 2).copied().unwrap_or_default(),
            max: lengths.last().copied().unwrap_or_default(),
        }
    }
}
