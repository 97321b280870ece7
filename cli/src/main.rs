//! The `hayloft` binary: parse, dispatch, exit code.

#[macro_use]
mod output;

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

use clap::Parser;

use crate::args::{Cli, Verb};

fn main() -> ExitCode {
    let cli = Cli::parse();
    start_logging(&cli.verb);
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            return report::failure(&anyhow::Error::new(error).context("cannot start threads"));
        }
    };
    let outcome = runtime.block_on(commands::run(cli.verb));
    // Interrupted work may leave a blocking read behind (a prompt at the terminal): do not wait for it.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // `hayloft list | head -1`: the reader has what it wanted.
        Err(error) if report::is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => report::failure(&error),
    }
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
