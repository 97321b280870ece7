//! What `inspect` found, for programs and for people.

use anyhow::Result;
use artifact::dialect::{self, Dialect};
use artifact::gguf::annotations::{
    ARCHITECTURE, CONTEXT_LENGTH, FAULT, KIND, LICENSE, NAME, PARAMETER_SIZE, PARAMETERS,
    QUANTISATION, TEMPLATE, TENSORS,
};
use artifact::gguf::{Header, Value as GgufValue};
use artifact::manifest::Manifest;
use artifact::{ChunkMap, Digest};
use bytesize::ByteSize;
use serde_json::{Map, Value, json};

use super::{Weights, chunks};
use crate::args::Output;
use crate::listing;
use crate::report::escape;

/// Longest metadata value shown to people, in characters.
const SHOWN_CHARACTERS: usize = 100;

/// A model as its registry has it.
pub(super) struct Description<'a> {
    pub(super) reference: &'a str,
    pub(super) digest: &'a Digest,
    pub(super) manifest: &'a Manifest,
    pub(super) weights: &'a Weights,
    /// The chunk maps on offer, where they are asked for.
    pub(super) chunks: Option<&'a [ChunkMap]>,
}

impl Description<'_> {
    /// Everything that is known.
    pub(super) fn json(&self) -> Value {
        let raw: Value = serde_json::from_slice(self.manifest.raw()).unwrap_or_default();
        let mut described = json!({
            "reference": self.reference,
            "digest": self.digest,
            "dialect": Dialect::of(self.manifest),
            "manifest": raw,
            "gguf": self.gguf(),
        });
        if let Some(maps) = self.chunks {
            described["chunk_maps"] = chunks::json(maps);
        }
        described
    }

    fn gguf(&self) -> Value {
        let annotations = &self.weights.annotations;
        if annotations.is_empty() {
            return Value::Null;
        }
        let text = |key: &str| annotations.get(key).map(String::as_str);
        let number = |key: &str| text(key).and_then(|text| text.parse::<u64>().ok());
        let mut gguf = json!({
            "kind": text(KIND),
            "architecture": text(ARCHITECTURE),
            "parameters": number(PARAMETERS),
            "quantisation": text(QUANTISATION),
            "context_length": number(CONTEXT_LENGTH),
            "tensors": number(TENSORS),
            "name": text(NAME),
            "license": text(LICENSE),
            "fault": text(FAULT),
            "annotations": annotations,
        });
        if let Some(header) = &self.weights.header {
            gguf["metadata"] = Value::Object(metadata_of(header));
        }
        gguf
    }

    /// The same in tables.
    pub(super) fn print(&self) -> Result<()> {
        say!("reference   {}", escape(self.reference))?;
        say!("digest      {}", self.digest)?;
        say!("media type  {}", escape(self.manifest.media_type()))?;
        say!("dialect     {}", in_lower_case(Dialect::of(self.manifest))?)?;
        say!()?;
        let rows = self.manifest.blobs().map(|blob| {
            vec![
                blob.digest.to_string(),
                ByteSize(blob.size).to_string(),
                blob.media_type.clone(),
                dialect::file_name_of(blob).unwrap_or_default().to_owned(),
            ]
        });
        let columns = ["BLOB", "SIZE", "MEDIA TYPE", "FILE"];
        listing::print(Output::Text, &(), &columns, rows.collect())?;
        self.print_facts()?;
        if let Some(header) = &self.weights.header {
            say!()?;
            let rows = metadata_of(header)
                .into_iter()
                .map(|(key, value)| vec![key, shown(&value)]);
            listing::print(Output::Text, &(), &["GGUF METADATA", ""], rows.collect())?;
        }
        match self.chunks {
            Some(maps) => chunks::print(maps),
            None => Ok(()),
        }
    }

    fn print_facts(&self) -> Result<()> {
        let facts = [
            ("kind", KIND),
            ("name", NAME),
            ("architecture", ARCHITECTURE),
            ("parameters", PARAMETER_SIZE),
            ("quantisation", QUANTISATION),
            ("context length", CONTEXT_LENGTH),
            ("licence", LICENSE),
            ("chat template", TEMPLATE),
            ("fault", FAULT),
        ];
        let known = facts.iter().filter_map(|(title, key)| {
            let value = self.weights.annotations.get(*key)?;
            Some(vec![(*title).to_owned(), shown(&json!(value))])
        });
        let rows: Vec<Vec<String>> = known.collect();
        if rows.is_empty() {
            return Ok(());
        }
        say!()?;
        listing::print(Output::Text, &(), &["MODEL", ""], rows)
    }
}

fn in_lower_case(dialect: Dialect) -> Result<String> {
    let word = serde_json::to_value(dialect)?;
    Ok(word.as_str().unwrap_or_default().to_owned())
}

fn shown(value: &Value) -> String {
    let text = value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned);
    let text = text.replace('\n', "\\n");
    text.chars().take(SHOWN_CHARACTERS).collect()
}

fn metadata_of(header: &Header) -> Map<String, Value> {
    let entries = header.metadata().iter();
    entries
        .map(|(key, value)| (key.to_owned(), metadata_json(value)))
        .collect()
}

/// Arrays are long (a vocabulary has 100,000 entries and more): their length says enough.
fn metadata_json(value: &GgufValue) -> Value {
    match value {
        GgufValue::Array(array) => {
            json!({ "array_of": array.element_type().to_string(), "length": array.len() })
        }
        scalar => scalar.to_json(),
    }
}
