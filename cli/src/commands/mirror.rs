//! `mirror`: how a registry's mirror stands, and what it should bring in ahead.

use anyhow::{Context, Result, bail};
use artifact::reference::DEFAULT_TAG;
use artifact::{Digest, Reference};
use bytesize::ByteSize;
use registry::{MirrorStatus, WarmEvent};
use serde_json::json;

use crate::admin::{Admin, until_interrupted};
use crate::args::Output;
use crate::args::mirror::{MirrorStatusArgs, MirrorTask, WarmArgs};
use crate::listing;
use crate::progress::Progress;

pub(crate) async fn mirror(task: &MirrorTask) -> Result<()> {
    match task {
        MirrorTask::Status(args) => status(args).await,
        MirrorTask::Warm(args) => until_interrupted(warm(args)).await,
    }
}

async fn status(args: &MirrorStatusArgs) -> Result<()> {
    let admin = Admin::at(&args.registry, args.plain_http).await?;
    let status: MirrorStatus = admin.get("mirror").await?;
    if args.output.output == Output::Json {
        return listing::print_json(&status);
    }
    let bound = status
        .max_bytes
        .map(|bytes| format!(" of at most {}", ByteSize(bytes)));
    let offline = if status.offline { "; offline" } else { "" };
    let held = ByteSize(status.held_bytes);
    say!("{held}{} mirrored{offline}", bound.unwrap_or_default())?;
    say!()?;
    let rows = status.upstreams.iter().map(|upstream| {
        let health = match &upstream.last_error {
            _ if upstream.healthy => "ok".to_owned(),
            Some(error) => format!("{} failures: {error}", upstream.failures),
            None => format!("{} failures", upstream.failures),
        };
        vec![
            upstream.prefix.clone(),
            upstream.origin.clone(),
            upstream.requests.to_string(),
            upstream
                .last_success
                .as_deref()
                .map_or_else(|| "never".to_owned(), listing::ago),
            health,
        ]
    });
    let header = ["PREFIX", "UPSTREAM", "REQUESTS", "LAST ANSWER", "HEALTH"];
    listing::print(Output::Text, &(), &header, rows.collect())?;
    if status.fills.is_empty() {
        return Ok(());
    }
    say!()?;
    let rows = status.fills.iter().map(|fill| {
        let percent = fill.completed.saturating_mul(100) / fill.total.max(1);
        vec![
            fill.digest.chars().take(19).collect(),
            fill.repository.clone(),
            format!(
                "{} of {} ({percent} %)",
                ByteSize(fill.completed),
                ByteSize(fill.total)
            ),
            format!("{}/s", ByteSize(fill.rate)),
            fill.readers.to_string(),
        ]
    });
    let header = ["FILL", "REPOSITORY", "BYTES", "RATE", "READERS"];
    listing::print(Output::Text, &(), &header, rows.collect())
}

async fn warm(args: &WarmArgs) -> Result<()> {
    let mut done = Vec::new();
    for text in &args.references {
        let place = Place::parse(text)?;
        let admin = Admin::at(&place.registry, args.plain_http).await?;
        let mut follower = Follower::new();
        let query = [
            ("repository", place.repository),
            ("reference", place.reference),
        ];
        admin
            .run("mirror/warm", &query, |event| follower.follow(event))
            .await
            .with_context(|| format!("warming {text}"))?;
        let (fetched, held) = follower.end.context("the registry broke off")?;
        if args.output.output == Output::Text {
            let (fetched, held) = (ByteSize(fetched), ByteSize(held));
            say!("{text}: {fetched} fetched, {held} already there")?;
        }
        done.push(json!({ "reference": text, "fetched": fetched, "held": held }));
    }
    match args.output.output {
        Output::Json => listing::print_json(&done),
        Output::Text => Ok(()),
    }
}

/// A model in a mirror. Its name may have upper case, which its upstream may care for.
struct Place {
    registry: String,
    repository: String,
    reference: String,
}

impl Place {
    fn parse(text: &str) -> Result<Self> {
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (text, None),
        };
        let (path, tag) = match name.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
            _ => (name, None),
        };
        let reference = digest.or(tag).unwrap_or(DEFAULT_TAG);
        if let Some(digest) = digest {
            Digest::parse(digest)?;
        }
        // Folded, it must be a reference as any other.
        let folded = path.to_ascii_lowercase();
        let parsed = Reference::parse(&format!("{folded}:{}", tag.unwrap_or(DEFAULT_TAG)))?;
        let Some((registry, repository)) = path.split_once('/') else {
            bail!("{text:?} does not name a registry: write HOST[:PORT]/PREFIX/NAME[:TAG]");
        };
        if parsed.registry() != registry.to_ascii_lowercase() {
            bail!("{text:?} does not name a registry: write HOST[:PORT]/PREFIX/NAME[:TAG]");
        }
        Ok(Self {
            registry: registry.to_owned(),
            repository: repository.to_owned(),
            reference: reference.to_owned(),
        })
    }
}

/// Shows what comes.
struct Follower {
    progress: Progress,
    /// Bytes fetched and bytes that were there.
    end: Option<(u64, u64)>,
}

impl Follower {
    fn new() -> Self {
        Self {
            progress: Progress::new(),
            end: None,
        }
    }

    fn follow(&mut self, event: WarmEvent) -> Result<()> {
        match event {
            WarmEvent::Resolved { digest, total } => {
                let text = format!("{digest}: {} in all", ByteSize(total));
                self.progress.note(&text);
            }
            WarmEvent::Progress {
                digest,
                completed,
                total,
            } => {
                let label = format!("filling {}", &digest.hex()[..12]);
                self.progress.begin_once(digest, &label, total);
                self.progress.advance(&digest, completed);
                if completed == total {
                    self.progress.finish(&digest);
                }
            }
            WarmEvent::Done { fetched, held } => self.end = Some((fetched, held)),
            WarmEvent::Failed { message } => bail!("{message}"),
        }
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed expectation is a failed test")]
mod tests {
    use crate::commands::mirror::Place;

    #[test]
    fn a_place_in_a_mirror_keeps_its_spelling() {
        let place = Place::parse("127.0.0.1:5000/hf/User/Repo-GGUF:Q4_K_M").unwrap();
        assert_eq!(place.registry, "127.0.0.1:5000");
        assert_eq!(place.repository, "hf/User/Repo-GGUF");
        assert_eq!(place.reference, "Q4_K_M");
        assert_eq!(Place::parse("h:1/a/b").unwrap().reference, "latest");
        for bad in ["", "x", "hub/x:1", "h:1/a b", "h:1/a@sha256:x"] {
            assert!(Place::parse(bad).is_err(), "{bad}");
        }
    }
}
