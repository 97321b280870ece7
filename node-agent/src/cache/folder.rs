//! Folder: an open folder of the cache. Everything below it is reached by one name at a time and
//! without following links, so that a link planted in the cache never leads out of it.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::error::Error;

const FOLDER_MODE: u32 = 0o755;
const FOLDER_FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// How full a file system is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Disk {
    /// Bytes that are taken.
    pub(crate) used: u64,
    /// Bytes that the agent may take.
    pub(crate) available: u64,
    /// Files that it can hold; none where it has no such bound.
    pub(crate) inodes: u64,
    /// Files that can still be made.
    pub(crate) free_inodes: u64,
}

impl Disk {
    /// Bytes that can be used at all: what is set aside for root counts for nothing, as with df(1).
    pub(crate) fn usable(&self) -> u64 {
        self.used.saturating_add(self.available)
    }
}

/// An open folder and its path, which serves for messages only. What is open can be exchanged when
/// the name leads to another folder now.
#[derive(Debug)]
pub(crate) struct Folder {
    open: ArcSwap<OwnedFd>,
    path: PathBuf,
}

impl Folder {
    /// Opens the cache's root and makes it if need be. Links above it are the operator's choice
    /// and are followed.
    pub(crate) fn open_root(path: &Path) -> Result<Self, Error> {
        Ok(Self::new(open_root(path)?, path.to_owned()))
    }

    fn new(fd: OwnedFd, path: PathBuf) -> Self {
        Self {
            open: ArcSwap::from_pointee(fd),
            path,
        }
    }

    /// What is open now.
    fn fd(&self) -> Guard<Arc<OwnedFd>> {
        self.open.load()
    }

    /// Opens the cache's root anew, for it is another folder now.
    pub(crate) fn reopen_root(&self) -> Result<(), Error> {
        self.open.store(Arc::new(open_root(&self.path)?));
        Ok(())
    }

    /// Opens the folder of that name in `parent` anew.
    pub(crate) fn reopen(&self, parent: &Self, name: &str) -> Result<(), Error> {
        self.open.store(Arc::new(parent.open_child(name)?));
        Ok(())
    }

    /// Whether its path still leads to what is open.
    pub(crate) fn is_at_its_path(&self) -> bool {
        rustix::fs::stat(&self.path)
            .is_ok_and(|stat| Some((stat.st_dev, stat.st_ino)) == self.identity())
    }

    /// Whether that name in `parent` still leads to what is open.
    pub(crate) fn is_at(&self, parent: &Self, name: &str) -> Result<bool, Error> {
        let named = parent.stat(name)?;
        Ok(named.map(|stat| (stat.st_dev, stat.st_ino)) == self.identity())
    }

    /// Device and number of what is open.
    pub(crate) fn identity(&self) -> Option<(u64, u64)> {
        identity(self.fd().as_fd())
    }

    /// The number of the file system's kind, as statfs(2) has it; 0 when it is not known.
    pub(crate) fn file_system(&self) -> u64 {
        rustix::fs::fstatfs(self.fd().as_fd())
            .ok()
            .and_then(|stat| u64::try_from(stat.f_type).ok())
            .unwrap_or(0)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The folder of that name in this one, made if need be.
    pub(crate) fn child(&self, name: &str) -> Result<Self, Error> {
        let path = self.path.join(name);
        Ok(Self::new(self.open_child(name)?, path))
    }

    fn open_child(&self, name: &str) -> Result<OwnedFd, Error> {
        let path = self.path.join(name);
        let fd = self.fd();
        match rustix::fs::mkdirat(fd.as_fd(), name, Mode::from_raw_mode(FOLDER_MODE)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(Error::storage("create", &path, error)),
        }
        let child = rustix::fs::openat(fd.as_fd(), name, FOLDER_FLAGS, Mode::empty())
            .map_err(|e| Error::storage("open", &path, e))?;
        make_safe(&child, &path)?;
        Ok(child)
    }

    /// The folder of that name, or nothing when there is none; a link counts as none.
    pub(crate) fn existing(&self, name: &str) -> Result<Option<Self>, Error> {
        let path = self.path.join(name);
        match rustix::fs::openat(self.fd().as_fd(), name, FOLDER_FLAGS, Mode::empty()) {
            Ok(fd) => Ok(Some(Self::new(fd, path))),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(error) => Err(Error::storage("open", &path, error)),
        }
    }

    /// Opens a file for reading and writing; it is made when it is not there.
    pub(crate) fn open_file(&self, name: &str) -> Result<File, Error> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(self.fd().as_fd(), name, flags, Mode::from_raw_mode(0o600))
            .map(File::from)
            .map_err(|e| Error::storage("open", &self.path.join(name), e))
    }

