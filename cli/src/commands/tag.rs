//! `tag`: another name for what a registry has, in the same dialect or in another one.

use anyhow::{Context, Result, bail};
use artifact::client::{RegistryClient, RegistryOptions, Resolved, Transport, push_bytes};
use artifact::dialect::{self, Derived, Dialect, Source};
use artifact::{Digest, Reference, Tag};
use serde_json::json;

use crate::args::{Form, Output, TagArgs};
use crate::endpoint;
use crate::listing;
use crate::remote::read_parts;

/// An index within an index is as deep as anybody goes.
const DEEPEST: usize = 4;

pub(crate) async fn tag(args: &TagArgs) -> Result<()> {
    let source = Reference::parse(&args.source)?;
    let target = target(&source, args)?;
    let options = RegistryOptions {
        plain_http: args.plain_http,
        credentials: endpoint::stored_logins(),
    };
    let transport = Transport::default();
    let from = RegistryClient::open(&transport, &source, &options).await?;
    let to = RegistryClient::open(&transport, &target, &options).await?;
    let found = from.any_manifest(None).await?;
    let (digest, dialect) = tag_as(&from, &to, &found, args.form)
        .await
        .with_context(|| format!("tagging {source} as {target}"))?;
    match args.output.output {
        Output::Json => listing::print_json(&json!({
            "source": source,
            "reference": target,
            "digest": digest,
            "dialect": dialect,
        })),
        Output::Text => {
            say!("{target} {digest}")?;
            Ok(())
        }
    }
}

/// The new name: a whole reference, or a tag beside that of the source.
fn target(source: &Reference, args: &TagArgs) -> Result<Reference> {
    let Some(text) = &args.target else {
        if args.form.is_none() {
            bail!("give a second name, or a dialect with --as");
        }
        if source.digest().is_some() {
            bail!(
                "{source} is named by its digest, which no other dialect has: give a second name"
            );
        }
        return Ok(source.clone());
    };
    let target = if text.contains(['/', ':']) {
        Reference::parse(text)?
    } else {
        let tag = Tag::parse(text)?;
        Reference::from_parts(source.registry(), source.repository().clone(), tag)?
    };
    if target.digest().is_some() {
        bail!("{target} is named by a digest: a tag is wanted");
    }
    if target.registry() != source.registry() {
        bail!(
            "{target} is in another registry than {source}: bring it there with hayloft pull and \
             hayloft push"
        );
    }
    Ok(target)
}

/// Gives the digest that the new name has, and its dialect.
async fn tag_as(
    from: &RegistryClient,
    to: &RegistryClient,
    found: &Resolved,
    form: Option<Form>,
) -> Result<(Digest, Dialect)> {
    let dialect = Dialect::of(&found.manifest);
    match form.map(Form::dialect) {
        Some(wanted) if wanted != dialect => {
            let digest = write(from, to, found, wanted).await?;
            Ok((digest, wanted))
        }
        _ => {
            copy_content(from, to, found).await?;
            let media_type = found.manifest.media_type();
            to.put_manifest(found.manifest.raw(), media_type).await?;
            Ok((found.digest, dialect))
        }
    }
}

/// Everything that a manifest names, and what that names, in the repository of `to`.
async fn copy_content(from: &RegistryClient, to: &RegistryClient, found: &Resolved) -> Result<()> {
    if is_same_repository(from, to) {
        return Ok(());
    }
    let mut pending = vec![(found.clone(), 0)];
    let mut seen = Vec::new();
    while let Some((resolved, depth)) = pending.pop() {
        if depth > DEEPEST {
            bail!("{} is nested too deep", found.digest);
        }
        for child in resolved.manifest.manifests() {
            let child = from.any_manifest(Some(&child.digest)).await?;
            pending.push((child, depth + 1));
        }
        for blob in resolved.manifest.blobs().filter(|blob| !blob.is_foreign) {
            mount(from, to, &blob.digest).await?;
        }
        seen.push(resolved);
    }
    // Those that are named before those that name them; the last one is the one that gets the tag.
    for resolved in seen.iter().skip(1).rev() {
        let media_type = resolved.manifest.media_type();
        to.put_manifest_by_digest(&resolved.digest, resolved.manifest.raw(), media_type)
            .await?;
    }
    Ok(())
}

/// Writes the model in another dialect under the new name.
async fn write(
    from: &RegistryClient,
    to: &RegistryClient,
    found: &Resolved,
    dialect: Dialect,
) -> Result<Digest> {
    if found.manifest.config().is_none() || Dialect::of(&found.manifest) == Dialect::Other {
        bail!("{} is not a model", found.digest);
    }
    let source = Source {
        manifest: &found.manifest,
        digest: found.digest,
        parts: &read_parts(from, &found.manifest).await?,
    };
    let Derived {
        documents,
        layers,
        manifest,
    } = dialect::derive(source, dialect)
        .with_context(|| format!("there is no form of it in the {dialect} dialect"))?;
    let is_new = |digest: &Digest| documents.iter().any(|document| document.digest == *digest);
    if !is_same_repository(from, to) {
        for layer in layers.iter().filter(|layer| !is_new(&layer.digest)) {
            mount(from, to, &layer.digest).await?;
        }
    }
    for document in documents {
        push_bytes(to, document.bytes.into()).await?;
    }
    to.put_manifest(&manifest.bytes, manifest.media_type)
        .await?;
    Ok(manifest.digest)
}

async fn mount(from: &RegistryClient, to: &RegistryClient, digest: &Digest) -> Result<()> {
    let source = from.reference().repository();
    if !to.mount_blob(digest, source).await? {
        bail!(
            "the registry does not mount {digest} from {source}: bring the model there with \
             hayloft pull and hayloft push"
        );
    }
    Ok(())
}

fn is_same_repository(from: &RegistryClient, to: &RegistryClient) -> bool {
    from.reference().repository() == to.reference().repository()
}
