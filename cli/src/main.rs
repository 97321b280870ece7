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
mod login_file;
mod node;
mod package;
mod progress;
mod remote;
mod report;
mod runtime_client;
mod sources;
mod telemetry;

use std::process::ExitCode;

use clap::FromArgMatches;

use tracing::Instrument;

use crate::args::Cli;
use crate::config::{Failure, Loaded};
use crate::telemetry::Telemetry;

fn main() -> ExitCode {
    let (loaded, cli) = match configure() {
        Ok(configured) => configured,
        // Prints help, too, and ends with clap's own exit code.
        Err(Failure::Usage(error)) => error.exit(),
        Err(failure) => return report::misconfigured(&failure.into()),
    };
    let telemetry = match telemetry(&loaded) {
        Ok(telemetry) => telemetry,
        Err(error) => return report::misconfigured(&error),
    };
    if let Some(file) = &loaded.file {
        tracing::info!(file = %file.path.display(), "configuration read");
    }
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            return report::failure(&anyhow::Error::new(error).context("cannot start threads"));
        }
    };
    let span = telemetry::span(loaded.verb().map(|(verb, _)| verb));
    let outcome = runtime.block_on(commands::run(cli).instrument(span));
    // Interrupted work may leave a blocking read behind (a prompt at the terminal): do not wait for it.
    runtime.shutdown_background();
    telemetry.finish();
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

/// Logs, and traces if a collector is named.
fn telemetry(loaded: &Loaded) -> anyhow::Result<Telemetry> {
    let (verb, said) = loaded.verb().unzip();
    let endpoint = telemetry::endpoint(said)?;
    Telemetry::start(verb.unwrap_or_default(), endpoint.as_ref())
}
