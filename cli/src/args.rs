//! The command line: every verb and flag, nothing else.

pub(crate) mod config;
pub(crate) mod disk;
pub(crate) mod doctor;
pub(crate) mod mirror;
pub(crate) mod network;
pub(crate) mod preload;
pub(crate) mod registry;
pub(crate) mod runtime;
pub(crate) mod sources;
pub(crate) mod storage;
pub(crate) mod values;

use std::net::SocketAddr;
use std::path::PathBuf;

use artifact::dialect::Dialect;
use clap::{Args, Parser, Subcommand, ValueEnum};
use url::Url;

use crate::args::config::ConfigTask;
use crate::args::disk::DiskArgs;
use crate::args::doctor::DoctorArgs;
use crate::args::mirror::MirrorTask;
use crate::args::network::NetworkArgs;
use crate::args::preload::{AgentTask, PreloadArgs, WaitArgs};
use crate::args::registry::RegistryOptions;
use crate::args::runtime::{ModelsArgs, RuntimeArgs};
use crate::args::sources::{ServeSourcesArgs, SourcesArgs};
use crate::args::storage::{FsckArgs, GcArgs, TargetArgs};
use crate::args::values::web_url;

/// Gets model weights to where they run: registry, node agent, runtime and their command line.
#[derive(Debug, Parser)]
#[command(
    name = "hayloft",
    version,
    propagate_version = true,
    max_term_width = 100
)]
pub(crate) struct Cli {
    /// The configuration file [default: hayloft/hayloft.toml in the XDG configuration folder, else
    /// /etc/hayloft/hayloft.toml]
    #[arg(long, value_name = "FILE", env = "HAYLOFT_CONFIG", global = true)]
    pub(crate) config: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run registry, node agent and runtime in one process
    Serve(Box<ServeArgs>),
    /// Run the registry, or look after its storage
    Registry(Box<RegistryArgs>),
    /// Run the node agent, or ask it how it is
    Agent(AgentRoleArgs),
    /// Run the runtime
    Runtime(RuntimeArgs),
    /// Push a GGUF file, or a folder with a Modelfile, to a registry
    Push(PushArgs),
    /// Pull a model into the node's cache
    Pull(PullArgs),
    /// Wait until models are on this node
    Wait(WaitArgs),
    /// List the models in the node's cache
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Show what a cached model is: parameters, template, license
    Show(ShowArgs),
    /// Remove a model from the node's cache
    Rm(RmArgs),
    /// Ask a model, once or in a conversation
    Run(RunArgs),
    /// List the models that are loaded
    Ps(PsArgs),
    /// Show a model's manifest and GGUF metadata as its registry has them
    Inspect(InspectArgs),
    /// Look after what a registry mirrors
    Mirror {
        #[command(subcommand)]
        task: MirrorTask,
    },
    /// Give a model in a registry another name, or write it in another dialect
    Tag(TagArgs),
    /// Collect what nobody refers to from a registry's storage
    Gc(GcArgs),
    /// Check a registry's storage: everything there, readable, and what it claims to be
    Fsck(FsckArgs),
    /// Check what an agent on this machine depends on: its disk, its network, its registries
    Doctor(Box<DoctorArgs>),
    /// Show what is configured and where it came from, or check a configuration file
    Config {
        #[command(subcommand)]
        task: ConfigTask,
    },
    /// Log in to a registry; the login is kept where docker keeps them
    Login(LoginArgs),
    /// Forget the login for a registry
    Logout(LogoutArgs),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Where traces go.
#[derive(Args, Clone, Debug)]
pub(crate) struct TelemetryArgs {
    /// An OpenTelemetry collector that takes traces by OTLP over HTTP, such as http://HOST:4318
    /// [default: no traces]
    #[arg(
        long,
        value_name = "URL",
        env = "OTEL_EXPORTER_OTLP_ENDPOINT",
        value_parser = web_url
    )]
    pub(crate) otlp_endpoint: Option<Url>,
}

#[derive(Args, Debug)]
pub(crate) struct LoginArgs {
    /// The registry: HOST or HOST:PORT
    #[arg(value_name = "REGISTRY")]
    pub(crate) registry: String,
    /// Name to log in with [default: asked for at the terminal]
    #[arg(short, long, value_name = "NAME")]
    pub(crate) username: Option<String>,
    /// Read the password from standard input instead of asking at the terminal
    #[arg(long, requires = "username")]
    pub(crate) password_stdin: bool,
    /// Speak plain HTTP to a registry that is not on this machine
    #[arg(long)]
    pub(crate) plain_http: bool,
}

