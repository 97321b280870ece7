//! The example of docs/operations.md, started as it stands there: two replicas behind a balancer,
//! over a bucket and a PostgreSQL reached by TLS, with logins, certificates, rules and metrics.

use std::path::Path;
use std::process::Command;

use tests::{
    Authority, Balancer, Finished, Postgres, S3Server, Server, fixture, hayloft_command,
    project_root, run, scratch,
};

use crate::registry_access::{ANN, PASSWORD};

/// Everything around the replicas, and what they are started with.
struct Site {
    folder: tempfile::TempDir,
    authority: Authority,
    bucket: S3Server,
    postgres: Postgres,
    balancer: Balancer,
}

impl Site {
    async fn start() -> Self {
        let authority = Authority::new();
        Self {
            folder: scratch(),
            postgres: Postgres::start_with_tls(&authority),
            authority,
            bucket: S3Server::start(),
            balancer: Balancer::start().await,
        }
    }

    /// Where clients reach the registry.
    fn host(&self) -> String {
        format!("localhost:{}", self.balancer.address().port())
    }

    /// The files that the example names, as they lie on one replica, and its configuration.
    fn install(&self, replica: &str) -> std::path::PathBuf {
        let folder = self.folder.path().join(replica);
        std::fs::create_dir(&folder).unwrap();
        let place = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
        place("htpasswd", ANN);
        let pair = self.authority.issue();
        place("tls.crt", &pair.certificate);
        place("tls.key", &pair.key);
        let mode = "?sslmode=verify-full&sslrootcert=";
        assert!(example("```\n$ echo", "```").contains(mode));
        let authorities = self.authority.file();
        let url = self.postgres.tls_url("localhost");
        place(
            "database-url",
            &format!("{url}{mode}{}\n", authorities.display()),
        );
        let mut text = example("```toml\n", "```");
        // What differs between that site and this machine, and nothing else.
        for (there, here) in [
            (
                "/var/lib/hayloft",
                folder.join("data").display().to_string(),
            ),
            ("/etc/hayloft", folder.display().to_string()),
            ("0.0.0.0:5000", "127.0.0.1:0".to_owned()),
            ("127.0.0.1:9500", "127.0.0.1:0".to_owned()),
            ("models.example.com", self.host()),
            (
                "https://s3.example.com",
                format!("http://{}", self.bucket.address()),
            ),
        ] {
            assert!(text.contains(there), "the example has no {there} any more");
            text = text.replace(there, &here);
        }
        place("hayloft.toml", &text);
        folder.join("hayloft.toml")
    }

    fn replica(&self, name: &str) -> Server {
        let file = self.install(name);
        let mut check = hayloft_command(["config", "check"]);
        let said = run(check.arg(&file)).succeeded();
        assert!(said.contains("all known, all values readable"), "{said}");
        let server = Server::registry()
            .only_configured()
            .environment("HAYLOFT_CONFIG", file.to_str().unwrap())
            .environment("AWS_ACCESS_KEY_ID", "test-key")
            .environment("AWS_SECRET_ACCESS_KEY", "test-secret")
            .start();
        self.balancer.add(server.address());
        server
    }

    /// A verb at a client of the registry.
    fn client(&self, command: &mut Command) -> Finished {
        let home = self.folder.path().join("client");
        command
            .env("DOCKER_CONFIG", home)
            .env("SSL_CERT_FILE", self.authority.file());
        run(command)
    }

    fn hayloft(&self, arguments: &[&str]) -> Finished {
        self.client(&mut hayloft_command(arguments))
    }

    fn login(&self, registry: &str) {
        let mut shell = Command::new("sh");
        shell.args(["-c", "printf %s \"$PASSWORD\" | \"$@\"", "sh"]);
        let login = hayloft_command(["login", registry, "-u", "ann", "--password-stdin"]);
        shell.arg(login.get_program()).args(login.get_args());
        let _ = self.client(shell.env("PASSWORD", PASSWORD)).succeeded();
    }
}

/// What stands in docs/operations.md between the first of these two.
fn example(from: &str, to: &str) -> String {
    let path = project_root().join("docs/operations.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, rest) = text.split_once(from).expect("the example begins");
    rest.split_once(to).expect("the example ends").0.to_owned()
}

fn same_bytes(folder: &Path, model: &Path) -> bool {
    let content = std::fs::read(model).unwrap();
    let digest = artifact::Digest::sha256(&content).hex();
    let keys = tests::s3::keys_below(folder);
    let found = keys.iter().find(|key| key.ends_with(&digest)).unwrap();
    std::fs::read(folder.join(found)).unwrap() == content
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_of_the_documents_works_as_one_system() {
    let site = Site::start().await;
    let (mut one, other) = (site.replica("one"), site.replica("other"));
    let host = site.host();
    site.login(&host);
    let model = fixture("hay-tiny-q8_0.gguf");
    let reference = format!("{host}/team/model:v1");
    // Each connection goes to another replica than the one before it.
    let push = ["push", model.to_str().unwrap(), &reference];
    let _ = site.hayloft(&push).succeeded();
    for (name, server) in [("one", &one), ("other", &other)] {
        site.login(server.address());
        let data = site.folder.path().join(format!("node of {name}"));
        let reference = format!("{}/team/model:v1", server.address());
        let pull = ["pull", &reference, "--data", data.to_str().unwrap()];
        let _ = site.hayloft(&pull).succeeded();
        assert!(same_bytes(&data, &model), "{name}");
    }
    for verb in [
        &["gc", "--dry-run"][..],
        &["fsck"],
        &["registry", "reindex"],
    ] {
        let told = site.hayloft(&[verb, &["--registry", &host]].concat());
        let _ = told.succeeded();
    }
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for path in ["healthz", "readyz", "metrics"] {
        let url = format!("{}/{path}", other.url_of("metrics"));
        assert_eq!(
            client.get(url).send().await.unwrap().status(),
            200,
            "{path}"
        );
    }
    // One ends, the other goes on.
    assert_eq!(one.terminate(), Some(0));
    let data = site.folder.path().join("node of both");
    let pull = ["pull", &reference, "--data", data.to_str().unwrap()];
    let _ = site.hayloft(&pull).succeeded();
    assert!(same_bytes(&data, &model));
    for log in [one.log(), other.log()] {
        assert!(!log.contains("canary"), "{log}");
    }
}