    /// Opens a file for reading, or gives nothing when there is none.
    pub(crate) fn read_file(&self, name: &str) -> Result<Option<File>, Error> {
        self.read_file_with(name, OFlags::empty())
    }

    /// The same with flags of its own.
    pub(crate) fn read_file_with(&self, name: &str, flags: OFlags) -> Result<Option<File>, Error> {
        let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(self.fd().as_fd(), name, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(File::from(fd))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(Error::storage("open", &self.path.join(name), error)),
        }
    }

    /// What is under the name, without following a link; nothing when nothing is.
    pub(crate) fn stat(&self, name: &str) -> Result<Option<Stat>, Error> {
        match rustix::fs::statat(self.fd().as_fd(), name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(Error::storage("look at", &self.path.join(name), error)),
        }
    }

    /// The length of the regular file of that name; nothing when there is no such file.
    pub(crate) fn file_size(&self, name: &str) -> Result<Option<u64>, Error> {
        let stat = self.stat(name)?;
        Ok(stat
            .filter(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile)
            .and_then(|stat| u64::try_from(stat.st_size).ok()))
    }

    /// Moves a file or a link into another folder of the cache, over what has that name there.
    pub(crate) fn rename(&self, name: &str, to: &Self, new_name: &str) -> Result<(), Error> {
        rustix::fs::renameat(self.fd().as_fd(), name, to.fd().as_fd(), new_name)
            .map_err(|e| Error::storage("move a file to", &to.path.join(new_name), e))
    }

    /// Removes a file or a link; whether there was one.
    pub(crate) fn remove(&self, name: &str) -> Result<bool, Error> {
        match rustix::fs::unlinkat(self.fd().as_fd(), name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(Error::storage("remove", &self.path.join(name), error)),
        }
    }

    /// Removes an empty folder; whether it is gone. One that is not empty stays.
    pub(crate) fn remove_folder(&self, name: &str) -> Result<bool, Error> {
        match rustix::fs::unlinkat(self.fd().as_fd(), name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(true),
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => Ok(false),
            Err(error) => Err(Error::storage("remove", &self.path.join(name), error)),
        }
    }

    /// Makes a link with the given text as its target.
    pub(crate) fn link(&self, target: &Path, name: &str) -> Result<(), Error> {
        rustix::fs::symlinkat(target, self.fd().as_fd(), name)
            .map_err(|e| Error::storage("create", &self.path.join(name), e))
    }

    /// The target of a link, or nothing when the name is no link.
    pub(crate) fn read_link(&self, name: &str) -> Result<Option<PathBuf>, Error> {
        match rustix::fs::readlinkat(self.fd().as_fd(), name, Vec::new()) {
            Ok(target) => {
                use std::os::unix::ffi::OsStrExt as _;
                Ok(Some(PathBuf::from(OsStr::from_bytes(target.as_bytes()))))
            }
            Err(Errno::NOENT | Errno::INVAL) => Ok(None),
            Err(error) => Err(Error::storage("read", &self.path.join(name), error)),
        }
    }

    /// The names in the folder that are text, and what they are.
    pub(crate) fn entries(&self) -> Result<Vec<(String, FileType)>, Error> {
        let fault = |error: Errno| Error::storage("list", &self.path, error);
        let mut entries = Vec::new();
        for entry in Dir::read_from(self.fd().as_fd()).map_err(fault)? {
            let entry = entry.map_err(fault)?;
            let Ok(name) = entry.file_name().to_str() else {
                continue;
            };
            if name != "." && name != ".." {
                let kind = match entry.file_type() {
                    FileType::Unknown => self.stat(name)?.map_or(FileType::Unknown, |stat| {
                        FileType::from_raw_mode(stat.st_mode)
                    }),
                    known => known,
                };
                entries.push((name.to_owned(), kind));
            }
        }
        Ok(entries)
    }

