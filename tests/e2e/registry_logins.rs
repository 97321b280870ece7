//! Stored logins: our own client, skopeo, and where credentials must not go.

use std::path::Path;
use std::process::Command;

use tests::{
    Authority, Builder, FaultProxy, Finished, S3Server, Server, fixture, hayloft_command, run,
    scratch,
};

use crate::registry_access::{ANN, PASSWORD};

/// A registry that only ann may use, by TLS if there is an authority.
fn guarded(folder: &Path, authority: Option<&Authority>) -> Server {
    guard(Server::registry(), folder, authority)
}

fn guard(server: Builder, folder: &Path, authority: Option<&Authority>) -> Server {
    let accounts = folder.join("htpasswd");
    std::fs::write(&accounts, ANN).unwrap();
    let mut server = server
        .argument("--htpasswd")
        .argument(accounts.to_str().unwrap());
    if let Some(authority) = authority {
        let (certificate, key) = authority.issue().write(folder);
        server = server
            .argument("--tls-cert")
            .argument(certificate.to_str().unwrap())
            .argument("--tls-key")
            .argument(key.to_str().unwrap());
    }
    server.start()
}

/// A command with a home of its own, trusting `authority` if there is one.
fn at_home(command: &mut Command, home: &Path, authority: Option<&Authority>) -> Finished {
    command
        .env("HOME", home)
        .env("DOCKER_CONFIG", home.join("docker"))
        .env_remove("REGISTRY_AUTH_FILE")
        .env("XDG_RUNTIME_DIR", home.join("run"));
    if let Some(authority) = authority {
        command.env("SSL_CERT_FILE", authority.file());
    }
    run(command)
}

fn login(password: &str, registry: &str, home: &Path, authority: Option<&Authority>) -> Finished {
    at_home(&mut login_command(password, registry), home, authority)
}

fn login_command(password: &str, registry: &str) -> Command {
    let mut shell = Command::new("sh");
    let script = "printf '%s\\n' \"$PASSWORD\" | \"$@\"";
    shell.args(["-c", script, "sh"]);
    let hayloft = hayloft_command(["login", registry, "-u", "ann", "--password-stdin"]);
    shell.arg(hayloft.get_program()).args(hayloft.get_args());
    shell.env("PASSWORD", password);
    shell
}

#[test]
fn hayloft_logs_in_pushes_pulls_inspects_and_logs_out() {
    let authority = Authority::new();
    for authority in [None, Some(&authority)] {
        let folder = scratch();
        let home = folder.path();
        let server = guarded(home, authority);
        let registry = server.address().to_owned();
        let reference = format!("{registry}/team/model:v1");
        let model = fixture("hay-tiny-q8_0.gguf");
        let model = model.to_str().unwrap();
        let hayloft =
            |arguments: &[&str]| at_home(&mut hayloft_command(arguments), home, authority);
        let refused = hayloft(&["push", model, &reference]).failed();
        assert!(refused.contains("asks for credentials"), "{refused}");
        let refused = login("wrong", &registry, home, authority).failed();
        assert!(refused.contains("refuses access"), "{refused}");
        assert!(!home.join("docker/config.json").exists());

        let said = login(PASSWORD, &registry, home, authority).succeeded();
        assert!(said.contains("logged in"), "{said}");
        let mode = {
            use std::os::unix::fs::PermissionsExt;
            let metadata = std::fs::metadata(home.join("docker/config.json")).unwrap();
            metadata.permissions().mode() & 0o777
        };
        assert_eq!(mode, 0o600);
        let _ = hayloft(&["push", model, &reference]).succeeded();
        let _ = hayloft(&["inspect", &reference]).succeeded();
        let data = home.join("node");
        let data = data.to_str().unwrap();
        let _ = hayloft(&["pull", &reference, "--data", data]).succeeded();

        let _ = hayloft(&["logout", &registry]).succeeded();
        let _ = hayloft(&["inspect", &reference]).failed();
        let log = server.log();
        assert!(!log.contains("canary"), "{log}");
    }
}

#[test]
fn an_agent_pulls_with_the_login_that_is_stored_while_it_runs() {
    let folder = scratch();
    let home = folder.path();
    let server = guarded(home, None);
    let registry = server.address().to_owned();
    let reference = format!("{registry}/team/model:v1");
    let docker = home.join("docker");
    let agent = Server::agent()
        .environment("DOCKER_CONFIG", docker.to_str().unwrap())
        .start();
    let pull = ["pull", &reference, "--agent", &agent.url()];
    let _ = at_home(&mut hayloft_command(pull), home, None).failed();
    let _ = login(PASSWORD, &registry, home, None).succeeded();
    let model = fixture("hay-tiny-q8_0.gguf");
    let push = ["push", model.to_str().unwrap(), &reference];
    let _ = at_home(&mut hayloft_command(push), home, None).succeeded();
    let _ = at_home(&mut hayloft_command(pull), home, None).succeeded();
    assert!(!agent.log().contains("canary"), "{}", agent.log());
}

