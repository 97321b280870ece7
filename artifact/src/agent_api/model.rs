//! The models of the cache, their blobs and their pins.

use serde::{Deserialize, Serialize};

use crate::dialect::Role;
use crate::digest::Digest;
use crate::reference::Reference;

/// A model in the cache.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ModelEntry {
    /// Its full name.
    pub reference: Reference,
    /// Digest of its manifest.
    pub digest: Digest,
    /// Size of all its blobs in bytes.
    pub size: u64,
    /// When it was pulled, RFC 3339.
    #[cfg_attr(feature = "openapi", schema(format = DateTime))]
    pub pulled_at: String,
    /// When it was last asked for, RFC 3339; absent when the index was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(format = DateTime))]
    pub last_used: Option<String>,
    /// Never removed to make room.
    #[serde(default)]
    pub pinned: bool,
    /// Config and layers, in the order of the manifest.
    pub blobs: Vec<ModelBlob>,
}

impl ModelEntry {
    /// The first blob in the given role.
    #[must_use]
    pub fn blob(&self, role: Role) -> Option<&ModelBlob> {
        self.blobs.iter().find(|blob| blob.role == role)
    }
}

/// A blob of a cached model; it lies at [`crate::CacheLayout::blob`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ModelBlob {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// What it is to the model.
    pub role: Role,
    /// Its media type.
    pub media_type: String,
    /// The file name it was packed under, if the manifest says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_name: Option<String>,
}

/// Answer to the list of models.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ModelList {
    /// The models, by name.
    pub models: Vec<ModelEntry>,
}

/// Pins a model, or lets it go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct PinRequest {
    /// The model.
    pub reference: Reference,
    /// Pinned from now on or no longer.
    pub pinned: bool,
}
