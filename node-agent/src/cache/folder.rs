//! Folder: an open folder of the cache. Everything below it is reached by one name at a time and
//! without following links, so that a link planted in the cache never leads out of it.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

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

/// An open folder and its path, which serves for messages only.
#[derive(Debug)]
pub(crate) struct Folder {
    fd: OwnedFd,
    path: PathBuf,
}

impl Folder {
    /// Opens the cache's root and makes it if need be. Links above it are the operator's choice
    /// and are followed.
    pub(crate) fn open_root(path: &Path) -> Result<Self, Error> {
        std::fs::create_dir_all(path).map_err(|e| Error::storage("create", path, e))?;
        let flags = FOLDER_FLAGS.difference(OFlags::NOFOLLOW);
        let fd = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|e| Error::storage("open", path, e))?;
        Ok(Self {
            fd,
            path: path.to_owned(),
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The folder of that name in this one, made if need be.
    pub(crate) fn child(&self, name: &str) -> Result<Self, Error> {
        let path = self.path.join(name);
        match rustix::fs::mkdirat(&self.fd, name, Mode::from_raw_mode(FOLDER_MODE)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(Error::storage("create", &path, error)),
        }
        let fd = rustix::fs::openat(&self.fd, name, FOLDER_FLAGS, Mode::empty())
            .map_err(|e| Error::storage("open", &path, e))?;
        Ok(Self { fd, path })
    }

    /// The folder of that name, or nothing when there is none; a link counts as none.
    pub(crate) fn existing(&self, name: &str) -> Result<Option<Self>, Error> {
        let path = self.path.join(name);
        match rustix::fs::openat(&self.fd, name, FOLDER_FLAGS, Mode::empty()) {
            Ok(fd) => Ok(Some(Self { fd, path })),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(error) => Err(Error::storage("open", &path, error)),
        }
    }

    /// Opens a file for reading and writing; it is made when it is not there.
    pub(crate) fn open_file(&self, name: &str) -> Result<File, Error> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.fd, name, flags, Mode::from_raw_mode(0o600))
            .map(File::from)
            .map_err(|e| Error::storage("open", &self.path.join(name), e))
    }

    /// Opens a file for reading, or gives nothing when there is none.
    pub(crate) fn read_file(&self, name: &str) -> Result<Option<File>, Error> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(File::from(fd))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(Error::storage("open", &self.path.join(name), error)),
        }
    }

    /// What is under the name, without following a link; nothing when nothing is.
    pub(crate) fn stat(&self, name: &str) -> Result<Option<Stat>, Error> {
        match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
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
        rustix::fs::renameat(&self.fd, name, &to.fd, new_name)
            .map_err(|e| Error::storage("move a file to", &to.path.join(new_name), e))
    }

    /// Removes a file or a link; whether there was one.
    pub(crate) fn remove(&self, name: &str) -> Result<bool, Error> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(Error::storage("remove", &self.path.join(name), error)),
        }
    }

    /// Removes an empty folder; whether it is gone. One that is not empty stays.
    pub(crate) fn remove_folder(&self, name: &str) -> Result<bool, Error> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(true),
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => Ok(false),
            Err(error) => Err(Error::storage("remove", &self.path.join(name), error)),
        }
    }

    /// Makes a link with the given text as its target.
    pub(crate) fn link(&self, target: &Path, name: &str) -> Result<(), Error> {
        rustix::fs::symlinkat(target, &self.fd, name)
            .map_err(|e| Error::storage("create", &self.path.join(name), e))
    }

    /// The target of a link, or nothing when the name is no link.
    pub(crate) fn read_link(&self, name: &str) -> Result<Option<PathBuf>, Error> {
        match rustix::fs::readlinkat(&self.fd, name, Vec::new()) {
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
        for entry in Dir::read_from(&self.fd).map_err(fault)? {
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
        rustix::fs::fsync(&self.fd).map_err(|e| Error::storage("sync", &self.path, e))
    }

    /// How full the file system is.
    pub(crate) fn disk(&self) -> Result<Disk, Error> {
        let stat = rustix::fs::fstatvfs(&self.fd)
            .map_err(|e| Error::storage("ask for the free space of", &self.path, e))?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Ok(Disk {
            used: bytes(stat.f_blocks.saturating_sub(stat.f_bfree)),
            available: bytes(stat.f_bavail),
            inodes: stat.f_files,
            free_inodes: stat.f_favail,
        })
    }

    /// Takes the lock file of that name; nothing when another process holds it.
    pub(crate) fn lock(&self, name: &str) -> Result<Option<File>, Error> {
        let file = self.open_file(name)?;
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
