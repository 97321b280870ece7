//! `fsck`: whether everything in a registry's storage is there, readable, and what it claims to be.

use anyhow::{Context, Result, bail};
use bytesize::ByteSize;
use registry::{FsckEvent, FsckOptions, FsckSummary};

use crate::admin::{Admin, advise_registry, until_interrupted};
use crate::args::Output;
use crate::args::storage::FsckArgs;
use crate::progress::Spinner;
use crate::report::Faulty;

pub(crate) async fn fsck(args: &FsckArgs) -> Result<()> {
    let mut follower = Follower {
        output: args.output.output,
        spinner: Spinner::new(),
        total: 0,
        summary: None,
    };
    let work = async {
        match Admin::of(&args.target).await? {
            Some(admin) => check_running(&admin, args, &mut follower).await,
            None => check_here(args, &mut follower).await,
        }
    };
    until_interrupted(work).await?;
    follower.end()
}

async fn check_running(admin: &Admin, args: &FsckArgs, follower: &mut Follower) -> Result<()> {
    let mut query = vec![("quarantine", args.quarantine.to_string())];
    query.extend(args.rate.map(|rate| ("rate", rate.to_string())));
    admin
        .run("fsck", &query, |event| follower.follow(event))
        .await
}

async fn check_here(args: &FsckArgs, follower: &mut Follower) -> Result<()> {
    let config = args.target.storage.to_config(&args.target.data)?;
    let options = FsckOptions {
        rate: args.rate,
        quarantine: args.quarantine,
    };
    let mut told = Ok(());
    let on_event = |event| {
        if told.is_ok() {
            told = follower.follow(event);
        }
    };
    registry::fsck(config, options, on_event)
        .await
        .context("checking")
        .map_err(advise_registry)?;
    told
}

/// Shows what is found, and keeps the sum.
struct Follower {
    output: Output,
    spinner: Spinner,
    total: u64,
    summary: Option<FsckSummary>,
}

impl Follower {
    fn follow(&mut self, event: FsckEvent) -> Result<()> {
        if let FsckEvent::Failed { message } = &event {
            bail!("{message}");
        }
        if self.output == Output::Json {
            if let FsckEvent::Done { summary } = &event {
                self.summary = Some(*summary);
            }
            say!("{}", serde_json::to_string(&event)?)?;
            return Ok(());
        }
        match event {
            FsckEvent::Began { bytes, .. } => {
                self.total = bytes;
                self.spinner.expect(bytes);
            }
            FsckEvent::Checked {
                records,
                contents,
                bytes,
            } => {
                let (read, total) = (ByteSize(bytes), ByteSize(self.total));
                self.spinner.show(&format!(
                    "{records} records, {contents} contents, {read} of {total}"
                ));
                self.spinner.advance(bytes);
            }
            FsckEvent::Found { finding } => {
                let kind = if finding.is_fault() { "fault" } else { "note" };
                self.spinner.aside(|| say!("{kind}: {finding}"))?;
            }
            FsckEvent::Quarantined { digest } => {
                self.spinner
                    .aside(|| say!("moved content {digest} to quarantine"))?;
            }
            FsckEvent::MapRemoved { digest } => {
                self.spinner
                    .aside(|| say!("removed the chunk map of content {digest}"))?;
            }
            FsckEvent::Done { summary } => self.summary = Some(summary),
            FsckEvent::Failed { .. } => {}
        }
        Ok(())
    }

    fn end(self) -> Result<()> {
        self.spinner.finish();
        let summary = self.summary.context("the registry broke off")?;
        if self.output == Output::Text {
            let FsckSummary {
                records,
                contents,
                faults,
                orphaned,
                quarantined,
                ..
            } = summary;
            let bytes = ByteSize(summary.bytes);
            say!(
                "checked {records} records, {contents} contents of {bytes}: {faults} faults, {orphaned} orphaned, {quarantined} quarantined"
            )?;
        }
        match summary.faults {
            0 => Ok(()),
            faults => Err(Faulty(faults).into()),
        }
    }
}
