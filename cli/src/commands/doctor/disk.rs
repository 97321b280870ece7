//! The disk of the cache: what kind it is, what is left of it, whether it takes and keeps what is
//! written, and whom its folders belong to.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use bytesize::ByteSize;

use super::report::Report;
use crate::args::disk::DiskArgs;

const CHECK: &str = "disk";
const OWNERS: &str = "permissions";
/// Bytes of the file that is written to see whether that can be done.
const TRIAL_BYTES: usize = 64 * 1024;
/// A disk that takes longer to keep so little makes every pull wait.
const SLOW_SYNC: Duration = Duration::from_secs(1);
/// The folders that an agent makes.
const FOLDERS: [&str; 4] = ["blobs", "ingest", "views", "index"];

/// File systems by the numbers that the kernel has for them, and what is to be said of a cache there.
const KINDS: [(u64, &str, Option<&str>); 12] = [
    (0xef53, "ext4", None),
    (0x5846_5342, "xfs", None),
    (0x9123_683e, "btrfs", None),
    (0x2fc1_2fc1, "zfs", None),
    (0xf2f5_2010, "f2fs", None),
    (
        0x0102_1994,
        "tmpfs",
        Some(
            "it is memory: models are gone after a restart of the machine, and take memory until then",
        ),
    ),
    (0x8584_58f6, "ramfs", Some("it is memory, without a limit")),
    (
        0x794c_7630,
        "overlayfs",
        Some(
            "it is a container's own layer: the cache goes with the container; mount a folder of the node",
        ),
    ),
    (
        0x6969,
        "nfs",
        Some("it is on the network: a cache belongs on a disk of the node"),
    ),
    (
        0xff53_4d42,
        "cifs",
        Some("it is on the network: a cache belongs on a disk of the node"),
    ),
    (
        0x6573_5546,
        "fuse",
        Some("check that it can be mapped and that fsync reaches the disk"),
    ),
    (
        0x0102_1997,
        "9p",
        Some("check that it can be mapped and that fsync reaches the disk"),
    ),
];

/// Space, kind, and a trial of writing.
pub(super) fn check(cache: &Path, marks: &DiskArgs, report: &mut Report) -> Result<()> {
    let Some(place) = cache.ancestors().find(|folder| folder.is_dir()) else {
        let found = format!("{}: no folder above it exists", cache.display());
        return report.fail(CHECK, found, "name another folder with --data");
    };
    if place != cache {
        report.warn(
            CHECK,
            format!("{} is not there yet", cache.display()),
            "an agent makes it; what follows is about the folder above it",
        )?;
    }
    kind(place, report)?;
    space(place, marks, report)?;
    trial(place, report)
}

fn kind(place: &Path, report: &mut Report) -> Result<()> {
    let number = match rustix::fs::statfs(place) {
        // Narrower and signed on some machines; the numbers are positive and of 32 bits.
        Ok(found) => (found.f_type as u64) & 0xffff_ffff,
        Err(error) => {
            let found = format!("{}: {error}", place.display());
            return report.fail(CHECK, found, "check that the disk is mounted and healthy");
        }
    };
    let known = KINDS.iter().find(|(kind, ..)| *kind == number);
    match known {
        Some((_, name, None)) => report.ok(CHECK, format!("{} is on {name}", place.display())),
        Some((_, name, Some(advice))) => {
            report.warn(CHECK, format!("{} is on {name}", place.display()), *advice)
        }
        None => report.ok(
            CHECK,
            format!(
                "{} is on a file system of kind {number:#x}",
                place.display()
            ),
        ),
    }
}

