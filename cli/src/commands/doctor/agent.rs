//! Whether an agent answers, and can do its job.

use std::path::Path;

use anyhow::Result;
use artifact::CacheLayout;
use artifact::client::{AgentClient, DEFAULT_AGENT, Error, chain};

use super::report::Report;
use crate::args::AgentArgs;

const CHECK: &str = "agent";

/// The one that was named; else the one of the data folder, and whoever has its port.
pub(super) async fn check(args: &AgentArgs, cache: &Path, report: &mut Report) -> Result<()> {
    if let Some(address) = &args.agent {
        return match ask(address).await {
            Ok(()) => report.ok(CHECK, format!("{address} is ready")),
            Err(error) => report.fail(CHECK, chain(&error), advice(&error)),
        };
    }
    let socket = CacheLayout::new(cache).socket();
    let address = format!("unix://{}", socket.display());
    match ask(&address).await {
        Ok(()) => report.ok(CHECK, format!("{address} is ready"))?,
        Err(Error::AgentUnreachable { .. }) if !socket.exists() => report.warn(
            CHECK,
            format!("no agent runs on {}", cache.display()),
            "start one with hayloft agent; without one, verbs work on the cache themselves",
        )?,
        Err(error @ Error::AgentUnreachable { .. }) => report.fail(
            CHECK,
            chain(&error),
            "the socket is there and nobody answers: the agent was killed, or its user is another one",
        )?,
        Err(error) => report.fail(CHECK, chain(&error), advice(&error))?,
    }
    match ask(DEFAULT_AGENT).await {
        Ok(()) => report.ok(CHECK, format!("{DEFAULT_AGENT} is ready")),
        // It may listen elsewhere, which its socket knows and nobody else does.
        Err(Error::AgentUnreachable { .. }) => Ok(()),
        Err(error @ Error::AgentAnswer { .. }) => report.warn(CHECK, chain(&error), advice(&error)),
        Err(error) => report.fail(CHECK, chain(&error), advice(&error)),
    }
}

async fn ask(address: &str) -> Result<(), Error> {
    AgentClient::open(address)?.check_ready().await
}

fn advice(error: &Error) -> &'static str {
    match error {
        Error::Agent { .. } => "it lives and cannot do its job: see its log, and its disk above",
        Error::AgentAnswer { .. } => {
            "another program has the agent's port: give the agent another one with --listen"
        }
        _ => "start it with hayloft agent, or check its address and the firewall between",
    }
}
