//! The layers, put on top of each other.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use clap::builder::Resettable;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command, CommandFactory};

use crate::args::{Cli, DataArgs};
use crate::config::file::{self, ALTERNATIVES, File};
use crate::config::keys::{Key, Keys, Table};
use crate::config::{secrets, variables};
use crate::endpoint;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The command line.
    Flag,
    /// A variable of the environment, by name.
    Environment(String),
    /// The configuration file.
    File { path: PathBuf, line: usize },
    /// Nobody said anything.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => formatter.write_str("flag"),
            Self::Environment(name) => write!(formatter, "environment {name}"),
            Self::File { path, line } => write!(formatter, "{}:{line}", path.display()),
            Self::Default => formatter.write_str("default"),
        }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The command line. Help texts come this way, too.
    #[error(transparent)]
    Usage(#[from] clap::Error),
    /// The file.
    #[error(transparent)]
    File(#[from] file::Error),
    /// A variable that stands for a flag.
    #[error(transparent)]
    Variable(#[from] variables::Unreadable),
    /// A secret where every user of the machine can read it.
    #[error(
        "{flag} carries a secret, and the list of processes shows it to every user of this \
         machine: {advice}"
    )]
    SecretOnCommandLine {
        /// The flag.
        flag: &'static str,
        /// What to do instead.
        advice: &'static str,
    },
}

/// A command line with everything below it.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// All values; what the file says looks like a default here.
    pub(crate) matches: ArgMatches,
    /// The file, if there is one.
    pub(crate) file: Option<File>,
    pub(crate) keys: Keys,
    below: Below,
}

impl Loaded {
    /// The verb and what was said to it.
    pub(crate) fn verb(&self) -> Option<(&str, &ArgMatches)> {
        self.matches.subcommand()
    }

    /// Where the value of a flag came from; `None` when there is no value.
    pub(crate) fn origin(&self, matches: &ArgMatches, key: &Key, flag: &Arg) -> Option<Origin> {
        match matches.value_source(flag.get_id().as_str())? {
            ValueSource::CommandLine => Some(Origin::Flag),
            ValueSource::EnvVariable => Some(Origin::Environment(
                flag.get_env().unwrap_or_default().display().to_string(),
            )),
            _ => Some(match self.below.get(key) {
                Some((_, origin)) => origin.clone(),
                None => Origin::Default,
            }),
        }
    }
}

/// What lies below flags and their variables, by key.
#[derive(Debug, Default)]
struct Below(HashMap<(Table, String), (Vec<String>, Origin)>);

impl Below {
    fn get(&self, key: &Key) -> Option<&(Vec<String>, Origin)> {
        self.0.get(&(key.table, key.name.clone()))
    }
}

/// Reads a command line, the environment, and the file that they or the usual places name.
pub(crate) fn load(words: &[OsString]) -> Result<Loaded, Failure> {
    let command = Cli::command().mut_subcommands(without_empty_variables);
    let keys = Keys::of(&command);
    // The first look is for the file's name. A call for help, and what cannot be read at all, are
    // answered without a file.
    let first = command.clone().ignore_errors(true);
    let first = match first.try_get_matches_from(words) {
        Ok(first) => first,
        Err(_) => parse(command.clone(), words)?,
    };
    let file = match first.subcommand() {
        Some((verb, matches)) if reads_file(verb) => find_file(verb, matches, &keys)?,
        _ => None,
    };
    let below = below(&keys, file.as_ref(), leaf(&first));
    let command = command.mut_subcommands(|verb| {
        let name = verb.get_name().to_owned();
        with_defaults(verb, &name, &keys, &below)
    });
    let matches = parse(command, words)?;
    refuse_secrets(leaf(&matches))?;
    Ok(Loaded {
        matches,
        file,
        keys,
        below,
    })
}

fn parse(command: Command, words: &[OsString]) -> Result<ArgMatches, Failure> {
    let definition = command.clone();
    command.try_get_matches_from(words).map_err(|error| {
        match variables::behind(&error, &definition, words) {
            Some(unreadable) => unreadable.into(),
            None => error.into(),
        }
    })
}

/// `config` reads the file that it is asked about.
fn reads_file(verb: &str) -> bool {
    !matches!(verb, "config" | "completions" | "help")
}

/// The file that was named, else the first one in the usual places.
fn find_file(verb: &str, matches: &ArgMatches, keys: &Keys) -> Result<Option<File>, file::Error> {
    if let Some(path) = matches.get_one::<PathBuf>("config") {
        return File::read(path, keys).map(Some);
    }
    let Some(path) = usual_places().find(|path| path.exists()) else {
        return Ok(None);
    };
    match File::read(&path, keys) {
        // The file of a service need not be for everybody to read who lists or pulls a model.
        Err(file::Error::Read { source, .. })
            if source.kind() == std::io::ErrorKind::PermissionDenied
                && Table::of_verb(verb).is_empty() =>
        {
            Ok(None)
        }
        read => read.map(Some),
    }
}

