//! The configuration file: found, read, and checked against the keys there are.

use std::ops::Range;
use std::path::{Path, PathBuf};

use clap::Command;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::config::keys::{Key, Keys, Table};
use crate::config::{nearest, retention, upstream};

/// Keys that stand for the same thing.
pub(crate) const ALTERNATIVES: [[&str; 2]; 1] = [["index", "index-file"]];

/// Why a configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It is not there, or not readable.
    #[error("the configuration file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What reading it gave.
        source: std::io::Error,
    },
    /// It is read, but some of it is wrong.
    #[error("{}{}", problems.first().map_or("", String::as_str), more(problems.len()))]
    Wrong {
        /// Each with its file and line.
        problems: Vec<String>,
    },
}

fn more(problems: usize) -> String {
    match problems {
        0 | 1 => String::new(),
        2 => "; and one more: `hayloft config check` shows both".to_owned(),
        n => format!("; and {} more: `hayloft config check` shows all", n - 1),
    }
}

/// What a file says.
#[derive(Clone, Debug)]
pub(crate) struct File {
    pub(crate) path: PathBuf,
    pub(crate) settings: Vec<Setting>,
}

/// What a file says about one key.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    pub(crate) table: Table,
    pub(crate) name: String,
    /// As they would be written on a command line.
    pub(crate) values: Vec<String>,
    pub(crate) line: usize,
}

impl File {
    /// Reads and checks a file.
    pub(crate) fn read(path: &Path, keys: &Keys) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Read {
            path: path.to_owned(),
            source,
        })?;
        let mut reading = Reading {
            path,
            text: &text,
            keys,
            settings: Vec::new(),
            problems: Vec::new(),
        };
        reading.document();
        if reading.problems.is_empty() {
            Ok(Self {
                path: path.to_owned(),
                settings: reading.settings,
            })
        } else {
            reading.problems.sort();
            let problems = reading.problems.into_iter().map(|(_, problem)| problem);
            Err(Error::Wrong {
                problems: problems.collect(),
            })
        }
    }

    /// What it says about a key.
    pub(crate) fn find(&self, key: &Key) -> Option<&Setting> {
        self.settings
            .iter()
            .find(|setting| setting.table == key.table && setting.name == key.name)
    }
}

/// A file on its way from text to settings. All problems are collected, not only the first.
struct Reading<'a> {
    path: &'a Path,
    text: &'a str,
    keys: &'a Keys,
    settings: Vec<Setting>,
    problems: Vec<(usize, String)>,
}

impl Reading<'_> {
    fn document(&mut self) {
        let document = match DeTable::parse(self.text) {
            Ok(document) => document,
            Err(error) => {
                let span = error.span().unwrap_or(0..0);
                self.complain(&span, error.message());
                return;
            }
        };
        // In the order of the names, so that `retain` comes before `retention`, which adds to it.
        for (name, value) in document.get_ref() {
            let role = Table::ROLES
                .into_iter()
                .find(|role| role.name() == name.get_ref());
            match (role, value.get_ref()) {
                (Some(role), DeValue::Table(table)) => {
                    for (name, value) in table {
                        self.entry(role, name, value);
                    }
                }
                (Some(role), _) => {
                    let advice = format!("{0} is a table: write [{0}]", role.name());
                    self.complain(&name.span(), &advice);
                }
                (None, _) => self.entry(Table::Shared, name, value),
            }
        }
        self.settings.sort_by_key(|setting| setting.line);
        self.alternatives();
    }

    /// Two keys for one thing: only one of them can be meant.
    fn alternatives(&mut self) {
        for [one, other] in ALTERNATIVES {
            let has = |name| self.settings.iter().find(|setting| setting.name == name);
            if let (Some(_), Some(second)) = (has(one), has(other)) {
                let (path, line) = (self.path.display(), second.line);
                let problem = format!("{path}:{line}: {other} and {one} exclude each other");
                self.problems.push((line, problem));
            }
        }
    }

    fn entry(
        &mut self,
        table: Table,
        name: &Spanned<std::borrow::Cow<'_, str>>,
        value: &Spanned<DeValue<'_>>,
    ) {
        if table == Table::Registry && name.get_ref() == "retention" {
            return self.retention(value);
        }
        let Some(key) = self.keys.find(table, name.get_ref()) else {
            let message = unknown(self.keys, table, name.get_ref(), value.get_ref());
            return self.complain(&name.span(), &message);
        };
        match texts(key, value.get_ref()).and_then(|texts| check(key, &texts).map(|()| texts)) {
            Ok(values) => self.settings.push(Setting {
                table,
                name: key.name.clone(),
                values,
                line: self.line(&name.span()),
            }),
            Err(problem) => self.complain(&name.span(), &format!("{key}: {problem}")),
        }
    }

    /// `[[registry.retention]]`: the long form of `retain`.
    fn retention(&mut self, value: &Spanned<DeValue<'_>>) {
        let DeValue::Array(rules) = value.get_ref() else {
            let advice = "registry.retention: write each rule as a table [[registry.retention]]";
            return self.complain(&value.span(), advice);
        };
        for rule in rules {
            match retention::from_table(rule.get_ref()) {
                Ok(text) => self.push_rule(text, self.line(&rule.span())),
                Err(problem) => {
                    self.complain(&rule.span(), &format!("registry.retention: {problem}"));
                }
            }
        }
    }

    fn push_rule(&mut self, rule: String, line: usize) {
        let mut settings = self.settings.iter_mut();
        match settings.find(|setting| setting.name == "retain") {
            Some(setting) => setting.values.push(rule),
            None => self.settings.push(Setting {
                table: Table::Registry,
                name: "retain".to_owned(),
                values: vec![rule],
                line,
            }),
        }
    }

    fn line(&self, span: &Range<usize>) -> usize {
        let before = self.text.as_bytes().iter().take(span.start);
        1 + before.filter(|byte| **byte == b'\n').count()
    }

    fn complain(&mut self, span: &Range<usize>, what: &str) {
        let line = self.line(span);
        let problem = format!("{}:{line}: {what}", self.path.display());
        self.problems.push((line, problem));
    }
}

