//! Probe: whether the file system of the cache does what the cache relies on, asked at the start
//! rather than in the middle of a pull.

use std::io::Write;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use crate::cache::folder::Folder;
use crate::cache::temporary_name;
use crate::error::Error;

const BYTES: u64 = 4096;

/// File systems that work, with a word of warning. Their numbers are those of statfs(2).
const DOUBTFUL: [(u64, &str); 6] = [
    (
        0x0102_1994,
        "tmpfs: it is memory, and empty after a restart",
    ),
    (0x794c_7630, "an overlay: it is gone with its container"),
    (
        0x6969,
        "NFS: its locks and its durability are those of the server",
    ),
    (
        0xff53_4d42,
        "CIFS: its locks and its durability are those of the server",
    ),
    (
        0xfe53_4d42,
        "SMB: its locks and its durability are those of the server",
    ),
    (
        0x6573_5546,
        "FUSE: its durability is that of the program behind it",
    ),
];

/// Writes, syncs and moves a small file as a pull would.
///
/// # Errors
/// [`Error::Storage`] with the step that failed: a cache where it fails would lose blobs later.
pub(super) fn check(ingest: &Folder, blobs: &Folder) -> Result<(), Error> {
    if let Some((_, words)) = DOUBTFUL
        .iter()
        .find(|(kind, _)| *kind == ingest.file_system())
    {
        tracing::warn!(path = %ingest.path().display(), "the cache lies on {words}");
    }
    let name = temporary_name();
    let path = ingest.path().join(&name);
    let mut file = ingest.open_file(&name)?;
    let moved = file
        .write_all(b"probe")
        .and_then(|()| file.sync_all())
        .map_err(|e| Error::storage("write and sync", &path, e))
        .and_then(|()| {
            match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, BYTES) {
                Ok(()) => Ok(()),
                // Space is then taken as bytes come; what is promised is counted all the same.
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                    tracing::warn!(
                        "the file system cannot set space aside: a full disk shows late"
                    );
                    Ok(())
                }
                Err(error) => Err(Error::storage("set space aside for", &path, error)),
            }
        })
        // Where `blobs` is a mount of its own, a blob could never appear at once.
        .and_then(|()| ingest.rename(&name, blobs, &name))
        .and_then(|()| blobs.sync());
    let _ = ingest.remove(&name);
    let _ = blobs.remove(&name);
    moved
}
