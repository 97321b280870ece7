//! Configuration as a user meets it: four layers, one file, messages that say where and what.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tests::{Finished, Server, hayloft_command, project_root, run, scratch};

/// A configuration file in a folder of its own.
struct Written {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

fn written(text: &str) -> Written {
    let folder = scratch();
    let path = folder.path().join("hayloft.toml");
    std::fs::write(&path, text).unwrap();
    Written {
        _folder: folder,
        path,
    }
}

fn configured(arguments: &[&str], file: &Path, environment: &[(&str, &str)]) -> Finished {
    let mut command = hayloft_command(["config"]);
    command.args(arguments).arg("--config").arg(file);
    run(command.envs(environment.iter().copied()))
}

/// The effective configuration as `config show` has it.
fn shown(role: &str, file: &Path, environment: &[(&str, &str)], flags: &[&str]) -> Value {
    let mut command = hayloft_command(["config", "show", "--role", role, "-o", "json"]);
    command.arg("--config").arg(file).arg("--").args(flags);
    let said = run(command.envs(environment.iter().copied())).succeeded();
    serde_json::from_str(&said).unwrap()
}

/// Value and origin of one key.
fn of<'a>(shown: &'a Value, key: &str) -> (&'a Value, &'a str) {
    let settings = shown["settings"].as_array().unwrap().iter();
    let mut found = settings.filter(|setting| setting["key"] == key);
    let setting = found
        .next()
        .unwrap_or_else(|| panic!("no {key} in {shown}"));
    (&setting["value"], setting["from"].as_str().unwrap_or(""))
}

/// As [`of`], as texts; of a list the first.
fn first_of(shown: &Value, key: &str) -> (String, String) {
    let (value, from) = of(shown, key);
    let value = value.get(0).unwrap_or(value);
    (value.as_str().unwrap_or("").to_owned(), from.to_owned())
}

#[test]
fn flags_go_over_variables_over_the_file_over_defaults() {
    let file = written(
        "[registry]\nlisten = \"127.0.0.1:1\"\ngc-grace = \"2d\"\nread-only = true\n\
         connections = 2\nretain = [\"a=last:2\"]\nhtpasswd = \"two\"\n",
    );
    let path = file.path.display();
    // Key, variable and its value, flag: a time, a switch, a number, a list, a path, an address.
    let cases = [
        (
            "gc-grace",
            "24h",
            "2d",
            ("HAYLOFT_GC_GRACE", "3d"),
            "--gc-grace=4d",
        ),
        (
            "read-only",
            "off",
            "true",
            ("HAYLOFT_READ_ONLY", "off"),
            "--read-only=on",
        ),
        (
            "connections",
            "10000",
            "2",
            ("HAYLOFT_CONNECTIONS", "3"),
            "--connections=4",
        ),
        (
            "retain",
            "",
            "a=last:2",
            ("HAYLOFT_RETAIN", "a=last:3"),
            "--retain=a=last:4",
        ),
        (
            "htpasswd",
            "",
            "two",
            ("HAYLOFT_HTPASSWD", "three"),
            "--htpasswd=four",
        ),
        (
            "listen",
            "127.0.0.1:5000",
            "127.0.0.1:1",
            ("HAYLOFT_REGISTRY_LISTEN", "127.0.0.1:3"),
            "--listen=127.0.0.1:4",
        ),
    ];
    let variables = cases.map(|(_, _, _, variable, _)| variable);
    let flags = cases.map(|(_, _, _, _, flag)| flag);
    let nothing = written("");
    let by_default = shown("registry", &nothing.path, &[], &[]);
    let by_file = shown("registry", &file.path, &[], &[]);
    let by_variable = shown("registry", &file.path, &variables, &[]);
    let by_flag = shown("registry", &file.path, &variables, &flags);
    for (key, default, in_file, (name, value), flag) in cases {
        let key = format!("registry.{key}");
        let text = |shown: &Value| first_of(shown, &key);
        let from_default = if default.is_empty() { "" } else { "default" };
        assert_eq!(
            text(&by_default),
            (default.into(), from_default.into()),
            "{key}"
        );
        let (found, from) = text(&by_file);
        assert_eq!(found, in_file, "{key}");
        assert!(from.starts_with(&format!("{path}:")), "{key}: {from}");
        let from_variable = format!("environment {name}");
        assert_eq!(text(&by_variable), (value.into(), from_variable), "{key}");
        let (_, said) = flag.split_once('=').unwrap();
        assert_eq!(text(&by_flag), (said.into(), "flag".into()), "{key}");
    }
    assert_eq!(of(&by_file, "registry.gc-grace").1, format!("{path}:3"));
}

