//! Manifest: the exact bytes a digest covers, and what they say.
//!
//! Sources: OCI image-spec `manifest.md`, `image-index.md`, `descriptor.md`; Docker's schema 2,
//! which has the same shape under other media types.

mod error;
mod shape;

use std::collections::BTreeMap;

use oci_spec::image::{Descriptor as OciDescriptor, ImageIndex, ImageManifest};
use serde::Deserialize;

use crate::digest::Digest;
pub use error::InvalidManifest;
use shape::Shape;

/// Largest manifest accepted, in bytes; the distribution-spec asks for at least 4 MiB.
pub const MAX_MANIFEST_BYTES: usize = 4 * 1024 * 1024;
/// Largest blob size a descriptor may claim: 2^53 - 1, what JSON carries exactly.
pub const MAX_BLOB_BYTES: u64 = (1 << 53) - 1;

/// Names a blob or a manifest: media type, digest, size in bytes, annotations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Media type of the content.
    pub media_type: String,
    /// Digest of the content.
    pub digest: Digest,
    /// Size of the content in bytes.
    pub size: u64,
    /// `artifactType`, if the descriptor has one.
    pub artifact_type: Option<String>,
    /// Annotations, in the order of their keys.
    pub annotations: BTreeMap<String, String>,
    /// Whether the content may be absent from the registry: it has `urls`, or a
    /// non-distributable or foreign layer type.
    pub is_foreign: bool,
}

impl Descriptor {
    fn from_oci(descriptor: &OciDescriptor, place: &str) -> Result<Self, InvalidManifest> {
        let digest = Digest::parse(descriptor.digest().as_ref()).map_err(|source| {
            InvalidManifest::Digest {
                place: place.to_owned(),
                source,
            }
        })?;
        let size = descriptor.size();
        if size > MAX_BLOB_BYTES {
            return Err(InvalidManifest::Size {
                place: place.to_owned(),
                size,
            });
        }
        let media_type = descriptor.media_type().to_string();
        let is_foreign = descriptor
            .urls()
            .as_ref()
            .is_some_and(|urls| !urls.is_empty())
            || media_type.contains("nondistributable")
            || media_type.contains(".foreign.");
        Ok(Self {
            digest,
            size,
            artifact_type: descriptor.artifact_type().as_ref().map(ToString::to_string),
            annotations: descriptor
                .annotations()
                .iter()
                .flatten()
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
            is_foreign,
            media_type,
        })
    }
}

/// What a manifest names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// An image manifest: a config and layers, all of them blobs.
    Image {
        /// The config blob.
        config: Descriptor,
        /// The layers, in order.
        layers: Vec<Descriptor>,
    },
    /// An index: other manifests.
    Index {
        /// The manifests, in order.
        manifests: Vec<Descriptor>,
    },
}

/// A manifest that was read and checked; it keeps the bytes that its digest covers.
#[derive(Clone, Debug)]
pub struct Manifest {
    raw: Vec<u8>,
    media_type: String,
    content: Content,
    subject: Option<Descriptor>,
    artifact_type: Option<String>,
    annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// Reads and checks a manifest or an index. `content_type` is the request's or the answer's
    /// header, without parameters; it must agree with `mediaType` in the body.
    ///
    /// # Errors
    /// [`InvalidManifest`] says what is wrong. Nothing is changed: the bytes are kept as given.
    pub fn parse(raw: Vec<u8>, content_type: Option<&str>) -> Result<Self, InvalidManifest> {
        if raw.len() > MAX_MANIFEST_BYTES {
            return Err(InvalidManifest::TooLarge { size: raw.len() });
        }
        let shape: Shape = read_json(&raw)?;
        let is_index = shape.is_index()?;
        let media_type = shape.agreed_media_type(content_type, is_index)?;
        if is_index {
            Self::from_index(raw, media_type)
        } else {
            Self::from_image(raw, media_type)
        }
    }

    fn from_image(raw: Vec<u8>, media_type: String) -> Result<Self, InvalidManifest> {
        let image: ImageManifest = read_json(&raw)?;
        let layers = image
            .layers()
            .iter()
            .enumerate()
            .map(|(at, layer)| Descriptor::from_oci(layer, &format!("layers[{at}]")))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            media_type,
            content: Content::Image {
                config: Descriptor::from_oci(image.config(), "config")?,
                layers,
            },
            subject: read_subject(image.subject().as_ref())?,
            artifact_type: image.artifact_type().as_ref().map(ToString::to_string),
            annotations: sorted(image.annotations().as_ref()),
            raw,
        })
    }

    fn from_index(raw: Vec<u8>, media_type: String) -> Result<Self, InvalidManifest> {
        let index: ImageIndex = read_json(&raw)?;
        let manifests = index
            .manifests()
            .iter()
            .enumerate()
            .map(|(at, entry)| Descriptor::from_oci(entry, &format!("manifests[{at}]")))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            media_type,
            content: Content::Index { manifests },
            subject: read_subject(index.subject().as_ref())?,
            artifact_type: index.artifact_type().as_ref().map(ToString::to_string),
            annotations: sorted(index.annotations().as_ref()),
            raw,
        })
    }

    /// The bytes as they came; a digest covers exactly these.
    #[must_use]
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// The SHA-256 digest of the bytes.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::sha256(&self.raw)
    }

    /// The media type, from the body or else from the Content-Type.
    #[must_use]
    pub fn media_type(&self) -> &str {
        &self.media_type
    }

    /// What it names.
    #[must_use]
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// The config blob of an image manifest.
    #[must_use]
    pub fn config(&self) -> Option<&Descriptor> {
        match &self.content {
            Content::Image { config, .. } => Some(config),
            Content::Index { .. } => None,
        }
    }

    /// The layers of an image manifest; none for an index.
    #[must_use]
    pub fn layers(&self) -> &[Descriptor] {
        match &self.content {
            Content::Image { layers, .. } => layers,
            Content::Index { .. } => &[],
        }
    }

    /// Every blob an image manifest names: the config, then the layers.
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        self.config().into_iter().chain(self.layers())
    }

    /// The manifests an index names; none for an image manifest.
    #[must_use]
    pub fn manifests(&self) -> &[Descriptor] {
        match &self.content {
            Content::Image { .. } => &[],
            Content::Index { manifests } => manifests,
        }
    }

    /// The manifest that this one refers to, which makes this one its referrer.
    #[must_use]
    pub fn subject(&self) -> Option<&Descriptor> {
        self.subject.as_ref()
    }

    /// The artifact type as the referrers list shows it: `artifactType`, else the config's media type.
    #[must_use]
    pub fn artifact_type(&self) -> Option<&str> {
        self.artifact_type
            .as_deref()
            .filter(|given| !given.is_empty())
            .or_else(|| self.config().map(|config| config.media_type.as_str()))
    }

    /// Annotations, in the order of their keys.
    #[must_use]
    pub fn annotations(&self) -> &BTreeMap<String, String> {
        &self.annotations
    }
}

