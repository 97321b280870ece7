//! `inspect`: a model's manifest and GGUF metadata, read from its registry without pulling it.

use anyhow::{Context, Result};
use artifact::Reference;
use artifact::client::fetch::Mode;
use artifact::client::{BlobSource, RegistryClient, RegistryOptions, RetryPolicy, Transport};
use artifact::dialect::{self, Dialect, Role};
use artifact::gguf::{self, Header, Value as GgufValue};
use artifact::manifest::{Descriptor, Manifest};
use bytesize::ByteSize;
use serde_json::{Map, Value, json};

use crate::args::{InspectArgs, Output};
use crate::endpoint;
use crate::listing::{self, print_json};
use crate::report::escape;

/// Bytes of a GGUF file asked for first; tokenizers take up to about 11 MiB.
const FIRST_BYTES: u64 = 1024 * 1024;
/// Longest metadata value shown to people, in characters.
const SHOWN_CHARACTERS: usize = 100;

pub(crate) async fn inspect(args: &InspectArgs) -> Result<()> {
    let reference = Reference::parse(&args.reference)?;
    let options = RegistryOptions {
        plain_http: args.plain_http,
        credentials: endpoint::stored_logins(),
    };
    let registry = RegistryClient::open(&Transport::default(), &reference, &options).await?;
    let resolved = registry
        .resolve()
        .await
        .with_context(|| format!("inspecting {reference}"))?;
    let weights = resolved
        .manifest
        .layers()
        .iter()
        .find(|layer| dialect::role_of(layer) == Role::Model);
    let header = match weights {
        Some(layer) => Some(read_header(&registry, layer).await?),
        None => None,
    };
    let description = describe(
        &reference,
        &resolved.digest.to_string(),
        &resolved.manifest,
        header.as_ref(),
    );
    match args.output.output {
        Output::Json => print_json(&description),
        Output::Text => print_text(&description, &resolved.manifest),
    }
}

/// Reads as much of the blob's beginning as its header needs.
async fn read_header(registry: &RegistryClient, layer: &Descriptor) -> Result<Header> {
    let source = BlobSource::new(
        registry.clone(),
        layer.digest,
        layer.size,
        RetryPolicy::default(),
    );
    let mut start = Vec::new();
    let mut wanted = FIRST_BYTES;
    loop {
        let mut reader = source.reader(start.len() as u64..wanted.min(layer.size), Mode::Ranges);
        while let Some((_, bytes)) = reader
            .next()
            .await
            .with_context(|| format!("reading the start of {}", layer.digest))?
        {
            start.extend_from_slice(&bytes);
        }
        match Header::parse(&start, Some(layer.size)) {
            Ok(header) => return Ok(header),
            Err(gguf::Error::Truncated { .. })
                if wanted < layer.size && wanted < gguf::MAX_HEADER_BYTES =>
            {
                wanted = (wanted * 4).min(gguf::MAX_HEADER_BYTES);
            }
            Err(error) => {
                return Err(error).with_context(|| format!("{} is not a GGUF file", layer.digest));
            }
        }
    }
}

fn describe(
    reference: &Reference,
    digest: &str,
    manifest: &Manifest,
    header: Option<&Header>,
) -> Value {
    let raw: Value = serde_json::from_slice(manifest.raw()).unwrap_or_default();
    let gguf = header.map(|header| {
        let metadata: Map<String, Value> = header
            .metadata()
            .iter()
            .map(|(key, value)| (key.to_owned(), metadata_json(value)))
            .collect();
        json!({
            "architecture": header.architecture(),
            "parameters": header.parameter_count(),
            "quantisation": header.quantisation(),
            "context_length": header.context_length(),
            "tensors": header.tensors().len(),
            "metadata": metadata,
        })
    });
    json!({
        "reference": reference,
        "digest": digest,
        "dialect": Dialect::of(manifest),
        "manifest": raw,
        "gguf": gguf,
    })
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

fn print_text(description: &Value, manifest: &Manifest) -> Result<()> {
    let text = |value: &Value| {
        value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned)
    };
    say!("reference   {}", text(&description["reference"]))?;
    say!("digest      {}", text(&description["digest"]))?;
    say!("media type  {}", escape(manifest.media_type()))?;
    say!("dialect     {}", text(&description["dialect"]))?;
    say!()?;
    let rows = manifest.blobs().map(|blob| {
        vec![
            blob.digest.to_string(),
            ByteSize(blob.size).to_string(),
            blob.media_type.clone(),
            dialect::file_name_of(blob).unwrap_or_default().to_owned(),
        ]
    });
    listing::print(
        Output::Text,
        &(),
        &["BLOB", "SIZE", "MEDIA TYPE", "FILE"],
        rows.collect(),
    )?;
    let Some(metadata) = description["gguf"]["metadata"].as_object() else {
        return Ok(());
    };
    say!()?;
    let rows = metadata.iter().map(|(key, value)| {
        let shown: String = text(value)
            .replace('\n', "\\n")
            .chars()
            .take(SHOWN_CHARACTERS)
            .collect();
        vec![key.clone(), shown]
    });
    listing::print(Output::Text, &(), &["GGUF METADATA", ""], rows.collect())
}