#[test]
fn an_empty_variable_is_none_and_a_foreign_one_goes_over_the_file() {
    let file = written("[registry]\ngc-grace = \"2d\"\n[runtime]\nlisten = \"127.0.0.1:9\"\n");
    let variables = [("HAYLOFT_GC_GRACE", ""), ("OLLAMA_HOST", "127.0.0.1:7")];
    let all = shown("serve", &file.path, &variables, &[]);
    assert_eq!(of(&all, "registry.gc-grace").0, "2d");
    let expected = (&Value::from("127.0.0.1:7"), "environment OLLAMA_HOST");
    assert_eq!(of(&all, "runtime.listen"), expected);
    let own = [
        ("OLLAMA_HOST", "127.0.0.1:7"),
        ("HAYLOFT_RUNTIME_LISTEN", "127.0.0.1:6"),
    ];
    let all = shown("serve", &file.path, &own, &[]);
    assert_eq!(of(&all, "runtime.listen").0, "127.0.0.1:6");
}

#[test]
fn an_unknown_key_is_refused_with_its_place_and_the_nearest_known_one() {
    for (text, expected) in [
        ("dat = \"x\"", ":1: unknown key dat; did you mean data?"),
        (
            "[registry]\n\ngc_grace = \"1d\"",
            ":3: unknown key registry.gc_grace; did you mean registry.gc-grace?",
        ),
        (
            "[runtime]\ngc-grace = \"1d\"",
            ":2: unknown key runtime.gc-grace; did you mean registry.gc-grace?",
        ),
        (
            "[registri]\nx = 1",
            ":1: unknown table [registri]; did you mean [registry]?",
        ),
        (
            "[registry]\nzzz = 1",
            ":2: unknown key registry.zzz; docs/configuration.md",
        ),
    ] {
        let file = written(text);
        let mut command = hayloft_command(["registry", "--config"]);
        let finished = run(command.arg(&file.path));
        assert_eq!(finished.code, 2, "{text}");
        let expected = format!("{}{expected}", file.path.display());
        assert!(finished.stderr.contains(&expected), "{}", finished.stderr);
        assert_eq!(finished.stderr.lines().count(), 1, "{}", finished.stderr);
    }
}

#[test]
fn a_wrong_value_is_refused_with_its_place_and_what_is_expected() {
    for (line, expected) in [
        (
            "gc-grace = \"soon\"",
            "registry.gc-grace: \"soon\": this is not a time; write it as 30s",
        ),
        (
            "gc-grace = 7",
            "registry.gc-grace: \"7\": this is not a time",
        ),
        (
            "max-blob-size = \"big\"",
            "registry.max-blob-size: \"big\": this is not a size",
        ),
        (
            "read-only = \"perhaps\"",
            "registry.read-only: \"perhaps\": write on or off",
        ),
        (
            "connections = \"many\"",
            "registry.connections: \"many\" is no number that fits",
        ),
        (
            "gc-max-percent = 101",
            "registry.gc-max-percent: \"101\" is no number that fits",
        ),
        (
            "htpasswd = true",
            "registry.htpasswd: text (FILE) is expected, not a boolean",
        ),
        (
            "max-uploads = [1]",
            "registry.max-uploads: one value is expected, not a list",
        ),
        ("listen = \"here\"", "registry.listen: \"here\": "),
        (
            "retain = [\"a=first:1\"]",
            "registry.retain: \"a=first:1\": ",
        ),
        (
            "index = \"sled\"\nindex-file = \"x\"",
            "index-file and index exclude each other",
        ),
        ("gc-grace = ", "hayloft.toml:2: "),
    ] {
        let file = written(&format!("[registry]\n{line}\n"));
        let mut command = hayloft_command(["registry", "--config"]);
        let message = run(command.arg(&file.path)).failed();
        assert!(message.contains(expected), "{line}: {message}");
        assert!(
            message.contains(&file.path.display().to_string()),
            "{message}"
        );
    }
    // The same in a variable.
    let mut command = hayloft_command(["registry"]);
    let message = run(command.env("HAYLOFT_GC_GRACE", "soon")).failed();
    assert!(
        message.contains("HAYLOFT_GC_GRACE=\"soon\", the variable of --gc-grace: this is"),
        "{message}"
    );
    // What only shows when values are put together.
    let file = written("[registry]\ntls-cert = \"a.pem\"\n");
    let mut command = hayloft_command(["config", "check"]);
    let message = run(command.arg(&file.path)).failed();
    assert!(message.contains("--tls-cert needs --tls-key"), "{message}");
}

