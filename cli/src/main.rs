//! The `hayloft` binary: parse, dispatch, exit code.

#[macro_use]
mod output;

mod admin;
mod args;
mod commands;
mod config;
mod endpoint;
mod known_digests;
mod listing;
mod node;
mod package;
mod progress;
mod report;
mod runtime_client;

use std::process::ExitCode;

use clap::FromArgMatches;

use crate::args::{Cli, Verb};
use crate::config::{Failure, Loaded};

fn main() -> ExitCode {
    let (loaded, cli) = match configure() {
        Ok(configured) => configured,
        // Prints help, too, and ends with clap's own exit code.
        Err(Failure::Usage(error)) => error.exit(),
        Err(failure) => return report::misconfigured(&failure.into()),
    };
    start_logging(&cli.verb);
    if let Some(file) = &loaded.file {
        tracing::info!(file = %file.path.display(), "configuration read");
    }
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            return report::failure(&anyhow::Error::new(error).context("cannot start threads"));
        }
    };
    let outcome = runtime.block_on(commands::run(cli));
    // Interrupted work may leave a blocking read behind (a prompt at the terminal): do not wait for it.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // `hayloft list | head -1`: the reader has what it wanted.
        Err(error) if report::is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => report::failure(&error),
    }
}

/// Flags over environment over file over defaults.
fn configure() -> Result<(Loaded, Cli), Failure> {
    let words: Vec<_> = std::env::args_os().collect();
    let loaded = config::load(&words)?;
    let cli = Cli::from_arg_matches(&loaded.matches)?;
    Ok((loaded, cli))
}

/// Roles log to standard error: text on a terminal, JSON otherwise. Verbs log warnings only.
/// `HAYLOFT_LOG` takes tracing's filter syntax, such as `debug` or `registry=trace`.
fn start_logging(verb: &Verb) {
    use std::io::IsTerminal;

    let is_role = matches!(
        verb,
        Verb::Serve(_) | Verb::Registry(_) | Verb::Agent(_) | Verb::Runtime(_)
    );
    // llama.cpp tells some hundred lines at "info" for every model it loads.
    let default = if is_role {
        "info,llama-cpp-2=warn"
    } else {
        "warn"
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("HAYLOFT_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(default));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() || !is_role {
        subscriber.init();
    } else {
        subscriber.json().init();
    }
}
