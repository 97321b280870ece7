//! `inspect`: a model's manifest and what its GGUF file says, as its registry has them, without
//! pulling it.

mod chunks;
mod described;

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use artifact::ModelName;
use artifact::client::{
    self, Answer, Credentials, Found, Origin, RegistryOptions, RetryPolicy, Transport,
};
use artifact::dialect::{self, Role};
use artifact::gguf::{self, Header};
use artifact::manifest::{Descriptor, Manifest};

use crate::args::{InspectArgs, Output};
use crate::endpoint;
use crate::listing::print_json;
use crate::remote::{read_header, selector_of};
use described::Description;

/// What is known of a model's weights.
#[derive(Debug, Default)]
struct Weights {
    /// By the keys of [`mod@artifact::gguf::annotations`].
    annotations: BTreeMap<String, String>,
    /// Where it was read.
    header: Option<Header>,
}

pub(crate) async fn inspect(args: &InspectArgs) -> Result<()> {
    let name = ModelName::parse(&args.reference)?;
    let place = find(args, &name)
        .await
        .with_context(|| format!("inspecting {name}"))?;
    let manifest = &place.found.manifest;
    let mut layers = manifest.layers().iter();
    let layer = layers.find(|layer| dialect::role_of(layer) == Role::Model);
    let weights = match layer {
        Some(layer) => known_of(&place.origin, manifest, layer, args.metadata).await?,
        None => Weights::default(),
    };
    let chunks = match args.chunks {
        true => Some(chunks::read(&place.origin, &place.found).await?),
        false => None,
    };
    let description = Description {
        reference: place.name.as_str(),
        digest: &place.found.digest,
        manifest,
        weights: &weights,
        chunks: chunks.as_deref(),
    };
    match args.output.output {
        Output::Json => print_json(&description.json()),
        Output::Text => description.print(),
    }
}

/// A model, and the origin that has it.
#[derive(Debug)]
struct Place {
    name: ModelName,
    origin: Origin,
    found: Box<Found>,
}

/// The first origin that has the model, of those that its name may lead to.
async fn find(args: &InspectArgs, name: &ModelName) -> Result<Place> {
    let sources = args.sources.to_sources()?;
    let transport = Transport::new(args.sources.rest.to_transport());
    let options = RegistryOptions {
        plain_http: args.plain_http,
        credentials: Credentials::Stored(endpoint::login_files(
            args.sources.rest.registry_configs.clone(),
        )),
    };
    let mut worst: Option<client::Error> = None;
    for name in sources.candidates(name)? {
        for origin in sources.open(&transport, &name, &options).await? {
            match origin.manifest(&selector_of(&name), None).await {
                Ok(Answer::Found(found)) if found.manifest.config().is_some() => {
                    return Ok(Place {
                        name,
                        origin,
                        found,
                    });
                }
                Ok(_) => {
                    return Err(client::Error::NotAModel {
                        reference: Box::new(name.reference().clone()),
                        reason: "it is an index of several manifests; name one of them by its digest",
                    }
                    .into());
                }
                // That one does not have it says less than that another cannot be asked.
                Err(error) if worst.as_ref().is_none_or(client::Error::is_absent) => {
                    worst = Some(error);
                }
                Err(_) => {}
            }
        }
    }
    let unknown = || client::Error::ManifestUnknown {
        reference: Box::new(name.reference().clone()),
    };
    Err(worst.unwrap_or_else(unknown).into())
}

/// A registry of ours has read the header already; from any other origin its beginning is read.
async fn known_of(
    origin: &Origin,
    manifest: &Manifest,
    layer: &Descriptor,
    with_metadata: bool,
) -> Result<Weights> {
    let annotations = match origin.registry() {
        Some(registry) => registry.blob_annotations(&layer.digest).await?,
        None => BTreeMap::new(),
    };
    let is_known = annotations.contains_key(gguf::annotations::KIND);
    if is_known && !with_metadata {
        let header = None;
        return Ok(Weights {
            annotations,
            header,
        });
    }
    let source = origin.blob(layer, manifest, RetryPolicy::default())?;
    let header = read_header(&source).await?;
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