#[test]
fn secrets_are_never_shown_and_never_taken_from_a_command_line() {
    let secret = "squeamish-ossifrage";
    let url = format!("postgres://hayloft:{secret}@db.example/hayloft");
    let option = format!("aws_secret_access_key={secret}");
    let file = written(&format!(
        "[registry]\nstorage = \"s3://models\"\nindex = \"{url}\"\nstorage-option = [\"{option}\"]\n"
    ));
    let variables = [
        ("AWS_SECRET_ACCESS_KEY", secret),
        ("AWS_ACCESS_KEY_ID", "AKIA-visible"),
        ("AWS_PROFILE", "of-other-tools"),
        ("HTTPS_PROXY", "http://me:squeamish-ossifrage@proxy.example"),
    ];
    for output in ["text", "toml", "json"] {
        let said = configured(&["show", "-o", output], &file.path, &variables).succeeded();
        assert!(!said.contains(secret), "{said}");
        assert!(said.contains("(hidden)"), "{said}");
        assert!(!said.contains("of-other-tools"), "{said}");
        assert_eq!(said.contains("AKIA-visible"), output != "toml", "{said}");
    }
    for (flag, value) in [("--index", &url), ("--storage-option", &option)] {
        let finished = run(&mut hayloft_command(["registry", flag, value]));
        let message = finished.failed();
        assert!(message.contains("every user of this machine"), "{message}");
        assert!(!message.contains(secret), "{message}");
    }
    let broken = format!("mysql://hayloft:{secret}@db/hayloft");
    let mut command = hayloft_command(["registry"]);
    let message = run(command.env("HAYLOFT_INDEX", broken)).failed();
    assert!(!message.contains(secret), "{message}");
}

#[test]
fn what_is_shown_as_a_file_gives_the_same_configuration() {
    let file = written(
        "data = \"/srv/a \\\"quoted\\\" folder\"\n[registry]\nread-only = true\nindex-file = \"url\"\n\
         retain = [\"team/*=last:10,match:v*\"]\n\
         [[registry.retention]]\nrepositories = \"demo/*\"\nkeep-last = 3\n\
         keep-matching = [\"v*\", \"stable\"]\nkeep-within = \"30d\"\nuntagged-after = \"7d\"\n\
         [runtime]\nkeep-alive = 300\norigins = [\"http://a\", \"http://b\"]\n",
    );
    let variables = [
        ("HAYLOFT_MAX_BLOB_SIZE", "4GiB"),
        ("OLLAMA_NUM_PARALLEL", "9"),
    ];
    let flags = [
        "--gc-interval",
        "none",
        "--external-url",
        "https://models.example",
    ];
    let before = shown("serve", &file.path, &variables, &flags);
    let mut command = hayloft_command(["config", "show", "-o", "toml", "--config"]);
    command.arg(&file.path).arg("--").args(flags);
    let text = run(command.envs(variables)).succeeded();
    let again = written(&text);
    let after = shown("serve", &again.path, &[], &[]);
    let values = |shown: &Value| -> Vec<(Value, Value)> {
        let settings = shown["settings"].as_array().unwrap().iter();
        // `on` and `true` are the same.
        let plain = |value: &Value| match value.as_str() {
            Some("on") => "true".into(),
            Some("off") => "false".into(),
            _ => value.clone(),
        };
        let pairs = settings.map(|setting| (setting["key"].clone(), plain(&setting["value"])));
        pairs.collect()
    };
    assert_eq!(values(&before), values(&after), "{text}");
    let rules = of(&after, "registry.retain").0;
    assert_eq!(
        rules[1], "demo/*=last:3,match:v*,match:stable,within:30d,untagged:7d",
        "{rules}"
    );
}