#[derive(Args, Debug)]
pub(crate) struct LogoutArgs {
    /// The registry: HOST or HOST:PORT
    #[arg(value_name = "REGISTRY")]
    pub(crate) registry: String,
}

/// The folder that holds everything on this machine.
#[derive(Args, Clone, Debug)]
pub(crate) struct DataArgs {
    /// Data folder: the registry keeps DIR/registry, the node's cache is DIR/cache
    /// [default: hayloft in the XDG data folder]
    #[arg(long, value_name = "DIR", env = "HAYLOFT_DATA")]
    pub(crate) data: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) data: DataArgs,
    #[command(flatten)]
    pub(crate) telemetry: TelemetryArgs,
    /// Address of the registry
    #[arg(
        long,
        value_name = "ADDR",
        default_value = "127.0.0.1:5000",
        env = "HAYLOFT_REGISTRY_LISTEN"
    )]
    pub(crate) registry_listen: SocketAddr,
    /// Address of the node agent
    #[arg(
        long,
        value_name = "ADDR",
        default_value = "127.0.0.1:5001",
        env = "HAYLOFT_AGENT_LISTEN"
    )]
    pub(crate) agent_listen: SocketAddr,
    /// Address of the runtime [default: OLLAMA_HOST, else 127.0.0.1:11434]
    #[arg(long, value_name = "ADDR", env = "HAYLOFT_RUNTIME_LISTEN")]
    pub(crate) runtime_listen: Option<SocketAddr>,
    #[command(flatten)]
    pub(crate) registry: RegistryOptions,
    #[command(flatten)]
    pub(crate) sources: ServeSourcesArgs,
    #[command(flatten)]
    pub(crate) disk: DiskArgs,
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
    #[command(flatten)]
    pub(crate) preload: PreloadArgs,
    #[command(flatten)]
    pub(crate) models: ModelsArgs,
}

#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct AgentRoleArgs {
    #[command(flatten)]
    pub(crate) data: DataArgs,
    #[command(flatten)]
    pub(crate) telemetry: TelemetryArgs,
    /// Address to listen on [default: 127.0.0.1:5001]
    #[arg(
        long,
        value_name = "ADDR",
        default_value = "127.0.0.1:5001",
        env = "HAYLOFT_AGENT_LISTEN"
    )]
    pub(crate) listen: SocketAddr,
    #[command(flatten)]
    pub(crate) sources: SourcesArgs,
    #[command(flatten)]
    pub(crate) disk: DiskArgs,
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
    #[command(flatten)]
    pub(crate) preload: PreloadArgs,
    #[command(subcommand)]
    pub(crate) task: Option<AgentTask>,
}

#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct RegistryArgs {
    #[command(flatten)]
    pub(crate) data: DataArgs,
    #[command(flatten)]
    pub(crate) telemetry: TelemetryArgs,
    /// Address to listen on
    #[arg(
        long,
        value_name = "ADDR",
        default_value = "127.0.0.1:5000",
        env = "HAYLOFT_REGISTRY_LISTEN"
    )]
    pub(crate) listen: SocketAddr,
    #[command(flatten)]
    pub(crate) options: RegistryOptions,
    #[command(subcommand)]
    pub(crate) task: Option<RegistryTask>,
}

/// Work on a registry's storage.
#[derive(Debug, Subcommand)]
pub(crate) enum RegistryTask {
    /// Rebuild the index from the records, which are the truth
    Reindex(TargetArgs),
}

/// Which agent to speak to.
#[derive(Args, Clone, Debug)]
pub(crate) struct AgentArgs {
    /// The node agent: http://HOST:PORT or unix:///PATH [default: the socket in the data folder, if an
    /// agent answers there]
    #[arg(long, value_name = "URL", env = "HAYLOFT_AGENT")]
    pub(crate) agent: Option<String>,
}

/// Which runtime to speak to.
#[derive(Args, Clone, Debug)]
pub(crate) struct RuntimeUrlArgs {
    /// The runtime: http://HOST:PORT [default: OLLAMA_HOST, else http://127.0.0.1:11434]
    #[arg(long, value_name = "URL", env = "HAYLOFT_RUNTIME")]
    pub(crate) runtime: Option<String>,
}

/// How to print a listing.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct OutputArgs {
    /// Form of the output
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people
    Text,
    /// For programs
    Json,
}

#[derive(Args, Debug)]
pub(crate) struct PushArgs {
    /// A GGUF file, or a folder with a Modelfile
    pub(crate) path: PathBuf,
    #[arg(help = "HOST[:PORT]/NAMESPACE/NAME[:TAG]")]
    pub(crate) reference: String,
    /// Speak plain HTTP to a registry that is not on this machine
    #[arg(long)]
    pub(crate) plain_http: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Args, Debug)]
