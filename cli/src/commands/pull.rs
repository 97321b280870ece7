//! `pull`: a model into the node's cache.

use anyhow::{Context, Result};
use artifact::ModelName;
use artifact::agent_api::{EnsureRequest, PullEvent};
use bytesize::ByteSize;
use serde_json::json;

use crate::args::{Output, PullArgs};
use crate::endpoint;
use crate::listing;
use crate::node::Node;
use crate::progress::Progress;
use crate::report::Interrupted;

pub(crate) async fn pull(args: &PullArgs) -> Result<()> {
    let name = ModelName::parse(&args.reference)?;
    let config = |cache| endpoint::agent_config(cache, &args.sources);
    let node = if args.node {
        Node::Agent(endpoint::running_agent(&args.agent, &args.data).await?)
    } else {
        Node::open_with(&args.agent, &args.data, config).await?
    };
    let request = EnsureRequest {
        plain_http: args.plain_http,
        ..EnsureRequest::from(&name)
    };
    let mut follower = Follower::new();
    let mut on_event = |event: &PullEvent| follower.follow(event);
    let model = tokio::select! {
        model = node.ensure(&request, &mut on_event) => model.with_context(|| format!("pulling {name}"))?,
        _ = tokio::signal::ctrl_c() => return Err(Interrupted.into()),
    };
    match args.output.output {
        Output::Json => listing::print_json(&json!({
            "reference": model.reference,
            "digest": model.digest,
            "size": model.size,
            "fetched": follower.fetched,
            "reused": follower.reused,
        })),
        Output::Text => {
            say!(
                "{} {}: {} fetched, {} already here",
                model.reference,
                model.digest,
                ByteSize(follower.fetched),
                ByteSize(follower.reused)
            )?;
            Ok(())
        }
    }
}

/// Turns the events of a pull into progress that a person can follow.
struct Follower {
    progress: Progress,
    fetched: u64,
    reused: u64,
}

impl Follower {
    fn new() -> Self {
        Self {
            progress: Progress::new(),
            fetched: 0,
            reused: 0,
        }
    }

    fn follow(&mut self, event: &PullEvent) {
        match event {
            PullEvent::Resolving { reference } => {
                self.progress.note(&format!("resolving {reference}"))
            }
            PullEvent::Resolved { blobs, .. } => {
                for blob in blobs.iter().filter(|blob| !blob.cached) {
                    let label = format!("pulling {}", &blob.digest.hex()[..12]);
                    self.progress.begin(blob.digest, &label, blob.size);
                }
            }
            PullEvent::Progress {
                digest, completed, ..
            } => self.progress.advance(digest, *completed),
            PullEvent::Verifying { digest } => self.progress.finish(digest),
            PullEvent::Ready {
                fetched, reused, ..
            } => {
                self.fetched = *fetched;
                self.reused = *reused;
            }
            // The error itself is told by the caller.
            PullEvent::Failed { .. } => {}
        }
    }
}
