//! A small file system of its own, to fill.

use std::path::Path;
use std::process::Command;

use crate::{run, scratch};

/// A mounted file system; it is gone with the value.
#[derive(Debug)]
pub struct SmallDisk {
    folder: tempfile::TempDir,
    /// What holds it, where that is not memory.
    _image: Option<tempfile::TempDir>,
}

impl SmallDisk {
    /// Mounts a tmpfs of so many mebibytes.
    ///
    /// # Panics
    /// Without the right to mount.
    #[must_use]
    pub fn mount(mebibytes: usize) -> Self {
        let size = format!("size={mebibytes}m");
        Self::mounted(&["-t", "tmpfs", "-o", &size, "tmpfs"], None)
    }

    /// Mounts an XFS of so many mebibytes, 300 at least: files there can share their blocks.
    ///
    /// # Panics
    /// Without the right to mount, or without XFS.
    #[must_use]
    pub fn xfs(mebibytes: u64) -> Self {
        let holder = scratch();
        let image = holder.path().join("image");
        let file = std::fs::File::create(&image).expect("an image");
        file.set_len(mebibytes << 20).expect("a sparse image");
        let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
        let made = run(Command::new("mkfs.xfs")
            .env("PATH", path)
            .arg("-q")
            .arg(&image));
        assert_eq!(made.code, 0, "mkfs.xfs: {}", made.stderr);
        let image = image.to_str().expect("a path of text");
        Self::mounted(&["-o", "loop", image], Some(holder))
    }

    fn mounted(arguments: &[&str], image: Option<tempfile::TempDir>) -> Self {
        let folder = scratch();
        let mounted = run(Command::new("mount").args(arguments).arg(folder.path()));
        assert_eq!(
            mounted.code, 0,
            "this test mounts a small disk, which takes root: {}",
            mounted.stderr
        );
        Self {
            folder,
            _image: image,
        }
    }

    /// Bytes that are in use, after everything was written out.
    ///
    /// # Panics
    /// When `df` cannot tell.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        let _ = run(Command::new("sync").arg("-f").arg(self.path()));
        let df = run(Command::new("df")
            .args(["--output=used", "-B1"])
            .arg(self.path()));
        let used = df.stdout.lines().last().unwrap_or_default();
        used.trim().parse().expect("a count of bytes")
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Takes all the space that is left, to the last page; again, if some was given back since.
    ///
    /// # Panics
    /// When the filler cannot be made.
    pub fn fill(&self) {
        let mut options = std::fs::File::options();
        let filler = options.create(true).append(true).open(self.filler());
        let mut filler = filler.expect("a filler");
        let block = vec![0; 64 * 1024];
        while std::io::Write::write_all(&mut filler, &block).is_ok() {}
    }

    /// Gives back what [`SmallDisk::fill`] took.
    ///
    /// # Panics
    /// When it took nothing.
    pub fn free(&self) {
        std::fs::remove_file(self.filler()).expect("a filler");
    }

    fn filler(&self) -> std::path::PathBuf {
        self.path().join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = run(Command::new("umount").arg("--lazy").arg(self.path()));
    }
}
