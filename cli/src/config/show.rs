//! The effective configuration of a role, value by value, with where each came from.

use std::fmt::Write;

use clap::CommandFactory;
use serde_json::{Value, json};
use url::Url;

use crate::args::Cli;
use crate::config::file::ALTERNATIVES;
use crate::config::keys::{Key, Table};
use crate::config::layers::{Loaded, Origin};
use crate::config::secrets;

/// Variables of other programs that hold for everything that speaks to the network.
const NETWORK: [&str; 11] = [
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HAYLOFT_LOG",
];

/// One key with its effective value.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    key: Key,
    /// As they may be shown; several for a list.
    values: Vec<String>,
    is_hidden: bool,
    /// `None` when there is no value.
    origin: Option<Origin>,
}

/// What a role would run with.
#[derive(Clone, Debug)]
pub(crate) struct Effective {
    rows: Vec<Row>,
    /// Variables that are honoured beside the keys, as they may be shown.
    environment: Vec<(String, String)>,
}

impl Effective {
    /// Of a role that was loaded.
    pub(crate) fn of(loaded: &Loaded) -> Self {
        let Some((verb, matches)) = loaded.verb() else {
            return Self {
                rows: Vec::new(),
                environment: Vec::new(),
            };
        };
        let command = Cli::command();
        let flags = command.find_subcommand(verb).into_iter();
        let mut rows: Vec<Row> = flags
            .flat_map(clap::Command::get_arguments)
            .filter_map(|flag| {
                let key = loaded.keys.of_flag(verb, flag)?;
                let raw = matches.get_raw(flag.get_id().as_str());
                let raw = raw.into_iter().flatten().map(|raw| {
                    let text = raw.to_string_lossy();
                    secrets::shown(&key.name, &text)
                });
                let (values, hidden): (Vec<String>, Vec<bool>) = raw.unzip();
                Some(Row {
                    key: key.clone(),
                    values,
                    is_hidden: hidden.contains(&true),
                    origin: loaded.origin(matches, key, flag),
                })
            })
            .collect();
        rows.sort_by_key(|row| row.key.table);
        drop_replaced(&mut rows);
        let environment = environment(&rows);
        Self { rows, environment }
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let width = |of: fn(&Row) -> usize| self.rows.iter().map(of).max().unwrap_or(0);
        let keys = width(|row| row.key.to_string().len());
        let values = width(|row| row.text().len()).min(48);
        let mut text = String::new();
        for row in &self.rows {
            let (key, value, origin) = (row.key.to_string(), row.text(), row.origin());
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{key:keys$}  {value:values$}  {origin}");
        }
        for (name, value) in &self.environment {
            let _ = writeln!(text, "{name:keys$}  {value:values$}  environment");
        }
        text
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        let settings = self.rows.iter().map(|row| {
            json!({
                "key": row.key.to_string(),
                "value": row.json(),
                "from": row.origin.as_ref().map(Origin::to_string),
                "hidden": row.is_hidden,
            })
        });
        let environment = self.environment.iter().cloned();
        let environment: serde_json::Map<_, _> = environment
            .map(|(name, value)| (name, Value::String(value)))
            .collect();
        json!({ "settings": settings.collect::<Vec<_>>(), "environment": environment })
    }

    /// A file that gives the same configuration. What is hidden stands there as a comment: it has
    /// to come again from where it came.
    pub(crate) fn toml(&self) -> String {
        let mut text = String::new();
        let mut table = Table::Shared;
        for row in &self.rows {
            if row.key.table != table {
                table = row.key.table;
                let _ = writeln!(text, "\n[{}]", table.name());
            }
            let name = &row.key.name;
            let _ = match &row.origin {
                Some(origin) if row.is_hidden => {
                    writeln!(text, "# {name} = {}  # from {origin}", row.toml())
                }
                Some(origin) => writeln!(text, "{name} = {}  # {origin}", row.toml()),
                None => writeln!(text, "# {name} = {:?}", row.key.form()),
            };
        }
        text
    }
}

/// The default of a key says nothing when its alternative is given.
fn drop_replaced(rows: &mut [Row]) {
    for pair in ALTERNATIVES {
        let is_of_pair = |row: &Row| pair.contains(&row.key.name.as_str());
        let is_said = |row: &Row| !matches!(row.origin, None | Some(Origin::Default));
        if rows.iter().any(|row| is_of_pair(row) && is_said(row)) {
            let replaced = rows
                .iter_mut()
                .filter(|row| is_of_pair(row) && !is_said(row));
            replaced.for_each(|row| row.origin = None);
        }
    }
}

/// The variables that are honoured beside the keys and that are set.
fn environment(rows: &[Row]) -> Vec<(String, String)> {
    let network = NETWORK.iter().filter_map(|name| {
        let value = std::env::var(name).ok().filter(|value| !value.is_empty())?;
        let (value, _) = secrets::shown(name, &value);
        Some(((*name).to_owned(), value))
    });
    let storage = rows.iter().find(|row| row.key.name == "storage");
    let bucket = storage
        .and_then(|row| row.values.first())
        .and_then(|url| Url::parse(url).ok());
    let bucket = bucket.iter().flat_map(secrets::bucket_variables);
    let bucket = bucket.map(|(name, value)| {
        let is_secret = secrets::is_secret_option(&name);
        let value = if is_secret {
            secrets::HIDDEN.to_owned()
        } else {
            value
        };
        (name, value)
    });
    let mut all: Vec<_> = network.chain(bucket).collect();
    all.sort();
    all
}

impl Row {
    fn text(&self) -> String {
        match self.origin {
            Some(_) => self.values.join("; "),
            None => "-".to_owned(),
        }
    }

    fn origin(&self) -> String {
        let origin = self.origin.as_ref();
        origin.map_or_else(|| "not set".to_owned(), Origin::to_string)
    }

    fn json(&self) -> Value {
        match (&self.origin, self.key.is_list()) {
            (None, _) => Value::Null,
            (Some(_), true) => json!(self.values),
            (Some(_), false) => json!(self.values.first()),
        }
    }

    fn toml(&self) -> String {
        let quote = |value: &String| toml::Value::String(value.clone()).to_string();
        if self.key.is_list() {
            let values: Vec<String> = self.values.iter().map(quote).collect();
            return format!("[{}]", values.join(", "));
        }
        let value = self.values.first().cloned().unwrap_or_default();
        let is_number = !self.key.is_text() && value.parse::<i64>().is_ok();
        if self.key.is_switch() {
            let is_on = crate::args::values::switch(&value) == Ok(true);
            is_on.to_string()
        } else if is_number {
            value
        } else {
            quote(&value)
        }
    }
}
