//! Listings: a table for people, JSON for programs.

use anyhow::Result;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::args::Output;
use crate::report::escape;

/// Prints `rows` under `header`, or `value` as JSON.
pub(crate) fn print<T: Serialize>(
    output: Output,
    value: &T,
    header: &[&str],
    rows: Vec<Vec<String>>,
) -> Result<()> {
    match output {
        Output::Json => print_json(value),
        Output::Text => {
            let mut table = Table::new();
            table
                .load_style(presets::NOTHING)
                .set_content_arrangement(ContentArrangement::Disabled)
                .set_header(
                    header
                        .iter()
                        .map(|title| (*title).to_owned())
                        .collect::<Vec<_>>(),
                );
            for row in rows {
                table.add_row(row.iter().map(|cell| escape(cell)).collect::<Vec<_>>());
            }
            say!("{}", table.trim_fmt())?;
            Ok(())
        }
    }
}

/// Prints `value` as indented JSON.
pub(crate) fn print_json<T: Serialize>(value: &T) -> Result<()> {
    say!("{}", serde_json::to_string_pretty(value)?)?;
    Ok(())
}

/// `3 minutes ago` for an RFC 3339 time; the text itself when it cannot be read.
pub(crate) fn ago(timestamp: &str) -> String {
    let Ok(then) = timestamp.parse::<jiff::Timestamp>() else {
        return timestamp.to_owned();
    };
    let seconds = jiff::Timestamp::now().as_second() - then.as_second();
    let (count, unit) = match seconds {
        ..60 => return "just now".to_owned(),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural} ago")
}
