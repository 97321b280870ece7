//! Running a command to its end and keeping what it said.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What a finished command left behind.
#[derive(Debug)]
pub struct Finished {
    /// Exit code; -1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Finished {
    /// Standard output of a command that must have succeeded.
    ///
    /// # Panics
    /// When the exit code is not 0.
    #[must_use]
    #[track_caller]
    pub fn succeeded(self) -> String {
        assert_eq!(
            self.code, 0,
            "stdout: {}\nstderr: {}",
            self.stdout, self.stderr
        );
        self.stdout
    }

    /// Standard error of a command that must have failed with an error of its own: not by a
    /// signal and not by a panic (which ends a Rust program with 101).
    ///
    /// # Panics
    /// When it succeeded, panicked or was killed.
    #[must_use]
    #[track_caller]
    pub fn failed(self) -> String {
        assert!(
            self.code > 0 && self.code != 101,
            "code {}\nstdout: {}\nstderr: {}",
            self.code,
            self.stdout,
            self.stderr
        );
        self.stderr
    }
}

/// The root of the project.
#[must_use]
pub fn project_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests crate lies in the project")
        .to_owned()
}

/// A file of `tests/fixtures`.
#[must_use]
pub fn fixture(name: &str) -> PathBuf {
    project_root().join("tests/fixtures").join(name)
}

/// The built binary: `HAYLOFT_BIN`, else the one beside this test.
///
/// # Panics
/// When it is not built: `make build` does that.
fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("HAYLOFT_BIN") {
        return path.into();
    }
    let this = std::env::current_exe().expect("a test knows its own path");
    let found = this
        .ancestors()
        .map(|folder| folder.join("hayloft"))
        .find(|candidate| candidate.is_file());
    found.expect("the hayloft binary is not built: run make build")
}

/// `hayloft` with arguments, shielded from the caller's environment.
pub fn hayloft_command<S: AsRef<std::ffi::OsStr>>(
    arguments: impl IntoIterator<Item = S>,
) -> Command {
    let mut command = Command::new(binary());
    command.args(arguments).stdin(Stdio::null());
    // Lists kept from earlier pushes of this user must not make a test's push shorter, and what
    // this user has configured is not what is tested.
    command
        .env("XDG_CACHE_HOME", "/nonexistent")
        .env("XDG_CONFIG_HOME", "/nonexistent")
        .env("DOCKER_CONFIG", "/nonexistent")
        .env_remove("REGISTRY_AUTH_FILE");
    let foreign = [
        "HAYLOFT_",
        "OLLAMA_",
        "OTEL_",
        "AWS_",
        "HF_",
        "HUGGING_FACE_",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "NO_PROXY",
        "SSL_CERT_",
    ];
    for (variable, _) in std::env::vars_os() {
        let name = variable.to_string_lossy().to_ascii_uppercase();
        if foreign.iter().any(|prefix| name.starts_with(prefix)) {
            command.env_remove(&variable);
        }
    }
    command
}

/// Runs a verb of `hayloft` to its end.
#[must_use]
pub fn hayloft(arguments: &[&str]) -> Finished {
    run(&mut hayloft_command(arguments))
}

/// Runs any command to its end.
///
/// # Panics
/// When the program cannot be started: `make test` installs all that the tests need.
pub fn run(command: &mut Command) -> Finished {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}"));
    Finished {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Asks a process to end, as `kill` does; false when there is none. The shell has that command
/// built in: the program of its name is not on every machine.
#[must_use]
pub fn ask_to_end(process: u32) -> bool {
    signal(process, "TERM")
}

/// Sends a process the signal that has servers read their files again.
///
/// # Panics
/// When there is no such process.
pub fn hang_up(process: u32) {
    assert!(signal(process, "HUP"), "the process is gone");
}

fn signal(process: u32, name: &str) -> bool {
    let line = format!("kill -{name} {process}");
    run(Command::new("sh").args(["-c", &line])).code == 0
}