fn unknown(keys: &Keys, table: Table, name: &str, value: &DeValue<'_>) -> String {
    let (full, what) = match (table, value) {
        (Table::Shared, DeValue::Table(_)) => (format!("[{name}]"), "table"),
        (Table::Shared, _) => (name.to_owned(), "key"),
        _ => (format!("{}.{name}", table.name()), "key"),
    };
    let hint = match nearest::key(keys, table, name) {
        Some(near) => format!("; did you mean {near}?"),
        None => "; docs/configuration.md lists all keys".to_owned(),
    };
    format!("unknown {what} {full}{hint}")
}

/// The values as a command line would carry them.
fn texts(key: &Key, value: &DeValue<'_>) -> Result<Vec<String>, String> {
    match value {
        DeValue::Array(items) if key.is_list() => {
            let items = items.iter().map(|item| text(key, item.get_ref()));
            items.collect()
        }
        DeValue::Array(_) => Err("one value is expected, not a list".to_owned()),
        single => text(key, single).map(|text| vec![text]),
    }
}

fn text(key: &Key, value: &DeValue<'_>) -> Result<String, String> {
    let wrong = |found: &str| Err(format!("{} is expected, not {found}", expected(key)));
    match value {
        DeValue::String(text) => Ok(text.clone().into_owned()),
        DeValue::Boolean(value) if key.is_switch() => Ok(value.to_string()),
        DeValue::Boolean(_) => wrong("a boolean"),
        DeValue::Integer(number) if !key.is_text() && number.radix() == 10 => {
            Ok(number.as_str().to_owned())
        }
        DeValue::Float(number) if !key.is_text() => Ok(number.as_str().to_owned()),
        DeValue::Integer(_) | DeValue::Float(_) => wrong("a number"),
        DeValue::Datetime(_) => wrong("a date"),
        DeValue::Array(_) => wrong("a list"),
        // `[[registry.upstream]]`: the long form.
        DeValue::Table(_) if key.name == "upstream" => upstream::from_table(value),
        DeValue::Table(_) => wrong("a table"),
    }
}

fn expected(key: &Key) -> String {
    match key.form().as_str() {
        _ if key.is_number() => "a number".to_owned(),
        _ if key.is_switch() => "true or false".to_owned(),
        form => format!("text ({form})"),
    }
}

/// Lets the flag's own parser judge the values, as if they stood on a command line.
fn check(key: &Key, values: &[String]) -> Result<(), String> {
    let id = key.flag.get_id().clone();
    // Alone: what it conflicts with is not here to ask.
    let flag = clap::Arg::new(id)
        .long(key.name.clone())
        .action(key.flag.get_action().clone())
        .value_parser(key.flag.get_value_parser().clone())
        .num_args(1)
        .allow_hyphen_values(true);
    let command = Command::new("file").no_binary_name(true).arg(flag);
    let words = values.iter().map(|value| format!("--{}={value}", key.name));
    match command.try_get_matches_from(words) {
        Ok(_) => Ok(()),
        Err(error) => Err(reason(&error, key)),
    }
}

/// What is wrong with a value, without the frame that clap puts around it.
fn reason(error: &clap::Error, key: &Key) -> String {
    use clap::error::{ContextKind, ContextValue};
    let value = match error.get(ContextKind::InvalidValue) {
        Some(ContextValue::String(value)) => format!("{value:?}"),
        _ => "this value".to_owned(),
    };
    match std::error::Error::source(error) {
        Some(source) if key.is_number() => format!("{value} is no number that fits: {source}"),
        Some(source) => format!("{value}: {source}"),
        None => format!("{value} is not {}", key.form()),
    }
}
