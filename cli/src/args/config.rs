//! `hayloft config`: its tasks and forms of output.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigTask {
    /// Print every value that a role would run with, and where it came from
    Show {
        /// The role
        #[arg(long, value_enum, default_value_t = Role::Serve)]
        role: Role,
        /// Form of the output; the TOML form can be read back as a configuration file
        #[arg(long, short, value_enum, default_value_t = ConfigOutput::Text)]
        output: ConfigOutput,
        /// Flags of the role, after --
        #[arg(last = true)]
        flags: Vec<OsString>,
    },
    /// Check a configuration file: every key and every value
    Check {
        /// The file
        file: PathBuf,
    },
    /// Print all keys as a table
    #[command(hide = true)]
    Keys,
}

/// A role, as `config show` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// All of them in one process
    Serve,
    /// The registry
    Registry,
    /// The node agent
    Agent,
    /// The runtime
    Runtime,
}

impl Role {
    /// Its command.
    pub(crate) fn verb(self) -> &'static str {
        match self {
            Self::Serve => "serve",
            Self::Registry => "registry",
            Self::Agent => "agent",
            Self::Runtime => "runtime",
        }
    }
}

/// How to print a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ConfigOutput {
    /// For people
    Text,
    /// As a configuration file
    Toml,
    /// For programs
    Json,
}
