//! A real PostgreSQL of its own: in a scratch folder, on a Unix socket there or by TLS alone, as
//! long as the value lives.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::{Authority, SmallDisk, run, scratch};

/// PostgreSQL's own port, which names the socket.
const PORT: u16 = 5432;
/// What a server with TLS wants of everyone who comes by TCP.
const PASSWORD: &str = "canary-database-Vt39";

/// A cluster with one empty database. Dropping it stops the server and removes everything.
#[derive(Debug)]
pub struct Postgres {
    folder: tempfile::TempDir,
    server: Option<Child>,
    settings: Vec<String>,
    port: u16,
}

impl Postgres {
    /// Makes a cluster and starts its server. What is committed survives `kill -9`, but not a
    /// power cut: syncing is off.
    ///
    /// # Panics
    /// When PostgreSQL is not installed or does not start.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with settings of its own, such as `max_connections=20`.
    ///
    /// # Panics
    /// When PostgreSQL is not installed or does not start.
    #[must_use]
    pub fn start_with(settings: &[&str]) -> Self {
        let mut postgres = Self::make(scratch(), settings);
        postgres.restart();
        postgres
    }

    /// The same on a disk that can be filled.
    ///
    /// # Panics
    /// When PostgreSQL is not installed or does not start.
    #[must_use]
    pub fn start_on(disk: &SmallDisk) -> Self {
        let folder = tempfile::tempdir_in(disk.path()).expect("a folder");
        let mut postgres = Self::make(folder, &[]);
        postgres.restart();
        postgres
    }

