//! Plan: which blobs of a model are missing, in what order they are fetched, how much they need.

use std::collections::HashMap;

use artifact::agent_api::PlannedBlob;
use artifact::catalog;
use artifact::dialect::Role;
use artifact::{Digest, Manifest, Reference};

use crate::error::Error;

/// The blobs of a model, each once, the small ones first: a model that cannot be had for a missing
/// config shows it before its weights are fetched.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plan {
    blobs: Vec<PlannedBlob>,
}

impl Plan {
    /// Plans the pull of a model. `is_cached` tells whether a blob of that size is here.
    pub(crate) fn make(
        reference: &Reference,
        manifest: &Manifest,
        mut is_cached: impl FnMut(&Digest, u64) -> Result<bool, Error>,
    ) -> Result<Self, Error> {
        let unsupported = |reason: String| Error::Unsupported {
            reference: Box::new(reference.clone()),
            reason,
        };
        let mut sizes: HashMap<Digest, u64> = HashMap::new();
        let mut blobs = Vec::new();
        for blob in catalog::blobs_of(manifest) {
            match sizes.insert(blob.digest, blob.size) {
                Some(other) if other != blob.size => {
                    let digest = blob.digest;
                    return Err(unsupported(format!(
                        "its manifest gives two sizes for {digest}"
                    )));
                }
                Some(_) => {}
                None => blobs.push(PlannedBlob {
                    digest: blob.digest,
                    size: blob.size,
                    role: blob.role,
                    cached: is_cached(&blob.digest, blob.size)?,
                }),
            }
        }
        if !blobs.iter().any(|blob| blob.role == Role::Model) {
            let media_type = manifest.artifact_type().unwrap_or("nothing known");
            return Err(unsupported(format!(
                "no layer of it holds GGUF weights; it is {media_type}"
            )));
        }
        blobs.sort_by_key(|blob| blob.size);
        Ok(Self { blobs })
    }

    /// Every blob, in the order of the download.
    pub(crate) fn blobs(&self) -> &[PlannedBlob] {
        &self.blobs
    }

    /// The blobs that are to be fetched.
    pub(crate) fn missing(&self) -> impl Iterator<Item = &PlannedBlob> {
        self.blobs.iter().filter(|blob| !blob.cached)
    }

    /// Bytes of all blobs.
    pub(crate) fn total_bytes(&self) -> u64 {
        self.blobs
            .iter()
            .fold(0, |sum, blob| sum.saturating_add(blob.size))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use artifact::media_type::{OCI_MANIFEST, modelpack};
    use artifact::{Digest, Manifest, Reference};
    use serde_json::{Value, json};

    use crate::error::Error;
    use crate::pull::plan::Plan;

    fn layer(media_type: &str, content: &[u8], size: u64) -> Value {
        json!({ "mediaType": media_type, "digest": Digest::sha256(content), "size": size })
    }

    fn plan(layers: &[Value], cached: &[u8]) -> Result<Plan, Error> {
        let body = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": modelpack::ARTIFACT,
            "config": layer(modelpack::CONFIG, b"config", 6),
            "layers": layers,
        });
        let manifest = Manifest::parse(body.to_string().into_bytes(), None).unwrap();
        let reference = Reference::parse("h:1/a/b:c").unwrap();
        let cached = Digest::sha256(cached);
        Plan::make(&reference, &manifest, |digest, _| Ok(*digest == cached))
    }

    #[test]
    fn each_blob_is_planned_once_and_the_small_ones_first() {
        let weights = layer(modelpack::WEIGHT_RAW, b"weights", 700);
        let plan = plan(&[weights.clone(), weights], b"config").unwrap();
        let sizes: Vec<_> = plan.blobs().iter().map(|blob| blob.size).collect();
        assert_eq!(sizes, [6, 700]);
        let missing: Vec<_> = plan.missing().map(|blob| blob.size).collect();
        assert_eq!(missing, [700]);
        assert_eq!(plan.total_bytes(), 706);
    }

    #[test]
    fn a_manifest_without_weights_or_with_two_sizes_for_a_blob_is_refused() {
        let license = layer(modelpack::DOC_RAW, b"text", 4);
        assert!(matches!(
            plan(&[license], b""),
            Err(Error::Unsupported { .. })
        ));
        let lying = [
            layer(modelpack::WEIGHT_RAW, b"weights", 7),
            layer(modelpack::WEIGHT_RAW, b"weights", 8),
        ];
        assert!(matches!(plan(&lying, b""), Err(Error::Unsupported { .. })));
    }
}
