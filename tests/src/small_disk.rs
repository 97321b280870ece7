//! A small file system of its own, to fill.

use std::path::Path;
use std::process::Command;

use crate::{run, scratch};

/// A mounted tmpfs; it is gone with the value.
#[derive(Debug)]
pub struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// Mounts one of so many mebibytes.
    ///
    /// # Panics
    /// Without the right to mount.
    #[must_use]
    pub fn mount(mebibytes: usize) -> Self {
        let folder = scratch();
        let size = format!("size={mebibytes}m");
        let mounted = run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(folder.path()));
        assert_eq!(
            mounted.code, 0,
            "this test mounts a small disk, which takes root: {}",
            mounted.stderr
        );
        Self(folder)
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
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