#[test]
fn a_login_leaves_the_rest_of_dockers_file_as_it_is_and_uses_its_helper() {
    let folder = scratch();
    let home = folder.path();
    let server = guarded(home, None);
    let registry = server.address().to_owned();
    let file = home.join("docker/config.json");
    std::fs::create_dir_all(home.join("docker")).unwrap();
    let before = r#"{"auths":{"other":{"auth":"dTpw"}},"detachKeys":"ctrl-x"}"#;
    std::fs::write(&file, before).unwrap();
    let _ = login(PASSWORD, &registry, home, None).succeeded();
    let read =
        || -> serde_json::Value { serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap() };
    assert_eq!(read()["auths"]["other"]["auth"], "dTpw");
    assert_eq!(read()["detachKeys"], "ctrl-x");
    assert!(read()["auths"][&registry]["auth"].is_string());
    let mut logout = hayloft_command(["logout", &registry]);
    let _ = at_home(&mut logout, home, None).succeeded();
    let expected: serde_json::Value = serde_json::from_str(before).unwrap();
    assert_eq!(read(), expected);
}

#[test]
fn skopeo_logs_in_and_copies_with_the_stored_login() {
    let authority = Authority::new();
    for authority in [None, Some(&authority)] {
        let folder = scratch();
        let home = folder.path();
        let server = guarded(home, authority);
        let registry = server.address().to_owned();
        let model = fixture("hay-tiny-q8_0.gguf");
        let reference = format!("{registry}/team/model:v1");
        let _ = login(PASSWORD, &registry, home, authority).succeeded();
        let mut push = hayloft_command(["push", model.to_str().unwrap(), &reference]);
        let _ = at_home(&mut push, home, authority).succeeded();

        let trust = match authority {
            None => vec!["--tls-verify=false".to_owned()],
            Some(authority) => vec![format!("--cert-dir={}", authority.folder().display())],
        };
        let auth = home.join("auth.json");
        let skopeo = |verb: &[&str], trust: &[String], tail: &[&str]| {
            let mut command = Command::new("skopeo");
            command.args(verb).args(trust).args(tail);
            at_home(command.env("REGISTRY_AUTH_FILE", &auth), home, None)
        };
        let source = format!("docker://{reference}");
        let wrong = ["-u", "ann", "-p", "wrong", &registry];
        let _ = skopeo(&["login"], &trust, &wrong).failed();
        let right = ["-u", "ann", "-p", PASSWORD, &registry];
        let said = skopeo(&["login"], &trust, &right).succeeded();
        assert!(said.contains("Login Succeeded"), "{said}");
        let both: Vec<String> = trust
            .iter()
            .flat_map(|flag| {
                let name = flag.trim_start_matches("--");
                [format!("--src-{name}"), format!("--dest-{name}")]
            })
            .collect();
        let target = format!("docker://{registry}/copy/model:v1");
        let _ = skopeo(&["copy"], &both, &[&source, &target]).succeeded();
        let _ = skopeo(&["inspect", "--raw"], &trust, &[&target]).succeeded();
        let _ = skopeo(&["logout"], &[], &[&registry]).succeeded();
        let _ = skopeo(&["inspect", "--raw"], &trust, &[&target]).failed();
    }
}

/// Exit code of who is not let in.
const DENIED: i32 = 7;

#[test]
fn looking_after_a_registry_takes_a_login() {
    let authority = Authority::new();
    for authority in [None, Some(&authority)] {
        let folder = scratch();
        let home = folder.path();
        let server = guarded(home, authority);
        let registry = server.address().to_owned();
        let verbs = [
            &["gc", "--dry-run"][..],
            &["gc", "--force"],
            &["fsck"],
            &["registry", "reindex"],
        ];
        let on = |verb: &[&str]| {
            let mut command = hayloft_command(verb);
            at_home(command.args(["--registry", &registry]), home, authority)
        };
        for verb in verbs {
            let refused = on(verb);
            assert_eq!(refused.code, DENIED, "{verb:?}: {}", refused.stderr);
            let remedy = format!("log in with hayloft login {registry}");
            assert!(refused.stderr.contains(&remedy), "{}", refused.stderr);
        }
        let _ = login(PASSWORD, &registry, home, authority).succeeded();
        for verb in verbs {
            let _ = on(verb).succeeded();
        }
        assert!(!server.log().contains("canary"), "{}", server.log());
    }
}

