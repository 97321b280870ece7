//! `doctor`: checks, one after another, what an agent on this machine depends on, and says what was
//! found and what to do.

mod agent;
mod disk;
mod environment;
mod limits;
mod origin;
mod report;

use anyhow::Result;

use crate::args::doctor::DoctorArgs;
use crate::report::Unwell;
use environment::Environment;
use report::Report;

pub(crate) async fn doctor(args: &DoctorArgs) -> Result<()> {
    let mut report = Report::new(args.output.output);
    let cache = args.data.cache()?;
    disk::check(&cache, &args.disk, &mut report)?;
    disk::check_owners(&cache, &mut report)?;
    agent::check(&args.agent, &cache, &mut report).await?;
    limits::check(&mut report)?;
    let environment = Environment::read();
    environment.check(&mut report)?;
    origin::check(args, &environment, &mut report).await?;
    match report.end()? {
        0 => Ok(()),
        failures => Err(Unwell(failures).into()),
    }
}