    /// Makes renames and removals in this folder durable.
    pub(crate) fn sync(&self) -> Result<(), Error> {
        rustix::fs::fsync(self.fd().as_fd()).map_err(|e| Error::storage("sync", &self.path, e))
    }

    /// How full the file system is.
    pub(crate) fn disk(&self) -> Result<Disk, Error> {
        let stat = rustix::fs::fstatvfs(self.fd().as_fd())
            .map_err(|e| Error::storage("ask for the free space of", &self.path, e))?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Ok(Disk {
            used: bytes(stat.f_blocks.saturating_sub(stat.f_bfree)),
            available: bytes(stat.f_bavail),
            inodes: stat.f_files,
            free_inodes: stat.f_favail,
        })
    }

    /// Takes the lock file of that name; nothing when another process holds it. Where no file can be
    /// made or opened for writing, since the disk is read-only, the folder itself is locked.
    pub(crate) fn lock(&self, name: &str) -> Result<Option<File>, Error> {
        let file = match self.open_file(name) {
            Err(Error::Storage { source, .. })
                if source.kind() == io::ErrorKind::ReadOnlyFilesystem =>
            {
                let folder = self.fd().try_clone();
                File::from(folder.map_err(|e| Error::storage("open", &self.path, e))?)
            }
            opened => opened?,
        };
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file)),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(Error::storage(
                "lock",
                &self.path.join(name),
                io::Error::from(error),
            )),
        }
    }
}

/// Device and number of an open file.
pub(crate) fn identity(file: BorrowedFd<'_>) -> Option<(u64, u64)> {
    let stat = rustix::fs::fstat(file).ok()?;
    Some((stat.st_dev, stat.st_ino))
}

fn open_root(path: &Path) -> Result<OwnedFd, Error> {
    std::fs::create_dir_all(path).map_err(|e| Error::storage("create", path, e))?;
    let flags = FOLDER_FLAGS.difference(OFlags::NOFOLLOW);
    let fd = rustix::fs::open(path, flags, Mode::empty())
        .map_err(|e| Error::storage("open", path, e))?;
    make_safe(&fd, path)?;
    Ok(fd)
}

/// Nobody but the agent and root may change the folder: one of ours that others may write to is
/// closed to them; one of somebody else's is refused.
fn make_safe(folder: &OwnedFd, path: &Path) -> Result<(), Error> {
    const OTHERS_WRITE: u32 = 0o022;
    const EVERYBODY_WRITES: u32 = 0o002;
    let stat = rustix::fs::fstat(folder).map_err(|e| Error::storage("look at", path, e))?;
    let us = rustix::process::geteuid().as_raw();
    let refuse = |reason: String| {
        Err(Error::Unsafe {
            path: path.to_owned(),
            reason,
        })
    };
    if stat.st_uid != us && stat.st_uid != 0 {
        return refuse(format!(
            "it belongs to user {}, and the agent runs as {us}: run chown {us} on it, or name another folder",
            stat.st_uid
        ));
    }
    if stat.st_mode & OTHERS_WRITE == 0 {
        return Ok(());
    }
    if stat.st_uid != us {
        // A group that root lets write is how an agent that is not root gets in at all.
        return match stat.st_mode & EVERYBODY_WRITES {
            0 => Ok(()),
            _ => refuse("everybody may write to it: run chmod o-w on it".to_owned()),
        };
    }
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777 & !OTHERS_WRITE);
    match rustix::fs::fchmod(folder, mode) {
        Ok(()) => {
            tracing::warn!(path = %path.display(), "others could write to the cache; now they cannot");
            Ok(())
        }
        // Nobody can write there now, whatever the mode says.
        Err(Errno::ROFS) => Ok(()),
        Err(error) => Err(Error::storage("close to others", path, error)),
    }
}
