//! Options of a request in Ollama's vocabulary: defaults, then the model's own, then the request's.

use serde_json::{Map, Value};

use crate::engine::protocol::Sampling;
use crate::error::Error;

/// Stop texts of one request.
const MAX_STOPS: usize = 64;
/// Bytes of one stop text.
const MAX_STOP_BYTES: usize = 1024;
/// Known to Ollama and without effect there, too.
const DEPRECATED: [&str; 10] = [
    "penalize_newline",
    "low_vram",
    "f16_kv",
    "logits_all",
    "vocab_only",
    "use_mlock",
    "mirostat",
    "mirostat_tau",
    "mirostat_eta",
    "numa",
];
/// Decided when the server starts, so without effect per request.
const FIXED: [&str; 5] = [
    "num_batch",
    "num_thread",
    "main_gpu",
    "use_mmap",
    "draft_num_predict",
];

/// The options of one request, checked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Options {
    /// How tokens are chosen.
    pub(crate) sampling: Sampling,
    /// The most tokens; none: until the context is full.
    pub(crate) num_predict: Option<u32>,
    /// Tokens kept from the start of a prompt that is cut.
    pub(crate) num_keep: u32,
    /// Positions of the context; none: as the server is configured.
    pub(crate) num_ctx: Option<u32>,
    /// Layers given to a GPU; none: as many as fit.
    pub(crate) num_gpu: Option<u32>,
    /// Texts that end the answer.
    pub(crate) stop: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            sampling: Sampling::default(),
            num_predict: None,
            num_keep: 4,
            num_ctx: None,
            num_gpu: None,
            stop: Vec::new(),
        }
    }
}

impl Options {
    /// Takes over what `map` says, key by key. Unknown keys are logged and otherwise ignored, as
    /// Ollama does; a value of the wrong type or out of range is an error that names the key.
    pub(crate) fn apply(&mut self, map: &Map<String, Value>) -> Result<(), Error> {
        for (key, value) in map {
            if !value.is_null() {
                self.set(key, value)?;
            }
        }
        Ok(())
    }

    fn set(&mut self, key: &str, value: &Value) -> Result<(), Error> {
        let sampling = &mut self.sampling;
        match key {
            "temperature" => sampling.temperature = number(key, value, 0.0, 1e6)?,
            "top_k" => sampling.top_k = integer(key, value)?.max(0),
            "top_p" => sampling.top_p = number(key, value, 0.0, 1.0)?,
            "min_p" => sampling.min_p = number(key, value, 0.0, 1.0)?,
            "typical_p" => sampling.typical_p = number(key, value, 0.0, 1.0)?,
            "repeat_last_n" => sampling.repeat_last_n = integer(key, value)?.max(-1),
            "repeat_penalty" => sampling.repeat_penalty = number(key, value, 1e-6, 1e6)?,
            "presence_penalty" => sampling.presence_penalty = number(key, value, -100.0, 100.0)?,
            "frequency_penalty" => sampling.frequency_penalty = number(key, value, -100.0, 100.0)?,
            "seed" => sampling.seed = seed(key, value)?,
            "num_predict" => {
                self.num_predict = u32::try_from(integer(key, value)?).ok().filter(|n| *n > 0)
            }
            "num_keep" => self.num_keep = u32::try_from(integer(key, value)?).unwrap_or(u32::MAX),
            "num_ctx" => self.num_ctx = context(key, value)?,
            "num_gpu" => self.num_gpu = u32::try_from(integer(key, value)?).ok(),
            "stop" => self.stop = stops(key, value)?,
            _ if DEPRECATED.contains(&key) => {}
            _ if FIXED.contains(&key) => {
                tracing::debug!(option = key, "this option is set for the whole server");
            }
            _ => tracing::warn!(option = key, "invalid option provided"),
        }
        Ok(())
    }
}

/// Stop texts: one, or a list.
pub(crate) fn stops(key: &str, value: &Value) -> Result<Vec<String>, Error> {
    let wrong = || wrong_type(key, "a string or an array of strings");
    let stops = match value {
        Value::Null => Vec::new(),
        Value::String(one) => vec![one.clone()],
        Value::Array(several) => several
            .iter()
            .map(|stop| stop.as_str().map(str::to_owned).ok_or_else(wrong))
            .collect::<Result<_, _>>()?,
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => return Err(wrong()),
    };
    if stops.len() > MAX_STOPS || stops.iter().any(|stop| stop.len() > MAX_STOP_BYTES) {
        return Err(Error::invalid(format!(
            "option {key:?} may have at most {MAX_STOPS} texts of at most {MAX_STOP_BYTES} bytes"
        )));
    }
    Ok(stops)
}

