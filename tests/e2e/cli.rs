//! The command line as a user meets it: what is printed, exit codes, folders with a Modelfile.

use std::io::Write;
use std::process::{Command, Stdio};

use tests::{Server, Terminal, fixture, hayloft, hayloft_command, project_root, run};

fn model() -> String {
    fixture("hay-tiny-q8_0.gguf").to_str().unwrap().to_owned()
}

#[test]
fn version_and_completions_need_no_server() {
    let version = hayloft(&["--version"]).succeeded();
    assert_eq!(
        version.trim(),
        format!("hayloft {}", env!("CARGO_PKG_VERSION"))
    );
    for shell in ["bash", "zsh", "fish"] {
        let script = hayloft(&["completions", shell]).succeeded();
        assert!(script.contains("registry-listen"), "{shell}");
    }
}

#[test]
fn exit_codes_tell_the_kind_of_failure() {
    let registry = Server::registry().start();
    let folder = tests::scratch();
    let data = folder.path().to_str().unwrap();
    let absent = format!("{}/demo/absent", registry.address());
    for (arguments, code) in [
        (vec!["no-such-verb"], 2),
        (vec!["pull", "h:1/a//b", "--data", data], 1),
        (vec!["pull", &absent, "--data", data], 3),
        (vec!["rm", &absent, "--data", data], 3),
        (vec!["pull", "127.0.0.1:1/demo/x", "--data", data], 4),
        (vec!["inspect", &absent], 3),
    ] {
        let finished = hayloft(&arguments);
        assert_eq!(finished.code, code, "{arguments:?}: {}", finished.stderr);
    }
}

#[test]
fn inspect_tells_what_the_registry_knows_without_pulling() {
    let registry = Server::registry().start();
    let reference = format!("{}/demo/hay-tiny:q8", registry.address());
    let _ = hayloft(&["push", &model(), &reference]).succeeded();
    let json = hayloft(&["inspect", &reference, "--output", "json"]).succeeded();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["dialect"], "modelpack");
    assert_eq!(json["gguf"]["parameters"], 2_787_584);
    assert_eq!(json["gguf"]["quantisation"], "Q8_0");
    assert_eq!(json["gguf"]["context_length"], 512);
    assert_eq!(json["manifest"]["schemaVersion"], 2);
    assert!(json["gguf"]["metadata"].is_null(), "no header was read");
    let manifest = &json["manifest"]["annotations"];
    assert_eq!(manifest["org.hayloft.gguf.quantisation"], "Q8_0");
    let text = hayloft(&["inspect", &reference]).succeeded();
    assert!(text.contains("Q8_0"), "{text}");
    assert!(!text.contains("general.architecture"), "{text}");
    let text = hayloft(&["inspect", &reference, "--metadata"]).succeeded();
    assert!(text.contains("general.architecture"), "{text}");
}

#[test]
fn pushing_the_same_file_again_sends_nothing() {
    let registry = Server::registry().start();
    let cache = tests::scratch();
    let push = |name: &str| {
        let reference = format!("{}/demo/{name}", registry.address());
        let mut command = hayloft_command(["push", &model(), &reference, "--output", "json"]);
        let said = run(command.env("XDG_CACHE_HOME", cache.path())).succeeded();
        serde_json::from_str::<serde_json::Value>(&said).unwrap()
    };
    let first = push("same");
    let second = push("same");
    assert_eq!(first["sent"], first["size"], "{first}");
    assert_eq!(second["sent"], 0, "{second}");
    assert_eq!(first["digest"], second["digest"]);
}

#[test]
fn a_folder_with_a_modelfile_carries_its_system_prompt_and_parameters() {
    let server = Server::all().start();
    let reference = format!("{}/demo/packed:1", server.address_of("registry"));
    let folder = tests::scratch();
    std::fs::copy(model(), folder.path().join("weights.gguf")).unwrap();
    std::fs::write(folder.path().join("LICENSE"), "Apache-2.0, in short").unwrap();
    std::fs::write(
        folder.path().join("Modelfile"),
        "FROM ./weights.gguf\nSYSTEM You are a test.\nPARAMETER temperature 0\nPARAMETER stop Paris\n",
    )
    .unwrap();
    let _ = hayloft(&["push", folder.path().to_str().unwrap(), &reference]).succeeded();
    let agent = server.url_of("agent");
    let _ = hayloft(&["pull", &reference, "--agent", &agent]).succeeded();
    let runtime = server.url_of("runtime");
    let shown = hayloft(&["show", &reference, "--runtime", &runtime, "-o", "json"]).succeeded();
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["system"], "You are a test.", "{shown}");
    assert!(
        shown["parameters"].as_str().unwrap().contains("Paris"),
        "{shown}"
    );
    assert!(
        shown["license"].as_str().unwrap().contains("Apache-2.0"),
        "{shown}"
    );
}