/// The user's own file, then the machine's.
fn usual_places() -> impl Iterator<Item = PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let home = || set("HOME").map(|home| PathBuf::from(home).join(".config"));
    let own = set("XDG_CONFIG_HOME").map(PathBuf::from).or_else(home);
    let own = own.map(|folder| folder.join("hayloft/hayloft.toml"));
    own.into_iter()
        .chain([PathBuf::from("/etc/hayloft/hayloft.toml")])
}

/// What was said to the innermost command.
fn leaf(matches: &ArgMatches) -> &ArgMatches {
    matches
        .subcommand()
        .map_or(matches, |(_, inner)| leaf(inner))
}

/// A variable that is set to nothing counts as not set: charts and unit files leave such behind.
fn without_empty_variables(command: Command) -> Command {
    let is_empty = |name: &std::ffi::OsStr| std::env::var_os(name).is_some_and(|v| v.is_empty());
    command
        .mut_args(|flag| match flag.get_env() {
            Some(name) if is_empty(name) => flag.env(Resettable::Reset),
            _ => flag,
        })
        .mut_subcommands(without_empty_variables)
}

/// What each key is if neither a flag nor its own variable says anything.
fn below(keys: &Keys, file: Option<&File>, said: &ArgMatches) -> Below {
    let mut all = HashMap::new();
    for key in keys.iter() {
        let value = foreign(key)
            .or_else(|| from_file(key, file?, said))
            .or_else(|| computed(key));
        if let Some(value) = value {
            all.insert((key.table, key.name.clone()), value);
        }
    }
    Below(all)
}

/// What a variable of another program says, in words of our own.
fn foreign(key: &Key) -> Option<(Vec<String>, Origin)> {
    if (key.table, key.name.as_str()) != (Table::Runtime, "listen") {
        return None;
    }
    let name = "OLLAMA_HOST";
    std::env::var_os(name).filter(|value| !value.is_empty())?;
    // One that cannot be read is reported by the runtime.
    let address = endpoint::runtime_listen(None).ok()?;
    let origin = Origin::Environment(name.to_owned());
    Some((vec![address.to_string()], origin))
}

fn from_file(key: &Key, file: &File, said: &ArgMatches) -> Option<(Vec<String>, Origin)> {
    // What was said about the alternative replaces what the file says here.
    let alternatives = ALTERNATIVES
        .iter()
        .filter(|pair| pair.contains(&key.name.as_str()));
    let mut others = alternatives.flatten().filter(|name| **name != key.name);
    if others.any(|name| is_said(said, &name.replace('-', "_"))) {
        return None;
    }
    let setting = file.find(key)?;
    let origin = Origin::File {
        path: file.path.clone(),
        line: setting.line,
    };
    Some((setting.values.clone(), origin))
}

/// Whether a flag or its variable was given.
fn is_said(matches: &ArgMatches, id: &str) -> bool {
    matches.try_contains_id(id).unwrap_or(false)
        && matches
            .value_source(id)
            .is_some_and(|source| source != ValueSource::DefaultValue)
}

/// Defaults that depend on the machine.
fn computed(key: &Key) -> Option<(Vec<String>, Origin)> {
    let value = match (key.table, key.name.as_str()) {
        (Table::Shared, "data") => {
            let folder = DataArgs { data: None }.folder().ok()?;
            folder.into_os_string().into_string().ok()?
        }
        (Table::Runtime, "listen") => endpoint::runtime_listen(None).ok()?.to_string(),
        _ => return None,
    };
    Some((vec![value], Origin::Default))
}

fn with_defaults(command: Command, verb: &str, keys: &Keys, below: &Below) -> Command {
    command
        .mut_args(|flag| {
            let key = keys.of_flag(verb, &flag);
            match key.and_then(|key| below.get(key)) {
                Some((values, _)) => flag.default_values(values.clone()),
                None => flag,
            }
        })
        .mut_subcommands(|inner| with_defaults(inner, verb, keys, below))
}

fn refuse_secrets(said: &ArgMatches) -> Result<(), Failure> {
    let flagged = |id: &str| {
        let is_flag = said.try_contains_id(id).unwrap_or(false)
            && said.value_source(id) == Some(ValueSource::CommandLine);
        let raw = is_flag.then(|| said.get_raw(id)).flatten();
        let texts = raw.map(|raw| raw.map(|text| text.to_string_lossy().into_owned()));
        texts.map(Iterator::collect::<Vec<_>>).unwrap_or_default()
    };
    if flagged("index")
        .iter()
        .any(|url| secrets::has_password(url))
    {
        return Err(Failure::SecretOnCommandLine {
            flag: "--index",
            advice: "write the URL into a file and name that with --index-file, or set HAYLOFT_INDEX",
        });
    }
    if flagged("mirror_proxy")
        .iter()
        .any(|url| secrets::has_password(url))
    {
        return Err(Failure::SecretOnCommandLine {
            flag: "--mirror-proxy",
            advice: "set HAYLOFT_MIRROR_PROXY, or write it into the configuration file",
        });
    }
    if flagged("storage_options")
        .iter()
        .any(|option| secrets::is_secret_option(option))
    {
        return Err(Failure::SecretOnCommandLine {
            flag: "--storage-option",
            advice: "set it in the environment, such as AWS_SECRET_ACCESS_KEY, or in the \
                     configuration file",
        });
    }
    Ok(())
}
