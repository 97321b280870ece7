//! Logging in with the clients that people have: docker, podman, crane, regctl, helm; over plain
//! HTTP on loopback and over TLS with a private authority.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tests::{Authority, Finished, Server, run, scratch};

use crate::peer::{self, output};

const PASSWORD: &str = "canary-right-Zq81";
const ACCOUNTS: &str = "ann:$2y$05$abcdefghijklmnopqrstuut4UwPSTb038GyphAbsq1wFmQT4wtOhm\n";

/// A registry with one account, and what its clients need.
struct Guarded {
    server: Server,
    home: tempfile::TempDir,
    authority: Option<Authority>,
}

impl Guarded {
    fn start(is_tls: bool) -> Self {
        let home = scratch();
        let accounts = home.path().join("htpasswd");
        std::fs::write(&accounts, ACCOUNTS).unwrap();
        let authority = is_tls.then(Authority::new);
        let mut server = Server::registry()
            .argument("--htpasswd")
            .argument(accounts.to_str().unwrap());
        if let Some(authority) = &authority {
            let (certificate, key) = authority.issue().write(home.path());
            server = server
                .argument("--tls-cert")
                .argument(certificate.to_str().unwrap())
                .argument("--tls-key")
                .argument(key.to_str().unwrap());
        }
        Self {
            server: server.start(),
            home,
            authority,
        }
    }

    fn address(&self) -> &str {
        self.server.address()
    }

    fn home(&self) -> &Path {
        self.home.path()
    }

    /// Gives a command its home, and the authority as Go's programs read it.
    fn prepare(&self, command: &mut Command) {
        let home = self.home();
        command
            .env("HOME", home)
            .env("DOCKER_CONFIG", home.join("docker"))
            .env("REGISTRY_AUTH_FILE", home.join("auth.json"))
            .env("XDG_RUNTIME_DIR", home.join("run"))
            .env("XDG_CONFIG_HOME", home.join("config"));
        if let Some(authority) = &self.authority {
            command.env("SSL_CERT_FILE", authority.file());
        }
    }

