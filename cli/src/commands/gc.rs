//! `gc`: what nobody refers to goes from a registry's storage, or is told of.

use anyhow::{Context, Result, bail};
use bytesize::ByteSize;
use registry::{CollectEvent, CollectOptions, CollectSummary};

use crate::admin::{Admin, advise_registry, until_interrupted};
use crate::args::Output;
use crate::args::storage::GcArgs;
use crate::progress::Spinner;

pub(crate) async fn gc(args: &GcArgs) -> Result<()> {
    let mut follower = Follower::new(args.output.output);
    let work = async {
        match Admin::of(&args.target).await? {
            Some(admin) => collect_running(&admin, args, &mut follower).await,
            None => collect_here(args, &mut follower).await,
        }
    };
    until_interrupted(work).await?;
    follower.end()
}

async fn collect_running(admin: &Admin, args: &GcArgs, follower: &mut Follower) -> Result<()> {
    let mut query = vec![
        ("dry-run", args.dry_run.to_string()),
        ("force", args.force.to_string()),
    ];
    query.extend(
        args.grace
            .map(|grace| ("grace", grace.as_secs().to_string())),
    );
    admin
        .run("collect", &query, |event| follower.follow(event))
        .await
}

async fn collect_here(args: &GcArgs, follower: &mut Follower) -> Result<()> {
    let mut config = args.target.storage.to_config(&args.target.data)?;
    args.collection.put_into(&mut config);
    let options = CollectOptions {
        dry_run: args.dry_run,
        force: args.force,
        grace: args.grace,
    };
    let mut told = Ok(());
    let on_event = |event| {
        if told.is_ok() {
            told = follower.follow(event);
        }
    };
    registry::collect(config, options, on_event)
        .await
        .context("collecting")
        .map_err(advise_registry)?;
    told
}

/// Shows what happens, and keeps the sum.
struct Follower {
    output: Output,
    spinner: Spinner,
    dry_run: bool,
    summary: Option<CollectSummary>,
}

impl Follower {
    fn new(output: Output) -> Self {
        Self {
            output,
            spinner: Spinner::new(),
            dry_run: false,
            summary: None,
        }
    }

    fn follow(&mut self, event: CollectEvent) -> Result<()> {
        if let CollectEvent::Failed { message } = &event {
            bail!("{message}");
        }
        if self.output == Output::Json {
            if let CollectEvent::Done { summary } = &event {
                self.summary = Some(*summary);
            }
            say!("{}", serde_json::to_string(&event)?)?;
            return Ok(());
        }
        match event {
            CollectEvent::Began { dry_run, .. } => self.dry_run = dry_run,
            CollectEvent::Looked {
                repositories,
                blobs,
            } => {
                let text = format!("looked at {repositories} repositories, {blobs} blobs");
                self.spinner.show(&text);
            }
            CollectEvent::Goes { item, reason, .. } => {
                let verb = if self.dry_run {
                    "would remove"
                } else {
                    "removed"
                };
                self.spinner.aside(|| say!("{verb} {item}: {reason}"))?;
            }
            CollectEvent::Stays { item, because } => {
                self.spinner.aside(|| say!("keeps {item}: {because}"))?;
            }
            CollectEvent::Done { summary } => self.summary = Some(summary),
            CollectEvent::Failed { .. } => {}
        }
        Ok(())
    }

    fn end(self) -> Result<()> {
        self.spinner.finish();
        let summary = self.summary.context("the registry broke off")?;
        if self.output == Output::Text {
            say!("{}", shown(&summary))?;
        }
        Ok(())
    }
}

fn shown(summary: &CollectSummary) -> String {
    let CollectSummary {
        tags,
        manifests,
        blobs,
        contents,
        leases,
        ..
    } = summary;
    let bytes = ByteSize(summary.bytes);
    let (verb, freed) = if summary.dry_run {
        ("would remove", format!("up to {bytes} would become free"))
    } else {
        (
            "removed",
            format!("{contents} contents, {bytes} became free"),
        )
    };
    let CollectSummary {
        waiting,
        leased,
        untagged,
        ..
    } = summary;
    format!(
        "{verb} {tags} tags, {manifests} manifests, {blobs} blobs, {leases} leases; {freed}\n\
         kept although unreferenced: {waiting} in their grace time, {leased} leased, {untagged} untagged"
    )
}
