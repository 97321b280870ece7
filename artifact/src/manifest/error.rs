//! Why bytes are not a manifest, in words that a person can act on.

use crate::digest::InvalidDigest;
use crate::manifest::MAX_MANIFEST_BYTES;

/// Why bytes are not a manifest.
#[derive(Debug, thiserror::Error)]
pub enum InvalidManifest {
    /// More than [`MAX_MANIFEST_BYTES`].
    #[error("the manifest has {size} bytes; at most {MAX_MANIFEST_BYTES} are accepted")]
    TooLarge {
        /// Bytes given.
        size: usize,
    },
    /// Not the JSON of a manifest or an index.
    #[error("the manifest is not valid JSON of an image manifest or an image index: {reason}")]
    Json {
        /// What the reader met, with line and column.
        reason: String,
    },
    /// `schemaVersion` is not 2.
    #[error("schemaVersion is {found}, only 2 is supported")]
    SchemaVersion {
        /// What was found.
        found: u64,
    },
    /// A manifest with both `layers` and `manifests`, or with neither.
    #[error("the manifest must have either layers and config, or manifests: {reason}")]
    Ambiguous {
        /// Which of them were found.
        reason: &'static str,
    },
    /// `mediaType` does not fit the fields present.
    #[error("media type {media_type:?} does not describe {found}")]
    WrongMediaType {
        /// The type given.
        media_type: String,
        /// What the body is.
        found: &'static str,
    },
    /// The Content-Type of the request and `mediaType` in the body differ.
    #[error("Content-Type is {content_type:?} but mediaType in the manifest is {media_type:?}")]
    ContentTypeMismatch {
        /// From the request.
        content_type: String,
        /// From the body.
        media_type: String,
    },
    /// A descriptor with a digest that cannot be accepted.
    #[error("{place} has an invalid digest")]
    Digest {
        /// Which descriptor.
        place: String,
        /// What is wrong with it.
        #[source]
        source: InvalidDigest,
    },
    /// A descriptor that claims more than [`MAX_BLOB_BYTES`](super::MAX_BLOB_BYTES).
    #[error("{place} claims {size} bytes, more than any blob can have")]
    Size {
        /// Which descriptor.
        place: String,
        /// Bytes claimed.
        size: u64,
    },
}
