//! What a runtime can be told.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;

use crate::args::{AgentArgs, DataArgs, TelemetryArgs};

#[derive(Args, Debug)]
pub(crate) struct RuntimeArgs {
    #[command(flatten)]
    pub(crate) data: DataArgs,
    #[command(flatten)]
    pub(crate) telemetry: TelemetryArgs,
    /// Address to listen on [default: OLLAMA_HOST, else 127.0.0.1:11434]
    #[arg(long, value_name = "ADDR", env = "HAYLOFT_RUNTIME_LISTEN")]
    pub(crate) listen: Option<SocketAddr>,
    #[command(flatten)]
    pub(crate) agent: AgentArgs,
    #[command(flatten)]
    pub(crate) models: ModelsArgs,
}

/// How the runtime serves models. The variables are those that people have set for Ollama.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Models of the runtime")]
pub(crate) struct ModelsArgs {
    /// How long a model stays loaded after its last request: 5m, 300 (seconds), -1 (for ever)
    #[arg(
        long,
        value_name = "TIME",
        default_value = "5m",
        env = "OLLAMA_KEEP_ALIVE",
        allow_hyphen_values = true,
        value_parser = keep_alive
    )]
    pub(crate) keep_alive: Duration,
    /// Requests that one model answers at the same time
    #[arg(
        long,
        value_name = "N",
        default_value_t = 4,
        env = "OLLAMA_NUM_PARALLEL"
    )]
    pub(crate) num_parallel: usize,
    /// Context of each request in tokens [default: the model's num_ctx, else 4096]
    #[arg(long, value_name = "TOKENS", env = "OLLAMA_CONTEXT_LENGTH")]
    pub(crate) context_length: Option<u32>,
    /// Requests that may wait for one model before others are turned away
    #[arg(
        long,
        value_name = "N",
        default_value_t = 512,
        env = "OLLAMA_MAX_QUEUE"
    )]
    pub(crate) max_queue: usize,
    /// Models loaded at the same time
    #[arg(
        long,
        value_name = "N",
        default_value_t = 3,
        env = "OLLAMA_MAX_LOADED_MODELS"
    )]
    pub(crate) max_loaded_models: usize,
    /// Threads to compute with [default: what the CPU quota and affinity allow]
    #[arg(long, value_name = "N", env = "HAYLOFT_THREADS")]
    pub(crate) threads: Option<usize>,
    /// Origins beside this machine's own that browsers may call from
    #[arg(
        long,
        value_name = "ORIGIN",
        value_delimiter = ',',
        env = "OLLAMA_ORIGINS"
    )]
    pub(crate) origins: Vec<String>,
}

/// Longest time that is kept as such; what is longer means for ever.
const MAX_KEEP_ALIVE: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Ollama's rule: a number is seconds, a text is a duration, below zero means for ever.
fn keep_alive(text: &str) -> Result<Duration, String> {
    let parsed = match text.parse::<i64>() {
        Ok(seconds) => jiff::SignedDuration::from_secs(seconds),
        Err(_) => text
            .parse::<jiff::SignedDuration>()
            .map_err(|error| format!("{error}; write it as 5m, 300 or -1"))?,
    };
    Ok(Duration::try_from(parsed).map_or(MAX_KEEP_ALIVE, |time| time.min(MAX_KEEP_ALIVE)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::args::runtime::{MAX_KEEP_ALIVE, keep_alive};

    #[test]
    fn keep_alive_is_read_as_ollama_reads_it() {
        assert_eq!(keep_alive("300"), Ok(Duration::from_secs(300)));
        assert_eq!(keep_alive("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(keep_alive("0"), Ok(Duration::ZERO));
        for forever in ["-1", "-1m", "9223372036854775807"] {
            assert_eq!(keep_alive(forever), Ok(MAX_KEEP_ALIVE), "{forever}");
        }
        assert!(keep_alive("soon").is_err());
    }
}