fn space(place: &Path, marks: &DiskArgs, report: &mut Report) -> Result<()> {
    let Ok(found) = rustix::fs::statvfs(place) else {
        // Told by the kind already.
        return Ok(());
    };
    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    // As the agent reckons: what is set aside for root cannot be used.
    let free = bytes(found.f_bavail);
    let usable = bytes(found.f_blocks.saturating_sub(found.f_bfree)).saturating_add(free);
    let share = free.saturating_mul(100).checked_div(usable).unwrap_or(0);
    let used = 100 - share.min(100);
    let (free, usable) = (ByteSize(free), ByteSize(usable));
    let told = format!("{free} of {usable} free, {used} % in use");
    let (inodes, free_inodes) = (found.f_files, found.f_favail);
    if inodes > 0 && free_inodes < 1000 {
        let told = format!("{free_inodes} of {inodes} inodes free");
        report.fail(
            CHECK,
            told,
            "the file system has too many files: remove some",
        )?;
    }
    let (high, full) = (marks.high_watermark, 100 - marks.min_free);
    if used >= u64::from(full) {
        let advice = "no pull fits: remove models, or name a larger disk with --data";
        return report.fail(CHECK, told, advice);
    }
    if used >= u64::from(high) {
        let advice = format!("above {high} % an agent evicts models that were not used lately");
        return report.warn(CHECK, told, advice);
    }
    report.ok(CHECK, told)
}

/// Writes, syncs and removes a small file.
fn trial(place: &Path, report: &mut Report) -> Result<()> {
    let path = place.join(format!(".hayloft-doctor-{}", std::process::id()));
    let began = Instant::now();
    let write = || {
        let mut file = File::options().write(true).create_new(true).open(&path)?;
        file.write_all(&[0; TRIAL_BYTES])?;
        file.sync_all()
    };
    let written = write();
    let took = began.elapsed();
    // What could not be made need not be removed, and what was said of it says enough.
    let _ = fs::remove_file(&path);
    match written {
        Ok(()) if took > SLOW_SYNC => report.warn(
            CHECK,
            format!(
                "writing and syncing 64 KiB took {:.1} s",
                took.as_secs_f64()
            ),
            "the disk is slow or busy: pulls will wait for it",
        ),
        Ok(()) => report.ok(
            CHECK,
            format!("takes and keeps what is written ({} ms)", took.as_millis()),
        ),
        Err(error) => {
            let advice = match error.kind() {
                ErrorKind::PermissionDenied => {
                    "run as the owner of the folder, or give it to the agent's user with chown"
                }
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                    "free some space, or name a larger disk with --data"
                }
                ErrorKind::ReadOnlyFilesystem => {
                    "mount it for writing: an agent cannot work on a read-only cache"
                }
                _ => "check that the disk is mounted and healthy",
            };
            report.fail(
                CHECK,
                format!("{} cannot be written to: {error}", place.display()),
                advice,
            )
        }
    }
}

/// Whom the cache's folders belong to, and that they are folders.
pub(super) fn check_owners(cache: &Path, report: &mut Report) -> Result<()> {
    let user = rustix::process::geteuid().as_raw();
    let mut is_well = true;
    let folders = FOLDERS.map(|name| cache.join(name));
    for folder in std::iter::once(cache).chain(folders.iter().map(AsRef::as_ref)) {
        let Ok(found) = fs::symlink_metadata(folder) else {
            continue;
        };
        let name = folder.display();
        if !found.is_dir() {
            is_well = false;
            report.fail(
                OWNERS,
                format!("{name} is not a folder"),
                "somebody put something else in its place; an agent does not follow it: remove it",
            )?;
            continue;
        }
        if found.uid() != user && user != 0 {
            is_well = false;
            report.fail(
                OWNERS,
                format!(
                    "{name} belongs to user {}, and this is user {user}",
                    found.uid()
                ),
                "run the agent as one user, or give it the folder with chown -R",
            )?;
        }
        let mode = found.permissions().mode();
        if mode & 0o002 != 0 && mode & 0o1000 == 0 {
            is_well = false;
            report.warn(
                OWNERS,
                format!(
                    "{name} can be written to by everybody ({:o})",
                    mode & 0o7777
                ),
                "chmod o-w: whoever writes there can remove models",
            )?;
        }
    }
    if is_well {
        report.ok(OWNERS, format!("the cache belongs to user {user}"))?;
    }
    Ok(())
}
