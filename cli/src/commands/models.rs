//! `list`, `rm`, `ps`, `show`: what is here and what is loaded.

use anyhow::{Context, Result};
use artifact::Reference;
use bytesize::ByteSize;
use serde_json::Value;

use crate::args::{ListArgs, Output, PsArgs, RmArgs, ShowArgs};
use crate::endpoint;
use crate::listing::{self, ago};
use crate::node::Node;
use crate::report::escape;
use crate::runtime_client::RuntimeClient;

pub(crate) async fn list(args: &ListArgs) -> Result<()> {
    let models = Node::open(&args.agent, &args.data).await?.list().await?;
    let rows = models
        .iter()
        .map(|model| {
            vec![
                model.reference.to_string(),
                model.digest.hex()[..12].to_owned(),
                ByteSize(model.size).to_string(),
                ago(&model.pulled_at),
                if model.pinned { "pinned" } else { "" }.to_owned(),
            ]
        })
        .collect();
    listing::print(
        args.output.output,
        &models,
        &["REFERENCE", "DIGEST", "SIZE", "PULLED", ""],
        rows,
    )
}

pub(crate) async fn rm(args: &RmArgs) -> Result<()> {
    let node = Node::open(&args.agent, &args.data).await?;
    for text in &args.references {
        let reference = Reference::parse(text)?;
        node.remove(&reference, args.force)
            .await
            .with_context(|| format!("removing {reference}"))?;
        say!("removed {reference}")?;
    }
    Ok(())
}

pub(crate) async fn ps(args: &PsArgs) -> Result<()> {
    let runtime = RuntimeClient::new(endpoint::runtime(&args.runtime)?);
    let loaded = runtime.loaded().await?;
    let models = loaded["models"].as_array().cloned().unwrap_or_default();
    let rows = models
        .iter()
        .map(|model| {
            vec![
                text(model, "name"),
                text(model, "digest").chars().take(12).collect(),
                ByteSize(model["size"].as_u64().unwrap_or_default()).to_string(),
                model["context_length"].to_string(),
                text(model, "expires_at"),
            ]
        })
        .collect();
    listing::print(
        args.output.output,
        &models,
        &["NAME", "DIGEST", "SIZE", "CONTEXT", "UNTIL"],
        rows,
    )
}

pub(crate) async fn show(args: &ShowArgs) -> Result<()> {
    let runtime = RuntimeClient::new(endpoint::runtime(&args.runtime)?);
    let model = runtime.show(&args.reference).await?;
    if args.output.output == Output::Json {
        return listing::print_json(&model);
    }
    let details = &model["details"];
    section(
        "Model",
        &[
            ("architecture", text(details, "family")),
            ("parameters", text(details, "parameter_size")),
            ("quantization", text(details, "quantization_level")),
            ("context length", info(&model, "context_length")),
            ("embedding length", info(&model, "embedding_length")),
        ],
    )?;
    for (title, key) in [
        ("Parameters", "parameters"),
        ("System", "system"),
        ("License", "license"),
    ] {
        let body = text(&model, key);
        if !body.is_empty() {
            say!("{title}")?;
            for line in body.lines().take(20) {
                say!("  {}", escape(line))?;
            }
            say!()?;
        }
    }
    Ok(())
}

fn section(title: &str, rows: &[(&str, String)]) -> Result<()> {
    say!("{title}")?;
    for (name, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
        say!("  {name:18} {}", escape(value))?;
    }
    say!()?;
    Ok(())
}

fn text(object: &Value, key: &str) -> String {
    object[key].as_str().unwrap_or_default().to_owned()
}

/// A number of the model's own metadata, whose keys begin with its architecture.
fn info(model: &Value, key: &str) -> String {
    let architecture = model["details"]["family"].as_str().unwrap_or_default();
    match &model["model_info"][format!("{architecture}.{key}")] {
        Value::Null => String::new(),
        value => value.to_string(),
    }
}
