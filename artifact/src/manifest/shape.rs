//! Which of the two kinds a body is, an image manifest or an index, and under which media type.

use serde::Deserialize;

use crate::manifest::InvalidManifest;
use crate::media_type;

/// The fields that decide which of the two kinds a body is. Deriving gives the check for
/// members that occur twice.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Shape {
    schema_version: u64,
    media_type: Option<String>,
    config: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
    manifests: Option<serde::de::IgnoredAny>,
}

impl Shape {
    /// Whether it is an index, and not an image manifest.
    pub(super) fn is_index(&self) -> Result<bool, InvalidManifest> {
        if self.schema_version != 2 {
            return Err(InvalidManifest::SchemaVersion {
                found: self.schema_version,
            });
        }
        let is_image = self.layers.is_some() || self.config.is_some();
        match (is_image, self.manifests.is_some()) {
            (true, false) => Ok(false),
            (false, true) => Ok(true),
            (true, true) => Err(InvalidManifest::Ambiguous {
                reason: "it has both",
            }),
            (false, false) => Err(InvalidManifest::Ambiguous {
                reason: "it has neither",
            }),
        }
    }

    /// Body and header must name one type, and it must fit the fields of the body.
    pub(super) fn agreed_media_type(
        &self,
        content_type: Option<&str>,
        is_index: bool,
    ) -> Result<String, InvalidManifest> {
        let content_type = content_type.filter(|given| is_manifest_type(given));
        let media_type = match (self.media_type.as_deref(), content_type) {
            (Some(body), Some(header)) if body != header => {
                return Err(InvalidManifest::ContentTypeMismatch {
                    content_type: header.to_owned(),
                    media_type: body.to_owned(),
                });
            }
            (Some(body), _) => body,
            (None, Some(header)) => header,
            (None, None) if is_index => media_type::OCI_INDEX,
            (None, None) => media_type::OCI_MANIFEST,
        };
        let fits = match media_type {
            media_type::OCI_MANIFEST | media_type::DOCKER_MANIFEST => !is_index,
            media_type::OCI_INDEX | media_type::DOCKER_INDEX => is_index,
            _ => false,
        };
        if fits {
            Ok(media_type.to_owned())
        } else {
            Err(InvalidManifest::WrongMediaType {
                media_type: media_type.chars().take(200).collect(),
                found: if is_index {
                    "an image index"
                } else {
                    "an image manifest"
                },
            })
        }
    }
}

/// Generic types such as `application/json` say nothing about the manifest; the body decides then.
fn is_manifest_type(content_type: &str) -> bool {
    !matches!(
        content_type,
        "" | "application/json" | "application/octet-stream" | "text/plain"
    )
}
