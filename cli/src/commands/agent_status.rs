//! `agent status`: what the node's agent is doing.

use anyhow::{Context, Result};
use artifact::agent_api::{AgentStatus, PreloadState, PreloadedModel};
use bytesize::ByteSize;

use crate::args::Output;
use crate::args::preload::AgentStatusArgs;
use crate::endpoint;
use crate::listing::{self, ago};
use crate::report::escape;

pub(crate) async fn status(args: &AgentStatusArgs) -> Result<()> {
    let agent = endpoint::running_agent(&args.agent, &args.data).await?;
    let status = agent.status().await.context("asking for the status")?;
    if args.output.output == Output::Json {
        return listing::print_json(&status);
    }
    say!(
        "hayloft agent {}, started {}, cache {}",
        status.version,
        ago(&status.started_at),
        escape(&status.cache)
    )?;
    say!("{}", disk(&status))?;
    for download in &status.downloads {
        let completed = ByteSize(download.completed);
        say!("downloading {}: {completed}", download.digest)?;
    }
    for lease in &status.leases {
        let (reference, holder) = (&lease.reference, escape(&lease.holder));
        say!("{reference} held by {holder} until {}", lease.expires)?;
    }
    let Some(preload) = &status.preload else {
        return Ok(());
    };
    say!()?;
    say!("kept on the node by {}:", escape(&preload.file))?;
    if let Some(problem) = &preload.problem {
        say!(
            "  the file is no good list, the last good one counts: {}",
            escape(problem)
        )?;
    }
    let rows = preload.models.iter().map(row).collect();
    let header = ["MODEL", "STATE", "", ""];
    listing::print(Output::Text, &preload.models, &header, rows)
}

fn disk(status: &AgentStatus) -> String {
    let disk = &status.disk;
    format!(
        "disk: {} of {} free, {} cached; evicts from {} % in use down to {} %",
        ByteSize(disk.free),
        ByteSize(disk.total),
        ByteSize(disk.cached),
        disk.high_watermark,
        disk.low_watermark
    )
}

fn row(model: &PreloadedModel) -> Vec<String> {
    let pin = if model.pin { "pinned" } else { "" };
    vec![
        model.name.clone(),
        model.state.as_str().to_owned(),
        pin.to_owned(),
        told(&model.state),
    ]
}

/// What there is to say of a state, in a few words.
pub(crate) fn told(state: &PreloadState) -> String {
    match state {
        PreloadState::Waiting | PreloadState::Pulling { total: 0, .. } => String::new(),
        PreloadState::Pulling { completed, total } => {
            format!("{} of {}", ByteSize(*completed), ByteSize(*total))
        }
        PreloadState::Ready {
            digest,
            since,
            note,
            ..
        } => {
            let note = note.as_ref().map(|note| format!("; {note}"));
            let digest = &digest.hex()[..12];
            format!("{digest} since {}{}", ago(since), note.unwrap_or_default())
        }
        PreloadState::Failed {
            error,
            tries,
            next_try,
        } => format!("{error} (try {tries}, the next at {next_try})"),
    }
}
