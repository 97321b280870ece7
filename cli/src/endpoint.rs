//! Where things are: the data folder, the agent, the runtime.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use artifact::CacheLayout;
use artifact::client::agent::AgentClient;
use artifact::client::{Credentials, LoginFiles, Transport};

use crate::args::sources::SourcesArgs;
use crate::args::{AgentArgs, DataArgs, RuntimeUrlArgs};
use crate::report::NoAgent;

/// Port of the runtime, Ollama's own.
const RUNTIME_PORT: u16 = 11434;

impl DataArgs {
    /// The data folder: the flag, else `hayloft` in the XDG data folder.
    pub(crate) fn folder(&self) -> Result<PathBuf> {
        if let Some(folder) = &self.data {
            // Absolute, since the socket below it is named in a URL.
            return std::path::absolute(folder)
                .with_context(|| format!("--data {}", folder.display()));
        }
        let xdg = std::env::var_os("XDG_DATA_HOME").filter(|value| !value.is_empty());
        let base = match xdg {
            Some(folder) => PathBuf::from(folder),
            None => match std::env::var_os("HOME").filter(|value| !value.is_empty()) {
                Some(home) => PathBuf::from(home).join(".local/share"),
                None => bail!("no data folder: HOME is not set; name one with --data DIR"),
            },
        };
        Ok(base.join("hayloft"))
    }

    /// Where the registry keeps its storage.
    pub(crate) fn registry(&self) -> Result<PathBuf> {
        Ok(self.folder()?.join("registry"))
    }

    /// The node's cache.
    pub(crate) fn cache(&self) -> Result<PathBuf> {
        Ok(self.folder()?.join("cache"))
    }
}

/// The agent to use: the one named, else the one that answers on the data folder's socket.
/// Nothing when there is none; the cache is then used directly.
pub(crate) async fn agent(args: &AgentArgs, data: &DataArgs) -> Result<Option<AgentClient>> {
    if let Some(url) = &args.agent {
        let client = AgentClient::open(url).with_context(|| format!("--agent {url}"))?;
        return Ok(Some(client));
    }
    let socket = CacheLayout::new(data.cache()?).socket();
    if !answers(&socket).await {
        return Ok(None);
    }
    Ok(Some(AgentClient::open(&socket_url(&socket))?))
}

/// The same, for what only a running agent can do.
pub(crate) async fn running_agent(args: &AgentArgs, data: &DataArgs) -> Result<AgentClient> {
    match agent(args, data).await? {
        Some(client) => Ok(client),
        None => Err(NoAgent {
            socket: CacheLayout::new(data.cache()?).socket(),
        }
        .into()),
    }
}

/// The agent that the runtime asks: the one named, else the one of the same data folder, which
/// may come and go.
pub(crate) fn agent_of_runtime(args: &AgentArgs, data: &DataArgs) -> Result<String> {
    match &args.agent {
        Some(url) => Ok(url.clone()),
        None => Ok(socket_url(&CacheLayout::new(data.cache()?).socket())),
    }
}

fn socket_url(socket: &Path) -> String {
    format!("unix://{}", socket.display())
}

async fn answers(socket: &Path) -> bool {
    tokio::net::UnixStream::connect(socket).await.is_ok()
}

/// Base URL of the runtime: the flag, else `OLLAMA_HOST`, else this machine.
pub(crate) fn runtime(args: &RuntimeUrlArgs) -> Result<String> {
    if let Some(url) = &args.runtime {
        let url = url.trim_end_matches('/');
        if !url.starts_with("http://") && !url.starts_with("https://") {
            bail!("--runtime {url:?} is not a URL: write it as http://HOST:PORT");
        }
        return Ok(url.to_owned());
    }
    let host = std::env::var("OLLAMA_HOST").unwrap_or_default();
    let mut parts = parse_ollama_host(&host).with_context(|| format!("OLLAMA_HOST={host:?}"))?;
    // A server may listen on every address; a client must pick one.
    if parts.host == "0.0.0.0" || parts.host == "[::]" {
        parts.host = "127.0.0.1".to_owned();
    }
    Ok(format!("{}://{}:{}", parts.scheme, parts.host, parts.port))
}

/// Address for the runtime to listen on: the flag, else `OLLAMA_HOST`, else this machine.
pub(crate) fn runtime_listen(flag: Option<SocketAddr>) -> Result<SocketAddr> {
    if let Some(address) = flag {
        return Ok(address);
    }
    let host = std::env::var("OLLAMA_HOST").unwrap_or_default();
    let parts = parse_ollama_host(&host).with_context(|| format!("OLLAMA_HOST={host:?}"))?;
    let name = if parts.host == "localhost" {
        "127.0.0.1"
    } else {
        &parts.host
    };
    format!("{name}:{}", parts.port)
        .parse()
        .with_context(|| format!("OLLAMA_HOST={host:?} does not name an address to listen on"))
}