pub(crate) struct PullArgs {
    #[arg(
        help = "The model: HOST/NAMESPACE/NAME[:TAG], hf.co/OWNER/NAME[:QUANTISATION], or a bare name"
    )]
    pub(crate) reference: String,
    /// Only through the node's agent: fail when there is none, and do not open the cache without it
    #[arg(long)]
    pub(crate) node: bool,
    /// Speak plain HTTP to a registry that is not on this machine
    #[arg(long)]
    pub(crate) plain_http: bool,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    #[command(flatten)]
    pub(crate) agent: AgentArgs,
    #[command(flatten)]
    pub(crate) sources: SourcesArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) data: DataArgs,
    #[command(flatten)]
    pub(crate) agent: AgentArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Args, Debug)]
pub(crate) struct ShowArgs {
    /// The model
    pub(crate) reference: String,
    #[command(flatten)]
    pub(crate) runtime: RuntimeUrlArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Args, Debug)]
pub(crate) struct RmArgs {
    /// The models
    #[arg(required = true)]
    pub(crate) references: Vec<String>,
    /// Remove them although they are in use
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    #[command(flatten)]
    pub(crate) agent: AgentArgs,
}

#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    /// The model; it is pulled when it is not on this node
    pub(crate) reference: String,
    /// The question; without one a conversation starts
    pub(crate) prompt: Vec<String>,
    #[command(flatten)]
    pub(crate) runtime: RuntimeUrlArgs,
    /// System prompt
    #[arg(long)]
    pub(crate) system: Option<String>,
    /// Sampling temperature; 0 always takes the likeliest token
    #[arg(long)]
    pub(crate) temperature: Option<f32>,
    /// Most tokens to answer with
    #[arg(long)]
    pub(crate) num_predict: Option<i32>,
    /// `json`, or a JSON schema that the answer must follow
    #[arg(long)]
    pub(crate) format: Option<String>,
    /// How long the model stays loaded, such as 10m
    #[arg(long)]
    pub(crate) keepalive: Option<String>,
    /// Print token counts and times after the answer
    #[arg(long)]
    pub(crate) verbose: bool,
    /// Speak plain HTTP to a registry that is not on this machine, if the model must be pulled
    #[arg(long)]
    pub(crate) plain_http: bool,
}

#[derive(Args, Debug)]
pub(crate) struct PsArgs {
    #[command(flatten)]
    pub(crate) runtime: RuntimeUrlArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Which dialect of a model's manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// CNCF ModelPack, as push writes it
    Modelpack,
    /// Ollama's
    Ollama,
    /// Docker Model Runner's
    Docker,
}

impl Form {
    /// The dialect.
    pub(crate) fn dialect(self) -> Dialect {
        match self {
            Self::Modelpack => Dialect::ModelPack,
            Self::Ollama => Dialect::Ollama,
            Self::Docker => Dialect::Docker,
        }
    }
}

#[derive(Args, Debug)]
pub(crate) struct TagArgs {
    /// What is there already
    #[arg(value_name = "SOURCE")]
    pub(crate) source: String,
    #[arg(
        value_name = "TARGET",
        help = "Its new name: a tag, or HOST[:PORT]/NAMESPACE/NAME:TAG in the same registry \
                [default: the source itself, written in another dialect]"
    )]
    pub(crate) target: Option<String>,
    /// Write the model in this dialect [default: as it is]
    #[arg(long = "as", value_name = "DIALECT", value_enum)]
    pub(crate) form: Option<Form>,
    /// Speak plain HTTP to a registry that is not on this machine
    #[arg(long)]
    pub(crate) plain_http: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Args, Debug)]
pub(crate) struct InspectArgs {
    #[arg(
        help = "The model: HOST/NAMESPACE/NAME[:TAG], hf.co/OWNER/NAME[:QUANTISATION], or a bare name"
    )]
    pub(crate) reference: String,
    /// Show all metadata of its GGUF file, whose header is read for it
    #[arg(long)]
    pub(crate) metadata: bool,
    /// Show the chunks of its blobs, from the chunk maps that its registry offers
    #[arg(long)]
    pub(crate) chunks: bool,
    /// Speak plain HTTP to a registry that is not on this machine
    #[arg(long)]
    pub(crate) plain_http: bool,
    #[command(flatten)]
    pub(crate) sources: SourcesArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use crate::args::Cli;

    #[test]
    fn the_command_definition_is_sound() {
        Cli::command().debug_assert();
    }
}
