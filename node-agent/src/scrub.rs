//! Scrub: reads cached blobs again, at a bounded rate, and hashes them, for disks forget.
//!
//! It reads past the page cache (`O_DIRECT`): what memory remembers would hide what the disk has
//! lost, and pages of models that are in use must not be pushed out by a blob that nobody asked for.
//! Where a file system cannot do that it reads as everybody does, and lets the kernel drop the pages
//! that it brought in. A blob is open only while a piece of it is read, so that it does not count as
//! in use.

use std::io;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use artifact::{Digest, Digester};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep_until};

use crate::cache::NodeCache;
use crate::error::Error;

/// Bytes that are read at a time.
const PIECE: usize = 4 * 1024 * 1024;
/// What the kernel wants of memory and offsets of direct reads, at most.
const ALIGNMENT: usize = 4096;
/// Bytes after which the place in a blob is noted.
const NOTED_EVERY: u64 = 256 * 1024 * 1024;
/// A blob that was found right is left alone for this long.
const REST: Duration = Duration::from_secs(24 * 3600);
/// Time between two rounds.
const PAUSE: Duration = Duration::from_secs(60);

/// A place in a blob: what is needed to go on there after a restart.
#[derive(Debug, Serialize, Deserialize)]
struct Place {
    digest: Digest,
    offset: u64,
    state: Vec<u8>,
}

/// What one piece showed.
enum Piece {
    Read(Vec<u8>),
    /// The blob was removed meanwhile.
    Gone,
    /// The disk cannot read it any more.
    Unreadable,
}

/// Scrubs for as long as it is polled, `rate` bytes a second.
pub(crate) async fn run(cache: NodeCache, rate: u64) {
    loop {
        if let Err(error) = round(&cache, rate).await {
            tracing::warn!(error = %error.to_agent_error(), "the scrub could not go on");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Every blob that is due; what comes meanwhile is for the next round.
async fn round(cache: &NodeCache, rate: u64) -> Result<(), Error> {
    let due = cache.blocking(|cache| cache.due_for_scrub(REST)).await?;
    for digest in due {
        cache.tell_scrubbing(Some(digest));
        let outcome = scrub(cache, digest, rate).await;
        cache.tell_scrubbing(None);
        outcome?;
    }
    Ok(())
}

async fn scrub(cache: &NodeCache, digest: Digest, rate: u64) -> Result<(), Error> {
    let (mut digester, mut offset) = noted_place(cache, &digest).await;
    let mut noted = offset;
    let is_right = loop {
        let begun = Instant::now();
        match cache
            .blocking(move |cache| read_piece(cache, &digest, offset))
            .await?
        {
            Piece::Read(bytes) if bytes.is_empty() => break digester.finish() == digest,
            Piece::Read(bytes) => {
                let length = bytes.len() as u64;
                digester = cache
                    .blocking(move |_| {
                        digester.update(&bytes);
                        Ok(digester)
                    })
                    .await?;
                offset += length;
                cache.metrics().scrubbed(length);
                if offset - noted >= NOTED_EVERY {
                    noted = offset;
                    let state = digester.save();
                    note_place(
                        cache,
                        Some(Place {
                            digest,
                            offset,
                            state,
                        }),
                    )
                    .await?;
                }
                sleep_until(begun + Duration::from_secs_f64(length as f64 / rate.max(1) as f64))
                    .await;
            }
            Piece::Gone => return note_place(cache, None).await,
            Piece::Unreadable => break false,
        }
    };
    note_place(cache, None).await?;
    cache
        .blocking(move |cache| {
            if is_right {
                cache.note_scrubbed(&digest);
                return Ok(());
            }
            cache.metrics().scrub_failed();
            cache.quarantine(&digest, "it no longer has its digest")
        })
        .await
}

/// Where an earlier run stopped in this blob, or its beginning.
async fn noted_place(cache: &NodeCache, digest: &Digest) -> (Digester, u64) {
    let noted = cache.blocking(|cache| Ok(cache.scrub_place())).await;
    let place: Option<Place> = noted
        .ok()
        .flatten()
        .and_then(|raw| serde_json::from_slice(&raw).ok());
    place
        .filter(|place| place.digest == *digest && place.offset.is_multiple_of(PIECE as u64))
        .and_then(|place| {
            let digester = Digester::restore(digest.algorithm(), &place.state).ok()?;
            Some((digester, place.offset))
        })
        .unwrap_or_else(|| (Digester::new(digest.algorithm()), 0))
}

async fn note_place(cache: &NodeCache, place: Option<Place>) -> Result<(), Error> {
    let raw = place.and_then(|place| serde_json::to_vec(&place).ok());
    cache
        .blocking(move |cache| {
            cache.note_scrub_place(raw.as_deref());
            Ok(())
        })
        .await
}

fn read_piece(cache: &NodeCache, digest: &Digest, offset: u64) -> Result<Piece, Error> {
    let _reading = cache.read_alone();
    let Some((file, is_direct)) = cache.open_blob_directly(digest)? else {
        return Ok(Piece::Gone);
    };
    // Direct reads go to aligned memory only.
    let mut buffer = vec![0; PIECE + ALIGNMENT];
    let start = buffer.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
    let mut filled = 0;
    let outcome = loop {
        match file.read_at(
            &mut buffer[start + filled..start + PIECE],
            offset + filled as u64,
        ) {
            Ok(0) => break Ok(()),
            Ok(read) => {
                filled += read;
                // A read that ends off the alignment is the end of the file.
                if filled == PIECE || (is_direct && !filled.is_multiple_of(ALIGNMENT)) {
                    break Ok(());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break Err(error),
        }
    };
    if !is_direct {
        drop_pages(&file, offset, filled as u64);
    }
    match outcome {
        Ok(()) => Ok(Piece::Read(buffer[start..start + filled].to_vec())),
        // Input/output error: the disk has given up on this place.
        Err(error) if error.raw_os_error() == Some(libc::EIO) => Ok(Piece::Unreadable),
        Err(error) => Err(Error::storage("read", &cache.layout().blob(digest), error)),
    }
}

/// Pages that a process has mapped stay: the kernel drops only those that nobody maps.
fn drop_pages(file: &std::fs::File, offset: u64, length: u64) {
    let length = std::num::NonZeroU64::new(length);
    let advice = rustix::fs::Advice::DontNeed;
    if let Err(error) = rustix::fs::fadvise(file, offset, length, advice) {
        tracing::debug!(%error, "the pages of a scrubbed blob stay in memory");
    }
}
