//! `tojson` as chat templates know it: Python's `json.dumps`, not the HTML-safe form.

use minijinja::value::{Kwargs, Value};
use minijinja::{Error, ErrorKind};
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter};

/// The filter `tojson(indent=None, ensure_ascii=False, …)`.
pub(super) fn to_json(value: Value, options: Kwargs) -> Result<Value, Error> {
    let indent = options.get::<Option<usize>>("indent")?.map(|n| n.min(16));
    // Known to `json.dumps`, without meaning for what templates print.
    for ignored in ["ensure_ascii", "separators", "sort_keys"] {
        let _ignored = options.get::<Option<Value>>(ignored)?;
    }
    options.assert_all_used()?;
    let mut text = Vec::new();
    let written = match indent {
        Some(width) => {
            let spaces = vec![b' '; width];
            let formatter = PrettyFormatter::with_indent(&spaces);
            value.serialize(&mut serde_json::Serializer::with_formatter(
                &mut text, formatter,
            ))
        }
        None => value.serialize(&mut serde_json::Serializer::with_formatter(
            &mut text,
            SpacedFormatter,
        )),
    };
    written
        .map_err(|error| Error::new(ErrorKind::BadSerialization, "tojson").with_source(error))?;
    Ok(Value::from(String::from_utf8_lossy(&text).into_owned()))
}

/// One line, with a space after commas and colons as Python puts it.
struct SpacedFormatter;

impl Formatter for SpacedFormatter {
    fn begin_array_value<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first {
            Ok(())
        } else {
            writer.write_all(b", ")
        }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first {
            Ok(())
        } else {
            writer.write_all(b", ")
        }
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
    ) -> std::io::Result<()> {
        writer.write_all(b": ")
    }
}
