//! A process of its own that has a file open, or only mapped.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Opens, maps and closes the file; says so; keeps the mapping until its input ends.
const MAP: &str = "
import mmap, sys
file = open(sys.argv[1], 'rb')
mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
file.close()
print('mapped', flush=True)
sys.stdin.read()
";

/// A process that has mapped a file and closed it. It ends when dropped.
#[derive(Debug)]
pub struct Reader(Child);

impl Reader {
    /// Maps `file` in a process id namespace of its own, as a container has: nobody inside sees
    /// the others, and these see it as any process.
    ///
    /// # Panics
    /// When the process cannot be started or cannot map the file.
    #[must_use]
    pub fn map(file: &Path) -> Self {
        let mut process = Command::new("unshare")
            .args(["--pid", "--fork", "--kill-child", "python3", "-c", MAP])
            .arg(file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare starts");
        let mut said = String::new();
        let stdout = process.stdout.take().expect("stdout is piped");
        BufReader::new(stdout)
            .read_line(&mut said)
            .expect("the process speaks");
        assert_eq!(said.trim(), "mapped", "{} is not mapped", file.display());
        Self(process)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // Its input ends, and so does it.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}
