//! Writing Ollama's dialect, as `ollama create` would.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::dialect::Inexpressible;
use crate::dialect::derive::{Derived, Layers};
use crate::dialect::go_template::{ChatFormat, chat_format_of};
use crate::dialect::model::Model;
use crate::dialect::write::{Document, insert, json_document, manifest, text_document};
use crate::digest::Algorithm;
use crate::manifest::Descriptor;
use crate::media_type::{DOCKER_MANIFEST, ollama};

/// Writes the model. A model without a Go template gets the one of its chat format, as far as that
/// is known: Ollama does not run the Jinja template in the weights.
pub(super) fn write(model: &Model) -> Result<Derived, Inexpressible> {
    require_expressible(model)?;
    let mut layers = Layers::default();
    layers.carry(&model.weights, ollama::MODEL);
    layers.carry(&model.projectors, ollama::PROJECTOR);
    layers.carry(&model.adapters, ollama::ADAPTER);
    let format = match &model.template {
        Some(_) => None,
        None => model.jinja().and_then(chat_format_of),
    };
    let known = format.as_ref().map(|format| format.template);
    if let Some(template) = model.template.as_deref().or(known) {
        layers.add(text_document(ollama::TEMPLATE, template));
    }
    if let Some(system) = &model.system {
        layers.add(text_document(ollama::SYSTEM, system));
    }
    let params = params(model, format);
    if !params.is_empty() {
        layers.add(json_document(ollama::PARAMS, &Value::Object(params)));
    }
    if !model.messages.is_empty() {
        let messages = model.messages.iter();
        let messages: Value = messages
            .map(|(role, content)| json!({ "role": role.as_str(), "content": content }))
            .collect();
        layers.add(json_document(ollama::MESSAGES, &messages));
    }
    for license in &model.licenses {
        layers.add_text(license, ollama::LICENSE);
    }
    // Ollama knows no annotations.
    for layer in &mut layers.layers {
        layer.annotations = BTreeMap::new();
    }
    let written = written(&layers.layers, model);
    Ok(layers.finish(written))
}

fn require_expressible(model: &Model) -> Result<(), Inexpressible> {
    if model.weights.len() != 1 {
        return Err(Inexpressible::Split {
            parts: model.weights.len(),
        });
    }
    let layers = [&model.weights, &model.projectors, &model.adapters];
    let strange = layers
        .into_iter()
        .flatten()
        .find(|layer| layer.digest.algorithm() != Algorithm::Sha256);
    match strange {
        Some(layer) => Err(Inexpressible::Algorithm {
            digest: Box::new(layer.digest),
        }),
        None => Ok(()),
    }
}

/// The parameters; the stops of the chat format unless the model has parameters of its own.
fn params(model: &Model, format: Option<ChatFormat>) -> Map<String, Value> {
    let mut params = model.params.clone();
    if let Some(format) = format.filter(|_| params.is_empty()) {
        params.insert("stop".to_owned(), json!(format.stop));
    }
    params
}

fn written(layers: &[Descriptor], model: &Model) -> (Document, Document) {
    let facts = &model.facts;
    let family = facts.architecture.as_deref().unwrap_or("unknown");
    let mut families = vec![family];
    if !model.projectors.is_empty() {
        families.push("clip");
    }
    let diff_ids: Vec<_> = layers.iter().map(|layer| layer.digest).collect();
    let mut config = Map::new();
    config.insert("model_format".to_owned(), json!("gguf"));
    config.insert("model_family".to_owned(), json!(family));
    config.insert("model_families".to_owned(), json!(families));
    insert(&mut config, "model_type", facts.parameter_size.as_deref());
    insert(&mut config, "file_type", facts.quantisation.as_deref());
    insert(&mut config, "renderer", model.renderer.as_deref());
    insert(&mut config, "parser", model.parser.as_deref());
    insert(&mut config, "requires", model.requires.as_deref());
    config.insert("architecture".to_owned(), json!("amd64"));
    config.insert("os".to_owned(), json!("linux"));
    config.insert(
        "rootfs".to_owned(),
        json!({ "type": "layers", "diff_ids": diff_ids }),
    );
    let config = json_document(ollama::CONFIG, &Value::Object(config));
    let manifest = manifest(DOCKER_MANIFEST, None, &config, layers, None);
    (config, manifest)
}
