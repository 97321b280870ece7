//! `inspect`: a model's manifest and what its GGUF file says, as its registry has them, without
//! pulling it.

mod described;

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use artifact::Reference;
use artifact::client::{RegistryClient, RegistryOptions, Transport};
use artifact::dialect::{self, Role};
use artifact::gguf::{self, Header};
use artifact::manifest::Descriptor;

use crate::args::{InspectArgs, Output};
use crate::endpoint;
use crate::listing::print_json;
use crate::remote::read_header;
use described::Description;

/// What is known of a model's weights.
#[derive(Debug, Default)]
struct Weights {
    /// By the keys of [`artifact::gguf::annotations`].
    annotations: BTreeMap<String, String>,
    /// Where it was read.
    header: Option<Header>,
}

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
    let layers = resolved.manifest.layers().iter();
    let layer = layers
        .clone()
        .find(|layer| dialect::role_of(layer) == Role::Model);
    let weights = match layer {
        Some(layer) => known_of(&registry, layer, args.metadata).await?,
        None => Weights::default(),
    };
    let description = Description {
        reference: &reference,
        digest: &resolved.digest,
        manifest: &resolved.manifest,
        weights: &weights,
    };
    match args.output.output {
        Output::Json => print_json(&description.json()),
        Output::Text => description.print(),
    }
}

/// A registry of ours has read the header already; at any other one its beginning is read here.
async fn known_of(
    registry: &RegistryClient,
    layer: &Descriptor,
    with_metadata: bool,
) -> Result<Weights> {
    let annotations = registry.blob_annotations(&layer.digest).await?;
    let is_known = annotations.contains_key(gguf::annotations::KIND);
    if is_known && !with_metadata {
        let header = None;
        return Ok(Weights {
            annotations,
            header,
        });
    }
    let header = read_header(registry, layer).await?;
    let annotations = match gguf::check(&header) {
        _ if is_known => annotations,
        Ok(kind) => gguf::annotations(&header, kind),
        Err(fault) => BTreeMap::from([(gguf::annotations::FAULT.to_owned(), fault.to_string())]),
    };
    let header = Some(header);
    Ok(Weights {
        annotations,
        header,
    })
}
