//! `login` and `logout`: a name and a password for a registry, kept where docker keeps them.

use std::io::{IsTerminal, Read, Write};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use artifact::client::{Credentials, RegistryOptions, Transport, check_login};

use crate::args::{LoginArgs, LogoutArgs};
use crate::endpoint;
use crate::login_file::LoginFile;

/// Longest name or password that is read.
const MAX_BYTES: u64 = 64 * 1024;

/// Stores a login after the registry has let it in.
pub(crate) async fn login(args: &LoginArgs) -> Result<()> {
    let username = match &args.username {
        Some(username) => username.clone(),
        None => ask("Username: ", false)?,
    };
    if username.is_empty() || username.contains(':') {
        bail!("the name must not be empty, and has no colon");
    }
    let password = if args.password_stdin {
        from_stdin()?
    } else {
        ask("Password: ", true)?
    };
    let options = RegistryOptions {
        plain_http: args.plain_http,
        credentials: Credentials::Basic {
            username: username.clone(),
            password: password.clone(),
        },
    };
    check_login(&Transport::default(), &args.registry, &options)
        .await
        .with_context(|| format!("logging in to {}", args.registry))?;
    let file = LoginFile::new(endpoint::docker_config()?);
    let place = file.store(&args.registry, &username, &password)?;
    say!(
        "logged in to {} as {username}; kept in {place}",
        args.registry
    )?;
    Ok(())
}

/// Forgets a login.
pub(crate) fn logout(args: &LogoutArgs) -> Result<()> {
    let file = LoginFile::new(endpoint::docker_config()?);
    if file.erase(&args.registry)? {
        say!("logged out of {}", args.registry)?;
    } else {
        say!("there was no login for {}", args.registry)?;
    }
    Ok(())
}

fn from_stdin() -> Result<String> {
    let mut password = String::new();
    std::io::stdin()
        .take(MAX_BYTES)
        .read_to_string(&mut password)
        .context("the password cannot be read from standard input")?;
    let password = password.trim_end_matches(['\r', '\n']).to_owned();
    if password.is_empty() {
        bail!("there is no password on standard input");
    }
    Ok(password)
}

/// Asks at the terminal.
fn ask(question: &str, is_secret: bool) -> Result<String> {
    if !std::io::stdin().is_terminal() {
        bail!("there is no terminal to ask at: give --username and --password-stdin");
    }
    let mut prompt = std::io::stderr();
    write!(prompt, "{question}")?;
    prompt.flush()?;
    let silence = is_secret.then(Silence::begin).transpose()?;
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    if silence.is_some() {
        // The line break that was not shown.
        writeln!(prompt)?;
    }
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// While it lives the terminal does not show what is typed.
struct Silence;

impl Silence {
    fn begin() -> Result<Self> {
        if stty("-echo") {
            return Ok(Self);
        }
        bail!("the terminal cannot be kept from showing the password: use --password-stdin")
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        stty("echo");
    }
}

fn stty(argument: &str) -> bool {
    let mut command = Command::new("stty");
    let command = command.arg(argument).stdin(Stdio::inherit());
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
