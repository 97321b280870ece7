//! What came from Hugging Face says so: the annotations of a manifest that was written down from a
//! repository there.

use crate::hub::{Commit, is_client_name};
use crate::manifest::Manifest;
use crate::media_type::modelpack;

/// Annotation: where the content came from. image-spec `annotations.md`.
pub const SOURCE: &str = "org.opencontainers.image.source";
/// Annotation: which commit of it. image-spec `annotations.md`.
pub const REVISION: &str = "org.opencontainers.image.revision";

/// A repository of Hugging Face at a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubOrigin {
    /// Its name there, in its canonical spelling.
    pub name: String,
    /// The commit there.
    pub commit: Commit,
}

impl HubOrigin {
    /// What a manifest that `client::Origin` wrote down from Hugging Face says of where it came from:
    /// `None` for any other.
    ///
    /// Builds of images carry the same two annotations with the address of their source code, beside
    /// others; that is not a place where these files are found. So a manifest must have these two
    /// alone, and the path of every file.
    #[must_use]
    pub fn of(manifest: &Manifest) -> Option<Self> {
        let annotations = manifest.annotations();
        let (source, revision) = (annotations.get(SOURCE)?, annotations.get(REVISION)?);
        let has_path = |annotations: &std::collections::BTreeMap<String, String>| {
            annotations.contains_key(modelpack::FILEPATH)
        };
        let is_written_down = annotations.len() == 2
            && manifest.artifact_type() == Some(modelpack::ARTIFACT)
            && manifest
                .layers()
                .iter()
                .all(|layer| has_path(&layer.annotations));
        let (_, rest) = source.split_once("://")?;
        let (_, path) = rest.split_once('/')?;
        let parts: Vec<&str> = path.split('/').collect();
        let name = parts[parts.len().saturating_sub(2)..].join("/");
        let commit = Commit::parse(revision)?;
        (is_written_down && is_client_name(&name)).then_some(Self { name, commit })
    }
}
