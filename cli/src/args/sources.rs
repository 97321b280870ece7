//! Where a node's models come from.

use std::path::PathBuf;

use artifact::client::Upstream;
use artifact::client::sources::DEFAULT_BARE_NAMES;
use clap::{ArgAction, Args};

/// Where names lead: what `agent` and `pull` say of it.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Where models come from")]
pub(crate) struct SourcesArgs {
    /// Models whose names begin with PREFIX, a host or a host and a path, come from URL; KIND is
    /// oci, ollama or hf. Repeatable; several for one prefix are asked in order and send the weights
    /// together
    #[arg(
        long = "upstream",
        value_name = "PREFIX=KIND+URL",
        env = "HAYLOFT_AGENT_UPSTREAM",
        action = ArgAction::Append,
        value_delimiter = ';'
    )]
    pub(crate) upstreams: Vec<Upstream>,
    #[command(flatten)]
    pub(crate) rest: ReachArgs,
}

/// The same as `serve` says it, where the registry has upstreams too.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Where models come from")]
pub(crate) struct ServeSourcesArgs {
    /// Models whose names begin with PREFIX, a host or a host and a path, are pulled from URL; KIND
    /// is oci, ollama or hf. Repeatable; several for one prefix are asked in order and send the
    /// weights together
    #[arg(
        long = "agent-upstream",
        value_name = "PREFIX=KIND+URL",
        env = "HAYLOFT_AGENT_UPSTREAM",
        action = ArgAction::Append,
        value_delimiter = ';'
    )]
    // Not `upstreams`: names of fields are the identities of flags, and the registry has that one.
    pub(crate) agent_upstreams: Vec<Upstream>,
    #[command(flatten)]
    pub(crate) rest: ReachArgs,
}

impl From<ServeSourcesArgs> for SourcesArgs {
    fn from(args: ServeSourcesArgs) -> Self {
        Self {
            upstreams: args.agent_upstreams,
            rest: args.rest,
        }
    }
}

/// What both say in the same words.
#[derive(Args, Clone, Debug)]
pub(crate) struct ReachArgs {
    /// What stands before a bare name such as llama3.2; repeatable, tried in order
    #[arg(
        long = "bare-names",
        value_name = "HOST/NAMESPACE",
        env = "HAYLOFT_BARE_NAMES",
        action = ArgAction::Append,
        value_delimiter = ';',
        default_value = DEFAULT_BARE_NAMES,
        value_parser = bare_prefix
    )]
    pub(crate) bare_names: Vec<String>,
    /// A file with certificates of authorities in PEM, trusted beside the system's; repeatable
    #[arg(
        long = "ca-file",
        value_name = "FILE",
        env = "HAYLOFT_CA_FILE",
        action = ArgAction::Append,
        value_delimiter = ';'
    )]
    pub(crate) ca_files: Vec<PathBuf>,
    /// Logins for registries: a file in the form of docker's config.json, a mounted pull secret, or
    /// a folder of these; read anew on each use, and before the user's own. Repeatable
    #[arg(
        long = "registry-config",
        value_name = "PATH",
        env = "HAYLOFT_REGISTRY_CONFIG",
        action = ArgAction::Append,
        value_delimiter = ';'
    )]
    pub(crate) registry_configs: Vec<PathBuf>,
}

/// A host and a path that names can stand below.
fn bare_prefix(text: &str) -> Result<String, String> {
    let prefix = text.trim().trim_end_matches('/').to_ascii_lowercase();
    let is_whole = artifact::Reference::parse(&format!("{prefix}/x")).is_ok_and(|below| {
        format!("{}/{}", below.registry(), below.repository()) == format!("{prefix}/x")
    });
    if is_whole {
        Ok(prefix)
    } else {
        Err(format!(
            "write HOST/NAMESPACE, such as {DEFAULT_BARE_NAMES}"
        ))
    }
}