    fn run(&self, program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> Finished {
        let mut command = Command::new(program);
        self.prepare(command.args(arguments));
        run(&mut command)
    }

    /// Runs a login that reads its password from standard input.
    fn login(
        &self,
        program: impl AsRef<std::ffi::OsStr>,
        arguments: &[&str],
        password: &str,
    ) -> bool {
        let mut command = Command::new(program);
        self.prepare(command.args(arguments));
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the client starts");
        let mut stdin = child.stdin.take().expect("it is piped");
        stdin.write_all(password.as_bytes()).expect("it reads");
        drop(stdin);
        child.wait().expect("it ends").success()
    }
}

#[test]
fn crane_and_regctl_log_in_and_copy() {
    for is_tls in [false, true] {
        let guarded = Guarded::start(is_tls);
        let address = guarded.address().to_owned();
        let image = format!("{address}/team/image:one");
        let crane = peer::program("crane");
        let layer = peer::small_layer(guarded.home());
        let layer = layer.to_str().unwrap();
        let push = ["append", "--oci-empty-base", "-f", layer, "-t", &image];
        let _ = guarded.run(&crane, &push).failed();
        let login = ["auth", "login", &address, "-u", "ann", "--password-stdin"];
        assert!(guarded.login(&crane, &login, PASSWORD));
        let _ = guarded.run(&crane, &push).succeeded();
        let copy = format!("{address}/mirror/image:one");
        let _ = guarded.run(&crane, &["copy", &image, &copy]).succeeded();
        let _ = guarded
            .run(&crane, &["validate", "--remote", &copy])
            .succeeded();

        let regctl = peer::program("regctl");
        let tls = if is_tls { "enabled" } else { "disabled" };
        let host = format!("reg={address},tls={tls}");
        let login = [
            "--host",
            &host,
            "registry",
            "login",
            &address,
            "-u",
            "ann",
            "--pass-stdin",
        ];
        assert!(!guarded.login(&regctl, &login, "wrong"), "wrong password");
        assert!(guarded.login(&regctl, &login, PASSWORD));
        let other = format!("{address}/other/image:one");
        let copy = ["--host", &host, "image", "copy", &image, &other];
        let _ = guarded.run(&regctl, &copy).succeeded();
    }
}

#[test]
fn helm_logs_in_pushes_and_pulls() {
    for is_tls in [false, true] {
        let guarded = Guarded::start(is_tls);
        let address = guarded.address().to_owned();
        let helm = peer::program("helm");
        let trust = match &guarded.authority {
            None => "--plain-http".to_owned(),
            Some(authority) => format!("--ca-file={}", authority.file().display()),
        };
        let chart = guarded.home().join("tiny");
        std::fs::create_dir_all(&chart).unwrap();
        let about = "apiVersion: v2\nname: tiny\nversion: 0.1.0\n";
        std::fs::write(chart.join("Chart.yaml"), about).unwrap();
        let folder = guarded.home().to_str().unwrap();
        let package = ["package", chart.to_str().unwrap(), "-d", folder];
        let _ = guarded.run(&helm, &package).succeeded();
        let archive = format!("{folder}/tiny-0.1.0.tgz");
        let charts = format!("oci://{address}/charts");
        let push = ["push", &archive, &charts, &trust];
        let _ = guarded.run(&helm, &push).failed();
        let login = [
            "registry",
            "login",
            &address,
            "-u",
            "ann",
            "--password-stdin",
            &trust,
        ];
        assert!(!guarded.login(&helm, &login, "wrong"), "wrong password");
        assert!(guarded.login(&helm, &login, PASSWORD));
        let _ = guarded.run(&helm, &push).succeeded();
        let chart = format!("{charts}/tiny");
        let pull = ["pull", &chart, "--version", "0.1.0", "-d", folder, &trust];
        std::fs::remove_file(&archive).unwrap();
        let _ = guarded.run(&helm, &pull).succeeded();
        assert!(Path::new(&archive).is_file());
    }
}

#[test]
fn podman_logs_in_pushes_and_pulls() {
    for is_tls in [false, true] {
        let guarded = Guarded::start(is_tls);
        let address = guarded.address().to_owned();
        let store = guarded.home().join("podman");
        let (root, state) = (store.join("root"), store.join("run"));
        let podman = |arguments: &[&str]| {
            let place = [
                "--root",
                root.to_str().unwrap(),
                "--runroot",
                state.to_str().unwrap(),
                "--storage-driver",
                "vfs",
            ];
            guarded.run("podman", &[&place, arguments].concat())
        };
        let trust = match &guarded.authority {
            None => "--tls-verify=false".to_owned(),
            Some(authority) => format!("--cert-dir={}", authority.folder().display()),
        };
        let layer = peer::small_layer(guarded.home());
        let image = format!("{address}/team/image:one");
        let _ = podman(&["import", "-q", layer.to_str().unwrap(), &image]).succeeded();
        let _ = podman(&["push", "-q", &trust, &image]).failed();
        let login = ["login", &trust, "-u", "ann", "--password-stdin", &address];
        assert!(!guarded.login("podman", &login, "wrong"), "wrong password");
        assert!(guarded.login("podman", &login, PASSWORD));
        let _ = podman(&["push", "-q", &trust, &image]).succeeded();
        let _ = podman(&["rmi", &image]).succeeded();
        let _ = podman(&["pull", "-q", &trust, &image]).succeeded();
        let listed = podman(&["images", "-q", &image]).succeeded();
        assert!(!listed.trim().is_empty());
    }
}

/// A Docker daemon without network and containers: enough to push and to pull.
struct Dockerd {
    child: Child,
    socket: PathBuf,
}

impl Dockerd {
    fn start(guarded: &Guarded) -> Self {
        let folder = guarded.home().join("dockerd");
        std::fs::create_dir_all(&folder).unwrap();
        let socket = folder.join("socket");
        let mut command = Command::new("dockerd");
        command
            .args(["--iptables=false", "--ip6tables=false", "--bridge=none"])
            .args([
                "--storage-driver=vfs",
                "--containerd-namespace",
                "hayloft-test",
            ])
            .arg("--data-root")
            .arg(folder.join("data"))
            .arg("--exec-root")
            .arg(folder.join("exec"))
            .arg("--pidfile")
            .arg(folder.join("pid"))
            .arg("--host")
            .arg(format!("unix://{}", socket.display()));
        guarded.prepare(&mut command);
        let log = std::fs::File::create(folder.join("log")).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("dockerd starts: make test-peers installs it");
        let mut daemon = Self { child, socket };
        let deadline = Instant::now() + Duration::from_secs(60);
        while guarded.run("docker", &["-H", &daemon.host(), "info"]).code != 0 {
            let ended = daemon.child.try_wait().expect("it can be asked");
            let log = std::fs::read_to_string(folder.join("log")).unwrap_or_default();
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "dockerd:\n{log}"
            );
            #[expect(
                clippy::disallowed_methods,
                reason = "the pause between two looks, within a deadline"
            )]
            std::thread::sleep(Duration::from_millis(100));
        }
        daemon
    }

    fn host(&self) -> String {
        format!("unix://{}", self.socket.display())
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        let _ = tests::ask_to_end(self.child.id());
        let _ = self.child.wait();
    }
}

#[test]
fn docker_logs_in_pushes_and_pulls() {
    for is_tls in [false, true] {
        let guarded = Guarded::start(is_tls);
        let daemon = Dockerd::start(&guarded);
        let host = daemon.host();
        let address = guarded.address().to_owned();
        let docker =
            |arguments: &[&str]| guarded.run("docker", &[&["-H", &host], arguments].concat());
        let layer = peer::small_layer(guarded.home());
        let image = format!("{address}/team/image:one");
        let _ = docker(&["import", layer.to_str().unwrap(), &image]).succeeded();
        let _ = docker(&["push", &image]).failed();
        let login = [
            "-H",
            &host,
            "login",
            "-u",
            "ann",
            "--password-stdin",
            &address,
        ];
        assert!(!guarded.login("docker", &login, "wrong"), "wrong password");
        assert!(guarded.login("docker", &login, PASSWORD));
        let pushed = docker(&["push", &image]).succeeded();
        assert!(pushed.contains("sha256:"), "{pushed}");
        let _ = docker(&["rmi", &image]).succeeded();
        let _ = docker(&["pull", &image]).succeeded();
        let _ = docker(&["logout", &address]).succeeded();
        let _ = docker(&["rmi", &image]).succeeded();
        let _ = docker(&["pull", &image]).failed();
    }
}

/// What docker logged in with, our own client uses.
#[test]
fn hayloft_uses_the_login_that_crane_stored() {
    let guarded = Guarded::start(true);
    let address = guarded.address().to_owned();
    let login = ["auth", "login", &address, "-u", "ann", "--password-stdin"];
    assert!(guarded.login(peer::program("crane"), &login, PASSWORD));
    let model = tests::fixture("hay-tiny-q8_0.gguf");
    let reference = format!("{address}/team/model:v1");
    let mut push = tests::hayloft_command(["push", model.to_str().unwrap(), &reference]);
    guarded.prepare(&mut push);
    output(&mut push);
}