    /// The same on loopback, where it has a certificate of `authority` and takes nobody who comes
    /// without TLS and a password: see [`Postgres::tls_url`].
    ///
    /// # Panics
    /// When PostgreSQL is not installed or does not start.
    #[must_use]
    pub fn start_with_tls(authority: &Authority) -> Self {
        let mut postgres = Self::make(scratch(), &[]);
        let (certificate, key) = authority.issue().write(postgres.folder());
        let read_by_owner = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&key, read_by_owner).expect("the key's mode can be set");
        for file in [&certificate, &key] {
            std::os::unix::fs::chown(file, unprivileged(), None).expect("the server owns it");
        }
        postgres.settings = vec![
            "ssl=on".to_owned(),
            "listen_addresses=127.0.0.1,127.0.0.2".to_owned(),
            format!("ssl_cert_file={}", certificate.display()),
            format!("ssl_key_file={}", key.display()),
        ];
        let admitted = "local all all trust\nhostssl all all 127.0.0.0/8 scram-sha-256\n";
        let rules = postgres.folder().join("data/pg_hba.conf");
        std::fs::write(rules, admitted).expect("the rules can be written");
        // PostgreSQL cannot be told to find a port.
        let found = std::net::TcpListener::bind("127.0.0.1:0").and_then(|found| found.local_addr());
        postgres.port = found.expect("a free port").port();
        postgres.restart();
        let _ = postgres.sql(&format!("ALTER ROLE hayloft PASSWORD '{PASSWORD}'"));
        postgres
    }

    fn make(folder: tempfile::TempDir, settings: &[&str]) -> Self {
        if let Some(user) = unprivileged() {
            let chowned = std::os::unix::fs::chown(folder.path(), Some(user), None);
            chowned.expect("root gives the folder to an unprivileged user");
        }
        let mut initdb = program("initdb");
        initdb.arg("--pgdata").arg(folder.path().join("data"));
        initdb.args(["--username=hayloft", "--auth=trust", "--encoding=UTF8"]);
        initdb.args(["--locale=C.UTF-8", "--no-sync", "--no-instructions"]);
        let _ = run(&mut initdb).succeeded();
        Self {
            folder,
            server: None,
            settings: settings.iter().map(|&setting| setting.to_owned()).collect(),
            port: PORT,
        }
    }

    /// The folder of the cluster, which the server's user may write to.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The `postgres://` URL of the database.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    /// The `postgres://` URL of another database of the cluster.
    #[must_use]
    pub fn url_of(&self, database: &str) -> String {
        let socket = self.folder.path().display();
        format!("postgres://hayloft@localhost/{database}?host={socket}")
    }

    /// The `postgres://` URL by TCP of a server with TLS, under one of its names, with a password
    /// and without any `sslmode`.
    #[must_use]
    pub fn tls_url(&self, host: &str) -> String {
        let port = self.port;
        format!("postgres://hayloft:{PASSWORD}@{host}:{port}/postgres")
    }

    /// Starts the server, or stops it before if it runs.
    ///
    /// # Panics
    /// When it does not answer within 30 seconds.
    pub fn restart(&mut self) {
        self.stop();
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut log = String::new();
        while Instant::now() < deadline {
            if self.try_start(deadline, &mut log) {
                return;
            }
        }
        panic!("PostgreSQL does not start: {log}");
    }

    /// After a kill the old server's children may still be leaving, which the new one refuses.
    fn try_start(&mut self, deadline: Instant, log: &mut String) -> bool {
        let path = self.folder.path().join("log");
        let mut server = program("postgres");
        server.arg("-D").arg(self.folder.path().join("data"));
        server.arg("-k").arg(self.folder.path());
        server.arg("-p").arg(self.port.to_string());
        for setting in ["listen_addresses=", "fsync=off", "max_connections=100"] {
            server.args(["-c", setting]);
        }
        for setting in &self.settings {
            server.args(["-c", setting]);
        }
        server.stdout(Stdio::null());
        server.stderr(std::fs::File::create(&path).expect("the log can be made"));
        let mut child = server.spawn().expect("PostgreSQL starts");
        loop {
            let has_ended = child.try_wait().expect("it can be waited for").is_some();
            if has_ended || Instant::now() > deadline {
                let _ = child.kill();
                let _ = child.wait();
                *log = std::fs::read_to_string(&path).unwrap_or_default();
                return false;
            }
            let mut ready = program("pg_isready");
            ready.args(["--quiet", "--timeout=5"]);
            if run(self.reached(&mut ready)).code == 0 {
                self.server = Some(child);
                return true;
            }
        }
    }

    /// Stops the server in good order; connections are cut.
    pub fn stop(&mut self) {
        self.signal("INT");
        if let Some(mut server) = self.server.take() {
            let _ = server.wait();
        }
    }

    /// Kills the server at once, as `kill -9` does.
    pub fn kill(&mut self) {
        self.signal("KILL");
        if let Some(mut server) = self.server.take() {
            let _ = server.wait();
        }
    }

    fn signal(&self, name: &str) {
        if let Some(server) = &self.server {
            let line = format!("kill -s {name} {}", server.id());
            let _ = run(Command::new("sh").args(["-c", &line]));
        }
    }

    /// Runs SQL in the database; gives the rows as text.
    ///
    /// # Panics
    /// When it fails.
    #[must_use]
    pub fn sql(&self, text: &str) -> String {
        let mut psql = self.client("psql", "postgres");
        psql.args(["--no-align", "--tuples-only", "--quiet"]);
        psql.args(["--set", "ON_ERROR_STOP=1", "--command", text]);
        run(&mut psql).succeeded().trim().to_owned()
    }

    /// A dump of the database, which [`Postgres::restore`] puts back.
    ///
    /// # Panics
    /// When it fails.
    #[must_use]
    pub fn dump(&self) -> PathBuf {
        let file = self.folder.path().join("dump");
        let mut dump = self.client("pg_dump", "postgres");
        dump.args(["--format=custom", "--file"]).arg(&file);
        let _ = run(&mut dump).succeeded();
        file
    }

    /// Puts the database back to the state of a dump. Connections are cut.
    ///
    /// # Panics
    /// When it fails.
    pub fn restore(&self, dump: &Path) {
        for statement in [
            "DROP DATABASE postgres WITH (FORCE)",
            "CREATE DATABASE postgres",
        ] {
            let mut psql = self.client("psql", "template1");
            let _ = run(psql.args(["--quiet", "--command", statement])).succeeded();
        }
        let mut restore = self.client("pg_restore", "postgres");
        let _ = run(restore.arg("--exit-on-error").arg(dump)).succeeded();
    }

    fn client(&self, name: &str, database: &str) -> Command {
        let mut client = program(name);
        self.reached(&mut client);
        client.args(["--username=hayloft", "--dbname", database]);
        client
    }

    fn reached<'a>(&self, client: &'a mut Command) -> &'a mut Command {
        client.arg("--host").arg(self.folder.path());
        client.arg("--port").arg(self.port.to_string())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.signal("QUIT");
        if let Some(mut server) = self.server.take() {
            let _ = server.wait();
        }
    }
}

/// One of PostgreSQL's programs, to be run by a user that it accepts. Debian keeps the server's
/// out of PATH.
fn program(name: &str) -> Command {
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten();
    let mut paths: Vec<PathBuf> = versions
        .flatten()
        .map(|version| version.path().join("bin").join(name))
        .filter(|path| path.exists())
        .collect();
    paths.sort();
    let mut command = Command::new(paths.pop().unwrap_or_else(|| PathBuf::from(name)));
    if let Some(user) = unprivileged() {
        command.uid(user);
    }
    // The folder of the caller may be closed to that user.
    command.current_dir("/");
    command
}

/// The user to become: PostgreSQL refuses to be run by root.
fn unprivileged() -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    let own = std::fs::metadata("/proc/self")
        .expect("/proc is there")
        .uid();
    (own == 0).then(|| {
        let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let of_postgres = users.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next() == Some("postgres"))
                .then(|| fields.nth(1)?.parse().ok())
                .flatten()
        });
        of_postgres.unwrap_or(65534)
    })
}
