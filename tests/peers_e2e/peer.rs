//! The peers themselves: where their programs lie, how the servers among them start, small inputs.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tests::{hayloft, project_root, run};

/// A program that `scripts/build-peers.sh` has built.
pub(crate) fn program(name: &str) -> PathBuf {
    let path = project_root().join(".peers/bin").join(name);
    assert!(
        path.is_file(),
        "{} is not built: run make test-peers",
        path.display()
    );
    path
}

/// A command of a peer, with a home of its own so that it reads nobody's configuration.
pub(crate) fn command(name: &str, home: &Path) -> Command {
    let mut command = Command::new(program(name));
    command
        .env("HOME", home)
        .env("XDG_CONFIG_HOME", home.join("config"));
    command
}

/// Runs a command that must succeed; gives its standard output without the last newline.
#[track_caller]
pub(crate) fn output(command: &mut Command) -> String {
    run(command).succeeded().trim_end().to_owned()
}

/// A server that another project wrote. Dropping it ends the process.
#[derive(Debug)]
pub(crate) struct PeerServer {
    child: Child,
    address: String,
}

impl PeerServer {
    /// Starts a server that logs the address it listens on, after the word `marker`.
    pub(crate) fn start(mut command: Command, marker: &str) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}"));
        let mut log = BufReader::new(child.stderr.take().expect("stderr is piped"));
        let mut seen = String::new();
        let address = loop {
            let start = seen.len();
            let read = log.read_line(&mut seen).expect("the log can be read");
            assert_ne!(read, 0, "{command:?} ended before it listened:\n{seen}");
            if let Some(address) = address_after(&seen[start..], marker) {
                break address;
            }
        };
        // Read on, so that the server never blocks on a full pipe.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self { child, address }
    }

    /// `host:port`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Ends it at once, as `kill -9` does.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("the server can be killed");
        self.child.wait().expect("the server can be waited for");
    }
}

impl Drop for PeerServer {
    /// Asks first: Ollama takes its engine process along only when it may end by itself.
    fn drop(&mut self) {
        let _ = tests::ask_to_end(self.child.id());
        let deadline = Instant::now() + Duration::from_secs(10);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            #[expect(
                clippy::disallowed_methods,
                reason = "the pause between two looks, within a deadline"
            )]
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The `host:port` that follows `marker` in a line of a log.
fn address_after(line: &str, marker: &str) -> Option<String> {
    let (_, rest) = line.split_once(marker)?;
    let end = rest
        .find(|character: char| !(character.is_ascii_digit() || ".:".contains(character)))
        .unwrap_or(rest.len());
    Some(rest[..end].to_owned())
}

/// Packs a folder with two small files into a layer, as `tar` does.
pub(crate) fn small_layer(folder: &Path) -> PathBuf {
    let content = folder.join("content");
    std::fs::create_dir_all(&content).expect("the folder can be made");
    std::fs::write(content.join("hay"), "dry grass\n").expect("the file can be written");
    std::fs::write(content.join("loft"), vec![7_u8; 300_000]).expect("the file can be written");
    let layer = folder.join("layer.tar");
    output(
        Command::new("tar")
            .arg("-C")
            .arg(&content)
            .arg("-cf")
            .arg(&layer)
            .arg("."),
    );
    layer
}

/// Pushes the bundled model under a name of this registry; gives the reference.
pub(crate) fn push_model(address: &str, name: &str) -> String {
    let reference = format!("{address}/{name}");
    let model = tests::fixture("hay-tiny-q8_0.gguf");
    let _ = hayloft(&["push", model.to_str().expect("a UTF-8 path"), &reference]).succeeded();
    reference
}

/// Pulls a model through an agent and compares its weights with the bundled file.
pub(crate) fn assert_pulls_the_bundled_model(reference: &str) {
    let agent = tests::Server::agent().start();
    let _ = hayloft(&["pull", reference, "--agent", &agent.url()]).succeeded();
    let bundled =
        std::fs::read(tests::fixture("hay-tiny-q8_0.gguf")).expect("the fixture is there");
    let cached = files_below(agent.data())
        .into_iter()
        .any(|path| std::fs::read(path).is_ok_and(|bytes| bytes == bundled));
    assert!(
        cached,
        "the cache lacks the weights of {reference}:\n{}",
        agent.log()
    );
}

/// Every regular file below a folder, links followed only to files.
pub(crate) fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("the folder can be read") {
            let entry = entry.expect("the folder can be read");
            let kind = entry.file_type().expect("the entry has a type");
            if kind.is_dir() {
                folders.push(entry.path());
            } else if entry.path().is_file() {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    files
}
