//! InUse: whether a process of this machine has a file of the cache open or mapped.
//!
//! In a pod the agent does not see the processes of other pods, but the kernel does: it grants a
//! write lease (fcntl(2), `F_SETLEASE`) only while nobody else has the file open, and a mapping
//! keeps its file open. So the agent asks for one, and whoever opens the file meanwhile waits until
//! it is given back. File systems without leases (some network ones) are answered by what `/proc`
//! shows, which in a pod is little.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

/// Chooses the signal about a file; libc does not name it. The same on all machines we build for.
const F_SETSIG: libc::c_int = 10;

/// A file that nobody else has open. Whoever opens it waits until this is dropped, so that it can be
/// deleted in between without a doubt.
#[derive(Debug)]
pub(crate) struct SoleUse {
    /// Closing it gives the lease back.
    _file: File,
}

/// Takes a blob, called `name`, for this process alone; nothing when somebody uses it. The file must
/// not be open in this process either.
pub(crate) fn take(file: File, name: &str) -> Option<SoleUse> {
    match lease(&file) {
        Ok(()) => Some(SoleUse { _file: file }),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
        Err(error) => {
            tracing::debug!(name, %error, "the file system has no leases; /proc is looked through");
            (!is_visibly_used(name, file.as_raw_fd())).then_some(SoleUse { _file: file })
        }
    }
}

fn lease(file: &File) -> io::Result<()> {
    // Who opens the file while it is leased makes the kernel signal the holder: with SIGIO, which
    // ends a process that does not expect it, unless it is told to use one that does nothing.
    fcntl(file, F_SETSIG, libc::SIGURG)?;
    fcntl(file, libc::F_SETLEASE, libc::F_WRLCK)
}

#[expect(
    unsafe_code,
    reason = "neither the standard library nor rustix can take a lease on a file"
)]
fn fcntl(file: &File, command: libc::c_int, argument: libc::c_int) -> io::Result<()> {
    // SAFETY: the descriptor is open for as long as `file` is borrowed, and both commands that are
    // used here take an integer and read or write no memory of this process.
    let outcome = unsafe { libc::fcntl(file.as_raw_fd(), command, argument) };
    if outcome == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Whether a process that `/proc` shows has a file of this name open or mapped, the descriptor
/// `own` of this process aside. The name of a blob is its digest, so no other file has it.
fn is_visibly_used(name: &str, own: libc::c_int) -> bool {
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return false;
    };
    let own = (std::process::id().to_string(), own.to_string());
    processes.flatten().any(|process| {
        let id = process.file_name();
        let Some(id) = id.to_str().filter(|id| id.parse::<u32>().is_ok()) else {
            return false;
        };
        let folder = process.path();
        has_mapped(&folder, name)
            || has_open(&folder, name, (id == own.0).then_some(own.1.as_str()))
    })
}

fn has_mapped(process: &Path, name: &str) -> bool {
    // A process that ends meanwhile, or that belongs to somebody else, shows nothing.
    std::fs::read_to_string(process.join("maps"))
        .is_ok_and(|maps| maps.lines().any(|line| line.ends_with(name)))
}

fn has_open(process: &Path, name: &str, own: Option<&str>) -> bool {
    let Ok(descriptors) = std::fs::read_dir(process.join("fd")) else {
        return false;
    };
    descriptors.flatten().any(|descriptor| {
        own.is_none_or(|own| descriptor.file_name() != own)
            && std::fs::read_link(descriptor.path()).is_ok_and(|path| path.ends_with(name))
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use std::fs::File;
    use std::os::fd::AsRawFd;

    use super::{is_visibly_used, take};

    #[test]
    fn a_file_that_is_open_somewhere_is_not_given_away() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0a1b2c-in-use");
        std::fs::write(&path, b"weights").unwrap();
        let name = "0a1b2c-in-use";
        let reader = File::open(&path).unwrap();
        assert!(take(File::open(&path).unwrap(), name).is_none());
        let mine = File::open(&path).unwrap();
        assert!(is_visibly_used(name, mine.as_raw_fd()));
        drop(reader);
        assert!(!is_visibly_used(name, mine.as_raw_fd()));
        let sole = take(mine, name).unwrap();
        // Opening it now makes the kernel signal this process, which must live on.
        let opened = std::thread::spawn(move || File::open(path).unwrap());
        drop(sole);
        opened.join().unwrap();
    }
}
