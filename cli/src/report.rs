//! How an error reads to a person, and which exit code it gives.

use std::process::ExitCode;

use artifact::agent_api::{AgentError, AgentErrorCode};

/// Exit codes, documented in docs/cli.md. 2 is also clap's: the command line could not be read.
mod code {
    pub(super) const FAILED: u8 = 1;
    pub(super) const MISCONFIGURED: u8 = 2;
    pub(super) const NOT_FOUND: u8 = 3;
    pub(super) const UNREACHABLE: u8 = 4;
    pub(super) const CORRUPT: u8 = 5;
    pub(super) const NO_SPACE: u8 = 6;
    pub(super) const DENIED: u8 = 7;
    pub(super) const FAULTY: u8 = 8;
    pub(super) const TIMED_OUT: u8 = 9;
    pub(super) const INTERRUPTED: u8 = 130;
}

/// The user pressed Ctrl-C.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("interrupted; run the same command again to go on where it stopped")]
pub(crate) struct Interrupted;

/// Something that was asked for by name is not there.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NotFound(pub(crate) String);

/// A registry does not let the caller do what was asked.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{registry} refuses access: {reason}; log in with hayloft login {registry}")]
pub(crate) struct Denied {
    /// `host[:port]`.
    pub(crate) registry: String,
    /// What it said.
    pub(crate) reason: String,
}

/// A check found something wrong.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("{0} faults found in the storage")]
pub(crate) struct Faulty(pub(crate) u64);

/// What was waited for did not come.
#[derive(Clone, Debug, thiserror::Error)]
#[error("waited in vain for {0}: `hayloft agent status` tells why")]
pub(crate) struct TimedOut(pub(crate) String);

/// No agent runs here.
#[derive(Clone, Debug, thiserror::Error)]
#[error("no agent answers at {}: start one with `hayloft agent`, or name it with --agent", socket.display())]
pub(crate) struct NoAgent {
    /// Where it would be.
    pub(crate) socket: std::path::PathBuf,
}

/// The doctor found what keeps an agent from its work.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("{0} of the checks failed")]
pub(crate) struct Unwell(pub(crate) usize);

/// Prints the error as one line, `error: what was attempted: cause: cause`, and gives the exit code.
pub(crate) fn failure(error: &anyhow::Error) -> ExitCode {
    tell_error(error);
    ExitCode::from(exit_code(error))
}

/// As [`failure`], for a configuration that cannot be used.
pub(crate) fn misconfigured(error: &anyhow::Error) -> ExitCode {
    tell_error(error);
    ExitCode::from(code::MISCONFIGURED)
}

fn tell_error(error: &anyhow::Error) {
    let mut parts: Vec<String> = Vec::new();
    for cause in error.chain() {
        let text = cause.to_string().replace(['\n', '\r'], " ");
        // Some libraries repeat their cause in their own text.
        if !parts.last().is_some_and(|last| last.contains(&text)) {
            parts.push(text);
        }
    }
    tell!("error: {}", escape(&parts.join(": ")));
}

/// Whether the reader of our output went away.
pub(crate) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

fn exit_code(error: &anyhow::Error) -> u8 {
    for cause in error.chain() {
        if cause.is::<Interrupted>() {
            return code::INTERRUPTED;
        }
        if cause.is::<Faulty>() {
            return code::FAULTY;
        }
        if cause.is::<TimedOut>() {
            return code::TIMED_OUT;
        }
        if cause.is::<NoAgent>() {
            return code::UNREACHABLE;
        }
        if cause.is::<NotFound>() {
            return code::NOT_FOUND;
        }
        if cause.is::<Denied>() {
            return code::DENIED;
        }
        if let Some(error) = cause.downcast_ref::<AgentError>() {
            return agent_exit_code(error.code);
        }
        if let Some(error) = cause.downcast_ref::<artifact::client::Error>() {
            return agent_exit_code(error.code());
        }
        if let Some(error) = cause.downcast_ref::<node_agent::Error>() {
            return agent_exit_code(error.code());
        }
        if let Some(error) = cause.downcast_ref::<reqwest::Error>()
            && (error.is_connect() || error.is_timeout())
        {
            return code::UNREACHABLE;
        }
    }
    code::FAILED
}

fn agent_exit_code(code: AgentErrorCode) -> u8 {
    match code {
        AgentErrorCode::NotFound => code::NOT_FOUND,
        AgentErrorCode::Unreachable => code::UNREACHABLE,
        AgentErrorCode::Corrupt => code::CORRUPT,
        AgentErrorCode::NoSpace => code::NO_SPACE,
        AgentErrorCode::Denied => code::DENIED,
        AgentErrorCode::BadRequest
        | AgentErrorCode::Unsupported
        | AgentErrorCode::Conflict
        | AgentErrorCode::Internal => code::FAILED,
    }
}

/// Texts from outside may hold terminal escapes; they are shown, not obeyed.
pub(crate) fn escape(text: &str) -> String {
    text.chars()
        .map(|character| {
            if character.is_control() && character != '\n' && character != '\t' {
                char::REPLACEMENT_CHARACTER
            } else {
                character
            }
        })
        .collect()
}