#[test]
fn a_helper_keeps_the_login_and_is_asked_for_it() {
    let folder = scratch();
    let home = folder.path();
    let server = guarded(home, None);
    let registry = server.address().to_owned();
    let (programs, kept) = (home.join("bin"), home.join("kept"));
    std::fs::create_dir(&programs).unwrap();
    let helper = programs.join("docker-credential-hay");
    let script = "#!/bin/sh\n\
        case \"$1\" in\n\
        store) cat > \"$HOME/kept\";;\n\
        get) read -r server; test \"$server\" = \"$REGISTRY\" && cat \"$HOME/kept\";;\n\
        erase) cat > /dev/null; rm \"$HOME/kept\";;\n\
        esac\n";
    std::fs::write(&helper, script).unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&helper, executable).unwrap();
    let config = format!(r#"{{"credHelpers":{{"{registry}":"hay"}}}}"#);
    std::fs::create_dir(home.join("docker")).unwrap();
    std::fs::write(home.join("docker/config.json"), &config).unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let helped = |command: &mut Command| {
        at_home(
            command.env("PATH", &path).env("REGISTRY", &registry),
            home,
            None,
        )
    };
    let hayloft = |arguments: &[&str]| helped(&mut hayloft_command(arguments));
    let said = helped(&mut login_command(PASSWORD, &registry)).succeeded();
    assert!(said.contains("kept in docker-credential-hay"), "{said}");
    assert!(kept.exists());
    let written = std::fs::read_to_string(home.join("docker/config.json")).unwrap();
    assert_eq!(written, config, "the file holds no login");

    let reference = format!("{registry}/team/model:v1");
    let model = fixture("hay-tiny-q8_0.gguf");
    let _ = hayloft(&["push", model.to_str().unwrap(), &reference]).succeeded();
    let data = home.join("node");
    let pull = ["pull", &reference, "--data", data.to_str().unwrap()];
    let _ = hayloft(&pull).succeeded();
    let _ = hayloft(&["gc", "--dry-run", "--registry", &registry]).succeeded();
    let _ = hayloft(&["logout", &registry]).succeeded();
    assert!(!kept.exists());
    assert_eq!(hayloft(&["inspect", &reference]).code, DENIED);
}

#[test]
fn a_redirect_to_the_bucket_is_followed_without_the_login() {
    let s3 = S3Server::start();
    let proxy = FaultProxy::start(&s3.address());
    let folder = scratch();
    let home = folder.path();
    // Another host name than the registry's: who shares it gets no redirect with a login.
    let bucket = format!("http://localhost:{}", proxy.address().port());
    let builder = s3.registry().environment("AWS_ENDPOINT_URL", &bucket);
    let server = guard(builder, home, None);
    let registry = server.address().to_owned();
    let reference = format!("{registry}/team/model:v1");
    let model = fixture("hay-tiny-q8_0.gguf");
    let content = std::fs::read(&model).unwrap();
    let digest = artifact::Digest::sha256(&content);
    let _ = login(PASSWORD, &registry, home, None).succeeded();
    let push = ["push", model.to_str().unwrap(), &reference];
    let _ = at_home(&mut hayloft_command(push), home, None).succeeded();

    // A redirect is good for 15 minutes; what the registry signs for itself is not.
    let redirected = || -> Vec<String> {
        let heads = proxy.heads().into_iter();
        heads
            .filter(|head| head.contains("X-Amz-Expires=900&"))
            .collect()
    };
    let file = home.join("blob");
    let blob = format!("http://{registry}/v2/team/model/blobs/{digest}");
    let login = format!("ann:{PASSWORD}");
    let mut curl = Command::new("curl");
    curl.args(["-sSfL", "-u", &login, "-o"])
        .arg(&file)
        .arg(&blob);
    let _ = run(&mut curl).succeeded();
    assert!(std::fs::read(&file).unwrap() == content);
    assert_eq!(redirected().len(), 1, "curl was redirected");

    let data = home.join("node");
    let pull = ["pull", &reference, "--data", data.to_str().unwrap()];
    let _ = at_home(&mut hayloft_command(pull), home, None).succeeded();
    let redirected = redirected();
    assert!(redirected.len() > 1, "our own client was redirected");
    for head in redirected {
        let fields = head.to_ascii_lowercase();
        assert!(!fields.contains("\r\nauthorization:"), "{head}");
        assert!(!fields.contains("\r\ncookie:"), "{head}");
    }
}
