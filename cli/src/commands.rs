//! One function per verb.

mod agent_status;
mod config;
mod doctor;
mod fsck;
mod gc;
mod inspect;
mod login;
mod mirror;
mod models;
mod pull;
mod push;
mod roles;
mod run;
mod tag;
mod wait;

use anyhow::Result;
use clap::CommandFactory;

use crate::args::preload::AgentTask;
use crate::args::{Cli, RegistryTask, Verb};

/// Does what the command line asks for.
pub(crate) async fn run(cli: Cli) -> Result<()> {
    match cli.verb {
        Verb::Serve(args) => roles::serve(*args).await,
        Verb::Registry(args) => match &args.task {
            None => roles::registry(&args).await,
            Some(RegistryTask::Reindex(target)) => roles::reindex(target).await,
        },
        Verb::Mirror { task } => mirror::mirror(&task).await,
        Verb::Gc(args) => gc::gc(&args).await,
        Verb::Fsck(args) => fsck::fsck(&args).await,
        Verb::Agent(args) => match args.task {
            None => roles::agent(&args).await,
            Some(AgentTask::Status(status)) => agent_status::status(&status).await,
        },
        Verb::Runtime(args) => roles::runtime(args).await,
        Verb::Push(args) => push::push(&args).await,
        Verb::Pull(args) => pull::pull(&args).await,
        Verb::Wait(args) => wait::wait(&args).await,
        Verb::List(args) => models::list(&args).await,
        Verb::Show(args) => models::show(&args).await,
        Verb::Rm(args) => models::rm(&args).await,
        Verb::Run(args) => run::run(args).await,
        Verb::Ps(args) => models::ps(&args).await,
        Verb::Inspect(args) => inspect::inspect(&args).await,
        Verb::Tag(args) => tag::tag(&args).await,
        Verb::Doctor(args) => doctor::doctor(&args).await,
        Verb::Config { task } => config::config(&task, cli.config.as_deref()),
        Verb::Login(args) => login::login(&args).await,
        Verb::Logout(args) => login::logout(&args),
        Verb::Completions { shell } => {
            clap_complete::generate(
                shell,
                &mut Cli::command(),
                "hayloft",
                &mut std::io::stdout(),
            );
            Ok(())
        }
    }
}