/// A node agent on this cache, which pulls from these sources with the logins that are stored.
pub(crate) fn agent_config(cache: PathBuf, sources: &SourcesArgs) -> Result<node_agent::Config> {
    let mut config = node_agent::Config::new(cache);
    config.pull.credentials =
        Credentials::Stored(login_files(sources.rest.registry_configs.clone()));
    config.pull.sources = sources.to_sources()?;
    config.pull.transport = sources.rest.to_transport();
    // A file that cannot be read is told now, not at the first pull.
    if !config.pull.transport.ca_files.is_empty() {
        Transport::new(config.pull.transport.clone()).check()?;
    }
    Ok(config)
}

/// The logins that docker and podman have stored, and `hayloft login`.
pub(crate) fn stored_logins() -> Credentials {
    Credentials::Stored(login_files(Vec::new()))
}

/// The same, after pull secrets.
pub(crate) fn login_files(secrets: Vec<PathBuf>) -> LoginFiles {
    let home = folder_of("HOME");
    let podman = folder_of("XDG_RUNTIME_DIR").or_else(|| Some(home.as_ref()?.join(".config")));
    let files = [
        folder_of("REGISTRY_AUTH_FILE"),
        docker_config().ok(),
        podman.map(|folder| folder.join("containers/auth.json")),
        home.map(|home| home.join(".config/containers/auth.json")),
    ];
    LoginFiles::new(files.into_iter().flatten().collect()).after_secrets(secrets)
}

/// Docker's `config.json`: in the folder that `DOCKER_CONFIG` names, else in `~/.docker`.
pub(crate) fn docker_config() -> Result<PathBuf> {
    let folder = folder_of("DOCKER_CONFIG").or_else(|| Some(folder_of("HOME")?.join(".docker")));
    match folder {
        Some(folder) => Ok(folder.join("config.json")),
        None => bail!("logins have no place: neither DOCKER_CONFIG nor HOME is set"),
    }
}

fn folder_of(variable: &str) -> Option<PathBuf> {
    let value = std::env::var_os(variable).filter(|value| !value.is_empty());
    value.map(PathBuf::from)
}

/// Where conversations keep the questions that were typed; nothing when there is no home folder.
pub(crate) fn history_file() -> Option<PathBuf> {
    let folder = DataArgs { data: None }.folder().ok()?;
    Some(folder.join("history"))
}

#[derive(Debug, PartialEq)]
struct OllamaHost {
    scheme: &'static str,
    host: String,
    port: u16,
}

/// Reads `[scheme://][host][:port][/]` as Ollama does (envconfig `Host`).
fn parse_ollama_host(text: &str) -> Result<OllamaHost> {
    let text = text.trim().trim_matches(['"', '\'']);
    let (scheme, rest, default_port) = match text.split_once("://") {
        Some(("http", rest)) => ("http", rest, 80),
        Some(("https", rest)) => ("https", rest, 443),
        Some((other, _)) => bail!("scheme {other:?} is not http or https"),
        None => ("http", text, RUNTIME_PORT),
    };
    let rest = rest.split('/').next().unwrap_or(rest);
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (
            host,
            port.parse()
                .context("the port is not a number from 1 to 65535")?,
        ),
        _ => (rest, default_port),
    };
    let host = if host.is_empty() { "127.0.0.1" } else { host };
    Ok(OllamaHost {
        scheme,
        host: host.to_owned(),
        port,
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed expectation is a failed test")]
mod tests {
    use crate::endpoint::parse_ollama_host;

    #[test]
    fn ollama_host_is_read_as_ollama_reads_it() {
        for (text, scheme, host, port) in [
            ("", "http", "127.0.0.1", 11434),
            ("0.0.0.0", "http", "0.0.0.0", 11434),
            (":8080", "http", "127.0.0.1", 8080),
            ("example.com:56789", "http", "example.com", 56789),
            ("https://example.com", "https", "example.com", 443),
            ("http://[::1]:8080/", "http", "[::1]", 8080),
        ] {
            let parts = parse_ollama_host(text).unwrap();
            assert_eq!(
                (parts.scheme, parts.host.as_str(), parts.port),
                (scheme, host, port),
                "{text}"
            );
        }
        assert!(parse_ollama_host("ftp://x").is_err());
        assert!(parse_ollama_host("x:99999").is_err());
    }
}