fn seed(key: &str, value: &Value) -> Result<Option<u32>, Error> {
    let wide = whole(key, value)?;
    // -1 asks for chance. Other seeds count modulo 2^32, as in llama.cpp.
    Ok((wide != -1).then(|| u32::try_from(wide.rem_euclid(1 << 32)).unwrap_or(0)))
}

fn context(key: &str, value: &Value) -> Result<Option<u32>, Error> {
    match integer(key, value)? {
        0 => Ok(None),
        positions if positions > 0 => Ok(u32::try_from(positions).ok()),
        _ => Err(Error::invalid(format!(
            "option {key:?} must not be negative"
        ))),
    }
}

fn number(key: &str, value: &Value, least: f64, most: f64) -> Result<f32, Error> {
    let number = value.as_f64().ok_or_else(|| wrong_type(key, "a number"))?;
    if !(least..=most).contains(&number) {
        return Err(Error::invalid(format!(
            "option {key:?} must be from {least} to {most}, not {number}"
        )));
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "bounded above, and rounding is fine"
    )]
    Ok(number as f32)
}

fn integer(key: &str, value: &Value) -> Result<i32, Error> {
    i32::try_from(whole(key, value)?)
        .map_err(|_wide| Error::invalid(format!("option {key:?} is out of range")))
}

fn whole(key: &str, value: &Value) -> Result<i64, Error> {
    if let Some(whole) = value.as_i64() {
        return Ok(whole);
    }
    // 5.0 is a whole number, too: some clients know no other.
    match value.as_f64() {
        Some(float) if float.fract() == 0.0 && float.abs() < 9e15 =>
        {
            #[expect(clippy::cast_possible_truncation, reason = "whole and in range")]
            Ok(float as i64)
        }
        _ => Err(wrong_type(key, "integer")),
    }
}

fn wrong_type(key: &str, expected: &str) -> Error {
    Error::invalid(format!("option {key:?} must be of type {expected}"))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use serde_json::{Value, json};

    use super::Options;

    fn options(value: &Value) -> Result<Options, String> {
        let mut options = Options::default();
        options
            .apply(value.as_object().unwrap())
            .map_err(|error| error.to_string())?;
        Ok(options)
    }

    #[test]
    fn the_request_goes_over_the_model_s_own() {
        let mut all = options(&json!({"temperature": 0.1, "top_k": 5, "stop": ["a"]})).unwrap();
        all.apply(json!({"temperature": 0, "stop": "b"}).as_object().unwrap())
            .unwrap();
        assert_eq!(all.sampling.temperature, 0.0);
        assert_eq!(all.sampling.top_k, 5);
        assert_eq!(all.stop, ["b"]);
    }

    #[test]
    fn endless_and_random_are_minus_one() {
        let all = options(&json!({"num_predict": -1, "seed": -1, "num_ctx": 0})).unwrap();
        assert_eq!(
            (all.num_predict, all.sampling.seed, all.num_ctx),
            (None, None, None)
        );
        let all = options(&json!({"num_predict": 7.0, "seed": 42})).unwrap();
        assert_eq!((all.num_predict, all.sampling.seed), (Some(7), Some(42)));
    }

    #[test]
    fn unknown_and_retired_options_are_let_through() {
        assert_eq!(
            options(&json!({"no_such": 1, "mirostat": 2, "num_thread": 4, "top_p": null})).unwrap(),
            Options::default()
        );
    }

    #[test]
    fn wrong_values_are_named() {
        for (value, expected) in [
            (
                json!({"temperature": "hot"}),
                "\"temperature\" must be of type a number",
            ),
            (json!({"temperature": -1}), "\"temperature\" must be from 0"),
            (json!({"top_k": 1.5}), "\"top_k\" must be of type integer"),
            (json!({"stop": 5}), "\"stop\" must be of type"),
            (json!({"num_ctx": -5}), "\"num_ctx\" must not be negative"),
            (
                json!({"repeat_penalty": 0}),
                "\"repeat_penalty\" must be from",
            ),
            (json!({"stop": vec!["x"; 100]}), "at most 64"),
        ] {
            let error = options(&value).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
