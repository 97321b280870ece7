//! Writing CNCF ModelPack: every layer is a file with a name; prompt and parameters stand in a
//! Modelfile among them.
//!
//! Source: CNCF ModelPack model-spec `config.md` and `manifest.md`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, json};

use crate::dialect::derive::{Derived, Layers};
use crate::dialect::model::{Carried, Model};
use crate::dialect::write::{About, Document, ModelFacts, insert, json_document, manifest};
use crate::dialect::write::{retyped, text_document};
use crate::dialect::{CHAT_TEMPLATE_FILE, Inexpressible, file_name_of};
use crate::manifest::Descriptor;
use crate::media_type::{OCI_MANIFEST, modelpack};
use crate::modelfile::{Instruction, Modelfile, parameters_from_json};

/// Config and manifest of a model in ModelPack form. `layers` carry their file names in the
/// annotation [`modelpack::FILEPATH`]; none of them is compressed, so each digest is its diff id.
/// `annotations` are those of the manifest.
#[must_use]
pub fn modelpack_manifest(
    layers: &[Descriptor],
    facts: &ModelFacts,
    annotations: &BTreeMap<String, String>,
) -> (Document, Document) {
    let about = About {
        subject: None,
        annotations,
    };
    written(layers, facts, &about)
}

fn written(layers: &[Descriptor], facts: &ModelFacts, about: &About<'_>) -> (Document, Document) {
    let mut config = Map::new();
    insert(&mut config, "architecture", facts.architecture.as_deref());
    config.insert("format".to_owned(), json!("gguf"));
    insert(&mut config, "paramSize", facts.parameter_size.as_deref());
    insert(&mut config, "quantization", facts.quantisation.as_deref());
    let mut descriptor = Map::new();
    insert(&mut descriptor, "name", facts.name.as_deref());
    let diff_ids: Vec<_> = layers.iter().map(|layer| layer.digest).collect();
    let config = json_document(
        modelpack::CONFIG,
        &json!({
            "descriptor": descriptor,
            "modelfs": { "type": "layers", "diffIds": diff_ids },
            "config": config,
        }),
    );
    let artifact = Some(modelpack::ARTIFACT);
    let manifest = manifest(OCI_MANIFEST, artifact, &config, layers, Some(about));
    (config, manifest)
}

/// Writes the model.
pub(super) fn write(model: &Model, about: &About<'_>) -> Result<Derived, Inexpressible> {
    let mut files = Files::default();
    let count = model.weights.len();
    let weights = files.carry(&model.weights, modelpack::WEIGHT_RAW, |at| match count {
        1 => "model.gguf".to_owned(),
        // As llama.cpp names the parts of a split file, by which it finds the others.
        _ => format!("model-{:05}-of-{count:05}.gguf", at + 1),
    });
    let projectors = files.carry(&model.projectors, modelpack::WEIGHT_RAW, |at| {
        numbered("mmproj", at, ".gguf")
    });
    let adapters = files.carry(&model.adapters, modelpack::WEIGHT_RAW, |at| {
        numbered("adapter", at, ".gguf")
    });
    if let Some(modelfile) = modelfile(model, &weights, &projectors, &adapters)? {
        files.add(modelpack::WEIGHT_CONFIG_RAW, "Modelfile", &modelfile);
    }
    if let Some(template) = &model.chat_template {
        files.add_carried(template, modelpack::WEIGHT_CONFIG_RAW, CHAT_TEMPLATE_FILE);
    }
    for (at, license) in model.licenses.iter().enumerate() {
        files.add_carried(license, modelpack::DOC_RAW, &numbered("LICENSE", at, ""));
    }
    let layers = files.0;
    let written = written(&layers.layers, &model.facts, about);
    Ok(layers.finish(written))
}

/// Layers with file names.
#[derive(Debug, Default)]
struct Files(Layers);

impl Files {
    /// Layers that change their type and keep their names, or get one; gives the names. Where one
    /// of them has none, or two share one, all are named anew: parts that belong together by their
    /// names must not be torn apart.
    fn carry(
        &mut self,
        layers: &[Descriptor],
        media_type: &str,
        name: impl Fn(usize) -> String,
    ) -> Vec<String> {
        let own: BTreeSet<_> = layers.iter().filter_map(file_name_of).collect();
        let keeps = own.len() == layers.len();
        let mut names = Vec::new();
        for (at, layer) in layers.iter().enumerate() {
            let own = file_name_of(layer).filter(|_| keeps).map(str::to_owned);
            let name = own.unwrap_or_else(|| name(at));
            self.push(retyped(layer, media_type), &name);
            names.push(name);
        }
        names
    }

    fn add(&mut self, media_type: &'static str, name: &str, text: &str) {
        self.0.add(text_document(media_type, text));
        if let Some(layer) = self.0.layers.pop() {
            self.push(layer, name);
        }
    }

    fn add_carried(&mut self, carried: &Carried, media_type: &'static str, name: &str) {
        match carried {
            Carried::Layer(layer, _) => self.push(retyped(layer, media_type), name),
            Carried::Text(text) => self.add(media_type, name, text),
        }
    }

    fn push(&mut self, mut layer: Descriptor, name: &str) {
        let path = modelpack::FILEPATH.to_owned();
        layer.annotations.insert(path, name.to_owned());
        self.0.layers.push(layer);
    }
}

/// The Modelfile; none for a model that is nothing but its weights.
fn modelfile(
    model: &Model,
    weights: &[String],
    projectors: &[String],
    adapters: &[String],
) -> Result<Option<String>, Inexpressible> {
    let mut said = Vec::new();
    said.extend(model.template.clone().map(Instruction::Template));
    said.extend(model.system.clone().map(Instruction::System));
    for (name, value) in &model.params {
        let one = std::iter::once((name.clone(), value.clone())).collect();
        // A parameter that this version does not know has no form in a Modelfile.
        let parameters = parameters_from_json(&one).unwrap_or_default();
        said.extend(parameters.into_iter().map(Instruction::Parameter));
    }
    let messages = model.messages.iter();
    said.extend(messages.map(|(role, content)| Instruction::Message(*role, content.clone())));
    said.extend(model.renderer.clone().map(Instruction::Renderer));
    said.extend(model.parser.clone().map(Instruction::Parser));
    said.extend(model.requires.clone().map(Instruction::Requires));
    if said.is_empty() && projectors.is_empty() && adapters.is_empty() {
        return Ok(None);
    }
    let path = |name: &String| format!("./{name}");
    let files = weights.iter().chain(projectors);
    let mut instructions: Vec<_> = files.map(path).map(Instruction::From).collect();
    instructions.extend(adapters.iter().map(path).map(Instruction::Adapter));
    instructions.append(&mut said);
    let modelfile = Modelfile::from_instructions(instructions)
        .map_err(|source| Inexpressible::Modelfile { source })?;
    Ok(Some(modelfile.to_string()))
}

/// `mmproj.gguf`, `mmproj-2.gguf`, …
fn numbered(stem: &str, at: usize, ending: &str) -> String {
    match at {
        0 => format!("{stem}{ending}"),
        _ => format!("{stem}-{}{ending}", at + 1),
    }
}
