//! All keys as a table, for docs/configuration.md.

use std::fmt::Write;

use crate::config::keys::{Key, Keys};

/// A table in Markdown: key, value, default, variable, meaning.
pub(crate) fn markdown(keys: &Keys) -> String {
    let mut text = String::from("| key | value | default | variable | what it says |\n");
    text.push_str("| --- | --- | --- | --- | --- |");
    for key in keys.iter() {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n{}", row(key));
    }
    text
}

fn row(key: &Key) -> String {
    let defaults = key.flag.get_default_values().iter();
    let defaults: Vec<String> = defaults
        .map(|value| format!("`{}`", value.to_string_lossy()))
        .collect();
    let variable = key.flag.get_env().unwrap_or_default().to_string_lossy();
    let help = key
        .flag
        .get_help()
        .map(ToString::to_string)
        .unwrap_or_default();
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let form = if key.is_list() {
        format!("list of {}", key.form())
    } else {
        key.form()
    };
    let cells = [
        format!("`{key}`"),
        form,
        defaults.join(", "),
        format!("`{variable}`"),
        help,
    ];
    let cells = cells.map(|cell| cell.replace('|', "\\|"));
    format!("| {} |", cells.join(" | "))
}
