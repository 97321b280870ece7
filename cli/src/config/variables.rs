//! Whose fault a refused value is: a message about a flag helps nobody who set a variable.

use std::ffi::{OsStr, OsString};

use clap::error::{ContextKind, ContextValue};
use clap::{Arg, Command};

/// A variable holds what its flag cannot take.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{name}={value:?}, the variable of --{flag}: {reason}")]
pub(crate) struct Unreadable {
    name: String,
    value: String,
    flag: String,
    reason: String,
}

/// The variable behind a refused value, if the value did not come from the command line.
pub(crate) fn behind(
    error: &clap::Error,
    command: &Command,
    words: &[OsString],
) -> Option<Unreadable> {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    // `--gc-grace <TIME>`
    let named = text(ContextKind::InvalidArg)?
        .split([' ', '=', '['])
        .next()?;
    let flag = named.strip_prefix("--")?;
    let is_flag = |word: &OsString| {
        let word = word.to_string_lossy();
        word == named || word.starts_with(&format!("{named}="))
    };
    if words.iter().any(is_flag) {
        return None;
    }
    let name = variable_of(command, flag, words)?;
    let value = text(ContextKind::InvalidValue)?;
    // A list is judged value by value.
    let holds = std::env::var(name).is_ok_and(|held| held.contains(value));
    holds.then(|| Unreadable {
        name: name.to_string_lossy().into_owned(),
        value: value.to_owned(),
        flag: flag.to_owned(),
        reason: std::error::Error::source(error)
            .map_or_else(|| "it cannot be read".to_owned(), ToString::to_string),
    })
}

/// The variable of a flag, of the innermost command that was named and has it.
fn variable_of<'a>(command: &'a Command, flag: &str, words: &[OsString]) -> Option<&'a OsStr> {
    let inner = words
        .iter()
        .enumerate()
        .find_map(|(place, word)| Some((command.find_subcommand(word)?, words.get(place + 1..)?)));
    let own = || {
        let mut flags = command.get_arguments();
        flags
            .find(|known| known.get_long() == Some(flag))
            .and_then(Arg::get_env)
    };
    inner
        .and_then(|(inner, rest)| variable_of(inner, flag, rest))
        .or_else(own)
}
