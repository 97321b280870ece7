//! Debian's squid, a proxy as companies run them: with rules, logins, and interception of TLS.
//!
//! Names below `upstream.test` are known to squid alone, which finds them on this machine: what
//! reaches such a host has come through here.

use std::fmt::Write;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::{Authority, eventually, run, scratch};

/// Where Debian keeps squid's helpers.
const HELPERS: &str = "/usr/lib/squid";
/// The host that stands for an origin; `:PORT` leads to that port of this machine.
pub const UPSTREAM: &str = "registry.upstream.test";
/// A host that squid refuses to go to.
pub const FORBIDDEN: &str = "forbidden.upstream.test";

/// How to start a [`Squid`].
#[derive(Debug, Default)]
pub struct SquidBuilder {
    login: Option<(String, String)>,
    intercepts: bool,
}

impl SquidBuilder {
    /// Lets in who has this name and password.
    #[must_use]
    pub fn login(mut self, name: &str, password: &str) -> Self {
        self.login = Some((name.to_owned(), password.to_owned()));
        self
    }

    /// Ends TLS itself, with certificates of an authority of its own, and reads along.
    #[must_use]
    pub fn intercepting(mut self) -> Self {
        self.intercepts = true;
        self
    }

    /// Starts it and waits until it listens.
    ///
    /// # Panics
    /// When it does not start; the message carries its log.
    pub async fn start(self) -> Squid {
        // It takes no port 0. Somebody else may take the port first: then it ends, and another
        // one is tried.
        for _ in 0..10 {
            if let Some(squid) = self.try_start().await {
                return squid;
            }
        }
        panic!("squid does not start: is squid-openssl installed (scripts/install-deps.sh)?");
    }

    async fn try_start(&self) -> Option<Squid> {
        let folder = scratch();
        let port = free_port();
        let authority = Authority::named("Proxy Authority");
        open_to_all(folder.path());
        self.write(folder.path(), port, &authority);
        let log = File::create(folder.path().join("start.log")).expect("a file");
        let child = Command::new("/usr/sbin/squid")
            // The name keeps apart what several of them share in memory.
            .args(["-N", "-n", &format!("test{port}"), "-f"])
            .arg(folder.path().join("squid.conf"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("Debian's squid-openssl is installed: run scripts/install-deps.sh");
        let mut squid = Squid {
            child,
            port,
            folder,
            authority,
        };
        let listens = eventually("squid listens or ends", 20, || {
            let connected = std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
            let ended = squid.child.try_wait().ok().flatten().is_some();
            std::future::ready((connected || ended).then_some(connected && !ended))
        });
        listens.await.then_some(squid)
    }

    fn write(&self, folder: &Path, port: u16, authority: &Authority) {
        let at = |name: &str| folder.join(name).display().to_string();
        let hosts = format!("127.0.0.1 {UPSTREAM}\n127.0.0.1 {FORBIDDEN}\n");
        std::fs::write(folder.join("hosts"), hosts).expect("a file");
        let mut config = format!("http_port 127.0.0.1:{port}");
        if self.intercepts {
            let pair = authority.pair();
            let both = format!("{}{}", pair.certificate, pair.key);
            std::fs::write(folder.join("ca.pem"), both).expect("a file");
            let certificates = folder.join("certificates");
            let helper = format!("{HELPERS}/security_file_certgen");
            let mut make = Command::new(&helper);
            make.args(["-c", "-s"])
                .arg(&certificates)
                .args(["-M", "4MB"]);
            let _ = run(&mut make).succeeded();
            let _ = run(Command::new("chmod")
                .args(["-R", "a+rwX"])
                .arg(&certificates))
            .succeeded();
            let _ = write!(
                config,
                " ssl-bump tls-cert={ca} generate-host-certificates=on\n\
                 sslcrtd_program {helper} -s {certificates} -M 4MB\n\
                 sslcrtd_children 1 startup=1\n\
                 ssl_bump bump all\n\
                 tls_outgoing_options flags=DONT_VERIFY_PEER\n\
                 sslproxy_cert_error allow all",
                ca = at("ca.pem"),
                certificates = certificates.display(),
            );
        }
        let _ = write!(
            config,
            "\nhosts_file {hosts}\naccess_log stdio:{access}\ncache_log {log}\n\
             coredump_dir {root}\npid_filename none\ncache deny all\nnetdb_filename none\n\
             pinger_enable off\nshutdown_lifetime 0 seconds\nvisible_hostname proxy.test\n\
             acl forbidden dstdomain {FORBIDDEN}\nhttp_access deny forbidden\n",
            hosts = at("hosts"),
            access = at("access.log"),
            log = at("cache.log"),
            root = folder.display(),
        );
        if let Some((name, password)) = &self.login {
            // Accounts as openssl's `passwd -apr1` writes them are what the helper reads.
            let hash = run(Command::new("openssl").args(["passwd", "-apr1", password]));
            let account = format!("{name}:{}", hash.succeeded());
            std::fs::write(folder.join("accounts"), account).expect("a file");
            let _ = write!(
                config,
                "auth_param basic program {HELPERS}/basic_ncsa_auth {}\n\
                 auth_param basic children 1 startup=1\n\
                 acl known proxy_auth REQUIRED\nhttp_access deny !known\n",
                at("accounts")
            );
        }
        config.push_str("http_access allow all\n");
        std::fs::write(folder.join("squid.conf"), config).expect("a file");
    }
}

/// A running squid. Dropping it kills the process.
#[derive(Debug)]
pub struct Squid {
    child: Child,
    port: u16,
    folder: tempfile::TempDir,
    authority: Authority,
}

impl Squid {
    /// One that lets everybody go everywhere but to [`FORBIDDEN`].
    #[must_use]
    pub fn builder() -> SquidBuilder {
        SquidBuilder::default()
    }

    /// `http://127.0.0.1:PORT`, as `HTTP_PROXY` and its like name it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// `127.0.0.1:PORT`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its authority, by which it signs when it intercepts.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.authority.file()
    }

    /// What it was asked for, a line each, refusals included.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.folder.path().join("access.log"));
        let log = log.unwrap_or_default();
        // A connection without a request is the question whether it listens.
        let requests = log
            .lines()
            .filter(|line| !line.contains("transaction-end-before-headers"));
        requests.map(str::to_owned).collect()
    }
}

impl Drop for Squid {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that is free now.
pub(crate) fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}

/// squid that was started as root works as somebody else.
fn open_to_all(folder: &Path) {
    let all = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(folder, all).expect("the folder is ours");
}
