//! Parameters: the options of Ollama, each with its type.

use std::fmt;

use serde_json::{Map, Value, json};

use super::error::{Error, Fault, shown};

/// A parameter of known name, with a value of its type.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    name: &'static str,
    value: ParameterValue,
}

/// The value of a parameter.
#[derive(Debug, Clone, PartialEq)]
pub enum ParameterValue {
    /// A whole number.
    Int(i64),
    /// A finite number; single precision, as in Ollama.
    Float(f32),
    /// A truth value.
    Bool(bool),
    /// A text: one stop sequence, or the value of a deprecated parameter.
    Text(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Int,
    Float,
    Bool,
    /// A text that may be given several times; all of them count.
    List,
    /// Accepted and ignored.
    Deprecated,
}

/// Every parameter that Ollama knows, as of August 2026.
const KNOWN: [(&str, Kind); 30] = [
    ("num_ctx", Kind::Int),
    ("num_batch", Kind::Int),
    ("num_gpu", Kind::Int),
    ("main_gpu", Kind::Int),
    ("num_thread", Kind::Int),
    ("draft_num_predict", Kind::Int),
    ("use_mmap", Kind::Bool),
    ("num_keep", Kind::Int),
    ("num_predict", Kind::Int),
    ("seed", Kind::Int),
    ("top_k", Kind::Int),
    ("repeat_last_n", Kind::Int),
    ("top_p", Kind::Float),
    ("min_p", Kind::Float),
    ("typical_p", Kind::Float),
    ("temperature", Kind::Float),
    ("repeat_penalty", Kind::Float),
    ("presence_penalty", Kind::Float),
    ("frequency_penalty", Kind::Float),
    ("stop", Kind::List),
    ("tfs_z", Kind::Deprecated),
    ("penalize_newline", Kind::Deprecated),
    ("low_vram", Kind::Deprecated),
    ("f16_kv", Kind::Deprecated),
    ("logits_all", Kind::Deprecated),
    ("vocab_only", Kind::Deprecated),
    ("use_mlock", Kind::Deprecated),
    ("mirostat", Kind::Deprecated),
    ("mirostat_tau", Kind::Deprecated),
    ("mirostat_eta", Kind::Deprecated),
];

impl Parameter {
    /// Makes a parameter of its name and the text of its value.
    ///
    /// # Errors
    /// [`Fault::UnknownParameter`], or [`Fault::InvalidParameter`] if the text is not of the
    /// parameter's type.
    pub fn parse(name: &str, text: &str) -> Result<Self, Fault> {
        let (name, kind) = lookup(name)?;
        let invalid = |expected| Fault::InvalidParameter {
            name: name.to_owned(),
            expected,
            value: shown(text),
        };
        let value = match kind {
            Kind::Int => ParameterValue::Int(text.parse().map_err(|_| invalid("int"))?),
            Kind::Float => ParameterValue::Float(
                (text.parse().ok())
                    .filter(|number: &f32| number.is_finite())
                    .ok_or_else(|| invalid("float"))?,
            ),
            Kind::Bool => ParameterValue::Bool(parse_bool(text).ok_or_else(|| invalid("bool"))?),
            Kind::List | Kind::Deprecated => ParameterValue::Text(text.to_owned()),
        };
        Ok(Self { name, value })
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The value.
    #[must_use]
    pub fn value(&self) -> &ParameterValue {
        &self.value
    }

    /// Whether the parameter is accepted and then ignored; worth a warning.
    #[must_use]
    pub fn is_deprecated(&self) -> bool {
        matches!(lookup(self.name), Ok((_, Kind::Deprecated)))
    }
}

impl ParameterValue {
    /// The text, if it is one.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    fn to_json(&self) -> Value {
        match self {
            Self::Int(number) => json!(number),
            // By way of its decimal form, or 0.7 would come out as 0.699999988079071.
            Self::Float(number) => json!(number.to_string().parse::<f64>().ok()),
            Self::Bool(truth) => json!(truth),
            Self::Text(text) => json!(text),
        }
    }
}

impl fmt::Display for ParameterValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(number) => number.fmt(f),
            Self::Float(number) => number.fmt(f),
            Self::Bool(truth) => truth.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

/// The map that Ollama keeps in its `.params` layer.
pub(super) fn to_json<'a>(parameters: impl Iterator<Item = &'a Parameter>) -> Map<String, Value> {
    let mut map = Map::new();
    for parameter in parameters {
        let value = parameter.value.to_json();
        match lookup(parameter.name) {
            Ok((name, Kind::List)) => match map.get_mut(name) {
                Some(Value::Array(list)) => list.push(value),
                _ => drop(map.insert(name.to_owned(), json!([value]))),
            },
            Ok((_, Kind::Deprecated)) | Err(_) => {}
            Ok((name, _)) => drop(map.insert(name.to_owned(), value)),
        }
    }
    map
}

/// Reads the map of a `.params` layer back into parameters, so that a Modelfile can be printed
/// for a stored model. A list becomes one parameter for each element.
///
/// # Errors
/// A [`Fault`] without a line, as [`Parameter::parse`]; also if a value is an object or `null`.
pub fn parameters_from_json(map: &Map<String, Value>) -> Result<Vec<Parameter>, Error> {
    let mut parameters = Vec::new();
    for (name, value) in map {
        match value {
            Value::Array(list) => {
                for value in list {
                    parameters.push(from_json(name, value)?);
                }
            }
            value => parameters.push(from_json(name, value)?),
        }
    }
    Ok(parameters)
}

fn from_json(name: &str, value: &Value) -> Result<Parameter, Error> {
    let text = match value {
        Value::String(text) => text.clone(),
        // Go writes a float that is whole without its point, and may write an int with one.
        Value::Number(number) => match number.as_f64() {
            Some(float) if float.fract() == 0.0 && number.as_i64().is_none() => format!("{float}"),
            _ => number.to_string(),
        },
        Value::Bool(truth) => truth.to_string(),
        Value::Null | Value::Array(_) | Value::Object(_) => {
            let (name, value) = (shown(name), shown(&value.to_string()));
            return Err(Fault::InvalidParameter {
                name,
                expected: "string",
                value,
            }
            .anywhere());
        }
    };
    Parameter::parse(name, &text).map_err(Fault::anywhere)
}

fn lookup(name: &str) -> Result<(&'static str, Kind), Fault> {
    KNOWN
        .into_iter()
        .find(|(known, _)| *known == name)
        .ok_or_else(|| Fault::UnknownParameter { name: shown(name) })
}

/// The spellings of Go's `strconv.ParseBool`, which Ollama uses.
fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}