fn read_json<'a, T: Deserialize<'a>>(raw: &'a [u8]) -> Result<T, InvalidManifest> {
    serde_json::from_slice(raw).map_err(|error| InvalidManifest::Json {
        reason: error.to_string(),
    })
}

fn read_subject(subject: Option<&OciDescriptor>) -> Result<Option<Descriptor>, InvalidManifest> {
    subject
        .map(|subject| Descriptor::from_oci(subject, "subject"))
        .transpose()
}

fn sorted(
    annotations: Option<&std::collections::HashMap<String, String>>,
) -> BTreeMap<String, String> {
    annotations
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed expectation is a failed test")]
mod tests {
    use proptest::prelude::{any, prop, proptest};
    use serde_json::{Value, json};

    use crate::manifest::{InvalidManifest, MAX_MANIFEST_BYTES, Manifest};
    use crate::media_type;

    fn descriptor(size: Value) -> Value {
        json!({
            "mediaType": "application/octet-stream",
            "digest": format!("sha256:{}", "a".repeat(64)),
            "size": size,
        })
    }

    fn image() -> Value {
        json!({
            "schemaVersion": 2,
            "mediaType": media_type::OCI_MANIFEST,
            "config": descriptor(json!(2)),
            "layers": [descriptor(json!(3))],
        })
    }

    fn parse(body: &Value, content_type: Option<&str>) -> Result<Manifest, InvalidManifest> {
        Manifest::parse(serde_json::to_vec(body).unwrap(), content_type)
    }

    #[test]
    fn an_image_manifest_names_its_blobs() {
        let manifest = parse(&image(), None).unwrap();
        let sizes: Vec<_> = manifest.blobs().map(|blob| blob.size).collect();
        assert_eq!(sizes, [2, 3]);
        assert_eq!(manifest.media_type(), media_type::OCI_MANIFEST);
        assert_eq!(manifest.artifact_type(), Some("application/octet-stream"));
    }

    #[test]
    fn layers_and_manifests_together_are_refused() {
        let mut body = image();
        body["manifests"] = json!([]);
        let error = parse(&body, None).unwrap_err();
        assert!(matches!(error, InvalidManifest::Ambiguous { .. }));
    }

    #[test]
    fn a_content_type_that_contradicts_the_body_is_refused() {
        let error = parse(&image(), Some(media_type::OCI_INDEX)).unwrap_err();
        assert!(matches!(error, InvalidManifest::ContentTypeMismatch { .. }));
        assert!(parse(&image(), Some("application/json")).is_ok());
    }

    #[test]
    fn hostile_sizes_and_digests_are_refused() {
        for size in [json!(-1), json!(1.5), json!(u64::MAX), json!("3")] {
            let mut body = image();
            body["layers"] = json!([descriptor(size.clone())]);
            assert!(parse(&body, None).is_err(), "{size}");
        }
        let mut body = image();
        body["config"]["digest"] = json!("sha256:../../etc/passwd");
        assert!(parse(&body, None).is_err());
    }

    #[test]
    fn doubled_members_trailing_bytes_and_deep_nesting_are_refused() {
        let text = serde_json::to_string(&image()).unwrap();
        let doubled = text.replacen("\"layers\"", "\"layers\":[],\"layers\"", 1);
        let trailing = format!("{text} {{}}");
        let deep = format!(
            "{}\"x\":{}{}}}",
            &text.replacen('}', "},", 0)[..1],
            "[".repeat(100_000),
            "]".repeat(100_000)
        );
        for body in [doubled, trailing, deep, format!("\u{feff}{text}")] {
            assert!(Manifest::parse(body.into_bytes(), None).is_err());
        }
    }

    #[test]
    fn a_manifest_over_the_limit_is_refused_before_it_is_read() {
        let error = Manifest::parse(vec![b' '; MAX_MANIFEST_BYTES + 1], None).unwrap_err();
        assert!(matches!(error, InvalidManifest::TooLarge { .. }));
    }

    proptest! {
        #[test]
        fn parsing_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..500)) {
            let _ = Manifest::parse(bytes, None);
        }

        #[test]
        fn mutated_manifests_never_panic(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut bytes = serde_json::to_vec(&image()).unwrap();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = Manifest::parse(bytes, None);
        }
    }
}
