//! `config show` and `config check`: what is configured, and whether a file can be read.

use std::ffi::OsString;
use std::path::Path;

use anyhow::{Context, Result, bail};
use clap::{CommandFactory, FromArgMatches};

use crate::args::Cli;
use crate::args::config::{ConfigOutput, ConfigTask, Role};
use crate::args::registry::RegistryOptions;
use crate::config::file::{Error, File};
use crate::config::keys::Keys;
use crate::config::show::Effective;
use crate::config::{self, Failure};

/// Does what `hayloft config` asks for; `file` is its `--config`.
pub(crate) fn config(task: &ConfigTask, file: Option<&Path>) -> Result<()> {
    match task {
        ConfigTask::Show {
            role,
            output,
            flags,
        } => show(*role, *output, flags, file),
        ConfigTask::Check { file } => check(file),
        ConfigTask::Keys => {
            say!("{}", config::table::markdown(&Keys::of(&Cli::command())))?;
            Ok(())
        }
    }
}

fn show(role: Role, output: ConfigOutput, flags: &[OsString], file: Option<&Path>) -> Result<()> {
    let mut words: Vec<OsString> = vec!["hayloft".into(), role.verb().into()];
    if let Some(file) = file {
        words.extend(["--config".into(), file.into()]);
    }
    words.extend(flags.iter().cloned());
    let loaded = config::load(&words).map_err(|failure| match failure {
        // Its own text begins with "error: " and advises on the command line of the role.
        Failure::Usage(error) => anyhow::anyhow!("{}", usage(&error)),
        other => other.into(),
    })?;
    let effective = Effective::of(&loaded);
    let text = match output {
        ConfigOutput::Text => effective.text(),
        ConfigOutput::Toml => effective.toml(),
        ConfigOutput::Json => format!("{:#}\n", effective.json()),
    };
    say!("{}", text.trim_end())?;
    Ok(())
}

fn usage(error: &clap::Error) -> String {
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    first.strip_prefix("error: ").unwrap_or(first).to_owned()
}

fn check(path: &Path) -> Result<()> {
    let command = Cli::command();
    let keys = Keys::of(&command);
    let file = match File::read(path, &keys) {
        Ok(file) => file,
        Err(Error::Wrong { problems }) => {
            for problem in &problems {
                tell!("{problem}");
            }
            bail!("{}: wrong in {} places", path.display(), problems.len());
        }
        Err(error) => return Err(error.into()),
    };
    together(&file)?;
    say!(
        "{}: {} keys, all known, all values readable",
        path.display(),
        file.settings.len()
    )?;
    Ok(())
}

/// Whether the values that are for the registry go together, whatever the environment says.
fn together(file: &File) -> Result<()> {
    let command = clap::Command::new("registry").no_binary_name(true);
    let command = <RegistryOptions as clap::Args>::augment_args(command);
    let command = command.mut_args(|flag| flag.env(clap::builder::Resettable::Reset));
    let known: Vec<_> = command
        .get_arguments()
        .filter_map(clap::Arg::get_long)
        .collect();
    let words: Vec<String> = file
        .settings
        .iter()
        .filter(|setting| known.contains(&setting.name.as_str()))
        .flat_map(|setting| {
            let values = setting.values.iter();
            values.map(|value| format!("--{}={value}", setting.name))
        })
        .collect();
    let path = || file.path.display().to_string();
    let matches = command
        .try_get_matches_from(words)
        .map_err(|error| anyhow::anyhow!("{}", usage(&error)))
        .with_context(path)?;
    RegistryOptions::from_arg_matches(&matches)?
        .check()
        .with_context(path)
}