#[test]
fn a_modelfile_that_names_no_file_is_refused_before_anything_is_sent() {
    let folder = tests::scratch();
    std::fs::write(folder.path().join("Modelfile"), "FROM llama3\n").unwrap();
    let target = "127.0.0.1:1/demo/x";
    let message = hayloft(&["push", folder.path().to_str().unwrap(), target]).failed();
    assert!(message.contains("llama3"), "{message}");
}

#[test]
fn damaged_model_files_are_refused_before_anything_is_sent() {
    let whole = std::fs::read(model()).unwrap();
    let mut too_many_tensors = whole.clone();
    too_many_tensors[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    let mut endless_key = whole.clone();
    endless_key[24..32].copy_from_slice(&(u64::MAX - 7).to_le_bytes());
    let folder = tests::scratch();
    for (name, bytes) in [
        ("empty", &[][..]),
        ("cut-in-the-header", &whole[..1000]),
        ("cut-in-the-weights", &whole[..whole.len() - 10]),
        ("too-many-tensors", &too_many_tensors),
        ("endless-key", &endless_key),
    ] {
        let path = folder.path().join(format!("{name}.gguf"));
        std::fs::write(&path, bytes).unwrap();
        // Nobody listens there: an attempt to send would say so instead.
        let message = hayloft(&["push", path.to_str().unwrap(), "127.0.0.1:1/demo/x"]).failed();
        assert!(message.contains("is not a GGUF file"), "{name}: {message}");
        assert_eq!(message.lines().count(), 1, "{name}: {message}");
    }
}

#[test]
fn a_question_can_come_through_a_pipe() {
    let server = Server::all().start();
    let reference = format!("{}/demo/hay-tiny", server.address_of("registry"));
    let _ = hayloft(&["push", &model(), &reference]).succeeded();
    // Not pulled before: `run` does that.
    let mut child = hayloft_command(["run", &reference, "--runtime", &server.url_of("runtime")])
        .args(["--temperature", "0"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"What is a digest?\n")
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let answer = String::from_utf8(output.stdout).unwrap();
    assert!(
        answer.starts_with("A digest is the hash of some content"),
        "{answer}"
    );
}

#[test]
fn a_conversation_at_a_terminal_keeps_going_until_bye() {
    let server = Server::all().start();
    let reference = format!("{}/demo/hay-tiny", server.address_of("registry"));
    let _ = hayloft(&["push", &model(), &reference]).succeeded();
    let _ = hayloft(&["pull", &reference, "--agent", &server.url_of("agent")]).succeeded();
    let home = tests::scratch();
    let inner = hayloft_command(["run", &reference, "--temperature", "0"]);
    let program = inner.get_program().to_str().unwrap();
    let line = format!(
        "{program} run {reference} --temperature 0 --runtime {}",
        server.url_of("runtime")
    );
    // script(1) gives the verb a terminal.
    let mut command = Command::new("script");
    command
        .args(["--quiet", "--return", "--command", &line, "/dev/null"])
        .env("XDG_DATA_HOME", home.path())
        .env("TERM", "xterm");
    let mut terminal = Terminal::open(command);
    terminal.wait_for(">>> ");
    terminal.enter("What is 3 plus 4?");
    terminal.wait_for("3 plus 4 is 7.");
    terminal.wait_for(">>> ");
    terminal.enter("/nonsense");
    terminal.wait_for("is not a command");
    terminal.wait_for(">>> ");
    terminal.enter("/bye");
    terminal.ends_well();
    let history = std::fs::read_to_string(home.path().join("hayloft/history")).unwrap();
    assert!(history.contains("What is 3 plus 4?"), "{history}");
}

#[test]
fn the_demo_ends_well() {
    let mut demo = Command::new(project_root().join("scripts/demo.sh"));
    demo.env("DEMO_EXIT", "1");
    let said = run(&mut demo).succeeded();
    assert_eq!(
        said.matches("The capital of France is Paris.").count(),
        2,
        "{said}"
    );
}