/// Whether a registry takes a blob of so many bytes.
async fn takes_blob(url: &str, size: usize) -> bool {
    let content = vec![b'x'; size];
    let digest = artifact::Digest::sha256(&content);
    let url = format!("{url}/v2/test/limit/blobs/uploads/?digest={digest}");
    let request = reqwest::Client::new().post(url).body(content);
    let status = request.send().await.unwrap().status();
    assert!(status == 201 || status == 413, "{status}");
    status == 201
}

#[tokio::test]
async fn a_registry_runs_by_a_file_alone_and_a_variable_goes_over_it() {
    let folder = scratch();
    let data = folder.path().join("data");
    let file = written(&format!(
        "data = {data:?}\n[registry]\nlisten = \"127.0.0.1:0\"\nmax-blob-size = \"1KiB\"\n"
    ));
    let path = file.path.to_str().unwrap();
    let by_file = Server::registry()
        .only_configured()
        .argument("--config")
        .argument(path);
    let by_file = by_file.start();
    assert!(takes_blob(&by_file.url(), 1024).await);
    assert!(!takes_blob(&by_file.url(), 1025).await);
    assert!(data.join("registry/blobs").is_dir());
    assert!(
        by_file.log().contains("configuration read"),
        "{}",
        by_file.log()
    );
    drop(by_file);
    let by_variable = Server::registry()
        .only_configured()
        .environment("HAYLOFT_CONFIG", path)
        .environment("HAYLOFT_MAX_BLOB_SIZE", "2KiB")
        .start();
    assert!(takes_blob(&by_variable.url(), 1025).await);
}

#[tokio::test]
async fn all_roles_run_by_a_file_alone_found_in_the_usual_place() {
    let folder = scratch();
    let data = folder.path().join("data");
    std::fs::create_dir(folder.path().join("hayloft")).unwrap();
    std::fs::write(
        folder.path().join("hayloft/hayloft.toml"),
        format!(
            "data = {data:?}\n[registry]\nlisten = \"127.0.0.1:0\"\nmax-blob-size = \"1KiB\"\n\
             [agent]\nlisten = \"127.0.0.1:0\"\n[runtime]\nlisten = \"127.0.0.1:0\"\n"
        ),
    )
    .unwrap();
    let place = folder.path().to_str().unwrap();
    let server = Server::all()
        .only_configured()
        .environment("XDG_CONFIG_HOME", place);
    let server = server.start();
    assert!(!takes_blob(&server.url_of("registry"), 1025).await);
    // The verbs find the same data folder, and in it the agent's socket.
    let mut command = hayloft_command(["list", "-o", "json"]);
    let listed = run(command.env("XDG_CONFIG_HOME", place)).succeeded();
    assert!(listed.starts_with('['), "{listed}");
}

#[test]
fn the_table_of_keys_and_the_example_are_those_of_this_version() {
    let table = tests::hayloft(&["config", "keys"]).succeeded();
    let guide = std::fs::read_to_string(project_root().join("docs/configuration.md")).unwrap();
    assert!(
        guide.contains(table.trim()),
        "put this into docs/configuration.md:\n{table}"
    );
    let example = project_root().join("docs/hayloft.example.toml");
    let checked = run(hayloft_command(["config", "check"]).arg(&example)).succeeded();
    assert!(checked.contains("all known"), "{checked}");
    // Every key is explained in it, set or as a comment.
    let text = std::fs::read_to_string(&example).unwrap();
    for line in table.lines().skip(2) {
        let key = line.split('`').nth(1).unwrap();
        let name = key.rsplit('.').next().unwrap();
        let is_there = text.lines().any(|line| {
            line.trim_start_matches(['#', ' '])
                .starts_with(&format!("{name} = "))
        });
        assert!(is_there, "{key} is not in the example");
    }
}
