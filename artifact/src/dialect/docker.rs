//! Writing Docker Model Runner's dialect: config v0.1, one layer for each file.
//!
//! Source: Docker model-spec `spec.md` and `config.md`. It has a place for weights, projectors,
//! adapters, a Jinja template, licences and a context size; system prompt, messages, Go template
//! and the other parameters are left out.

use serde_json::{Map, Value, json};

use crate::dialect::derive::{Derived, Layers};
use crate::dialect::model::Model;
use crate::dialect::write::{About, insert, json_document, manifest};
use crate::media_type::{OCI_MANIFEST, docker_model};

/// Writes the model.
pub(super) fn write(model: &Model, about: &About<'_>) -> Derived {
    let mut layers = Layers::default();
    layers.carry(&model.weights, docker_model::GGUF);
    layers.carry(&model.projectors, docker_model::MMPROJ);
    layers.carry(&model.adapters, docker_model::LORA);
    if let Some(template) = &model.chat_template {
        layers.add_text(template, docker_model::TEMPLATE);
    }
    for license in &model.licenses {
        layers.add_text(license, docker_model::LICENSE);
    }
    let diff_ids: Vec<_> = layers.layers.iter().map(|layer| layer.digest).collect();
    // No time of creation: the same source must give the same bytes, whenever it is derived.
    let config = json!({
        "config": config(model),
        "descriptor": {},
        "rootfs": { "type": "rootfs", "diff_ids": diff_ids },
    });
    let config = json_document(docker_model::CONFIG_V01, &config);
    let manifest = manifest(OCI_MANIFEST, None, &config, &layers.layers, Some(about));
    layers.finish((config, manifest))
}

fn config(model: &Model) -> Value {
    let facts = &model.facts;
    let mut config = Map::new();
    config.insert("format".to_owned(), json!("gguf"));
    insert(&mut config, "quantization", facts.quantisation.as_deref());
    insert(&mut config, "parameters", facts.parameter_size.as_deref());
    insert(&mut config, "architecture", facts.architecture.as_deref());
    let size = model.weights.iter().map(|layer| layer.size).sum();
    config.insert("size".to_owned(), json!(size_text(size)));
    if !model.metadata.is_empty() {
        config.insert("gguf".to_owned(), json!(model.metadata));
    }
    let context = model.params.get("num_ctx").and_then(Value::as_i64);
    if let Some(context) = context.and_then(|size| i32::try_from(size).ok()) {
        config.insert("context_size".to_owned(), json!(context));
    }
    Value::Object(config)
}

/// A size as `docker model list` shows it.
fn size_text(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut unit, mut divisor) = (0, 1_u64);
    while bytes / divisor >= 1024 && unit + 1 < UNITS.len() {
        unit += 1;
        divisor *= 1024;
    }
    let hundredths = u128::from(bytes) * 100 / u128::from(divisor);
    format!(
        "{}.{:02} {}",
        hundredths / 100,
        hundredths % 100,
        UNITS[unit]
    )
}

#[cfg(test)]
mod tests {
    use crate::dialect::docker::size_text;

    #[test]
    fn sizes_are_written_with_two_decimals() {
        for (bytes, text) in [
            (0, "0.00 B"),
            (1023, "1023.00 B"),
            (1_340_000, "1.27 MiB"),
            (400_000_000_000, "372.52 GiB"),
            (u64::MAX, "16777215.99 TiB"),
        ] {
            assert_eq!(size_text(bytes), text);
        }
    }
}
