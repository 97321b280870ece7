//! A role of the real binary in a process of its own.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Stdio};

use crate::command::hayloft_command;

/// How to start a [`Server`].
#[derive(Debug)]
pub struct Builder {
    role: String,
    data: Option<PathBuf>,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    only_configured: bool,
}

impl Builder {
    /// Leaves out the flags for data folder and addresses: a file or the environment has them.
    #[must_use]
    pub fn only_configured(mut self) -> Self {
        self.only_configured = true;
        self
    }

    /// The data folder, so that it outlives the server; a temporary one otherwise.
    #[must_use]
    pub fn data(mut self, folder: &Path) -> Self {
        self.data = Some(folder.to_owned());
        self
    }

    /// One more argument.
    #[must_use]
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// One more variable of the environment.
    #[must_use]
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts it and waits until every role listens.
    ///
    /// # Panics
    /// When it ends before that; the message carries its log.
    #[must_use]
    pub fn start(self) -> Server {
        let temporary = crate::scratch();
        let data = self.data.unwrap_or_else(|| temporary.path().join("data"));
        let log = temporary.path().join("log");
        let roles: &[&str] = match self.role.as_str() {
            "serve" => &["registry", "agent", "runtime"],
            _ => std::slice::from_ref(
                ROLES
                    .iter()
                    .find(|role| **role == self.role)
                    .expect("a known role"),
            ),
        };
        let mut command = hayloft_command([self.role.as_str()]);
        if !self.only_configured {
            command.arg("--data").arg(&data);
            for role in roles {
                let flag = match self.role.as_str() {
                    "serve" => format!("--{role}-listen"),
                    _ => "--listen".to_owned(),
                };
                command.args([flag.as_str(), "127.0.0.1:0"]);
            }
        }
        command.args(&self.arguments).envs(self.environment);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(File::create(&log).expect("the log can be made"))
            .spawn()
            .expect("the hayloft binary starts");
        let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let (urls, stdout) = read_urls(stdout, roles, &log);
        // Read on, so that the server never blocks on a full pipe.
        std::thread::spawn(move || std::io::copy(&mut { stdout }, &mut std::io::sink()));
        Server {
            child,
            role: self.role,
            urls,
            data,
            log,
            _temporary: temporary,
        }
    }
}

const ROLES: [&str; 3] = ["registry", "agent", "runtime"];

/// Reads `hayloft ROLE listening on SCHEME://ADDRESS` until every role has said so.
fn read_urls(
    mut stdout: BufReader<ChildStdout>,
    roles: &[&str],
    log: &Path,
) -> (HashMap<String, String>, BufReader<ChildStdout>) {
    let mut urls = HashMap::new();
    while !roles.iter().all(|role| urls.contains_key(*role)) {
        let mut line = String::new();
        let read = stdout.read_line(&mut line).expect("stdout can be read");
        if read == 0 {
            let log = std::fs::read_to_string(log).unwrap_or_default();
            panic!("hayloft ended before it listened; its log:\n{log}");
        }
        let Some((role, url)) = line
            .trim()
            .strip_prefix("hayloft ")
            .and_then(|rest| rest.split_once(" listening on "))
        else {
            continue;
        };
        urls.insert(role.to_owned(), url.to_owned());
    }
    (urls, stdout)
}

/// A running role. Dropping it kills the process.
#[derive(Debug)]
pub struct Server {
    child: Child,
    role: String,
    urls: HashMap<String, String>,
    data: PathBuf,
    log: PathBuf,
    _temporary: tempfile::TempDir,
}

impl Server {
    /// `hayloft registry`.
    #[must_use]
    pub fn registry() -> Builder {
        Self::role("registry")
    }

    /// `hayloft agent`.
    #[must_use]
    pub fn agent() -> Builder {
        Self::role("agent")
    }

    /// `hayloft runtime`.
    #[must_use]
    pub fn runtime() -> Builder {
        Self::role("runtime")
    }

    /// `hayloft serve`: all three.
    #[must_use]
    pub fn all() -> Builder {
        Self::role("serve")
    }

    fn role(role: &str) -> Builder {
        Builder {
            role: role.to_owned(),
            data: None,
            arguments: Vec::new(),
            environment: Vec::new(),
            only_configured: false,
        }
    }

    /// `host:port` of the only role, or of a named one of `serve`; of a registry's `metrics`.
    ///
    /// # Panics
    /// When the role is not part of this server.
    #[must_use]
    pub fn address_of(&self, role: &str) -> &str {
        let (_, address) = self.find(role).split_once("://").expect("a URL");
        address
    }

    /// `host:port` of a server with one role.
    ///
    /// # Panics
    /// When it has several.
    #[must_use]
    pub fn address(&self) -> &str {
        self.address_of(&self.role)
    }

    /// `http://host:port` of a server with one role; `https` for one with a certificate.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of(&self.role)
    }

    /// `http://host:port` of a named role.
    #[must_use]
    pub fn url_of(&self, role: &str) -> String {
        self.find(role).to_owned()
    }

    fn find(&self, role: &str) -> &str {
        self.urls
            .get(role)
            .expect("the role runs here: name it with address_of")
    }

    /// The data folder.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        let mut text = String::new();
        if let Ok(mut file) = File::open(&self.log) {
            let _ = file.read_to_string(&mut text);
        }
        text
    }

    /// Kills it at once, as `kill -9` does, and waits until it is gone.
    ///
    /// # Panics
    /// When it cannot be killed.
    pub fn kill(&mut self) {
        self.child.kill().expect("the server can be killed");
        self.child.wait().expect("the server can be waited for");
    }

    /// Asks it to end, as `kill` does, and gives its exit code.
    ///
    /// # Panics
    /// When it cannot be signalled.
    pub fn terminate(&mut self) -> Option<i32> {
        assert!(crate::ask_to_end(self.id()), "the server is gone already");
        self.wait()
    }

    /// Waits until it has ended, and gives its exit code.
    ///
    /// # Panics
    /// When it cannot be waited for.
    pub fn wait(&mut self) -> Option<i32> {
        let ended = self.child.wait().expect("the server can be waited for");
        ended.code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let log = self.log();
        if log.contains("panicked at") && !std::thread::panicking() {
            panic!("the server panicked:\n{log}");
        }
    }
}
