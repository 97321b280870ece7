//! Limits of the kernel that a busy agent can meet.

use anyhow::Result;
use rustix::process::{Resource, getrlimit};

use super::report::Report;

const CHECK: &str = "limits";
/// A connection is a file, and so is a blob: thirty pulls over sixteen connections each need some
/// hundreds.
const ENOUGH_FILES: u64 = 4096;

pub(super) fn check(report: &mut Report) -> Result<()> {
    match getrlimit(Resource::Nofile).current {
        Some(files) if files < ENOUGH_FILES => report.warn(
            CHECK,
            format!("{files} files may be open at once"),
            format!("raise it: ulimit -n {ENOUGH_FILES}, or LimitNOFILE= of the service"),
        ),
        Some(files) => report.ok(CHECK, format!("{files} files may be open at once")),
        None => report.ok(CHECK, "any number of files may be open at once"),
    }
}
