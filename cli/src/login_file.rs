//! Docker's `config.json`, as far as logins go: written so that docker, podman, skopeo, helm, crane
//! and the others read it, and everything else in it stays as it is.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

/// Only its owner may read a file with logins.
const MODE: u32 = 0o600;

/// The file.
pub(crate) struct LoginFile(PathBuf);

impl LoginFile {
    /// At this path; it need not exist.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// Keeps a login, in the file or with the helper that the file names; says where.
    pub(crate) fn store(&self, registry: &str, username: &str, password: &str) -> Result<String> {
        let mut config = self.read()?;
        if let Some(helper) = helper_of(&config, registry) {
            let login = json!({
                "ServerURL": registry,
                "Username": username,
                "Secret": password,
            });
            run_helper(&helper, "store", &login.to_string())?;
            return Ok(format!("docker-credential-{helper}"));
        }
        let encoded = STANDARD.encode(format!("{username}:{password}"));
        let auths = config.entry("auths").or_insert_with(|| json!({}));
        let Some(auths) = auths.as_object_mut() else {
            bail!("{}: \"auths\" is not an object", self.0.display());
        };
        auths.insert(registry.to_owned(), json!({ "auth": encoded }));
        self.write(&config)?;
        Ok(self.0.display().to_string())
    }

    /// Forgets a login; false when there was none.
    pub(crate) fn erase(&self, registry: &str) -> Result<bool> {
        let mut config = self.read()?;
        if let Some(helper) = helper_of(&config, registry) {
            run_helper(&helper, "erase", registry)?;
            return Ok(true);
        }
        let auths = config.get_mut("auths").and_then(Value::as_object_mut);
        let had = auths.is_some_and(|auths| auths.shift_remove(registry).is_some());
        if had {
            self.write(&config)?;
        }
        Ok(had)
    }

    fn read(&self) -> Result<Map<String, Value>> {
        let path = self.0.display();
        let text = match std::fs::read(&self.0) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Map::new()),
            Err(error) => return Err(error).with_context(|| format!("{path} cannot be read")),
        };
        // What the parser met may be a piece of a password: only that it failed is told.
        serde_json::from_slice(&text)
            .ok()
            .with_context(|| format!("{path} is not a JSON object: mend or remove it"))
    }

    /// A new file takes the place of the old one, so that nobody ever reads half of it.
    fn write(&self, config: &Map<String, Value>) -> Result<()> {
        let path = self.0.display();
        let write = || {
            // Where a link leads, so that it stays one.
            let target = std::fs::canonicalize(&self.0).unwrap_or_else(|_| self.0.clone());
            let folder = target.parent().map(PathBuf::from).unwrap_or_default();
            std::fs::create_dir_all(&folder)?;
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            file.as_file()
                .set_permissions(std::fs::Permissions::from_mode(MODE))?;
            serde_json::to_writer_pretty(&mut file, config)?;
            writeln!(file)?;
            file.as_file().sync_all()?;
            file.persist(target)?;
            Ok::<_, std::io::Error>(())
        };
        write().with_context(|| format!("{path} cannot be written"))
    }
}

/// The helper that keeps this registry's login instead of the file.
fn helper_of(config: &Map<String, Value>, registry: &str) -> Option<String> {
    let own = config.get("credHelpers").and_then(|all| all.get(registry));
    let helper = own.or_else(|| config.get("credsStore"))?.as_str()?;
    (!helper.is_empty()).then(|| helper.to_owned())
}

fn run_helper(helper: &str, verb: &str, input: &str) -> Result<()> {
    let name = format!("docker-credential-{helper}");
    let mut process = Command::new(&name)
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| {
            format!("{name}, which docker's configuration names, cannot be started")
        })?;
    if let Some(mut stdin) = process.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    let status = process.wait()?;
    if !status.success() {
        bail!("{name} {verb} failed ({status})");
    }
    Ok(())
}
